//! `kctl`: a kubectl-style command line for Kubernetes.

// The async code is driven inside the library: driven from here, all of it would be compiled a second time.
fn main() -> std::process::ExitCode {
    kctl::run::run()
}

//! The harness of the black-box tests: a machine of its own (a network namespace), a real cluster on it, and the two clients.
//!
//! Owns everything it starts and removes it, also what an earlier, killed run left. Must not look inside kserver.

pub mod client;
pub mod cluster;
pub mod hook;
pub mod machine;
pub mod output;
pub mod running;
pub mod terminal;
pub mod wait;

pub use cluster::{Cluster, Start};
pub use hook::Hook;
pub use machine::Machine;
pub use output::Output;
pub use running::Running;
pub use wait::{eventually, eventually_within};

use std::path::PathBuf;

/// Directory of the programs under test: where cargo put this test's own binary.
pub fn bin_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    let dir = exe.parent().expect("a program lies in a directory");
    if dir.ends_with("deps") { dir.parent().expect("deps lies in the target directory").to_owned() } else { dir.to_owned() }
}

/// A file below `tests/`.
pub fn source(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A client of others (`kubectl`, `helm`, a `python` with its `kubernetes`) that `tests/deps --with-stock-clients` unpacked.
pub fn stock(name: &str) -> PathBuf {
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"), PathBuf::from);
    let path = cache.join("kserver/stock").join(name);
    assert!(path.is_file(), "{} is missing: run `tests/deps --with-stock-clients`", path.display());
    path
}

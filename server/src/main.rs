//! The `kserver` program: parses its arguments, runs one subcommand, turns errors into one line and an exit code.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kserver::up::{self, Where};

/// Requests are many small allocations, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A whole Kubernetes in one process: API server, controllers, scheduler, kubelet and proxy over a real etcd.
#[derive(Parser)]
#[command(name = "kserver", version = kserver::VERSION, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant)] // One value, once.
enum Command {
    /// Start the cluster on this machine: control plane and node
    ///
    /// In the foreground Ctrl-C stops the pods too, like `kserver down`; SIGTERM stops only kserver, etcd and containerd, and the
    /// next `up` finds the containers still running.
    Up {
        #[command(flatten)]
        options: up::Options,
        /// Return when the node is Ready and go on in the background
        #[arg(long, short)]
        detach: bool,
        #[arg(long = "detached-child", hide = true)]
        detached_child: bool,
    },
    /// Show what runs and whether it is well
    Status {
        #[command(flatten)]
        place: Where,
    },
    /// Stop the pods, then the cluster; its state stays, and the next `up` starts the pods again
    Down {
        #[command(flatten)]
        place: Where,
    },
    /// Stop the cluster and remove its state
    Reset {
        #[command(flatten)]
        place: Where,
    },
    /// Work with the node's container images
    Image {
        #[command(subcommand)]
        command: Image,
    },
    /// Work with the keys that sign ServiceAccount tokens
    TokenKey {
        #[command(subcommand)]
        command: TokenKey,
    },
    /// Become PROGRAM, and die with the parent
    #[command(hide = true)]
    Guard {
        parent: u32,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum Image {
    /// Load OCI or docker archives into the node's runtime
    Import {
        #[command(flatten)]
        place: Where,
        /// Archives to load
        #[arg(required = true, value_name = "FILE.tar")]
        files: Vec<PathBuf>,
    },
    /// List the images in the node's runtime
    Ls {
        #[command(flatten)]
        place: Where,
    },
}

#[derive(Subcommand)]
enum TokenKey {
    /// Make a new key for new tokens; those that earlier keys have signed stay valid
    Rotate {
        #[command(flatten)]
        place: Where,
    },
    /// Forget the earlier keys: what they have signed is refused from now on
    ///
    /// Pods hold tokens of earlier keys until those are renewed, after 48 minutes where they did not ask for longer ones: wait that
    /// long after `rotate`, or make the pods anew.
    Revoke {
        #[command(flatten)]
        place: Where,
    },
}

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kserver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up { options, detach, detached_child } => kserver::app::up(options, detach, detached_child),
        Command::Status { place } => kserver::app::block_on(up::status::run(&up::instance::Instance::new(place.data_dir()?))),
        Command::Down { place } => kserver::app::block_on(up::down::down(&up::instance::Instance::new(place.data_dir()?))),
        Command::Reset { place } => kserver::app::block_on(up::down::reset(&up::instance::Instance::new(place.data_dir()?))),
        Command::Image { command: Image::Import { place, files } } => {
            kserver::app::block_on(up::down::import(&up::instance::Instance::new(place.data_dir()?), &files))
        }
        Command::Image { command: Image::Ls { place } } => {
            kserver::app::block_on(up::down::list_images(&up::instance::Instance::new(place.data_dir()?)))
        }
        Command::TokenKey { command: TokenKey::Rotate { place } } => {
            kserver::app::block_on(up::token_key::rotate(&up::instance::Instance::new(place.data_dir()?)))
        }
        Command::TokenKey { command: TokenKey::Revoke { place } } => {
            kserver::app::block_on(up::token_key::revoke(&up::instance::Instance::new(place.data_dir()?)))
        }
        Command::Guard { parent, program, args } => up::child::guard(parent, &program, &args),
    }
}

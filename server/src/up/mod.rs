//! `kserver up` and its companions: one instance of the whole cluster on this machine.
//!
//! Owns the data directory, the child processes (etcd, containerd) and everything the instance leaves on the machine
//! (bridge, nftables table, mounts, cgroups). The parts of Kubernetes themselves are started by [`cluster`].

pub mod child;
pub mod cluster;
pub mod containerd;
pub mod control_plane;
pub mod detach;
pub mod down;
pub mod etcd;
pub mod instance;
pub mod network;
pub mod options;
pub mod preflight;
pub mod progress;
pub mod renewal;
pub mod status;
pub mod token_key;

pub use options::{Options, Where};

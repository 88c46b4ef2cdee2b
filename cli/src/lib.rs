//! The parts of `kctl`: arguments become [`resource`] queries, the [`client`] asks the API server, [`print`] writes the answer.
//!
//! A command is one file in [`commands`] and one line in its list. Everything speaks the public Kubernetes API and nothing else.

pub mod app;
pub mod apply;
pub mod argv;
pub mod client;
pub mod commands;
pub mod describe;
pub mod discovery;
pub mod duration;
pub mod errors;
pub mod help;
pub mod kuberc;
pub mod kustomize;
pub mod manifest;
pub mod podspec;
pub mod print;
pub mod progress;
pub mod resource;
pub mod run;
pub mod stream;
pub mod suggest;
pub mod usage;
pub mod watch;

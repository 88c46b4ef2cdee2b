//! A whole Kubernetes in one process: API server, controllers, scheduler, kubelet, proxy and DNS as tasks over an external etcd.
//!
//! Data flows one way: `api → registry → storage → cache → (API) → informers → controllers, scheduler, kubelet, proxy`.
//! Only [`storage`] knows etcd; everything from [`informers`] on knows nothing but the public API.

pub mod api;
pub mod app;
pub mod cache;
pub mod controllers;
mod cork;
pub mod dns;
pub mod events;
pub mod informers;
pub mod kubelet;
#[cfg(test)]
mod layering;
pub mod leader;
pub mod pki;
pub mod proxy;
pub mod registry;
mod relay;
pub mod scheduler;
pub mod storage;
pub mod tasks;
pub mod up;

/// The Kubernetes version this is, as `/version` and nodes say it.
pub const VERSION: &str = concat!("v1.36.2+kserver.", env!("CARGO_PKG_VERSION"));

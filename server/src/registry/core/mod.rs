//! The core group (`v1`), one file a kind.

pub mod configmap;
pub mod endpoints;
pub mod event;
pub mod limit_range;
pub mod namespace;
pub mod node;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_template;
pub mod pod_template_object;
pub mod replication_controller;
pub mod resource_quota;
pub mod secret;
pub mod service;
pub mod service_account;

use super::Subresource;

/// Verbs of subresources that carry a connection.
const CONNECT: &[&str] = &["create", "delete", "get", "patch", "update"];

/// `…/proxy`, with the kind of its options.
const fn proxy(kind: &'static str) -> Subresource {
    Subresource { name: "proxy", kind, group: "", version: "v1", verbs: CONNECT }
}

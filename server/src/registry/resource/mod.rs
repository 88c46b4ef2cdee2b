//! The `resource.k8s.io` group: dynamic resource allocation.

pub mod device_class;
mod devices;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;
mod slice_rules;

//! The networking group (`networking.k8s.io/v1`), one file a kind.

pub mod ingress;
pub mod ingress_class;
pub mod ip_address;
pub mod network_policy;
pub mod service_cidr;

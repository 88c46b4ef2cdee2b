//! The RBAC group (`rbac.authorization.k8s.io/v1`). Escalation is checked by admission, which knows the user.

pub mod bindings;
pub mod roles;

use crate::registry::validation::path_segment;

/// The group's name.
pub const GROUP: &str = "rbac.authorization.k8s.io";

fn validate_name(name: &str) -> Result<(), String> {
    path_segment(name).into_iter().next().map_or(Ok(()), Err)
}

//! Who makes a request.

use std::collections::BTreeMap;

/// An authenticated identity (`k8s.io/apiserver/pkg/authentication/user`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User name, e.g. `system:node:n1`.
    pub name: String,
    /// Stable id, e.g. a ServiceAccount's UID.
    pub uid: String,
    /// Groups, e.g. `system:masters`.
    pub groups: Vec<String>,
    /// Further attributes, e.g. `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user with groups; `system:authenticated` is added.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
        User { name: name.to_owned(), groups, ..User::default() }
    }
    /// The server itself.
    pub fn apiserver() -> Self {
        User::new("system:apiserver", &["system:masters"])
    }
    /// `system:anonymous`, for the health endpoints.
    pub fn anonymous() -> Self {
        User { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..User::default() }
    }
    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

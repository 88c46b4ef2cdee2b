//! Fields that a write through one door cannot change, and so does not own: the status past `/status`, the spec through it
//! (the strategies' `GetResetFields`).
//!
//! Owns the exceptions. Who owns the rest is `managed`'s business.

use std::collections::HashMap;
use std::sync::LazyLock;

use shared::managed::Set;

use crate::registry::Resource;

/// Group, plural and subresource whose fields are not the usual ones, with paths.
type Exception = (&'static str, &'static str, &'static str, &'static [&'static [&'static str]]);

const EXCEPTIONS: &[Exception] = &[
    ("", "pods", "status", &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]),
    ("", "namespaces", "finalize", &[&["status"]]),
    ("apps", "deployments", "status", &[&["spec"], &["metadata", "labels"]]),
    ("certificates.k8s.io", "certificatesigningrequests", "approval", &[&["spec"], &["status", "certificate"]]),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", "status", &[&["spec"], &["metadata"]]),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", "status", &[&["spec"], &["metadata"]]),
    ("resource.k8s.io", "resourceclaims", "status", &[&["spec"], &["metadata"]]),
    ("storage.k8s.io", "volumeattachments", "status", &[&["spec"], &["metadata"]]),
    ("apiextensions.k8s.io", "customresourcedefinitions", "status", &[&["spec"], &["metadata"]]),
];

/// The fields that a write to a kind's objects, or to one of their subresources, leaves as they are.
pub(super) fn fields(resource: &Resource, subresource: &str) -> &'static Set {
    static NONE: LazyLock<Set> = LazyLock::new(Set::default);
    static STATUS: LazyLock<Set> = LazyLock::new(|| Set::of_fields(&["status"]));
    static SPEC: LazyLock<Set> = LazyLock::new(|| Set::of_fields(&["spec"]));
    static OTHERS: LazyLock<HashMap<(&str, &str, &str), Set>> = LazyLock::new(|| {
        let set = |paths: &[&[&str]]| paths.iter().fold(Set::default(), |all, path| all.union(&Set::of_fields(path)));
        EXCEPTIONS.iter().map(|(group, plural, subresource, paths)| ((*group, *plural, *subresource), set(paths))).collect()
    });
    let other = EXCEPTIONS.iter().find(|e| e.0 == resource.group && e.1 == resource.plural && e.2 == subresource);
    if let Some(set) = other.and_then(|e| OTHERS.get(&(e.0, e.1, e.2))) {
        return set;
    }
    match subresource {
        "status" => &SPEC,
        "" if resource.subresource("status").is_some() => &STATUS,
        _ => &NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RESOURCES;

    #[test]
    fn each_door_leaves_its_own_fields_alone() {
        let paths = |group: &str, plural: &str, subresource: &str| {
            let row = RESOURCES.find(group, "v1", plural).unwrap();
            fields(row, subresource).to_value()
        };
        assert_eq!(paths("", "pods", ""), serde_json::json!({"f:status": {}}));
        assert_eq!(
            paths("", "pods", "status"),
            serde_json::json!({"f:metadata": {"f:deletionTimestamp": {}, "f:ownerReferences": {}}, "f:spec": {}})
        );
        assert_eq!(paths("apps", "deployments", "status"), serde_json::json!({"f:metadata": {"f:labels": {}}, "f:spec": {}}));
        assert_eq!(paths("apps", "deployments", "scale"), serde_json::json!({}));
        assert_eq!(paths("", "configmaps", ""), serde_json::json!({}));
    }

    #[test]
    fn exceptions_are_of_subresources_that_there_are() {
        for (group, plural, subresource, _) in EXCEPTIONS.iter().filter(|e| e.0 != "apiextensions.k8s.io") {
            let row = RESOURCES.find(group, "v1", plural).unwrap();
            assert!(row.subresource(subresource).is_some(), "{plural}/{subresource}");
        }
    }
}

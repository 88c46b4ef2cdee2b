//! RoleBindings and ClusterRoleBindings (`pkg/apis/rbac/v1/defaults.go`, `pkg/apis/rbac/validation/validation.go`).

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use super::GROUP;
use crate::registry::validation::{check, dns1123_subdomain, path_segment};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct RoleBindings;
/// See the module.
pub struct ClusterRoleBindings;

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Role"),
    print::AGE,
    Column::new("Users").wide(),
    Column::new("Groups").wide(),
    Column::new("ServiceAccounts").wide(),
];

impl Strategy for RoleBindings {
    type Object = RoleBinding;
    const PLURAL: &'static str = "rolebindings";
    const SINGULAR: &'static str = "rolebinding";
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column] = COLUMNS;

    fn validate_name(name: &str) -> Result<(), String> {
        super::validate_name(name)
    }

    fn default(object: &mut RoleBinding) {
        default(&mut object.role_ref, &mut object.subjects);
    }

    fn validate(object: &RoleBinding) -> ErrorList {
        validate(&object.role_ref, object.subjects.as_deref(), &["ClusterRole", "Role"], true)
    }

    fn validate_update(new: &RoleBinding, old: &RoleBinding) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(changed(&new.role_ref, &old.role_ref));
        errors
    }

    fn cells(object: &RoleBinding, context: &PrintContext) -> Vec<Value> {
        row(&object.metadata, &object.role_ref, object.subjects.as_deref(), context)
    }
}

impl Strategy for ClusterRoleBindings {
    type Object = ClusterRoleBinding;
    const PLURAL: &'static str = "clusterrolebindings";
    const SINGULAR: &'static str = "clusterrolebinding";
    const NAMESPACED: bool = false;
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column] = COLUMNS;

    fn validate_name(name: &str) -> Result<(), String> {
        super::validate_name(name)
    }

    fn default(object: &mut ClusterRoleBinding) {
        default(&mut object.role_ref, &mut object.subjects);
    }

    fn validate(object: &ClusterRoleBinding) -> ErrorList {
        validate(&object.role_ref, object.subjects.as_deref(), &["ClusterRole"], false)
    }

    fn validate_update(new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(changed(&new.role_ref, &old.role_ref));
        errors
    }

    fn cells(object: &ClusterRoleBinding, context: &PrintContext) -> Vec<Value> {
        row(&object.metadata, &object.role_ref, object.subjects.as_deref(), context)
    }
}

fn group(role: &RoleRef) -> &str {
    group_of(role.api_group.as_ref())
}

fn group_of(group: Option<&String>) -> &str {
    group.map_or("", |g| g.as_str())
}

/// Roles, users and groups belong to the RBAC group.
fn default(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    if group(role).is_empty() {
        role.api_group = Some(GROUP.into());
    }
    for subject in subjects.iter_mut().flatten() {
        if ["User", "Group"].contains(&subject.kind.as_str()) && group_of(subject.api_group.as_ref()).is_empty() {
            subject.api_group = Some(GROUP.into());
        }
    }
}

fn validate(role: &RoleRef, subjects: Option<&[Subject]>, kinds: &[&str], namespaced: bool) -> ErrorList {
    let mut errors = Vec::new();
    let path = Path::new("roleRef");
    if group(role) != GROUP {
        errors.push(Error::not_supported(&path.child("apiGroup"), group(role), &[GROUP]));
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(Error::not_supported(&path.child("kind"), &role.kind, kinds));
    }
    if role.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        check(&path.child("name"), &role.name, path_segment(&role.name), &mut errors);
    }
    for (index, item) in subjects.unwrap_or_default().iter().enumerate() {
        subject(&Path::new("subjects").index(index), item, namespaced, &mut errors);
    }
    errors
}

fn subject(path: &Path, subject: &Subject, namespaced: bool, errors: &mut ErrorList) {
    if subject.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let group = group_of(subject.api_group.as_ref());
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                check(&path.child("name"), &subject.name, dns1123_subdomain(&subject.name), errors);
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && subject.namespace.as_ref().is_none_or(String::is_empty) {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" if group != GROUP => errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP])),
        "User" | "Group" => {}
        other => errors.push(Error::not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"])),
    }
}

fn changed(new: &RoleRef, old: &RoleRef) -> Option<Error> {
    (new != old).then(|| Error::invalid(&Path::new("roleRef"), new, "cannot change roleRef"))
}

fn row(meta: &ObjectMeta, role: &RoleRef, subjects: Option<&[Subject]>, context: &PrintContext) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = subjects.unwrap_or_default().iter().filter(|s| s.kind == kind);
        let names = subjects.map(|s| match s.namespace.as_deref() {
            Some(namespace) if kind == "ServiceAccount" && !namespace.is_empty() => format!("{namespace}/{}", s.name),
            _ => s.name.clone(),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![print::name(meta), format!("{}/{}", role.kind, role.name).into(), print::age(meta, context), of("User"), of("Group"), of("ServiceAccount")]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn binding(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [
            {"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "default", "namespace": "n"}
        ]});
        with(base, patch)
    }

    #[test]
    fn groups_are_filled_in() {
        let stored = defaulted::<RoleBindings>(binding(json!({})));
        assert_eq!(stored["roleRef"]["apiGroup"], GROUP);
        assert_eq!(stored["subjects"][0]["apiGroup"], GROUP);
        assert_eq!(stored["subjects"][1].get("apiGroup"), None);
    }

    #[test]
    fn references_are_checked_and_the_role_never_changes() {
        assert!(errors::<RoleBindings>(binding(json!({}))).is_empty());
        assert_eq!(
            errors::<ClusterRoleBindings>(binding(json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "ServiceAccount", "name": "x"}]}))),
            ["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"", "subjects[0].namespace: Required value"]
        );
        assert_eq!(
            errors::<RoleBindings>(binding(json!({"subjects": [{"kind": "Robot", "name": "x"}]}))),
            ["subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\""]
        );
        let changed = update_errors::<RoleBindings>(binding(json!({})), binding(json!({"roleRef": {"name": "edit"}})));
        assert!(changed[0].starts_with("roleRef: Invalid value: {") && changed[0].ends_with(": cannot change roleRef"), "{changed:?}");
    }

    #[test]
    fn rows_show_role_and_subjects() {
        assert_eq!(cells::<RoleBindings>(binding(json!({}))), ["b", "ClusterRole/view", "<unknown>", "jane", "", "n/default"]);
    }
}

//! Roles and ClusterRoles (`pkg/apis/rbac/validation/validation.go`).

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::selectors;
use crate::registry::{PrintContext, Strategy, print};

/// See the module.
pub struct Roles;
/// See the module.
pub struct ClusterRoles;

impl Strategy for Roles {
    type Object = Role;
    const PLURAL: &'static str = "roles";
    const SINGULAR: &'static str = "role";
    const CREATE_ON_UPDATE: bool = true;

    fn validate_name(name: &str) -> Result<(), String> {
        super::validate_name(name)
    }

    fn validate(object: &Role) -> ErrorList {
        let mut errors = Vec::new();
        rules(object.rules.as_deref().unwrap_or_default(), true, &mut errors);
        errors
    }

    fn cells(object: &Role, _: &PrintContext) -> Vec<Value> {
        print::default_cells(&object.metadata)
    }
}

impl Strategy for ClusterRoles {
    type Object = ClusterRole;
    const PLURAL: &'static str = "clusterroles";
    const SINGULAR: &'static str = "clusterrole";
    const NAMESPACED: bool = false;
    const CREATE_ON_UPDATE: bool = true;

    fn validate_name(name: &str) -> Result<(), String> {
        super::validate_name(name)
    }

    fn validate(object: &ClusterRole) -> ErrorList {
        let mut errors = Vec::new();
        rules(object.rules.as_deref().unwrap_or_default(), false, &mut errors);
        if let Some(aggregation) = &object.aggregation_rule {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
            if selectors.is_empty() {
                errors.push(Error::required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil"));
            }
            for (index, selector) in selectors.iter().enumerate() {
                selectors::label_selector(&path.index(index), Some(selector), &mut errors);
            }
        }
        errors
    }

    fn cells(object: &ClusterRole, _: &PrintContext) -> Vec<Value> {
        print::default_cells(&object.metadata)
    }
}

fn rules(rules: &[PolicyRule], namespaced: bool, errors: &mut ErrorList) {
    for (index, item) in rules.iter().enumerate() {
        rule(&Path::new("rules").index(index), item, namespaced, errors);
    }
}

fn rule(path: &Path, rule: &PolicyRule, namespaced: bool, errors: &mut ErrorList) {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    if rule.verbs.is_empty() {
        errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if some(&rule.non_resource_urls) {
        let path = path.child("nonResourceURLs");
        if namespaced {
            errors.push(Error::invalid(&path, &rule.non_resource_urls, "namespaced rules cannot apply to non-resource URLs"));
        }
        if some(&rule.api_groups) || some(&rule.resources) || some(&rule.resource_names) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&path, &rule.non_resource_urls, detail));
        }
        return;
    }
    if !some(&rule.api_groups) {
        errors.push(Error::required(&path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if !some(&rule.resources) {
        errors.push(Error::required(&path.child("resources"), "resource rules must supply at least one resource"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn rules_say_what_may_be_done_to_what() {
        let of = |rule: Value| errors::<Roles>(json!({"rules": [rule]}));
        assert!(of(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})).is_empty());
        assert_eq!(
            of(json!({"verbs": []})),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource"
            ]
        );
        let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]});
        assert_eq!(of(urls.clone()), ["rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs"]);
        assert!(errors::<ClusterRoles>(json!({"rules": [urls]})).is_empty());
    }

    #[test]
    fn names_may_hold_colons_but_no_slash() {
        assert!(ClusterRoles::validate_name("system:node").is_ok());
        assert_eq!(Roles::validate_name("a/b").unwrap_err(), "may not contain '/'");
        assert_eq!(Roles::validate_name("..").unwrap_err(), "may not be '..'");
    }

    #[test]
    fn rows_show_when_a_role_was_made() {
        let row = cells::<Roles>(json!({"metadata": {"name": "r", "creationTimestamp": "2024-06-01T11:00:00Z"}}));
        assert_eq!(row, ["r", "2024-06-01T11:00:00Z"]);
    }
}

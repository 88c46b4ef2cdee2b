//! The default roles and bindings as objects.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::cluster_roles::{AGGREGATED, NODE, ROLES};
use super::controller_roles::CONTROLLER_ROLES;
use super::{namespace_roles, rule};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The rules the node authorizer falls back on.
pub fn node_rules() -> &'static [PolicyRule] {
    static RULES: LazyLock<Vec<PolicyRule>> = LazyLock::new(|| rule::parse_all(NODE));
    &RULES
}

fn meta(namespace: &str, name: &str, aggregate_to: &str) -> ObjectMeta {
    let mut labels = BTreeMap::from([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned())]);
    // kubeadm's objects carry no such label.
    if name.starts_with("kubeadm:") {
        labels.clear();
    }
    if !aggregate_to.is_empty() {
        labels.insert(format!("{RBAC}/aggregate-to-{aggregate_to}"), "true".to_owned());
    }
    let autoupdate = BTreeMap::from([("rbac.authorization.kubernetes.io/autoupdate".to_owned(), "true".to_owned())]);
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        labels: (!labels.is_empty()).then_some(labels),
        annotations: (!name.starts_with("kubeadm:")).then_some(autoupdate),
        ..ObjectMeta::default()
    }
}

/// What a label collects, following the roles that are collected themselves.
fn aggregated(label: &str) -> Vec<PolicyRule> {
    let direct = ROLES.iter().filter(|(_, to, _)| *to == label).flat_map(|(_, _, lines)| rule::parse_all(lines));
    let nested = AGGREGATED.iter().filter(|(_, _, to)| *to == label).flat_map(|(_, collects, _)| aggregated(collects));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for found in direct.chain(nested) {
        if !rules.contains(&found) {
            rules.push(found);
        }
    }
    rules
}

/// Every default ClusterRole. `admin`, `edit` and `view` come with the rules their labels collect, so that they work at once.
pub fn cluster_roles() -> Vec<ClusterRole> {
    let plain = ROLES.iter().map(|(name, to, lines)| ClusterRole {
        metadata: meta("", name, to),
        rules: Some(rule::parse_all(lines)),
        aggregation_rule: None,
    });
    let node = ClusterRole { metadata: meta("", "system:node", ""), rules: Some(node_rules().to_vec()), aggregation_rule: None };
    let collected = AGGREGATED.iter().map(|(name, collects, to)| {
        let label = BTreeMap::from([(format!("{RBAC}/aggregate-to-{collects}"), "true".to_owned())]);
        let selector = LabelSelector { match_labels: Some(label), match_expressions: None };
        ClusterRole {
            metadata: meta("", name, to),
            rules: Some(aggregated(collects)),
            aggregation_rule: Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) }),
        }
    });
    let controllers = CONTROLLER_ROLES.iter().map(|(name, lines)| ClusterRole {
        metadata: meta("", &format!("system:controller:{name}"), ""),
        rules: Some(rule::parse_all(lines)),
        aggregation_rule: None,
    });
    plain.chain([node]).chain(collected).chain(controllers).collect()
}

fn subject(text: &str) -> Subject {
    let (kind, name) = text.split_once(':').unwrap_or(("user", text));
    let rbac = Some(RBAC.to_owned());
    match (kind, name.split_once('/')) {
        ("sa", Some((namespace, name))) => {
            Subject { kind: "ServiceAccount".into(), name: name.into(), namespace: Some(namespace.into()), api_group: None }
        }
        ("group", _) => Subject { kind: "Group".into(), name: name.into(), api_group: rbac, namespace: None },
        _ => Subject { kind: "User".into(), name: name.into(), api_group: rbac, namespace: None },
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(RBAC.into()), kind: kind.into(), name: name.into() }
}

fn subjects(texts: &[&str]) -> Option<Vec<Subject>> {
    (!texts.is_empty()).then(|| texts.iter().map(|t| subject(t)).collect())
}

/// Every default ClusterRoleBinding.
pub fn cluster_role_bindings() -> Vec<ClusterRoleBinding> {
    let plain = namespace_roles::CLUSTER_BINDINGS.iter().map(|(name, role, to)| ClusterRoleBinding {
        metadata: meta("", name, ""),
        role_ref: role_ref("ClusterRole", role),
        subjects: subjects(to),
    });
    let controllers = CONTROLLER_ROLES.iter().map(|(name, _)| {
        let role = format!("system:controller:{name}");
        let account = format!("sa:kube-system/{name}");
        ClusterRoleBinding { metadata: meta("", &role, ""), role_ref: role_ref("ClusterRole", &role), subjects: subjects(&[&account]) }
    });
    plain.chain(controllers).collect()
}

/// Every default Role.
pub fn roles() -> Vec<Role> {
    let row = |(namespace, name, lines): &(&str, &str, &[&str])| Role { metadata: meta(namespace, name, ""), rules: Some(rule::parse_all(lines)) };
    namespace_roles::ROLES.iter().map(row).collect()
}

/// Every default RoleBinding.
pub fn role_bindings() -> Vec<RoleBinding> {
    let rows = namespace_roles::BINDINGS.iter();
    rows.map(|(namespace, name, role, to)| RoleBinding {
        metadata: meta(namespace, name, ""),
        role_ref: role_ref("Role", role),
        subjects: subjects(to),
    })
    .collect()
}

//! Nodes (`pkg/registry/core/node/strategy.go`, `ValidateNode`). A kubelet registers with its status, so creation keeps it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::selector::{label_value_errors, qualified_name_errors};

use crate::registry::validation::resources::{default_list, quantity};
use crate::registry::validation::{BAD_CIDR, check, cidr, required_one_of};
use crate::registry::{Column, FieldSource, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct Nodes;

impl Strategy for Nodes {
    type Object = Node;
    const PLURAL: &'static str = "nodes";
    const SINGULAR: &'static str = "node";
    const SHORT_NAMES: &'static [&'static str] = &["no"];
    const NAMESPACED: bool = false;
    const SUBRESOURCES: &'static [Subresource] = &[super::proxy("NodeProxyOptions"), STATUS];
    const STORAGE: &'static str = "minions";
    const FIELDS: &'static [&'static str] = &["spec.unschedulable"];
    const FIELD_SOURCES: &'static [FieldSource] = &[FieldSource { field: "spec.unschedulable", paths: &["spec.unschedulable"], absent: "false" }];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Status"),
        Column::new("Roles"),
        print::AGE,
        Column::new("Version"),
        Column::new("Internal-IP").wide(),
        Column::new("External-IP").wide(),
        Column::new("OS-Image").wide(),
        Column::new("Kernel-Version").wide(),
        Column::new("Container-Runtime").wide(),
    ];

    fn default(object: &mut Node) {
        let spec = object.spec.get_or_insert_default();
        // The older field is the first of the newer one.
        if let Some(cidr) = spec.pod_cidr.clone().filter(|c| !c.is_empty())
            && spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty)
        {
            spec.pod_cidrs = Some(vec![cidr]);
        }
        spec.pod_cidr = spec.pod_cidrs.as_ref().and_then(|c| c.first()).cloned();
        let status = object.status.get_or_insert_default();
        default_list(&mut status.capacity);
        default_list(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn validate(object: &Node) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let Some(spec) = &object.spec else { return errors };
        // Upstream names `metadata` here.
        taints(&Path::new("metadata").child("taints"), spec.taints.as_deref().unwrap_or_default(), &mut errors);
        for (index, item) in spec.pod_cidrs.iter().flatten().enumerate() {
            if cidr(item).is_none() {
                errors.push(Error::invalid(&path.child("podCIDRs").index(index), item, BAD_CIDR));
            }
        }
        for (name, wire) in object.status.iter().flat_map(|s| s.capacity.iter().flatten()) {
            quantity(&Path::new("status").child("capacity").key(name), name, wire, &mut errors);
        }
        errors
    }

    fn prepare_for_update(new: &mut Node, old: &Node) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &Node, old: &Node) -> ErrorList {
        let mut errors = Self::validate(new);
        let path = Path::new("spec");
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
        if old.pod_cidrs.as_ref().is_some_and(|c| !c.is_empty()) && new.pod_cidrs != old.pod_cidrs {
            errors.push(Error::forbidden(&path.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"));
        }
        if old.provider_id.as_ref().is_some_and(|p| !p.is_empty()) && new.provider_id != old.provider_id {
            errors.push(Error::forbidden(&path.child("providerID"), "node updates may not change providerID except from \"\" to valid"));
        }
        errors
    }

    fn prepare_for_status_update(new: &mut Node, old: &Node) {
        new.spec.clone_from(&old.spec);
    }

    fn cells(object: &Node, context: &PrintContext) -> Vec<Value> {
        let none = NodeStatus::default();
        let status = object.status.as_ref().unwrap_or(&none);
        let info = status.node_info.clone().unwrap_or_default();
        let unknown = |text: String| if text.is_empty() { "<unknown>".to_owned() } else { text };
        let address = |kind: &str| print::or_none(status.addresses.iter().flatten().find(|a| a.type_ == kind).map(|a| a.address.as_str()));
        vec![
            print::name(&object.metadata),
            readiness(object).into(),
            print::or_none(Some(&roles(object))),
            print::age(&object.metadata, context),
            info.kubelet_version.into(),
            address("InternalIP"),
            address("ExternalIP"),
            unknown(info.os_image).into(),
            unknown(info.kernel_version).into(),
            unknown(info.container_runtime_version).into(),
        ]
    }
}

/// `Ready`, `NotReady` or `Unknown`, with `,SchedulingDisabled` on a cordoned node.
fn readiness(object: &Node) -> String {
    let mut conditions = object.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = match conditions.rfind(|c| c.type_ == "Ready") {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = object.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true));
    if cordoned { format!("{ready},SchedulingDisabled") } else { ready.into() }
}

/// Roles from `node-role.kubernetes.io/<role>` and `kubernetes.io/role=<role>`, sorted.
fn roles(object: &Node) -> String {
    let labels = object.metadata.labels.iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then_some(value.as_str()),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

/// Taints, unique by key and effect (`validateNodeTaints`).
fn taints(path: &Path, taints: &[Taint], errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        check(&path.child("key"), &taint.key, qualified_name_errors(&taint.key), errors);
        let value = taint.value.as_deref().unwrap_or_default();
        check(&path.child("value"), value, label_value_errors(value), errors);
        required_one_of(&path.child("effect"), Some(&taint.effect), &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            let mut error = Error::duplicate(&path, taint);
            error.body.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn rows_show_readiness_roles_and_addresses() {
        let node = json!({
            "metadata": {"name": "n", "creationTimestamp": "2024-06-01T11:58:00Z", "labels": {
                "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"
            }},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.5"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "containerRuntimeVersion": "containerd://1.6.20"}
            }
        });
        assert_eq!(
            cells::<Nodes>(node),
            [
                "n",
                "Ready,SchedulingDisabled",
                "control-plane,worker,x",
                "2m",
                "v1.36.0",
                "10.0.0.5",
                "<none>",
                "<unknown>",
                "<unknown>",
                "containerd://1.6.20"
            ]
        );
        let bare = cells::<Nodes>(json!({"metadata": {"name": "n"}}));
        assert_eq!((&bare[1], &bare[2]), (&json!("Unknown"), &json!("<none>")));
        let down = cells::<Nodes>(json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
        assert_eq!(down[1], "NotReady");
    }

    #[test]
    fn what_is_allocatable_defaults_to_the_capacity() {
        assert_eq!(
            defaulted::<Nodes>(json!({"metadata": {}, "status": {"capacity": {"cpu": "4000m"}}}))["status"],
            json!({"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}})
        );
        let both = json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]});
        assert_eq!(defaulted::<Nodes>(json!({"metadata": {}, "spec": {"podCIDR": "10.1.0.0/24"}}))["spec"], both);
        assert_eq!(defaulted::<Nodes>(json!({"metadata": {}, "spec": {"podCIDRs": ["10.1.0.0/24"]}}))["spec"], both);
    }

    #[test]
    fn taints_are_checked_and_the_pod_cidr_stays() {
        assert_eq!(
            errors::<Nodes>(json!({"spec": {"taints": [{"key": "a", "effect": "NoWay"}]}})),
            ["metadata.taints[0].effect: Unsupported value: \"NoWay\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\""]
        );
        let twice = json!([{"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoExecute", "value": "b"}]);
        assert!(errors::<Nodes>(json!({"spec": {"taints": twice}}))[0].ends_with("taints must be unique by key and effect pair"));
        let old = json!({"spec": {"podCIDRs": ["10.1.0.0/24"], "podCIDR": "10.1.0.0/24"}});
        assert_eq!(
            update_errors::<Nodes>(old, json!({"spec": {"podCIDRs": ["10.2.0.0/24"]}})),
            ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
        );
    }

    #[test]
    fn a_node_registers_with_its_status_but_an_update_keeps_the_stored_one() {
        let old = created::<Nodes>(json!({"status": {"phase": "Running"}}));
        assert_eq!(old.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
        let mut new = object::<Nodes>(json!({"spec": {"unschedulable": true}, "status": {"phase": "Other"}}));
        Nodes::prepare_for_update(&mut new, &old);
        assert_eq!(new.status, old.status);
    }
}

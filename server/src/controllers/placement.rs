//! Whether a node is one a pod may be on: node selector, required node affinity (`component-helpers/scheduling/corev1/nodeaffinity`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// Whether the pod's node selector and required node affinity allow the node.
pub fn fits(spec: &PodSpec, node: &Node) -> bool {
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = required.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, labels, node)))
}

/// Every requirement of a term; a term without any matches nothing.
fn term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |r: &NodeSelectorRequirement| r.key == "metadata.name" && matches(r, node.metadata.name.as_deref());
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| matches(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(field)
}

fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|w| w == v));
    let number = |s: Option<&str>| s.and_then(|s| s.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(v, b)| v > b),
        "Lt" => number(value).zip(bound).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn terms_are_alternatives_and_their_requirements_are_not() {
        let node: Node = serde_json::from_value(json!({ "metadata": { "name": "n1", "labels": { "disk": "ssd", "cpus": "8" } } })).unwrap();
        let required = |terms: Value| json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } });
        let expression = |key: &str, operator: &str, values: &[&str]| json!({ "key": key, "operator": operator, "values": values });
        for (spec, expected) in [
            (json!({}), true),
            (json!({ "nodeSelector": { "disk": "ssd" } }), true),
            (json!({ "nodeSelector": { "disk": "hdd" } }), false),
            (required(json!([])), false),
            (required(json!([{}])), false),
            (
                required(
                    json!([{ "matchExpressions": [expression("disk", "In", &["hdd"])] }, { "matchExpressions": [expression("cpus", "Gt", &["4"])] }]),
                ),
                true,
            ),
            (required(json!([{ "matchExpressions": [expression("disk", "Exists", &[]), expression("cpus", "Lt", &["4"])] }])), false),
            (required(json!([{ "matchExpressions": [expression("gone", "NotIn", &["x"]), expression("gone", "DoesNotExist", &[])] }])), true),
            (required(json!([{ "matchFields": [expression("metadata.name", "In", &["n1"])] }])), true),
            (required(json!([{ "matchFields": [expression("metadata.name", "NotIn", &["n1"])] }])), false),
        ] {
            let mut full = spec.clone();
            full["containers"] = json!([]);
            let parsed: PodSpec = serde_json::from_value(full).unwrap();
            assert_eq!(fits(&parsed, &node), expected, "{spec}");
        }
    }
}

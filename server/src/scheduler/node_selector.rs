//! Matching of nodes by `nodeSelector`, node affinity and taints
//! (`k8s.io/component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go`, `.../corev1/helpers.go`).
//!
//! Pure functions.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

/// Whether any term of a selector matches; no term matches nothing.
pub fn selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|t| term_matches(t, node))
}

/// Whether every requirement of a term holds; an empty term matches nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|r| requirement_matches(r, labels.and_then(|l| l.get(&r.key)).map(String::as_str)))
        && fields.iter().all(|r| requirement_matches(r, (r.key == "metadata.name").then_some(node.metadata.name.as_deref().unwrap_or_default())))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |v: Option<&str>| v.and_then(|v| v.parse::<i64>().ok());
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|x| x == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|x| x != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let (Some(actual), Some(bound)) = (number(value), number(values.first().map(String::as_str))) else { return false };
            if requirement.operator == "Gt" { actual > bound } else { actual < bound }
        }
        _ => false,
    }
}

/// Whether a pod's `nodeSelector` and required node affinity allow a node.
pub fn pod_allows_node(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v));
    let required =
        spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| selector_matches(r, node))
}

/// Whether a toleration covers a taint. `Gt` and `Lt` compare integers (KEP-5471).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let (value, actual) = (text(&toleration.value), taint.value.as_deref().unwrap_or_default());
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => value == actual,
        "Exists" => true,
        operator @ ("Gt" | "Lt") => match (actual.parse::<i64>(), value.parse::<i64>()) {
            (Ok(actual), Ok(bound)) => (operator == "Gt" && actual > bound) || (operator == "Lt" && actual < bound),
            _ => false,
        },
        _ => false,
    }
}

/// The first taint with one of the effects that no toleration covers.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints.iter().find(|taint| effects.contains(&taint.effect.as_str()) && !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// Effects that keep a pod from a node.
pub const HARD_EFFECTS: [&str; 2] = ["NoSchedule", "NoExecute"];

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "n1", "labels": { "zone": "a", "cores": "8" } } })).unwrap()
    }

    #[test]
    fn requirements_compare_as_upstream_does() {
        for (operator, key, values, expected) in [
            ("In", "zone", vec!["a", "b"], true),
            ("In", "absent", vec!["a"], false),
            ("NotIn", "zone", vec!["b"], true),
            ("NotIn", "absent", vec!["b"], true),
            ("Exists", "zone", vec![], true),
            ("DoesNotExist", "zone", vec![], false),
            ("Gt", "cores", vec!["7"], true),
            ("Lt", "cores", vec!["8"], false),
            ("Gt", "zone", vec!["1"], false),
            ("Bogus", "zone", vec!["a"], false),
        ] {
            let term =
                serde_json::from_value(serde_json::json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] })).unwrap();
            assert_eq!(term_matches(&term, &node()), expected, "{operator} {key} {values:?}");
        }
    }

    #[test]
    fn fields_match_the_name_only_and_an_empty_term_matches_nothing() {
        let named = |name: &str| {
            serde_json::from_value(serde_json::json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] })).unwrap()
        };
        assert!(term_matches(&named("n1"), &node()));
        assert!(!term_matches(&named("n2"), &node()));
        assert!(!term_matches(&NodeSelectorTerm::default(), &node()));
    }

    #[test]
    fn tolerations_cover_taints_as_upstream_says() {
        let taint = Taint { key: "k".into(), value: Some("v".into()), effect: "NoSchedule".into(), time_added: None };
        for (toleration, expected) in [
            (serde_json::json!({ "operator": "Exists" }), true),
            (serde_json::json!({ "key": "k", "operator": "Exists" }), true),
            (serde_json::json!({ "key": "k", "value": "v" }), true),
            (serde_json::json!({ "key": "k", "operator": "Equal", "value": "w" }), false),
            (serde_json::json!({ "key": "k", "operator": "Exists", "effect": "NoExecute" }), false),
            (serde_json::json!({ "key": "x", "operator": "Exists" }), false),
        ] {
            assert_eq!(tolerates(&serde_json::from_value(toleration.clone()).unwrap(), &taint), expected, "{toleration}");
        }
    }
}

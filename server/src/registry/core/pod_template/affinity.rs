//! Validation of where a pod may run: affinity, spread and tolerations.

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm};
use shared::field::{Error, ErrorList, Path};
use shared::selector::{label_value_errors, qualified_name_errors};

use crate::registry::validation::{check, dns1123_label, one_of, required_one_of, selectors};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Node, pod and anti-affinity.
pub fn affinity(path: &Path, affinity: Option<&Affinity>, errors: &mut ErrorList) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            selectors::node_selector(&path.child(REQUIRED), selector, errors);
        }
        for (index, term) in node.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            let path = path.child(PREFERRED).index(index);
            weight(&path, term.weight, errors);
            selectors::node_selector_term(&path.child("preference"), &term.preference, errors);
        }
    }
    if let Some(pod) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        required(&path, pod.required_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default(), errors);
        preferred(&path, pod.preferred_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default(), errors);
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        required(&path, pod.required_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default(), errors);
        preferred(&path, pod.preferred_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default(), errors);
    }
}

fn weight(path: &Path, weight: i32, errors: &mut ErrorList) {
    if !(1..=100).contains(&weight) {
        errors.push(Error::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn required(path: &Path, terms: &[PodAffinityTerm], errors: &mut ErrorList) {
    for (index, item) in terms.iter().enumerate() {
        term(&path.child(REQUIRED).index(index), item, errors);
    }
}

fn preferred(path: &Path, terms: &[WeightedPodAffinityTerm], errors: &mut ErrorList) {
    for (index, item) in terms.iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        weight(&path, item.weight, errors);
        term(&path.child("podAffinityTerm"), &item.pod_affinity_term, errors);
    }
}

fn term(path: &Path, term: &PodAffinityTerm, errors: &mut ErrorList) {
    selectors::label_selector(&path.child("labelSelector"), term.label_selector.as_ref(), errors);
    selectors::label_selector(&path.child("namespaceSelector"), term.namespace_selector.as_ref(), errors);
    for name in term.namespaces.iter().flatten() {
        check(&path.child("namespace"), name, dns1123_label(name), errors);
    }
    if term.topology_key.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    }
    check(&path.child("topologyKey"), &term.topology_key, qualified_name_errors(&term.topology_key), errors);
}

/// Topology spread constraints (`validateTopologySpreadConstraints`).
pub fn topology_spread(path: &Path, constraints: &[TopologySpreadConstraint], errors: &mut ErrorList) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        if constraint.max_skew <= 0 {
            errors.push(Error::invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero"));
        }
        if constraint.topology_key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        } else {
            check(&path.child("topologyKey"), &constraint.topology_key, qualified_name_errors(&constraint.topology_key), errors);
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        one_of(&path.child("whenUnsatisfiable"), Some(&constraint.when_unsatisfiable), &actions, errors);
        let same =
            |c: &TopologySpreadConstraint| (&c.topology_key, &c.when_unsatisfiable) == (&constraint.topology_key, &constraint.when_unsatisfiable);
        if constraints[..index].iter().any(same) {
            let pair = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            errors.push(Error::duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), pair));
        }
        match constraint.min_domains {
            Some(minimum) if minimum <= 0 => {
                errors.push(Error::invalid(&path.child("minDomains"), minimum, "must be greater than zero"));
            }
            Some(minimum) if constraint.when_unsatisfiable != "DoNotSchedule" => {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", constraint.when_unsatisfiable);
                errors.push(Error::invalid(&path.child("minDomains"), minimum, &detail));
            }
            _ => {}
        }
        one_of(&path.child("nodeAffinityPolicy"), constraint.node_affinity_policy.as_deref(), &["Honor", "Ignore"], errors);
        one_of(&path.child("nodeTaintsPolicy"), constraint.node_taints_policy.as_deref(), &["Honor", "Ignore"], errors);
        selectors::label_selector(&path.child("labelSelector"), constraint.label_selector.as_ref(), errors);
    }
}

/// Tolerations (`ValidateTolerations`).
pub fn tolerations(path: &Path, tolerations: &[Toleration], errors: &mut ErrorList) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let key = toleration.key.as_deref().unwrap_or_default();
        let operator = toleration.operator.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        if !key.is_empty() {
            check(&path.child("key"), key, qualified_name_errors(key), errors);
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(Error::invalid(&path.child("operator"), operator, detail));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            errors.push(Error::invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"));
        }
        match operator {
            "Equal" | "" => check(&path.child("operator"), value, label_value_errors(value), errors),
            "Exists" if !value.is_empty() => {
                errors.push(Error::invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'"));
            }
            "Exists" => {}
            other => errors.push(Error::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            required_one_of(&path.child("effect"), Some(effect), &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations_fit_their_operator() {
        let of = |toleration: serde_json::Value| {
            let mut errors = Vec::new();
            tolerations(&Path::new("t"), &[serde_json::from_value(toleration).unwrap()], &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(of(json!({"operator": "Exists"})).is_empty());
        assert_eq!(
            of(json!({"key": "a", "operator": "Exists", "value": "b"})),
            ["t[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"]
        );
        assert_eq!(
            of(json!({"key": "a", "tolerationSeconds": 1})),
            ["t[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set"]
        );
        assert_eq!(
            of(json!({"value": "b"})),
            ["t[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\""]
        );
    }

    #[test]
    fn affinity_terms_need_a_topology_and_a_weight() {
        let value = serde_json::from_value(json!({
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "a"}}]}
        }))
        .unwrap();
        let mut errors = Vec::new();
        affinity(&Path::new("a"), Some(&value), &mut errors);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                format!("a.nodeAffinity.{REQUIRED}.nodeSelectorTerms: Required value: must have at least one node selector term"),
                format!("a.podAntiAffinity.{PREFERRED}[0].weight: Invalid value: 0: must be in the range 1-100")
            ]
        );
    }

    #[test]
    fn spread_constraints_are_unique_by_key_and_action() {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"});
        let constraints: Vec<TopologySpreadConstraint> = serde_json::from_value(json!([constraint, constraint])).unwrap();
        let mut errors = Vec::new();
        topology_spread(&Path::new("t"), &constraints, &mut errors);
        assert_eq!(errors[0].to_string(), "t[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, ScheduleAnyway}\"");
    }
}

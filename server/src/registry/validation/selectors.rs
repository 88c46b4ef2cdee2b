//! Rules about label selectors and node selectors (`k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`,
//! `pkg/apis/core/validation/validation.go`).

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use shared::field::{Error, ErrorList, Path};
use shared::selector::{label_value_errors, qualified_name_errors};

use super::{check, meta};

/// The parts of a label selector.
pub fn label_selector(path: &Path, selector: Option<&LabelSelector>, errors: &mut ErrorList) {
    let Some(selector) = selector else { return };
    meta::labels(&path.child("matchLabels"), selector.match_labels.as_ref(), errors);
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = expression.values.iter().flatten().count();
        match expression.operator.as_str() {
            "In" | "NotIn" if values == 0 => {
                errors.push(Error::required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if values > 0 => {
                errors.push(Error::forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "Exists" | "DoesNotExist" => {}
            other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        check(&path.child("key"), &expression.key, qualified_name_errors(&expression.key), errors);
        for (index, value) in expression.values.iter().flatten().enumerate() {
            check(&path.child("values").index(index), value, label_value_errors(value), errors);
        }
    }
}

/// Whether a selector has neither labels nor expressions.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|m| m.is_empty()) && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// A node selector, which needs at least one term.
pub fn node_selector(path: &Path, selector: &NodeSelector, errors: &mut ErrorList) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Error::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_selector_term(&path.index(index), term, errors);
    }
}

/// One term of a node selector or of a preference.
pub fn node_selector_term(path: &Path, term: &NodeSelectorTerm, errors: &mut ErrorList) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        requirement_values(&path, requirement, errors);
        check(&path.child("key"), &requirement.key, qualified_name_errors(&requirement.key), errors);
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        match_field(&path.child("matchFields").index(index), requirement, errors);
    }
}

fn requirement_values(path: &Path, requirement: &NodeSelectorRequirement, errors: &mut ErrorList) {
    let values = requirement.values.iter().flatten().count();
    let values_path = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values == 0 => {
            errors.push(Error::required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            errors.push(Error::forbidden(&values_path, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "Gt" | "Lt" if values != 1 => {
            errors.push(Error::required(&values_path, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
}

fn match_field(path: &Path, requirement: &NodeSelectorRequirement, errors: &mut ErrorList) {
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if requirement.values.iter().flatten().count() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(Error::required(&path.child("values"), detail));
            }
        }
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    if requirement.key != "metadata.name" {
        errors.push(Error::invalid(&path.child("key"), &requirement.key, "not a valid field selector key"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operator_has_its_rule_on_values() {
        let errors = |operator: &str, values: &[&str]| {
            let selector = serde_json::from_value(serde_json::json!({
                "matchExpressions": [{"key": "k", "operator": operator, "values": values}]
            }))
            .unwrap();
            let mut errors = Vec::new();
            label_selector(&Path::new("spec.selector"), Some(&selector), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(errors("In", &["a"]).is_empty() && errors("Exists", &[]).is_empty());
        let base = "spec.selector.matchExpressions[0]";
        assert_eq!(errors("In", &[]), [format!("{base}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'")]);
        assert_eq!(
            errors("Exists", &["a"]),
            [format!("{base}.values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'")]
        );
        assert_eq!(errors("Is", &[]), [format!("{base}.operator: Invalid value: \"Is\": not a valid selector operator")]);
    }
}

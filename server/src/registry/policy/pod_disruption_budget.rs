//! PodDisruptionBudgets (`pkg/registry/policy/poddisruptionbudget/strategy.go`, `pkg/apis/policy/validation/validation.go`).

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{not_more_than_100_percent, one_of, positive_int_or_percent, selectors};
use crate::registry::workload::counts;
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct PodDisruptionBudgets;

impl Strategy for PodDisruptionBudgets {
    type Object = PodDisruptionBudget;
    const PLURAL: &'static str = "poddisruptionbudgets";
    const SINGULAR: &'static str = "poddisruptionbudget";
    const SHORT_NAMES: &'static [&'static str] = &["pdb"];
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const UNCONDITIONAL_UPDATE: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] =
        &[Column::name(), Column::new("Min Available"), Column::new("Max Unavailable"), Column::new("Allowed Disruptions").of("integer"), print::AGE];

    fn default(object: &mut PodDisruptionBudget) {
        object.spec.get_or_insert_default();
        // Numbers that upstream always encodes.
        let status = object.status.get_or_insert_default();
        for number in [&mut status.disruptions_allowed, &mut status.current_healthy, &mut status.desired_healthy, &mut status.expected_pods] {
            number.get_or_insert(0);
        }
    }

    fn prepare_for_create(object: &mut PodDisruptionBudget) {
        object.status = Some(PodDisruptionBudgetStatus::default());
        Self::default(object);
    }

    fn validate(object: &PodDisruptionBudget) -> ErrorList {
        let mut errors = Vec::new();
        let none = PodDisruptionBudgetSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            errors.push(Error::invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set"));
        }
        for (field, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
            if let Some(value) = value {
                positive_int_or_percent(&path.child(field), value, &mut errors);
                not_more_than_100_percent(&path.child(field), value, &mut errors);
            }
        }
        selectors::label_selector(&path.child("selector"), spec.selector.as_ref(), &mut errors);
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        one_of(&path.child("unhealthyPodEvictionPolicy"), spec.unhealthy_pod_eviction_policy.as_deref(), &policies, &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut PodDisruptionBudget, old: &PodDisruptionBudget) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut PodDisruptionBudget, old: &PodDisruptionBudget) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &PodDisruptionBudget, _old: &PodDisruptionBudget) -> ErrorList {
        let mut errors = Vec::new();
        let Some(status) = &new.status else { return errors };
        let numbers = [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ];
        counts(&Path::new("status"), &numbers, &[], &mut errors);
        errors
    }

    fn spec_changed(new: &PodDisruptionBudget, old: &PodDisruptionBudget) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &PodDisruptionBudget, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let text = |value: Option<IntOrString>| -> Value {
            match value {
                None => "N/A".into(),
                Some(IntOrString::Int(number)) => number.to_string().into(),
                Some(IntOrString::String(text)) => text.into(),
            }
        };
        vec![
            print::name(&object.metadata),
            text(spec.min_available),
            text(spec.max_unavailable),
            object.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or_default().into(),
            print::age(&object.metadata, context),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn one_bound_is_given_and_it_is_a_number_or_a_percentage() {
        let of = |spec: Value| errors::<PodDisruptionBudgets>(json!({"spec": spec}));
        assert!(of(json!({"minAvailable": 1})).is_empty() && of(json!({"maxUnavailable": "50%"})).is_empty());
        assert_eq!(
            of(json!({"minAvailable": 1, "maxUnavailable": 1})),
            ["spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set"]
        );
        assert_eq!(of(json!({"minAvailable": "101%"})), ["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"]);
        assert_eq!(of(json!({"minAvailable": -1})), ["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]);
    }

    #[test]
    fn rows_show_both_bounds() {
        let row = cells::<PodDisruptionBudgets>(json!({
            "metadata": {"name": "b"}, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}
        }));
        assert_eq!(row, [json!("b"), json!("50%"), json!("N/A"), json!(2), json!("<unknown>")]);
    }
}

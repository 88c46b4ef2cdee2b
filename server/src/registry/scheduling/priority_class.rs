//! PriorityClasses (`pkg/apis/scheduling/validation/validation.go`).

use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::required_one_of;
use crate::registry::{Column, PrintContext, Strategy, print};

/// The highest priority that users may define.
pub const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;
/// Classes that every cluster has, with their priorities.
pub const SYSTEM_CLASSES: [(&str, i32); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// See the module.
pub struct PriorityClasses;

impl Strategy for PriorityClasses {
    type Object = PriorityClass;
    const PLURAL: &'static str = "priorityclasses";
    const SINGULAR: &'static str = "priorityclass";
    const SHORT_NAMES: &'static [&'static str] = &["pc"];
    const NAMESPACED: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Value").of("integer"),
        Column::new("Global-Default").of("boolean"),
        print::AGE,
        Column::new("PreemptionPolicy"),
    ];

    fn default(object: &mut PriorityClass) {
        object.value.get_or_insert(0);
        object.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    }

    fn validate(object: &PriorityClass) -> ErrorList {
        let mut errors = Vec::new();
        let (name, value) = (object.metadata.name.as_deref().unwrap_or_default(), object.value.unwrap_or_default());
        let known = SYSTEM_CLASSES.iter().find(|(system, _)| *system == name);
        match known {
            Some((_, expected)) if *expected != value => {
                let detail = format!("value of {name} PriorityClass must be {expected}");
                errors.push(system_name(&detail));
            }
            None if name.starts_with("system-") => errors.push(system_name(&format!("{name} is not a known system priority class"))),
            None if value > HIGHEST_USER_PRIORITY => {
                let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
                errors.push(Error::forbidden(&Path::new("value"), &detail));
            }
            _ => {}
        }
        let policies = ["Never", "PreemptLowerPriority"];
        required_one_of(&Path::new("preemptionPolicy"), object.preemption_policy.as_deref(), &policies, &mut errors);
        errors
    }

    fn validate_update(new: &PriorityClass, old: &PriorityClass) -> ErrorList {
        let mut errors = Vec::new();
        if new.value != old.value {
            errors.push(Error::forbidden(&Path::new("Value"), "may not be changed in an update."));
        }
        if new.preemption_policy != old.preemption_policy {
            errors.push(Error::invalid(&Path::new("preemptionPolicy"), &new.preemption_policy, "field is immutable"));
        }
        errors
    }

    fn cells(object: &PriorityClass, context: &PrintContext) -> Vec<Value> {
        vec![
            print::name(&object.metadata),
            object.value.unwrap_or_default().into(),
            object.global_default.unwrap_or_default().into(),
            print::age(&object.metadata, context),
            object.preemption_policy.clone().unwrap_or_default().into(),
        ]
    }
}

fn system_name(detail: &str) -> Error {
    let text = format!("priority class names with 'system-' prefix are reserved for system use only. error: {detail}");
    Error::forbidden(&Path::new("metadata").child("name"), &text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn users_stay_below_the_systems_priorities() {
        let of = |name: &str, value: i32| errors::<PriorityClasses>(json!({"metadata": {"name": name}, "value": value}));
        assert!(of("mine", 1_000_000_000).is_empty() && of("system-node-critical", 2_000_001_000).is_empty());
        assert_eq!(of("mine", 1_000_000_001), ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]);
        assert_eq!(
            of("system-mine", 1),
            [
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"
            ]
        );
        assert_eq!(
            update_errors::<PriorityClasses>(json!({"metadata": {"name": "a"}, "value": 1}), json!({"metadata": {"name": "a"}, "value": 2})),
            ["Value: Forbidden: may not be changed in an update."]
        );
    }

    #[test]
    fn rows_show_value_and_policy() {
        let class = defaulted::<PriorityClasses>(json!({"metadata": {"name": "a"}, "value": 5}));
        assert_eq!(cells::<PriorityClasses>(class), [json!("a"), json!(5), json!(false), json!("<unknown>"), json!("PreemptLowerPriority")]);
    }
}

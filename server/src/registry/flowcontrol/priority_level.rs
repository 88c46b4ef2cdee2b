//! PriorityLevelConfigurations (`pkg/apis/flowcontrol/v1/defaults.go`, `pkg/apis/flowcontrol/validation/validation.go`).

use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{not_negative, required_one_of};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct PriorityLevelConfigurations;

impl Strategy for PriorityLevelConfigurations {
    type Object = PriorityLevelConfiguration;
    const PLURAL: &'static str = "prioritylevelconfigurations";
    const SINGULAR: &'static str = "prioritylevelconfiguration";
    const NAMESPACED: bool = false;
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Type"),
        Column::new("NominalConcurrencyShares"),
        Column::new("Queues"),
        Column::new("HandSize"),
        Column::new("QueueLengthLimit"),
        print::AGE,
    ];

    fn default(object: &mut PriorityLevelConfiguration) {
        let spec = object.spec.get_or_insert_default();
        if let Some(limited) = &mut spec.limited {
            limited.nominal_concurrency_shares.get_or_insert(30);
            limited.lendable_percent.get_or_insert(0);
            if let Some(queuing) = limited.limit_response.as_mut().and_then(|r| r.queuing.as_mut()) {
                for (field, default) in [(&mut queuing.queues, 64), (&mut queuing.hand_size, 8), (&mut queuing.queue_length_limit, 50)] {
                    if field.unwrap_or_default() == 0 {
                        *field = Some(default);
                    }
                }
            }
        }
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
    }

    fn prepare_for_create(object: &mut PriorityLevelConfiguration) {
        object.status = Some(Default::default());
    }

    fn validate(object: &PriorityLevelConfiguration) -> ErrorList {
        let mut errors = Vec::new();
        let spec = object.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        required_one_of(&path.child("type"), Some(&spec.type_), &["Exempt", "Limited"], &mut errors);
        match spec.type_.as_str() {
            "Limited" if spec.exempt.is_some() => {
                errors.push(Error::forbidden(&path.child("exempt"), "must be nil if the type is Limited"));
            }
            "Limited" if spec.limited.is_none() => {
                errors.push(Error::required(&path.child("limited"), "must not be empty when type is Limited"));
            }
            "Exempt" if spec.limited.is_some() => {
                errors.push(Error::forbidden(&path.child("limited"), "must be nil if the type is not Limited"));
            }
            _ => {}
        }
        let Some(limited) = &spec.limited else { return errors };
        let path = path.child("limited");
        not_negative(&path.child("nominalConcurrencyShares"), limited.nominal_concurrency_shares.map(i64::from), &mut errors);
        let response = limited.limit_response.clone().unwrap_or_default();
        let path = path.child("limitResponse");
        required_one_of(&path.child("type"), Some(&response.type_), &["Queue", "Reject"], &mut errors);
        match (response.type_.as_str(), &response.queuing) {
            ("Reject", Some(_)) => errors.push(Error::forbidden(&path.child("queuing"), "must be nil if limited.limitResponse.type is not Limited")),
            ("Queue", None) => {
                errors.push(Error::required(&path.child("queuing"), "must not be empty if limited.limitResponse.type is Limited"));
            }
            ("Queue", Some(queuing)) => {
                let path = path.child("queuing");
                let (queues, hand) = (queuing.queues.unwrap_or_default(), queuing.hand_size.unwrap_or_default());
                if hand > queues {
                    let detail = format!("should not be greater than queues ({queues})");
                    errors.push(Error::invalid(&path.child("handSize"), hand, &detail));
                }
                for (field, value) in [("queues", queuing.queues), ("handSize", queuing.hand_size), ("queueLengthLimit", queuing.queue_length_limit)]
                {
                    if let Some(value) = value.filter(|v| *v <= 0) {
                        errors.push(Error::invalid(&path.child(field), value, "must be positive"));
                    }
                }
            }
            _ => {}
        }
        errors
    }

    fn prepare_for_update(new: &mut PriorityLevelConfiguration, old: &PriorityLevelConfiguration) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut PriorityLevelConfiguration, old: &PriorityLevelConfiguration) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(new: &PriorityLevelConfiguration, old: &PriorityLevelConfiguration) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &PriorityLevelConfiguration, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let limited = spec.limited.as_ref();
        let queuing = limited.and_then(|l| l.limit_response.as_ref()).and_then(|r| r.queuing.as_ref());
        // A number where there is one; upstream prints `<none>` for a whole part that is missing.
        let number = |part: bool, value: Option<i32>| if part { value.unwrap_or_default().into() } else { Value::from(print::NONE) };
        vec![
            print::name(&object.metadata),
            spec.type_.clone().into(),
            number(limited.is_some(), limited.and_then(|l| l.nominal_concurrency_shares)),
            number(queuing.is_some(), queuing.and_then(|q| q.queues)),
            number(queuing.is_some(), queuing.and_then(|q| q.hand_size)),
            number(queuing.is_some(), queuing.and_then(|q| q.queue_length_limit)),
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
    fn a_level_is_exempt_or_limited() {
        let of = |spec: Value| json!({"metadata": {"name": "l"}, "spec": spec});
        let limited = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}});
        let stored = defaulted::<PriorityLevelConfigurations>(of(limited.clone()));
        assert_eq!(stored["spec"]["limited"]["limitResponse"]["queuing"], json!({"queues": 64, "handSize": 8, "queueLengthLimit": 50}));
        assert!(errors::<PriorityLevelConfigurations>(of(limited)).is_empty());
        assert_eq!(
            errors::<PriorityLevelConfigurations>(of(json!({"type": "Limited"}))),
            ["spec.limited: Required value: must not be empty when type is Limited"]
        );
        assert_eq!(cells::<PriorityLevelConfigurations>(stored)[1..6], [json!("Limited"), json!(30), json!(64), json!(8), json!(50)]);
        assert_eq!(cells::<PriorityLevelConfigurations>(of(json!({"type": "Exempt"})))[2], "<none>");
    }
}

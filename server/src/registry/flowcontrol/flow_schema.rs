//! FlowSchemas (`pkg/apis/flowcontrol/v1/defaults.go`, `pkg/apis/flowcontrol/validation/validation.go`).

use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{inclusive_range, one_of, required_one_of};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct FlowSchemas;

impl Strategy for FlowSchemas {
    type Object = FlowSchema;
    const PLURAL: &'static str = "flowschemas";
    const SINGULAR: &'static str = "flowschema";
    const NAMESPACED: bool = false;
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("PriorityLevel"),
        Column::new("MatchingPrecedence"),
        Column::new("DistinguisherMethod"),
        print::AGE,
        Column::new("MissingPL"),
    ];

    fn default(object: &mut FlowSchema) {
        let precedence = &mut object.spec.get_or_insert_default().matching_precedence;
        if precedence.unwrap_or_default() == 0 {
            *precedence = Some(1000);
        }
    }

    fn prepare_for_create(object: &mut FlowSchema) {
        object.status = Some(Default::default());
    }

    fn validate(object: &FlowSchema) -> ErrorList {
        let mut errors = Vec::new();
        let spec = object.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        if let Some(precedence) = spec.matching_precedence.filter(|p| !(1..=10000).contains(p)) {
            errors.push(Error::invalid(&path.child("matchingPrecedence"), precedence, &inclusive_range(1, 10000)));
        }
        if let Some(method) = &spec.distinguisher_method {
            required_one_of(&path.child("distinguisherMethod").child("type"), Some(&method.type_), &["ByNamespace", "ByUser"], &mut errors);
        }
        if spec.priority_level_configuration.name.is_empty() {
            let path = path.child("priorityLevelConfiguration").child("name");
            errors.push(Error::required(&path, "must reference a priority level"));
        }
        for (index, rule) in spec.rules.iter().flatten().enumerate() {
            let path = path.child("rules").index(index);
            if rule.subjects.is_empty() {
                errors.push(Error::required(&path.child("subjects"), "subjects must contain at least one value"));
            }
            for (index, subject) in rule.subjects.iter().enumerate() {
                let path = path.child("subjects").index(index).child("kind");
                one_of(&path, Some(&subject.kind), &["Group", "ServiceAccount", "User"], &mut errors);
            }
            let none = rule.resource_rules.as_ref().is_none_or(Vec::is_empty) && rule.non_resource_rules.as_ref().is_none_or(Vec::is_empty);
            if none {
                errors.push(Error::required(&path, "at least one of resourceRules and nonResourceRules has to be non-empty"));
            }
        }
        errors
    }

    fn prepare_for_update(new: &mut FlowSchema, old: &FlowSchema) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut FlowSchema, old: &FlowSchema) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(new: &FlowSchema, old: &FlowSchema) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &FlowSchema, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let conditions = object.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let dangling = conditions.into_iter().find(|c| c.type_.as_deref() == Some("Dangling")).and_then(|c| c.status.clone());
        vec![
            print::name(&object.metadata),
            spec.priority_level_configuration.name.into(),
            spec.matching_precedence.unwrap_or_default().into(),
            print::or_none(spec.distinguisher_method.as_ref().map(|m| m.type_.as_str())),
            print::age(&object.metadata, context),
            dangling.unwrap_or_else(|| "?".into()).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn a_schema_points_at_a_level() {
        let of = |patch: Value| with(json!({"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}}), patch);
        assert_eq!(defaulted::<FlowSchemas>(of(json!({})))["spec"]["matchingPrecedence"], 1000);
        assert!(errors::<FlowSchemas>(of(json!({}))).is_empty());
        assert_eq!(
            errors::<FlowSchemas>(of(json!({"spec": {"matchingPrecedence": 10001}}))),
            ["spec.matchingPrecedence: Invalid value: 10001: must be between 1 and 10000, inclusive"]
        );
        let row =
            cells::<FlowSchemas>(of(json!({"spec": {"matchingPrecedence": 5}, "status": {"conditions": [{"type": "Dangling", "status": "False"}]}})));
        assert_eq!(row, [json!("f"), json!("l"), json!(5), json!("<none>"), json!("<unknown>"), json!("False")]);
    }
}

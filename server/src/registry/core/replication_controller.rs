//! ReplicationControllers (`pkg/registry/core/replicationcontroller/strategy.go`).

use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::selector::Selector;

use super::pod_template;
use crate::registry::apps::replica_set::BOUNDS;
use crate::registry::validation::not_negative;
use crate::registry::workload::{SELECTOR_MISMATCH, counts, runs_for_ever};
use crate::registry::{Column, FieldSource, PrintContext, SCALE, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    type Object = ReplicationController;
    const PLURAL: &'static str = "replicationcontrollers";
    const SINGULAR: &'static str = "replicationcontroller";
    const SHORT_NAMES: &'static [&'static str] = &["rc"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[SCALE, STATUS];
    const STORAGE: &'static str = "controllers";
    const FIELDS: &'static [&'static str] = &["status.replicas"];
    const FIELD_SOURCES: &'static [FieldSource] = &[FieldSource { field: "status.replicas", paths: &["status.replicas"], absent: "0" }];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Desired").of("integer"),
        Column::new("Current").of("integer"),
        Column::new("Ready").of("integer"),
        print::AGE,
        print::CONTAINERS,
        print::IMAGES,
        print::SELECTOR,
    ];

    fn default(object: &mut ReplicationController) {
        let spec = object.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = &mut spec.template else { return };
        pod_template::default_template(template);
        // The template's labels stand in for a missing selector and missing labels.
        if let Some(labels) = template.metadata.as_ref().and_then(|m| m.labels.clone()) {
            if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if object.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                object.metadata.labels = Some(labels);
            }
        }
    }

    fn prepare_for_create(object: &mut ReplicationController) {
        object.status = Some(ReplicationControllerStatus::default());
    }

    fn validate(object: &ReplicationController) -> ErrorList {
        let mut errors = Vec::new();
        let none = ReplicationControllerSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        not_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from), &mut errors);
        let selector = spec.selector.clone().unwrap_or_default();
        if selector.is_empty() {
            errors.push(Error::required(&path.child("selector"), ""));
        }
        not_negative(&path.child("replicas"), spec.replicas.map(i64::from), &mut errors);
        let template_path = path.child("template");
        let Some(template) = &spec.template else {
            errors.push(Error::required(&template_path, ""));
            return errors;
        };
        let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
        if !Selector::from_map(&selector).matches(&labels) {
            errors.push(Error::invalid(&template_path.child("metadata").child("labels"), &labels, SELECTOR_MISMATCH));
        }
        pod_template::validate_template(&template_path, template, &mut errors);
        runs_for_ever(&path, template, "ReplicationController", &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut ReplicationController, old: &ReplicationController) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut ReplicationController, old: &ReplicationController) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &ReplicationController, _old: &ReplicationController) -> ErrorList {
        let mut errors = Vec::new();
        let Some(status) = &new.status else { return errors };
        let numbers = [
            ("replicas", Some(status.replicas)),
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        counts(&Path::new("status"), &numbers, BOUNDS, &mut errors);
        not_negative(&Path::new("status").child("observedGeneration"), status.observed_generation, &mut errors);
        errors
    }

    fn spec_changed(new: &ReplicationController, old: &ReplicationController) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &ReplicationController, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let [containers, images] = print::template(&spec.template.unwrap_or_default());
        vec![
            print::name(&object.metadata),
            spec.replicas.unwrap_or_default().into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or_default().into(),
            print::age(&object.metadata, context),
            containers,
            images,
            print::labels(spec.selector.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn controller(patch: Value) -> Value {
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        with(json!({"metadata": {"name": "r"}, "spec": {"template": template}}), patch)
    }

    #[test]
    fn selector_and_labels_come_from_the_template() {
        let stored = defaulted::<ReplicationControllers>(controller(json!({})));
        assert_eq!((&stored["spec"]["selector"], &stored["metadata"]["labels"]), (&json!({"app": "a"}), &json!({"app": "a"})));
        assert_eq!(stored["spec"]["replicas"], 1);
    }

    #[test]
    fn template_and_selector_are_needed_and_agree() {
        assert!(errors::<ReplicationControllers>(controller(json!({}))).is_empty());
        assert_eq!(errors::<ReplicationControllers>(json!({"spec": {}})), ["spec.selector: Required value", "spec.template: Required value"]);
        assert_eq!(
            errors::<ReplicationControllers>(controller(json!({"spec": {"selector": {"app": "b"}}}))),
            ["spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"]
        );
    }
}

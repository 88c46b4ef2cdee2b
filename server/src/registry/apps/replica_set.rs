//! ReplicaSets (`pkg/registry/apps/replicaset/strategy.go`).

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use serde_json::Value;
use shared::field::{ErrorList, Path};

use crate::registry::core::pod_template;
use crate::registry::validation::{immutable, not_negative};
use crate::registry::workload::{counts, runs_for_ever, selector_and_template};
use crate::registry::{Column, FieldSource, PrintContext, SCALE, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct ReplicaSets;

/// What a status counts, and among what.
pub(in crate::registry) const BOUNDS: &[(&str, &str)] =
    &[("fullyLabeledReplicas", "replicas"), ("readyReplicas", "replicas"), ("availableReplicas", "replicas"), ("availableReplicas", "readyReplicas")];

impl Strategy for ReplicaSets {
    type Object = ReplicaSet;
    const PLURAL: &'static str = "replicasets";
    const SINGULAR: &'static str = "replicaset";
    const SHORT_NAMES: &'static [&'static str] = &["rs"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[SCALE, STATUS];
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

    fn default(object: &mut ReplicaSet) {
        let spec = object.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        pod_template::default_template(spec.template.get_or_insert_default());
    }

    fn prepare_for_create(object: &mut ReplicaSet) {
        object.status = Some(ReplicaSetStatus::default());
    }

    fn validate(object: &ReplicaSet) -> ErrorList {
        let mut errors = Vec::new();
        let none = ReplicaSetSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let template = spec.template.clone().unwrap_or_default();
        let path = Path::new("spec");
        not_negative(&path.child("replicas"), spec.replicas.map(i64::from), &mut errors);
        not_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from), &mut errors);
        selector_and_template(&path, &spec.selector, &template, &mut errors);
        runs_for_ever(&path, &template, "ReplicaSet", &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut ReplicaSet, old: &ReplicaSet) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &ReplicaSet, old: &ReplicaSet) -> ErrorList {
        let mut errors = Self::validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&Path::new("spec").child("selector"), &new.selector, &old.selector, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(new: &mut ReplicaSet, old: &ReplicaSet) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &ReplicaSet, _old: &ReplicaSet) -> ErrorList {
        let mut errors = Vec::new();
        let Some(status) = &new.status else { return errors };
        not_negative(&Path::new("status").child("observedGeneration"), status.observed_generation, &mut errors);
        let numbers = [
            ("replicas", Some(status.replicas)),
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
            ("terminatingReplicas", status.terminating_replicas),
        ];
        counts(&Path::new("status"), &numbers, BOUNDS, &mut errors);
        errors
    }

    fn spec_changed(new: &ReplicaSet, old: &ReplicaSet) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &ReplicaSet, context: &PrintContext) -> Vec<Value> {
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
            print::selector(Some(&spec.selector)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn set(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "r"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}
        }});
        with(base, patch)
    }

    #[test]
    fn one_replica_is_the_default_and_the_rules_are_a_workloads() {
        assert_eq!(defaulted::<ReplicaSets>(set(json!({})))["spec"]["replicas"], 1);
        assert!(errors::<ReplicaSets>(set(json!({}))).is_empty());
        assert!(errors::<ReplicaSets>(set(json!({"spec": {"selector": {"matchLabels": {"app": "b"}}}})))[0].contains("does not match"));
    }

    #[test]
    fn a_status_update_keeps_the_spec_and_its_numbers_fit() {
        let old = created::<ReplicaSets>(set(json!({})));
        let mut new = object::<ReplicaSets>(set(json!({"spec": {"replicas": 9}, "status": {"replicas": 1, "availableReplicas": 2}})));
        ReplicaSets::prepare_for_status_update(&mut new, &old);
        assert_eq!(new.spec, old.spec);
        let errors: Vec<_> = ReplicaSets::validate_status_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"
            ]
        );
    }

    #[test]
    fn rows_show_replicas_and_images() {
        let row = cells::<ReplicaSets>(set(json!({"spec": {"replicas": 3}, "status": {"replicas": 2, "readyReplicas": 1}})));
        assert_eq!(row[1..], [json!(3), json!(2), json!(1), json!("<unknown>"), json!("c,d"), json!("i,j"), json!("app=a")]);
    }
}

//! StatefulSets (`pkg/registry/apps/statefulset/strategy.go`).

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};
use serde_json::{Value, json};
use shared::field::{Error, ErrorList, Path};

use crate::registry::core::persistent_volume_claim::PersistentVolumeClaims;
use crate::registry::core::pod_template;
use crate::registry::validation::{not_more_than_100_percent, not_negative, one_of, positive_int_or_percent};
use crate::registry::workload::{counts, int_or_percent, runs_for_ever, selector_and_template};
use crate::registry::{Column, PrintContext, SCALE, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct StatefulSets;

impl Strategy for StatefulSets {
    type Object = StatefulSet;
    const PLURAL: &'static str = "statefulsets";
    const SINGULAR: &'static str = "statefulset";
    const SHORT_NAMES: &'static [&'static str] = &["sts"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[SCALE, STATUS];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Ready"), print::AGE, print::CONTAINERS, print::IMAGES];

    fn default(object: &mut StatefulSet) {
        let spec = object.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        if spec.pod_management_policy.as_ref().is_none_or(String::is_empty) {
            spec.pod_management_policy = Some("OrderedReady".into());
        }
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_ref().is_none_or(String::is_empty) {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            strategy.rolling_update.get_or_insert_default().partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        retention.when_deleted.get_or_insert_with(|| "Retain".into());
        retention.when_scaled.get_or_insert_with(|| "Retain".into());
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            PersistentVolumeClaims::default(claim);
        }
        pod_template::default_template(&mut spec.template);
    }

    fn prepare_for_create(object: &mut StatefulSet) {
        object.status = Some(Default::default());
    }

    fn validate(object: &StatefulSet) -> ErrorList {
        let mut errors = Vec::new();
        let none = StatefulSetSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        match spec.pod_management_policy.as_deref() {
            Some("OrderedReady" | "Parallel") => {}
            other => errors.push(Error::invalid(&path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'")),
        }
        strategy(&path.child("updateStrategy"), spec.update_strategy.as_ref(), &mut errors);
        retention(&path.child("persistentVolumeClaimRetentionPolicy"), spec, &mut errors);
        not_negative(&path.child("replicas"), spec.replicas.map(i64::from), &mut errors);
        not_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from), &mut errors);
        not_negative(&path.child("revisionHistoryLimit"), spec.revision_history_limit.map(i64::from), &mut errors);
        let start = spec.ordinals.as_ref().and_then(|o| o.start);
        not_negative(&path.child("ordinals").child("start"), start.map(i64::from), &mut errors);
        let template = with_claims(spec);
        selector_and_template(&path, &spec.selector, &template, &mut errors);
        runs_for_ever(&path, &template, "StatefulSet", &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut StatefulSet, old: &StatefulSet) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &StatefulSet, old: &StatefulSet) -> ErrorList {
        let mut errors = Self::validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec)
            && only_fixed(new) != only_fixed(old)
        {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.push(Error::forbidden(&Path::new("spec"), detail));
        }
        errors
    }

    fn prepare_for_status_update(new: &mut StatefulSet, old: &StatefulSet) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &StatefulSet, _old: &StatefulSet) -> ErrorList {
        let mut errors = Vec::new();
        let Some(status) = &new.status else { return errors };
        let numbers = [
            ("replicas", Some(status.replicas)),
            ("readyReplicas", status.ready_replicas),
            ("currentReplicas", status.current_replicas),
            ("updatedReplicas", status.updated_replicas),
            ("availableReplicas", status.available_replicas),
            ("collisionCount", status.collision_count),
        ];
        let bounds = [
            ("readyReplicas", "replicas"),
            ("currentReplicas", "replicas"),
            ("updatedReplicas", "replicas"),
            ("availableReplicas", "replicas"),
            ("availableReplicas", "readyReplicas"),
        ];
        counts(&Path::new("status"), &numbers, &bounds, &mut errors);
        not_negative(&Path::new("status").child("observedGeneration"), status.observed_generation, &mut errors);
        errors
    }

    fn spec_changed(new: &StatefulSet, old: &StatefulSet) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &StatefulSet, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let ready = object.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default();
        let [containers, images] = print::template(&spec.template);
        vec![
            print::name(&object.metadata),
            format!("{ready}/{}", spec.replicas.unwrap_or_default()).into(),
            print::age(&object.metadata, context),
            containers,
            images,
        ]
    }
}

/// The template with a volume for each claim template, as its pods will have.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let names = spec.volume_claim_templates.iter().flatten().filter_map(|c| c.metadata.name.clone());
    let claims: Vec<Volume> = names
        .map(|name| Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: name.clone(), read_only: None }),
            name,
            ..Volume::default()
        })
        .collect();
    if !claims.is_empty() {
        let volumes = template.spec.get_or_insert_default().volumes.get_or_insert_default();
        volumes.retain(|v| !claims.iter().any(|c| c.name == v.name));
        volumes.extend(claims);
    }
    template
}

/// The spec without the fields that may change.
fn only_fixed(spec: &StatefulSetSpec) -> StatefulSetSpec {
    StatefulSetSpec {
        replicas: None,
        ordinals: None,
        template: PodTemplateSpec::default(),
        update_strategy: None,
        revision_history_limit: None,
        persistent_volume_claim_retention_policy: None,
        min_ready_seconds: None,
        ..spec.clone()
    }
}

fn strategy(path: &Path, strategy: Option<&StatefulSetUpdateStrategy>, errors: &mut ErrorList) {
    let none = StatefulSetUpdateStrategy::default();
    let strategy = strategy.unwrap_or(&none);
    let update = strategy.rolling_update.as_ref();
    let rolling = path.child("rollingUpdate");
    match strategy.type_.as_deref() {
        Some("OnDelete") => {
            errors.extend(update.map(|update| Error::invalid(&rolling, update, "only allowed for updateStrategy 'RollingUpdate'")));
        }
        Some("RollingUpdate") => {
            not_negative(&rolling.child("partition"), update.and_then(|u| u.partition).map(i64::from), errors);
            if let Some(unavailable) = update.and_then(|u| u.max_unavailable.as_ref()) {
                let path = rolling.child("maxUnavailable");
                positive_int_or_percent(&path, unavailable, errors);
                if int_or_percent(Some(unavailable)) == 0 {
                    errors.push(Error::invalid(&path, unavailable, "cannot be 0"));
                }
                not_more_than_100_percent(&path, unavailable, errors);
            }
        }
        other => {
            let value = json!({"Type": other, "RollingUpdate": strategy.rolling_update});
            errors.push(Error::invalid(path, value, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

fn retention(path: &Path, spec: &StatefulSetSpec, errors: &mut ErrorList) {
    let Some(policy) = &spec.persistent_volume_claim_retention_policy else { return };
    for (field, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
        one_of(&path.child(field), value.as_deref(), &["Delete", "Retain"], errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::*;

    fn set(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "s"}, "spec": {
            "serviceName": "s", "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
                {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
            ]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}
            }}]
        }});
        with(base, patch)
    }

    #[test]
    fn defaults_are_ordered_and_keep_claims() {
        let spec = defaulted::<StatefulSets>(set(json!({})))["spec"].clone();
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
        assert_eq!(spec["persistentVolumeClaimRetentionPolicy"], json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
        assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!((&claim["spec"]["volumeMode"], &claim["status"]), (&json!("Filesystem"), &json!({"phase": "Pending"})));
    }

    #[test]
    fn containers_may_mount_the_claims() {
        assert_eq!(errors::<StatefulSets>(set(json!({}))), Vec::<String>::new());
        assert_eq!(
            errors::<StatefulSets>(set(json!({"spec": {"volumeClaimTemplates": null}}))),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]
        );
    }

    #[test]
    fn only_some_fields_may_change() {
        let update = |patch: Value| update_errors::<StatefulSets>(set(json!({})), set(patch));
        assert!(update(json!({"spec": {"replicas": 3, "minReadySeconds": 1, "template": {"metadata": {"labels": {"x": "y"}}}}})).is_empty());
        assert!(
            update(json!({"spec": {"serviceName": "other"}}))[0].starts_with("spec: Forbidden: updates to statefulset spec for fields other than")
        );
    }

    #[test]
    fn policies_are_checked() {
        assert_eq!(
            errors::<StatefulSets>(set(json!({"spec": {"podManagementPolicy": "Random"}}))),
            ["spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'"]
        );
        assert_eq!(
            errors::<StatefulSets>(set(json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}}))),
            ["spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'"]
        );
    }

    #[test]
    fn rows_show_ready_of_wanted() {
        assert_eq!(cells::<StatefulSets>(set(json!({"spec": {"replicas": 3}, "status": {"replicas": 2, "readyReplicas": 1}})))[1], "1/3");
    }
}

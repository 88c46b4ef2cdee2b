//! Deployments (`pkg/registry/apps/deployment/strategy.go`).

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use shared::field::{Error, ErrorList, Path};
use shared::selector::Selector;

use crate::registry::core::pod_template;
use crate::registry::validation::{immutable, not_more_than_100_percent, not_negative, positive_int_or_percent};
use crate::registry::workload::{counts, int_or_percent, runs_for_ever, selector_and_template};
use crate::registry::{Column, PrintContext, SCALE, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct Deployments;

impl Strategy for Deployments {
    type Object = Deployment;
    const PLURAL: &'static str = "deployments";
    const SINGULAR: &'static str = "deployment";
    const SHORT_NAMES: &'static [&'static str] = &["deploy"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[SCALE, STATUS];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Ready"),
        Column::new("Up-to-date"),
        Column::new("Available"),
        print::AGE,
        print::CONTAINERS,
        print::IMAGES,
        print::SELECTOR,
    ];

    fn default(object: &mut Deployment) {
        let spec = object.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        if strategy.type_.as_ref().is_none_or(String::is_empty) {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let update = strategy.rolling_update.get_or_insert_default();
            update.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".into()));
            update.max_surge.get_or_insert_with(|| IntOrString::String("25%".into()));
        }
        pod_template::default_template(&mut spec.template);
    }

    fn prepare_for_create(object: &mut Deployment) {
        object.status = Some(Default::default());
    }

    fn validate(object: &Deployment) -> ErrorList {
        let mut errors = Vec::new();
        let none = DeploymentSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        not_negative(&path.child("replicas"), spec.replicas.map(i64::from), &mut errors);
        selector_and_template(&path, &spec.selector, &spec.template, &mut errors);
        runs_for_ever(&path, &spec.template, "ReplicaSet", &mut errors);
        strategy(&path.child("strategy"), spec.strategy.as_ref(), &mut errors);
        not_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from), &mut errors);
        not_negative(&path.child("revisionHistoryLimit"), spec.revision_history_limit.map(i64::from), &mut errors);
        if let Some(deadline) = spec.progress_deadline_seconds {
            let path = path.child("progressDeadlineSeconds");
            not_negative(&path, Some(deadline.into()), &mut errors);
            if deadline <= spec.min_ready_seconds.unwrap_or_default() {
                errors.push(Error::invalid(&path, deadline, "must be greater than minReadySeconds"));
            }
        }
        errors
    }

    fn prepare_for_update(new: &mut Deployment, old: &Deployment) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &Deployment, old: &Deployment) -> ErrorList {
        let mut errors = Self::validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&Path::new("spec").child("selector"), &new.selector, &old.selector, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(new: &mut Deployment, old: &Deployment) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn validate_status_update(new: &Deployment, old: &Deployment) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("status");
        let Some(status) = &new.status else { return errors };
        not_negative(&path.child("observedGeneration"), status.observed_generation, &mut errors);
        counts(
            &path,
            &[
                ("replicas", status.replicas),
                ("updatedReplicas", status.updated_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
                ("unavailableReplicas", status.unavailable_replicas),
                ("terminatingReplicas", status.terminating_replicas),
                ("collisionCount", status.collision_count),
            ],
            &[
                ("updatedReplicas", "replicas"),
                ("readyReplicas", "replicas"),
                ("availableReplicas", "replicas"),
                ("availableReplicas", "readyReplicas"),
            ],
            &mut errors,
        );
        let before = old.status.as_ref().and_then(|s| s.collision_count);
        if status.collision_count.unwrap_or_default() < before.unwrap_or_default() {
            errors.push(Error::invalid(&path.child("collisionCount"), status.collision_count.unwrap_or_default(), "cannot be decremented"));
        }
        errors
    }

    /// Annotations count, too: a rollout's revision is one.
    fn spec_changed(new: &Deployment, old: &Deployment) -> bool {
        new.spec != old.spec || new.metadata.annotations != old.metadata.annotations
    }

    fn cells(object: &Deployment, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let [containers, images] = print::template(&spec.template);
        let ready = format!("{}/{}", status.ready_replicas.unwrap_or_default(), spec.replicas.unwrap_or_default());
        let selector = Selector::from_label_selector(Some(&spec.selector)).map_or_else(|_| "<invalid>".into(), |s| s.to_string());
        vec![
            print::name(&object.metadata),
            ready.into(),
            status.updated_replicas.unwrap_or_default().into(),
            status.available_replicas.unwrap_or_default().into(),
            print::age(&object.metadata, context),
            containers,
            images,
            selector.into(),
        ]
    }
}

fn strategy(path: &Path, strategy: Option<&DeploymentStrategy>, errors: &mut ErrorList) {
    let none = DeploymentStrategy::default();
    let strategy = strategy.unwrap_or(&none);
    match strategy.type_.as_deref() {
        Some("Recreate") => {
            if strategy.rolling_update.is_some() {
                errors.push(Error::forbidden(&path.child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        Some("RollingUpdate") => rolling_update(&path.child("rollingUpdate"), strategy.rolling_update.as_ref(), errors),
        other => {
            let value = json!({"Type": other, "RollingUpdate": strategy.rolling_update});
            errors.push(Error::not_supported(path, value, &["Recreate", "RollingUpdate"]));
        }
    }
}

fn rolling_update(path: &Path, update: Option<&RollingUpdateDeployment>, errors: &mut ErrorList) {
    let Some(update) = update else {
        return errors.push(Error::required(path, "this should be defaulted and never be nil"));
    };
    let (unavailable, surge) = (update.max_unavailable.as_ref(), update.max_surge.as_ref());
    for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        value.into_iter().for_each(|v| positive_int_or_percent(&path.child(field), v, errors));
    }
    if int_or_percent(unavailable) == 0 && int_or_percent(surge) == 0 {
        errors.push(Error::invalid(&path.child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"));
    }
    unavailable.into_iter().for_each(|v| not_more_than_100_percent(&path.child("maxUnavailable"), v, errors));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::*;

    fn deployment(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1.7.9"}]}}
        }});
        with(base, patch)
    }

    #[test]
    fn a_minimal_deployment_becomes_upstreams() {
        let spec = defaulted::<Deployments>(deployment(json!({})))["spec"].clone();
        assert_eq!(
            with(spec, json!({"template": null})),
            json!({
                "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": "a"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
            })
        );
        let recreate = defaulted::<Deployments>(deployment(json!({"spec": {"strategy": {"type": "Recreate"}, "replicas": 0}})));
        assert_eq!((&recreate["spec"]["strategy"], &recreate["spec"]["replicas"]), (&json!({"type": "Recreate"}), &json!(0)));
    }

    #[test]
    fn selector_template_and_strategy_are_checked() {
        let labels = "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`";
        for (patch, expected) in [
            (json!({}), vec![]),
            (json!({"spec": {"selector": {"matchLabels": {"app": "b"}}}}), vec![labels]),
            (json!({"spec": {"selector": null}}), vec!["spec.selector: Required value", labels]),
            (json!({"spec": {"replicas": -1}}), vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
                vec!["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
                vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "110%"}}}}),
                vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"110%\": must not be greater than 100%"],
            ),
            (
                json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {}}}}),
                vec!["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
            ),
            (
                json!({"spec": {"minReadySeconds": 600}}),
                vec!["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
        ] {
            assert_eq!(errors::<Deployments>(deployment(patch.clone())), expected, "{patch}");
        }
    }

    #[test]
    fn the_selector_never_changes() {
        let other = json!({"spec": {"selector": {"matchLabels": {"app": "a", "x": "y"}}, "template": {"metadata": {"labels": {"x": "y"}}}}});
        assert_eq!(
            update_errors::<Deployments>(deployment(json!({})), deployment(other)),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"x\":\"y\"}}: field is immutable"]
        );
    }

    #[test]
    fn the_generation_counts_spec_and_annotations() {
        let old = created::<Deployments>(deployment(json!({})));
        let of = |patch: Value| Deployments::spec_changed(&created::<Deployments>(deployment(patch)), &old);
        assert!(!of(json!({"metadata": {"labels": {"a": "b"}}})));
        assert!(of(json!({"spec": {"replicas": 2}})) && of(json!({"metadata": {"annotations": {"a": "b"}}})));
    }

    #[test]
    fn status_numbers_fit_each_other() {
        let old = created::<Deployments>(deployment(json!({})));
        let mut new = old.clone();
        new.status = serde_json::from_value(json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 1})).unwrap();
        let errors: Vec<_> = Deployments::validate_status_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]);
    }

    #[test]
    fn rows_show_how_far_the_rollout_is() {
        let row = cells::<Deployments>(deployment(json!({
            "metadata": {"creationTimestamp": "2024-06-01T09:00:00Z"}, "spec": {"replicas": 3},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}
        })));
        assert_eq!(row, [json!("d"), json!("2/3"), json!(3), json!(1), json!("3h"), json!("c"), json!("nginx:1.7.9"), json!("app=a")]);
    }
}

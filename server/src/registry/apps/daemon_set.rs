//! DaemonSets (`pkg/registry/apps/daemonset/strategy.go`).

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use shared::field::{Error, ErrorList, Path};

use crate::registry::core::pod_template;
use crate::registry::validation::{immutable, not_more_than_100_percent, not_negative, positive_int_or_percent};
use crate::registry::workload::{counts, int_or_percent, runs_for_ever, selector_and_template};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// Counts changes of the template; `apps/v1` shows upstream's internal field as this annotation.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// See the module.
pub struct DaemonSets;

impl Strategy for DaemonSets {
    type Object = DaemonSet;
    const PLURAL: &'static str = "daemonsets";
    const SINGULAR: &'static str = "daemonset";
    const SHORT_NAMES: &'static [&'static str] = &["ds"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Desired").of("integer"),
        Column::new("Current").of("integer"),
        Column::new("Ready").of("integer"),
        Column::new("Up-to-date").of("integer"),
        Column::new("Available").of("integer"),
        Column::new("Node Selector"),
        print::AGE,
        print::CONTAINERS,
        print::IMAGES,
        print::SELECTOR,
    ];

    fn default(object: &mut DaemonSet) {
        let spec = object.spec.get_or_insert_default();
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_ref().is_none_or(String::is_empty) {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let update = strategy.rolling_update.get_or_insert_default();
            update.max_unavailable.get_or_insert(IntOrString::Int(1));
            update.max_surge.get_or_insert(IntOrString::Int(0));
        }
        pod_template::default_template(&mut spec.template);
    }

    fn prepare_for_create(object: &mut DaemonSet) {
        object.status = Some(Default::default());
        set_template_generation(object, 1);
    }

    fn validate(object: &DaemonSet) -> ErrorList {
        let mut errors = Vec::new();
        let none = DaemonSetSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        selector_and_template(&path, &spec.selector, &spec.template, &mut errors);
        runs_for_ever(&path, &spec.template, "DaemonSet", &mut errors);
        not_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from), &mut errors);
        strategy(&path.child("updateStrategy"), spec.update_strategy.as_ref(), &mut errors);
        not_negative(&path.child("revisionHistoryLimit"), spec.revision_history_limit.map(i64::from), &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut DaemonSet, old: &DaemonSet) {
        new.status.clone_from(&old.status);
        let changed = new.spec.as_ref().map(|s| &s.template) != old.spec.as_ref().map(|s| &s.template);
        set_template_generation(new, template_generation(old) + i64::from(changed));
    }

    fn validate_update(new: &DaemonSet, old: &DaemonSet) -> ErrorList {
        let mut errors = Self::validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&Path::new("spec").child("selector"), &new.selector, &old.selector, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(new: &mut DaemonSet, old: &DaemonSet) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &DaemonSet, _old: &DaemonSet) -> ErrorList {
        let mut errors = Vec::new();
        let Some(status) = &new.status else { return errors };
        let numbers = [
            ("currentNumberScheduled", Some(status.current_number_scheduled)),
            ("numberMisscheduled", Some(status.number_misscheduled)),
            ("desiredNumberScheduled", Some(status.desired_number_scheduled)),
            ("numberReady", Some(status.number_ready)),
            ("updatedNumberScheduled", status.updated_number_scheduled),
            ("numberAvailable", status.number_available),
            ("numberUnavailable", status.number_unavailable),
            ("collisionCount", status.collision_count),
        ];
        counts(&Path::new("status"), &numbers, &[], &mut errors);
        not_negative(&Path::new("status").child("observedGeneration"), status.observed_generation, &mut errors);
        errors
    }

    fn spec_changed(new: &DaemonSet, old: &DaemonSet) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &DaemonSet, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let [containers, images] = print::template(&spec.template);
        vec![
            print::name(&object.metadata),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or_default().into(),
            status.number_available.unwrap_or_default().into(),
            print::labels(spec.template.spec.as_ref().and_then(|s| s.node_selector.as_ref())),
            print::age(&object.metadata, context),
            containers,
            images,
            print::selector(Some(&spec.selector)),
        ]
    }
}

/// How often the template has changed, from 1.
pub fn template_generation(object: &DaemonSet) -> i64 {
    let annotation = object.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn set_template_generation(object: &mut DaemonSet, generation: i64) {
    object.metadata.annotations.get_or_insert_default().insert(TEMPLATE_GENERATION.into(), generation.to_string());
}

fn strategy(path: &Path, strategy: Option<&DaemonSetUpdateStrategy>, errors: &mut ErrorList) {
    let none = DaemonSetUpdateStrategy::default();
    let strategy = strategy.unwrap_or(&none);
    match strategy.type_.as_deref() {
        Some("OnDelete") => return,
        Some("RollingUpdate") => {}
        other => {
            let value = json!({"Type": other, "RollingUpdate": strategy.rolling_update});
            return errors.push(Error::not_supported(path, value, &["OnDelete", "RollingUpdate"]));
        }
    }
    let path = path.child("rollingUpdate");
    let Some(update) = &strategy.rolling_update else { return errors.push(Error::required(&path, "")) };
    let (unavailable, surge) = (update.max_unavailable.as_ref(), update.max_surge.as_ref());
    for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        if let Some(value) = value {
            positive_int_or_percent(&path.child(field), value, errors);
            not_more_than_100_percent(&path.child(field), value, errors);
        }
    }
    match (int_or_percent(unavailable) != 0, int_or_percent(surge) != 0) {
        (true, true) => errors.push(Error::invalid(&path.child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero")),
        (false, false) => errors.push(Error::required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::*;

    fn set(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        }});
        with(base, patch)
    }

    #[test]
    fn one_pod_at_a_time_is_replaced() {
        let spec = defaulted::<DaemonSets>(set(json!({})))["spec"].clone();
        assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}));
        assert_eq!(spec["revisionHistoryLimit"], 10);
    }

    #[test]
    fn exactly_one_of_surge_and_unavailable_is_set() {
        let of = |update: Value| errors::<DaemonSets>(set(json!({"spec": {"updateStrategy": {"rollingUpdate": update}}})));
        assert!(of(json!({"maxSurge": 1, "maxUnavailable": 0})).is_empty());
        let field = "spec.updateStrategy.rollingUpdate";
        assert_eq!(of(json!({"maxSurge": 1})), [format!("{field}.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero")]);
        assert_eq!(of(json!({"maxUnavailable": 0})), [format!("{field}.maxUnavailable: Required value: cannot be 0 when maxSurge is 0")]);
    }

    #[test]
    fn the_template_generation_counts_templates() {
        let old = created::<DaemonSets>(set(json!({})));
        assert_eq!(template_generation(&old), 1);
        let update = |patch: Value| {
            let mut new = object::<DaemonSets>(set(patch));
            DaemonSets::default(&mut new);
            DaemonSets::prepare_for_update(&mut new, &old);
            template_generation(&new)
        };
        assert_eq!(update(json!({"spec": {"minReadySeconds": 5}})), 1);
        assert_eq!(update(json!({"spec": {"template": {"metadata": {"labels": {"x": "y"}}}}})), 2);
    }

    #[test]
    fn rows_show_nodes() {
        let row = cells::<DaemonSets>(set(json!({
            "spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
            "status": {
                "desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "numberMisscheduled": 0,
                "updatedNumberScheduled": 2, "numberAvailable": 1
            }
        })));
        assert_eq!(row[1..7], [json!(3), json!(2), json!(1), json!(2), json!(1), json!("disk=ssd")]);
    }
}

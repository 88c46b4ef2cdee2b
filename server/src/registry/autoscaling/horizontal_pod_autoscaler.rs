//! HorizontalPodAutoscalers (`pkg/registry/autoscaling/horizontalpodautoscaler/strategy.go`, `pkg/apis/autoscaling/v2/defaults.go`).

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;

use super::targets;
use crate::registry::validation::{check, not_negative, one_of, path_segment};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct HorizontalPodAutoscalers;

impl Strategy for HorizontalPodAutoscalers {
    type Object = HorizontalPodAutoscaler;
    const PLURAL: &'static str = "horizontalpodautoscalers";
    const SINGULAR: &'static str = "horizontalpodautoscaler";
    const SHORT_NAMES: &'static [&'static str] = &["hpa"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Reference"),
        Column::new("Targets"),
        Column::new("MinPods"),
        Column::new("MaxPods"),
        Column::new("Replicas"),
        print::AGE,
    ];

    fn default(object: &mut HorizontalPodAutoscaler) {
        let spec = &mut object.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![default_metric()]);
        }
        for target in spec.metrics.iter_mut().flatten().filter_map(target_mut) {
            target.average_value.iter_mut().chain(&mut target.value).for_each(Quantity::canonicalize);
        }
        if let Some(behavior) = &mut spec.behavior {
            scale_up(behavior.scale_up.get_or_insert_default());
            scale_down(behavior.scale_down.get_or_insert_default());
        }
    }

    fn prepare_for_create(object: &mut HorizontalPodAutoscaler) {
        object.status = Some(Default::default());
    }

    fn validate(object: &HorizontalPodAutoscaler) -> ErrorList {
        let mut errors = Vec::new();
        spec(&Path::new("spec"), &object.spec, &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &HorizontalPodAutoscaler, _old: &HorizontalPodAutoscaler) -> ErrorList {
        let mut errors = Vec::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status");
        not_negative(&path.child("currentReplicas"), status.current_replicas.map(i64::from), &mut errors);
        not_negative(&path.child("desiredReplicas"), Some(status.desired_replicas.into()), &mut errors);
        errors
    }

    fn cells(object: &HorizontalPodAutoscaler, context: &PrintContext) -> Vec<Value> {
        let spec = &object.spec;
        vec![
            print::name(&object.metadata),
            format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name).into(),
            targets::text(object).into(),
            spec.min_replicas.map_or_else(|| print::UNSET.to_owned(), |n| n.to_string()).into(),
            spec.max_replicas.into(),
            object.status.as_ref().and_then(|s| s.current_replicas).unwrap_or_default().into(),
            print::age(&object.metadata, context),
        ]
    }
}

/// CPU at 80% of what is requested.
fn default_metric() -> MetricSpec {
    let target = MetricTarget { type_: "Utilization".into(), average_utilization: Some(80), ..MetricTarget::default() };
    MetricSpec { type_: "Resource".into(), resource: Some(ResourceMetricSource { name: "cpu".into(), target }), ..MetricSpec::default() }
}

fn target_mut(metric: &mut MetricSpec) -> Option<&mut MetricTarget> {
    let resource = metric.resource.as_mut().map(|s| &mut s.target);
    let container = metric.container_resource.as_mut().map(|s| &mut s.target);
    let pods = metric.pods.as_mut().map(|s| &mut s.target);
    let object = metric.object.as_mut().map(|s| &mut s.target);
    let external = metric.external.as_mut().map(|s| &mut s.target);
    resource.or(container).or(pods).or(object).or(external)
}

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: kind.into(), value, period_seconds: 15 }
}

fn scale_up(rules: &mut HPAScalingRules) {
    rules.stabilization_window_seconds.get_or_insert(0);
    rules.select_policy.get_or_insert_with(|| "Max".into());
    rules.policies.get_or_insert_with(|| vec![policy("Pods", 4), policy("Percent", 100)]);
}

fn scale_down(rules: &mut HPAScalingRules) {
    rules.select_policy.get_or_insert_with(|| "Max".into());
    rules.policies.get_or_insert_with(|| vec![policy("Percent", 100)]);
}

fn spec(path: &Path, spec: &HorizontalPodAutoscalerSpec, errors: &mut ErrorList) {
    let minimum = spec.min_replicas;
    if let Some(minimum) = minimum.filter(|m| *m < 1) {
        errors.push(Error::invalid(&path.child("minReplicas"), minimum, "must be greater than or equal to 1"));
    }
    if spec.max_replicas < 1 {
        errors.push(Error::invalid(&path.child("maxReplicas"), spec.max_replicas, "must be greater than 0"));
    }
    if minimum.is_some_and(|m| spec.max_replicas < m) {
        errors.push(Error::invalid(&path.child("maxReplicas"), spec.max_replicas, "must be greater than or equal to `minReplicas`"));
    }
    reference(&path.child("scaleTargetRef"), &spec.scale_target_ref, errors);
    for (index, item) in spec.metrics.iter().flatten().enumerate() {
        metric(&path.child("metrics").index(index), item, errors);
    }
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        behavior.scale_up.iter().for_each(|rules| scaling(&path.child("scaleUp"), rules, errors));
        behavior.scale_down.iter().for_each(|rules| scaling(&path.child("scaleDown"), rules, errors));
    }
}

fn reference(path: &Path, reference: &CrossVersionObjectReference, errors: &mut ErrorList) {
    for (field, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        if value.is_empty() {
            errors.push(Error::required(&path.child(field), ""));
        } else {
            check(&path.child(field), value, path_segment(value), errors);
        }
    }
}

fn metric(path: &Path, metric: &MetricSpec, errors: &mut ErrorList) {
    let types = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    if metric.type_.is_empty() {
        errors.push(Error::required(&path.child("type"), "must specify a metric source type"));
    }
    one_of(&path.child("type"), Some(&metric.type_), &types, errors);
    let sources = [
        ("ContainerResource", "containerResource", metric.container_resource.as_ref().map(|s| &s.target)),
        ("External", "external", metric.external.as_ref().map(|s| &s.target)),
        ("Object", "object", metric.object.as_ref().map(|s| &s.target)),
        ("Pods", "pods", metric.pods.as_ref().map(|s| &s.target)),
        ("Resource", "resource", metric.resource.as_ref().map(|s| &s.target)),
    ];
    for (kind, field, source) in sources {
        let path = path.child(field);
        match source {
            Some(source) if kind == metric.type_ => target(&path.child("target"), kind, source, errors),
            Some(_) => errors.push(Error::forbidden(&path, "must populate the given metric source only")),
            None if kind == metric.type_ => errors.push(Error::required(&path, "must populate information for the given metric source")),
            None => {}
        }
    }
}

fn target(path: &Path, kind: &str, target: &MetricTarget, errors: &mut ErrorList) {
    if target.type_.is_empty() {
        errors.push(Error::required(&path.child("type"), "must specify a metric target type"));
    }
    one_of(&path.child("type"), Some(&target.type_), &["AverageValue", "Utilization", "Value"], errors);
    for (field, wire) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(wire) = wire.as_ref().filter(|w| Quantity::of(w).signum() != 1) {
            errors.push(Error::invalid(&path.child(field), &wire.0, "must be positive"));
        }
    }
    if let Some(utilization) = target.average_utilization.filter(|u| *u < 1) {
        errors.push(Error::invalid(&path.child("averageUtilization"), utilization, "must be greater than 0"));
    }
    let set = (target.average_utilization.is_some(), target.average_value.is_some(), target.value.is_some());
    match (kind, set) {
        ("Resource" | "ContainerResource", (false, false, _)) => {
            let detail = "must set either a target raw value or a target utilization";
            errors.push(Error::required(&path.child("averageUtilization"), detail));
        }
        ("Resource" | "ContainerResource", (true, true, _)) => {
            errors.push(Error::forbidden(&path.child("averageValue"), "may not set both a target raw value and a target utilization"));
        }
        ("Pods", (_, false, _)) => errors.push(Error::required(&path.child("averageValue"), "must specify a positive target averageValue")),
        ("Object" | "External", (_, false, false)) => {
            let detail = "must set either a target value or averageValue";
            errors.push(Error::required(&path.child("averageValue"), detail));
        }
        _ => {}
    }
}

fn scaling(path: &Path, rules: &HPAScalingRules, errors: &mut ErrorList) {
    let window = path.child("stabilizationWindowSeconds");
    not_negative(&window, rules.stabilization_window_seconds.map(i64::from), errors);
    if let Some(seconds) = rules.stabilization_window_seconds.filter(|s| *s > 3600) {
        errors.push(Error::invalid(&window, seconds, "must be less than or equal to 3600"));
    }
    one_of(&path.child("selectPolicy"), rules.select_policy.as_deref(), &["Disabled", "Max", "Min"], errors);
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        errors.push(Error::required(&path.child("policies"), "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.child("policies").index(index);
        one_of(&path.child("type"), Some(&policy.type_), &["Percent", "Pods"], errors);
        if policy.value <= 0 {
            errors.push(Error::invalid(&path.child("value"), policy.value, "must be greater than zero"));
        }
        if policy.period_seconds <= 0 {
            errors.push(Error::invalid(&path.child("periodSeconds"), policy.period_seconds, "must be greater than zero"));
        } else if policy.period_seconds > 1800 {
            errors.push(Error::invalid(&path.child("periodSeconds"), policy.period_seconds, "must be less than or equal to 1800"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn autoscaler(patch: Value) -> Value {
        with(json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}), patch)
    }

    #[test]
    fn cpu_at_80_percent_is_the_default_metric() {
        let spec = defaulted::<HorizontalPodAutoscalers>(autoscaler(json!({"spec": {"behavior": {}}})))["spec"].clone();
        assert_eq!(spec["minReplicas"], 1);
        assert_eq!(
            spec["metrics"],
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}])
        );
        assert_eq!(spec["behavior"]["scaleUp"]["policies"].as_array().unwrap().len(), 2);
        assert_eq!(spec["behavior"]["scaleDown"].get("stabilizationWindowSeconds"), None);
    }

    #[test]
    fn bounds_and_metrics_are_checked() {
        let errors = |patch: Value| errors::<HorizontalPodAutoscalers>(autoscaler(json!({"spec": patch})));
        assert!(errors(json!({})).is_empty());
        assert_eq!(
            errors(json!({"maxReplicas": 1, "minReplicas": 2})),
            ["spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"]
        );
        assert_eq!(errors(json!({"scaleTargetRef": {"name": ""}})), ["spec.scaleTargetRef.name: Required value"]);
        assert_eq!(
            errors(json!({"metrics": [{"type": "Pods"}]})),
            ["spec.metrics[0].pods: Required value: must populate information for the given metric source"]
        );
    }

    #[test]
    fn rows_show_targets() {
        let row = |patch: Value| cells::<HorizontalPodAutoscalers>(autoscaler(patch));
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
        let status = json!({"currentReplicas": 2, "desiredReplicas": 2, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10}}}
        ]});
        let shown = row(json!({"spec": {"metrics": [cpu, pods, pods], "minReplicas": 1}, "status": status}));
        assert_eq!(shown[1..6], [json!("Deployment/d"), json!("cpu: 10%/80%, <unknown>/10 + 1 more..."), json!("1"), json!(5), json!(2)]);
        assert_eq!(row(json!({}))[2..4], [json!("<none>"), json!("<unset>")]);
    }
}

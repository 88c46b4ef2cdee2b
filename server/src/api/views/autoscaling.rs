//! `autoscaling/v1` HorizontalPodAutoscalers, as the stored `autoscaling/v2` ones are shown in it: what v1 has no field for is kept in
//! annotations (`pkg/apis/autoscaling/v1/conversion.go`).
//!
//! Owns the translation in both directions. Pure: values in, values out.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Whether a metric is of the spec or of the status: its members are called alike but for this word.
#[derive(Clone, Copy)]
enum Side {
    Target,
    Current,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Side::Target => "target",
            Side::Current => "current",
        }
    }
    /// `targetAverageValue`
    fn named(self, rest: &str) -> String {
        format!("{}{rest}", self.word())
    }
}

/// The member of a metric that its type names: `containerResource` for `ContainerResource`.
fn source_of(kind: &str) -> String {
    let mut chars = kind.chars();
    chars.next().map(|c| c.to_ascii_lowercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn is_cpu_utilization(metric: &Value, side: Side) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu" && !metric["resource"][side.word()]["averageUtilization"].is_null()
}

/// Sets a member unless there is nothing to set.
fn set(map: &mut Map<String, Value>, name: &str, value: &Value) {
    if !value.is_null() {
        map.insert(name.to_owned(), value.clone());
    }
}

/// A v2 metric as v1 writes it.
fn flattened(metric: &Value, side: Side) -> Value {
    let kind = metric["type"].as_str().unwrap_or_default();
    let source = source_of(kind);
    let (from, mut to) = (&metric[&source], Map::new());
    let values = &from[side.word()];
    match kind {
        "Resource" | "ContainerResource" => {
            set(&mut to, "name", &from["name"]);
            set(&mut to, &side.named("AverageUtilization"), &values["averageUtilization"]);
            set(&mut to, &side.named("AverageValue"), &values["averageValue"]);
            set(&mut to, "container", &from["container"]);
        }
        "Pods" => {
            set(&mut to, "metricName", &from["metric"]["name"]);
            set(&mut to, &side.named("AverageValue"), &values["averageValue"]);
            set(&mut to, "selector", &from["metric"]["selector"]);
        }
        "Object" => {
            set(&mut to, "target", &from["describedObject"]);
            set(&mut to, "metricName", &from["metric"]["name"]);
            let value = if values["value"].is_null() { &json!("0") } else { &values["value"] };
            set(&mut to, &side.named("Value"), value);
            set(&mut to, "selector", &from["metric"]["selector"]);
            set(&mut to, "averageValue", &values["averageValue"]);
        }
        _ => {
            set(&mut to, "metricName", &from["metric"]["name"]);
            set(&mut to, "metricSelector", &from["metric"]["selector"]);
            set(&mut to, &side.named("Value"), &values["value"]);
            set(&mut to, &side.named("AverageValue"), &values["averageValue"]);
        }
    }
    json!({"type": kind, source: to})
}

/// The v2 metric that v1 wrote.
fn nested(metric: &Value, side: Side) -> Value {
    let kind = metric["type"].as_str().unwrap_or_default();
    let source = source_of(kind);
    let (from, mut to, mut values) = (&metric[&source], Map::new(), Map::new());
    match kind {
        "Resource" | "ContainerResource" => {
            set(&mut to, "name", &from["name"]);
            set(&mut to, "container", &from["container"]);
            set(&mut values, "averageUtilization", &from[side.named("AverageUtilization")]);
            set(&mut values, "averageValue", &from[side.named("AverageValue")]);
        }
        "Object" => {
            set(&mut to, "describedObject", &from["target"]);
            set(&mut values, "averageValue", &from["averageValue"]);
            // v1 cannot leave the value out; with an average it is none.
            if values.is_empty() || matches!(side, Side::Current) {
                set(&mut values, "value", &from[side.named("Value")]);
            }
        }
        _ => {
            set(&mut values, "value", &from[side.named("Value")]);
            set(&mut values, "averageValue", &from[side.named("AverageValue")]);
        }
    }
    if !matches!(kind, "Resource" | "ContainerResource") {
        let mut identifier = Map::new();
        set(&mut identifier, "name", &from["metricName"]);
        set(&mut identifier, "selector", if kind == "External" { &from["metricSelector"] } else { &from["selector"] });
        to.insert("metric".into(), identifier.into());
    }
    if matches!(side, Side::Target) {
        let of = if values.contains_key("averageUtilization") {
            "Utilization"
        } else if values.contains_key("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        values.insert("type".into(), of.into());
    }
    to.insert(side.word().to_owned(), values.into());
    json!({"type": kind, source: to})
}

/// Behaviour as Go writes a type without JSON names.
fn capitalized(behavior: &Value) -> Value {
    let rules = |rules: &Value| match rules.as_object() {
        None => Value::Null,
        Some(_) => {
            let policies = rules["policies"].as_array().map(|policies| {
                let one = |p: &Value| json!({"Type": p["type"], "Value": p["value"], "PeriodSeconds": p["periodSeconds"]});
                policies.iter().map(one).collect::<Vec<_>>()
            });
            json!({
                "StabilizationWindowSeconds": rules["stabilizationWindowSeconds"],
                "SelectPolicy": rules["selectPolicy"],
                "Policies": policies,
                "Tolerance": rules["tolerance"],
            })
        }
    };
    json!({"ScaleUp": rules(&behavior["scaleUp"]), "ScaleDown": rules(&behavior["scaleDown"])})
}

/// The same the other way round; Go reads names in any case.
fn uncapitalized(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(name, value)| (source_of(&name), uncapitalized(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(uncapitalized).collect(),
        other => other,
    }
}

fn annotations(map: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    map.get_mut("metadata")?.as_object_mut()?.get_mut("annotations")?.as_object_mut()
}

/// Takes an annotation's JSON; what cannot be read is as good as none, as upstream has it.
fn take(map: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let text = annotations(map)?.remove(name)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn metrics(list: Option<Value>, side: Side) -> Vec<Value> {
    list.as_ref().and_then(Value::as_array).into_iter().flatten().map(|metric| nested(metric, side)).collect()
}

/// A v1 object as it is stored.
pub(super) fn store(map: &mut Map<String, Value>) {
    let (specs, current) = (take(map, METRICS), take(map, CURRENT_METRICS));
    let (conditions, behavior) = (take(map, CONDITIONS), take(map, BEHAVIOR));
    if annotations(map).is_some_and(|a| a.is_empty())
        && let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.remove("annotations");
    }
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all = metrics(specs, Side::Target);
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !all.is_empty() {
            spec.insert("metrics".into(), all.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), uncapitalized(behavior));
        }
    }
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) {
        let mut all = metrics(current, Side::Current);
        if let Some(percent) = status.remove("currentCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            // The annotation has the metric with its value, too.
            if !all.iter().any(|metric| is_cpu_utilization(metric, Side::Current)) {
                all.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}));
            }
        }
        if !all.is_empty() {
            status.insert("currentMetrics".into(), all.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
    }
}

/// A stored object as v1 shows it.
pub(super) fn serve(map: &mut Map<String, Value>) {
    let mut kept: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
        let (cpu, others): (Vec<Value>, Vec<Value>) = match spec.remove("metrics") {
            Some(Value::Array(metrics)) => metrics.into_iter().partition(|metric| is_cpu_utilization(metric, Side::Target)),
            _ => Default::default(),
        };
        if let Some(metric) = cpu.first() {
            spec.insert("targetCPUUtilizationPercentage".into(), metric["resource"]["target"]["averageUtilization"].clone());
        }
        if !others.is_empty() {
            kept.push((METRICS, others.iter().map(|metric| flattened(metric, Side::Target)).collect()));
        }
        if let Some(behavior) = spec.remove("behavior").filter(|b| !b.is_null()) {
            kept.push((BEHAVIOR, capitalized(&behavior)));
        }
    }
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(Value::Array(metrics)) = status.remove("currentMetrics")
            && !metrics.is_empty()
        {
            if let Some(metric) = metrics.iter().find(|metric| is_cpu_utilization(metric, Side::Current)) {
                status.insert("currentCPUUtilizationPercentage".into(), metric["resource"]["current"]["averageUtilization"].clone());
            }
            kept.push((CURRENT_METRICS, metrics.iter().map(|metric| flattened(metric, Side::Current)).collect()));
        }
        if let Some(conditions) = status.remove("conditions").filter(|c| c.as_array().is_some_and(|c| !c.is_empty())) {
            kept.push((CONDITIONS, conditions));
        }
        // Numbers that v1 always says.
        for name in ["currentReplicas", "desiredReplicas"] {
            status.entry(name).or_insert(0.into());
        }
    }
    if kept.is_empty() {
        return;
    }
    if let Some(metadata) = map.entry("metadata").or_insert_with(|| json!({})).as_object_mut()
        && let Some(annotations) = metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
    {
        annotations.extend(kept.into_iter().map(|(name, value)| (name.to_owned(), value.to_string().into())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn autoscaler() -> Value {
        json!({
            "metadata": {"name": "web", "annotations": {"a": "b"}},
            "spec": {
                "maxReplicas": 5,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "rps"}, "target": {"type": "Value", "value": "2k"}}},
                    {"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "x"}}}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}},
            },
            "status": {
                "currentReplicas": 1, "desiredReplicas": 2,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 70, "averageValue": "70m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        })
    }

    #[test]
    fn what_v1_has_no_field_for_is_in_annotations_and_comes_back() {
        let mut map = object(autoscaler());
        serve(&mut map);
        assert_eq!(map["spec"], json!({"maxReplicas": 5, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(map["status"], json!({"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 70}));
        let annotations = &map["metadata"]["annotations"];
        let metrics: Value = serde_json::from_str(annotations[METRICS].as_str().unwrap()).unwrap();
        assert_eq!(metrics[0], json!({"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "10"}}));
        assert_eq!(
            metrics[1],
            json!({"type": "Object", "object": {"target": {"kind": "Ingress", "name": "i"}, "metricName": "rps", "targetValue": "2k"}})
        );
        let behavior: Value = serde_json::from_str(annotations[BEHAVIOR].as_str().unwrap()).unwrap();
        assert_eq!(behavior["ScaleUp"]["Policies"], json!([{"Type": "Pods", "Value": 4, "PeriodSeconds": 15}]));
        assert_eq!((&annotations["a"], &behavior["ScaleDown"]), (&json!("b"), &Value::Null));
        store(&mut map);
        assert_eq!(Value::from(map), autoscaler());
    }

    #[test]
    fn a_plain_v1_object_needs_no_annotations() {
        let mut map = object(json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 2, "targetCPUUtilizationPercentage": 80}}));
        store(&mut map);
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        assert_eq!(map["spec"], json!({"maxReplicas": 2, "metrics": [metric]}));
        serve(&mut map);
        assert_eq!(Value::from(map), json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 2, "targetCPUUtilizationPercentage": 80}}));
    }
}

//! Where pod templates, containers and selectors live in the kinds that have them. Pure.
//!
//! Commands such as `set image` work on any kind that runs pods, so they reach into the object by path rather than by type.

use serde_json::{Map, Value, json};

/// The JSON pointer to the pod spec of a kind; none where the kind runs no pods.
pub fn spec_pointer(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pod" => "/spec",
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "ReplicationController" | "Job" => "/spec/template/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        "PodTemplate" => "/template/spec",
        _ => return None,
    })
}

/// The pod spec of an object.
pub fn spec_of(object: &Value) -> Option<&Value> {
    object.pointer(spec_pointer(object["kind"].as_str()?)?)
}

/// The pod spec of an object, to change.
pub fn spec_of_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let pointer = spec_pointer(object["kind"].as_str()?)?;
    object.pointer_mut(pointer)?.as_object_mut()
}

/// Runs over the containers of a pod spec, init containers after the others.
pub fn containers_mut(spec: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut all = Vec::new();
    let mut init = Vec::new();
    for (field, value) in spec.iter_mut() {
        match field.as_str() {
            "containers" => all.extend(value.as_array_mut().into_iter().flatten()),
            "initContainers" => init.extend(value.as_array_mut().into_iter().flatten()),
            _ => {}
        }
    }
    all.extend(init);
    all
}

/// The names of a pod spec's containers of one sort.
pub fn names(spec: &Value, field: &str) -> Vec<String> {
    spec[field].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str().map(ToOwned::to_owned)).collect()
}

/// The names of a pod spec's containers: regular, init, ephemeral.
pub fn container_names(spec: &Value) -> Vec<String> {
    ["containers", "initContainers", "ephemeralContainers"].iter().flat_map(|field| names(spec, field)).collect()
}

/// The container of that name, whatever its sort.
pub fn container<'a>(spec: &'a Value, name: &str) -> Option<&'a Value> {
    let all = ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(|field| spec[field].as_array().into_iter().flatten());
    all.into_iter().find(|c| c["name"] == name)
}

/// The label selector by which an object finds its pods, as `-l` would say it.
pub fn pod_selector(object: &Value) -> Option<String> {
    let selector = match object["kind"].as_str()? {
        "Service" | "ReplicationController" => return equality(object["spec"]["selector"].as_object()?),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" | "PodDisruptionBudget" => &object["spec"]["selector"],
        _ => return None,
    };
    let mut parts = Vec::new();
    if let Some(labels) = selector["matchLabels"].as_object() {
        parts.extend(equality(labels));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

fn equality(labels: &Map<String, Value>) -> Option<String> {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}

/// Fills in what Go's types print even when empty, for objects that went through them (`set … --local -o yaml`).
pub fn as_go_prints(object: &mut Value) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let Some(root) = object.as_object_mut() else { return };
    match kind.as_str() {
        "Pod" | "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "ReplicationController" | "Job" | "CronJob" => {
            let empty = match kind.as_str() {
                "DaemonSet" => json!({ "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0 }),
                "StatefulSet" => json!({ "availableReplicas": 0, "replicas": 0 }),
                "ReplicaSet" | "ReplicationController" => json!({ "replicas": 0 }),
                _ => json!({}),
            };
            root.entry("status").or_insert(empty);
        }
        _ => return,
    }
    if let Some(spec) = root.get_mut("spec").and_then(Value::as_object_mut) {
        match kind.as_str() {
            "Deployment" => {
                spec.entry("strategy").or_insert(json!({}));
                spec.entry("selector").or_insert(Value::Null);
            }
            "DaemonSet" | "StatefulSet" => {
                spec.entry("updateStrategy").or_insert(json!({}));
                spec.entry("selector").or_insert(Value::Null);
            }
            "ReplicaSet" => {
                spec.entry("selector").or_insert(Value::Null);
            }
            _ => {}
        }
        if let Some(template) = spec.get_mut("template").and_then(Value::as_object_mut) {
            template.entry("metadata").or_insert(json!({}));
        }
    }
    if let Some(spec) = spec_of_mut(object) {
        for container in containers_mut(spec) {
            if let Some(container) = container.as_object_mut() {
                container.entry("resources").or_insert(json!({}));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_all_shapes_become_text() {
        for (object, wanted) in [
            (json!({"kind": "Service", "spec": {"selector": {"a": "b", "c": "d"}}}), Some("a=b,c=d")),
            (
                json!({"kind": "Deployment", "spec": {"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}, {"key": "z", "operator": "DoesNotExist"}]}}}),
                Some("a=b,k in (x,y),!z"),
            ),
            (json!({"kind": "Service", "spec": {}}), None),
            (json!({"kind": "Node"}), None),
        ] {
            assert_eq!(pod_selector(&object).as_deref(), wanted);
        }
    }
}

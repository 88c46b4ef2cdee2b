//! What `apply` needs besides HTTP: the last-applied annotation and patches between versions of an object. Pure.
//!
//! Upstream: `k8s.io/kubectl/pkg/util/apply.go`, `k8s.io/apimachinery/pkg/util/strategicpatch`, `pkg/util/jsonmergepatch`.

pub mod local;
pub mod merge_keys;
mod strategic;

pub use merge_keys::{Rule, rule};

use serde_json::{Map, Value};

use crate::client::Body;
use crate::discovery::Kind;

/// Where the configuration last applied is kept.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Groups whose kinds the server merges strategically; others get JSON merge patches.
const STRATEGIC_GROUPS: &[&str] = &[
    "",
    "apps",
    "batch",
    "autoscaling",
    "policy",
    "extensions",
    "admissionregistration.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Whether the server knows how to merge this kind's lists.
pub fn is_strategic(kind: &Kind) -> bool {
    STRATEGIC_GROUPS.contains(&kind.group.as_str())
}

/// The object as the annotation records it: without the annotation itself, on one line.
pub fn configuration(object: &Value) -> String {
    let mut plain = object.clone();
    if let Some(metadata) = plain.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.remove(LAST_APPLIED);
        }
    }
    shared::gojson::compact(&plain) + "\n"
}

/// Records the object's configuration in its annotation.
pub fn save_config(object: &mut Value) {
    let text = configuration(object);
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = Value::Object(Map::new());
    }
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
}

/// The configuration recorded in an object.
pub fn last_applied(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][LAST_APPLIED].as_str()
}

/// The patch that turns one version of an object into another.
pub fn two_way(before: &Value, after: &Value, kind: &Kind) -> (Body, Value) {
    if is_strategic(kind) {
        (Body::StrategicPatch, strategic::two_way(before, after, &kind.kind))
    } else {
        (Body::MergePatch, merge_patch(before, after))
    }
}

/// The patch that applies what changed from `original` to `modified` onto `current`, leaving what others set.
pub fn three_way(original: &Value, modified: &Value, current: &Value, kind: &Kind) -> (Body, Value) {
    if is_strategic(kind) {
        return (Body::StrategicPatch, strategic::three_way(original, modified, current, &kind.kind));
    }
    let mut patch = keep_nulls(&merge_patch(current, modified), false);
    let deletions = keep_nulls(&merge_patch(original, modified), true);
    overlay(&mut patch, deletions);
    (Body::MergePatch, patch)
}

/// RFC 7386: the merge patch between two values.
pub fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let mut patch = Map::new();
    for (key, value) in after {
        match before.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(old) if old == value => {}
            Some(old) => {
                patch.insert(key.clone(), if old.is_object() && value.is_object() { merge_patch(old, value) } else { value.clone() });
            }
        }
    }
    for key in before.keys().filter(|k| !after.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Only the deletions of a merge patch, or everything but them.
fn keep_nulls(patch: &Value, nulls: bool) -> Value {
    let Value::Object(map) = patch else { return patch.clone() };
    let mut kept = Map::new();
    for (key, value) in map {
        match value {
            Value::Null if nulls => {
                kept.insert(key.clone(), Value::Null);
            }
            Value::Null => {}
            Value::Object(_) => {
                let inner = keep_nulls(value, nulls);
                if inner.as_object().is_some_and(|m| !m.is_empty()) || (!nulls && value.as_object().is_some_and(Map::is_empty)) {
                    kept.insert(key.clone(), inner);
                }
            }
            other if !nulls => {
                kept.insert(key.clone(), other.clone());
            }
            _ => {}
        }
    }
    Value::Object(kept)
}

/// Lays one patch over another without interpreting nulls.
fn overlay(patch: &mut Value, more: Value) {
    match (patch, more) {
        (Value::Object(patch), Value::Object(more)) => {
            for (key, value) in more {
                match patch.get_mut(&key) {
                    Some(existing) => overlay(existing, value),
                    None => {
                        patch.insert(key, value);
                    }
                }
            }
        }
        (slot, value) => *slot = value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_annotation_never_holds_itself() {
        let mut object = json!({"kind": "X", "metadata": {"name": "x"}});
        save_config(&mut object);
        assert_eq!(last_applied(&object), Some("{\"kind\":\"X\",\"metadata\":{\"annotations\":{},\"name\":\"x\"}}\n"));
        let once = object.clone();
        save_config(&mut object);
        assert_eq!(object, once);
    }

    #[test]
    fn merge_patches_leave_what_others_set() {
        let kind = Kind::built_in("example.com", "v1", "Foo", "foos", true);
        let original = json!({"spec": {"a": 1, "b": 2}});
        let modified = json!({"spec": {"a": 1, "c": 3}});
        let current = json!({"spec": {"a": 1, "b": 2, "other": 4}});
        let (body, patch) = three_way(&original, &modified, &current, &kind);
        assert_eq!((body, patch), (Body::MergePatch, json!({"spec": {"b": null, "c": 3}})));
    }
}

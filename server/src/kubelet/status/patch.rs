//! What is sent to the API for a new status: a strategic merge patch of the fields the kubelet owns, and nothing else.
//!
//! Pure. Conditions merge by type, so those of other writers are left alone.

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde_json::{Value, json};

use super::conditions::OWNED;

/// The patch from the last status on record to the wanted one; `None` if nothing that the kubelet owns differs.
pub fn patch(uid: &str, before: &PodStatus, wanted: &PodStatus) -> Option<Value> {
    let (old, new) = (owned(before), owned(wanted));
    let (Value::Object(old), Value::Object(new)) = (&old, &new) else { return None };
    let mut changes = serde_json::Map::new();
    for (field, value) in new.iter().filter(|(field, value)| old.get(*field) != Some(value)) {
        let value = if field == "conditions" { conditions(old.get(field), value) } else { value.clone() };
        changes.insert(field.clone(), value);
    }
    for field in old.keys().filter(|f| !new.contains_key(*f)) {
        changes.insert(field.clone(), Value::Null);
    }
    for list in ["podIPs", "hostIPs"] {
        // These merge by ip; a changed address has to replace the old one.
        if let (Some(Value::Array(items)), Some(_)) = (changes.get_mut(list), old.get(list)) {
            items.push(json!({ "$patch": "replace" }));
        }
    }
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": changes }))
}

/// The conditions that differ. Merging keeps what a patch does not name, so a reason or message that is gone is removed by name.
fn conditions(old: Option<&Value>, new: &Value) -> Value {
    let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut changed = Vec::new();
    for condition in new.as_array().into_iter().flatten() {
        let before = old.iter().find(|c| c["type"] == condition["type"]);
        if before == Some(condition) {
            continue;
        }
        let mut condition = condition.clone();
        if let (Some(fields), Some(before)) = (condition.as_object_mut(), before.and_then(Value::as_object)) {
            for gone in before.keys().filter(|k| !fields.contains_key(*k)).cloned().collect::<Vec<_>>() {
                fields.insert(gone, Value::Null);
            }
        }
        changed.push(condition);
    }
    for gone in old.iter().filter(|c| !new.as_array().into_iter().flatten().any(|n| n["type"] == c["type"])) {
        changed.push(json!({ "$patch": "delete", "type": gone["type"] }));
    }
    Value::Array(changed)
}

/// The fields that the kubelet writes.
fn owned(status: &PodStatus) -> Value {
    let mine: Vec<PodCondition> = status.conditions.iter().flatten().filter(|c| OWNED.contains(&c.type_.as_str())).cloned().collect();
    let mut sorted = mine;
    sorted.sort_by(|a, b| a.type_.cmp(&b.type_));
    let mut kept = PodStatus {
        conditions: (!sorted.is_empty()).then_some(sorted),
        phase: status.phase.clone(),
        reason: status.reason.clone(),
        message: status.message.clone(),
        host_ip: status.host_ip.clone(),
        host_ips: status.host_ips.clone(),
        pod_ip: status.pod_ip.clone(),
        pod_ips: status.pod_ips.clone(),
        start_time: status.start_time.clone(),
        qos_class: status.qos_class.clone(),
        observed_generation: status.observed_generation,
        container_statuses: status.container_statuses.clone(),
        init_container_statuses: status.init_container_statuses.clone(),
        ephemeral_container_statuses: status.ephemeral_container_statuses.clone(),
        ..PodStatus::default()
    };
    // The API server may drop an empty last state on the way; absent and empty are the same.
    for list in [&mut kept.container_statuses, &mut kept.init_container_statuses, &mut kept.ephemeral_container_statuses] {
        for container in list.iter_mut().flatten() {
            container.last_state = container.last_state.take().filter(|s| s.terminated.is_some() || s.waiting.is_some() || s.running.is_some());
        }
    }
    serde_json::to_value(kept).unwrap_or_default()
}

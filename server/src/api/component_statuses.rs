//! `componentstatuses`: whether the scheduler, the controllers and etcd work; read only and deprecated
//! (`pkg/registry/core/componentstatus/rest.go`).
//!
//! Owns no probes: the parts with a leader say by their lease that they work, etcd answers.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use shared::status::{ApiError, GroupResource};

use super::chain::Call;
use super::computed::{self, Computed};
use super::health;
use super::negotiate::Accepted;
use crate::registry::RESOURCES;
use crate::registry::store::from_json;

const STATUSES: Computed = Computed {
    kind: "ComponentStatus",
    api_version: "v1",
    columns: &[
        ("Status", "Status of the component conditions"),
        ("Message", "Message of the component conditions"),
        ("Error", "Error of the component conditions"),
    ],
    cells: |status| {
        let condition = &status["conditions"][0];
        let word = if condition["status"] == "True" { "Healthy" } else { "Unhealthy" };
        vec![word.into(), condition["message"].clone(), condition.get("error").cloned().unwrap_or_else(|| "".into())]
    },
};

/// Components with a lease in `kube-system`, by the names that upstream gives them here.
const LED: [(&str, &str); 2] = [("controller-manager", "kube-controller-manager"), ("scheduler", "kube-scheduler")];

/// Answers a get or a list, in the shape that the client accepts.
///
/// # Errors
/// 404 for a name that is none, 400 for a selector that cannot be read.
pub async fn answer(call: &Call<'_>) -> Result<Vec<u8>, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let mut found = Vec::new();
    for (name, lease) in LED {
        found.push(status(name, led(call, lease)));
    }
    found.push(status("etcd-0", health::etcd(call.server).await));
    let info = call.info;
    if info.verb == "get" {
        let one = found.into_iter().find(|s| s["metadata"]["name"] == *info.name);
        let one = one.ok_or_else(|| ApiError::not_found(GroupResource { group: "", resource: "componentstatuses" }, &info.name))?;
        return Ok(STATUSES.one(accepted.shape, one));
    }
    let (labels, fields) = computed::selectors(info)?;
    found.retain(|status| {
        let name = status["metadata"]["name"].as_str();
        labels.matches(&BTreeMap::new()) && fields.matches(|path| name.filter(|_| path == "metadata.name"))
    });
    Ok(STATUSES.list(accepted.shape, found))
}

/// Whether a component holds its lease.
fn led(call: &Call<'_>, lease: &str) -> Result<(), String> {
    let dead = || format!("lease kube-system/{lease} is not held");
    let row = RESOURCES.of::<Lease>().ok_or_else(dead)?;
    let entries = call.server.store.cache().list(row, "kube-system").map_err(|e| e.to_string())?;
    let entry = entries.iter().find(|e| *e.name == *lease).ok_or_else(dead)?;
    let lease: Lease = from_json(&entry.bytes, None).map_err(|e| e.to_string())?;
    let spec = lease.spec.unwrap_or_default();
    let lasts = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    let held = spec.holder_identity.is_some_and(|h| !h.is_empty());
    let fresh = spec.renew_time.is_some_and(|t| Timestamp::now().as_second() - t.0.as_second() <= lasts);
    if held && fresh { Ok(()) } else { Err(dead()) }
}

fn status(name: &str, healthy: Result<(), String>) -> Value {
    let condition = match healthy {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(error) => json!({"type": "Healthy", "status": "False", "message": error}),
    };
    json!({"metadata": {"name": name}, "conditions": [condition]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::negotiate::{Include, Shape};

    #[test]
    fn a_component_is_healthy_or_says_why_not() {
        let statuses = vec![status("scheduler", Ok(())), status("etcd-0", Err("no answer".into()))];
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let list = read(STATUSES.list(Shape::Object, statuses.clone()));
        assert_eq!((&list["kind"], &list["items"][0]["conditions"][0]["message"]), (&json!("ComponentStatusList"), &json!("ok")));
        let table = read(STATUSES.list(Shape::Table(Include::Metadata), statuses));
        assert_eq!(table["rows"][0]["cells"], json!(["scheduler", "Healthy", "ok", ""]));
        assert_eq!(table["rows"][1]["cells"], json!(["etcd-0", "Unhealthy", "no answer", ""]));
        assert_eq!(table["rows"][1]["object"]["metadata"]["name"], "etcd-0");
    }
}

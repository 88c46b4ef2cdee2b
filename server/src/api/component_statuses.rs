//! `componentstatuses`: whether the scheduler, the controllers and etcd work; read only and deprecated
//! (`pkg/registry/core/componentstatus/rest.go`).
//!
//! Owns no probes: the parts with a leader say by their lease that they work, etcd answers.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use shared::selector::{FieldSelector, Selector};
use shared::status::{ApiError, GroupResource};

use super::chain::Call;
use super::negotiate::{Accepted, Include, Shape};
use super::{health, openapi};
use crate::registry::RESOURCES;
use crate::registry::store::from_json;

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
        return Ok(shaped(accepted.shape, vec![one], false).to_string().into_bytes());
    }
    let labels = Selector::parse(info.param("labelSelector").unwrap_or_default());
    let labels = labels.map_err(|e| ApiError::bad_request(format!("unable to parse requirement: {e}")))?;
    let fields = FieldSelector::parse(info.param("fieldSelector").unwrap_or_default()).map_err(|e| ApiError::bad_request(e.to_string()))?;
    found.retain(|status| {
        let named = |(path, value, equals): &(String, String, bool)| path != "metadata.name" || (status["metadata"]["name"] == **value) == *equals;
        labels.matches(&BTreeMap::new()) && fields.terms.iter().all(named)
    });
    Ok(shaped(accepted.shape, found, true).to_string().into_bytes())
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
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
}

fn shaped(shape: Shape, mut statuses: Vec<Value>, list: bool) -> Value {
    let partial = |status: &Value| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": status["metadata"]});
    match shape {
        Shape::Object if list => {
            for status in &mut statuses {
                if let Some(map) = status.as_object_mut() {
                    map.retain(|name, _| name != "kind" && name != "apiVersion");
                }
            }
            json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": statuses})
        }
        Shape::Metadata if list => {
            let items: Vec<Value> = statuses.iter().map(partial).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items})
        }
        Shape::Metadata => statuses.first().map(partial).unwrap_or_default(),
        Shape::Object => statuses.pop().unwrap_or_default(),
        Shape::Table(include) => {
            let rows: Vec<Value> = statuses
                .iter()
                .map(|status| {
                    let condition = &status["conditions"][0];
                    let word = if condition["status"] == "True" { "Healthy" } else { "Unhealthy" };
                    let mut row =
                        json!({"cells": [status["metadata"]["name"], word, condition["message"], condition.get("error").unwrap_or(&json!(""))]});
                    match include {
                        Include::Nothing => {}
                        Include::Metadata => row["object"] = partial(status),
                        Include::Object => row["object"] = status.clone(),
                    }
                    row
                })
                .collect();
            let column = |name: &str, format: &str, description: &str| json!({"name": name, "type": "string", "format": format, "description": description, "priority": 0});
            json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
                "columnDefinitions": [
                    column("Name", "name", openapi::NAME),
                    column("Status", "", "Status of the component conditions"),
                    column("Message", "", "Message of the component conditions"),
                    column("Error", "", "Error of the component conditions"),
                ],
                "rows": rows,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_healthy_or_says_why_not() {
        let statuses = vec![status("scheduler", Ok(())), status("etcd-0", Err("no answer".into()))];
        let list = shaped(Shape::Object, statuses.clone(), true);
        assert_eq!((&list["kind"], &list["items"][0]["conditions"][0]["message"]), (&json!("ComponentStatusList"), &json!("ok")));
        let table = shaped(Shape::Table(Include::Metadata), statuses, true);
        assert_eq!(table["rows"][0]["cells"], json!(["scheduler", "Healthy", "ok", ""]));
        assert_eq!(table["rows"][1]["cells"], json!(["etcd-0", "Unhealthy", "no answer", ""]));
        assert_eq!(table["rows"][1]["object"]["metadata"]["name"], "etcd-0");
    }
}

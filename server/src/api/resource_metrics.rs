//! `metrics.k8s.io`: what nodes and pods use of CPU and memory just now, as `kubectl top` and autoscalers ask for it
//! (`sigs.k8s.io/metrics-server/pkg/api`, `k8s.io/metrics/pkg/apis/metrics/v1beta1`).
//!
//! Owns the questions to the kubelets; they are asked when somebody asks, so that nothing is measured for nobody. Nodes that do not answer
//! are left out, as they are by metrics-server. Answers are JSON or YAML: durations have no protobuf form here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use shared::status::{ApiError, GroupResource};

use super::chain::Call;
use super::computed::{self, Computed};
use super::negotiate::Accepted;
use super::subresources::{connect, forward};
use super::{Body, Response};
use crate::registry::store::from_json;
use crate::registry::{ApiObject, RESOURCES};

/// Group that the kinds are in.
pub const GROUP: &str = "metrics.k8s.io";
/// Version that they are served in.
pub const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";
/// A kubelet that has not answered by then is left out.
const PATIENCE: Duration = Duration::from_secs(3);
/// Kubelets asked at a time.
const AT_ONCE: usize = 16;
/// How long a kubelet needs between two readings to tell a rate.
const INTERVAL: Duration = Duration::from_millis(1100);

const NODES: Computed = Computed { kind: "NodeMetrics", api_version: API_VERSION, columns: COLUMNS, cells: |o| cells(&o["usage"], o) };
const PODS: Computed = Computed { kind: "PodMetrics", api_version: API_VERSION, columns: COLUMNS, cells: |o| cells(&total(o), o) };
const COLUMNS: &[(&str, &str)] = &[
    ("cpu", "CPU is the CPU usage."),
    ("memory", "Memory is the memory usage."),
    ("Window", "Window is the duration over which the usage was measured."),
];

fn cells(usage: &Value, object: &Value) -> Vec<Value> {
    vec![usage["cpu"].clone(), usage["memory"].clone(), object["window"].clone()]
}

/// The sum over a pod's containers.
fn total(pod: &Value) -> Value {
    let sum = |resource: &str, unit: &str| -> u64 {
        let parts = pod["containers"].as_array().into_iter().flatten();
        parts.filter_map(|c| c["usage"][resource].as_str()?.strip_suffix(unit)?.parse::<u64>().ok()).sum()
    };
    json!({"cpu": format!("{}n", sum("cpu", "n")), "memory": format!("{}Ki", sum("memory", "Ki"))})
}

/// Answers a get or a list of NodeMetrics.
///
/// # Errors
/// 404 for a node that is not there or has not been measured, 400 for a selector that cannot be read.
pub async fn nodes(call: &Call<'_>) -> Result<Vec<u8>, ApiError> {
    let (info, shape) = (call.info, Accepted::choose(&call.parts.headers, call.info)?.shape);
    let (labels, fields) = computed::selectors(info)?;
    let wanted = |node: &Node| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let selected =
            labels.matches(&node.metadata.labels.clone().unwrap_or_default()) && fields.matches(|p| (p == "metadata.name").then_some(name));
        if info.verb == "get" { name == info.name } else { selected }
    };
    let nodes: Vec<Node> = list::<Node>(call, "")?.into_iter().filter(wanted).collect();
    let summaries = summaries(call, nodes.iter().filter_map(|n| n.metadata.name.clone()).collect()).await;
    let mut found: Vec<Value> = nodes.iter().filter_map(|node| node_metrics(node, &summaries)).collect();
    if info.verb == "get" {
        let one = found.pop().ok_or_else(|| ApiError::not_found(GroupResource { group: GROUP, resource: "nodes" }, &info.name))?;
        return Ok(NODES.one(shape, one));
    }
    Ok(NODES.list(shape, found))
}

/// Answers a get or a list of PodMetrics.
///
/// # Errors
/// As [`nodes`].
pub async fn pods(call: &Call<'_>) -> Result<Vec<u8>, ApiError> {
    let (info, shape) = (call.info, Accepted::choose(&call.parts.headers, call.info)?.shape);
    let (labels, fields) = computed::selectors(info)?;
    let wanted = |pod: &Pod| {
        let meta = &pod.metadata;
        let (name, namespace) = (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
        let field = |path: &str| match path {
            "metadata.name" => Some(name),
            "metadata.namespace" => Some(namespace),
            _ => None,
        };
        let running = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        let selected = labels.matches(&meta.labels.clone().unwrap_or_default()) && fields.matches(field);
        running && if info.verb == "get" { name == info.name } else { selected }
    };
    let pods: Vec<Pod> = list::<Pod>(call, &info.namespace)?.into_iter().filter(wanted).collect();
    let summaries = summaries(call, pods.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect()).await;
    let mut found: Vec<Value> = pods.iter().filter_map(|pod| pod_metrics(pod, &summaries)).collect();
    if info.verb == "get" {
        let name = format!("{}/{}", info.namespace, info.name);
        let one = found.pop().ok_or_else(|| ApiError::not_found(GroupResource { group: GROUP, resource: "podmetrics" }, &name))?;
        return Ok(PODS.one(shape, one));
    }
    Ok(PODS.list(shape, found))
}

fn list<T: ApiObject>(call: &Call<'_>, namespace: &str) -> Result<Vec<T>, ApiError> {
    let row = RESOURCES.of::<T>().ok_or_else(ApiError::unknown_path)?;
    let entries = call.server.store.cache().list(row, namespace).map_err(ApiError::internal)?;
    entries.iter().map(|e| from_json(&e.bytes, None).map_err(ApiError::internal)).collect()
}

/// What the kubelets of these nodes say, by node. One that has only just begun to measure is asked again.
async fn summaries(call: &Call<'_>, names: BTreeSet<String>) -> BTreeMap<String, Value> {
    let ask = |names: Vec<String>| async move {
        let one = |name: String| async move { Some((name.clone(), summary(call, &name).await?)) };
        futures::stream::iter(names).map(one).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect::<BTreeMap<_, _>>().await
    };
    let mut all = ask(names.into_iter().collect()).await;
    let fresh: Vec<String> = all.iter().filter(|(_, summary)| begins(summary)).map(|(name, _)| name.clone()).collect();
    if !fresh.is_empty() {
        tokio::time::sleep(INTERVAL).await;
        all.extend(ask(fresh).await);
    }
    all
}

/// Whether some rate is still missing.
fn begins(summary: &Value) -> bool {
    let missing = |part: &Value| part["cpu"]["usageNanoCores"].is_null();
    let containers = summary["pods"].as_array().into_iter().flatten().flat_map(|p| p["containers"].as_array().into_iter().flatten());
    missing(&summary["node"]) || containers.into_iter().any(missing)
}

async fn summary(call: &Call<'_>, node: &str) -> Option<Value> {
    let ask = async {
        let target = connect::kubelet(call, node).await?;
        let mut parts = call.parts.clone();
        parts.method = http::Method::GET;
        parts.headers = http::HeaderMap::new();
        let plain = Call { server: call.server, info: call.info, user: call.user, parts: &parts };
        let response: Response = forward::forward(&plain, &target, "/stats/summary", Body::empty()).await?;
        let bytes = response.into_body().read().await?;
        serde_json::from_slice(&bytes).map_err(ApiError::internal)
    };
    match tokio::time::timeout(PATIENCE, ask).await {
        Ok(Ok(summary)) => Some(summary),
        Ok(Err(error)) => {
            tracing::debug!(node, %error, "a kubelet was asked for its use and did not say");
            None
        }
        Err(_) => None,
    }
}

fn usage(part: &Value) -> Option<Value> {
    let cpu = part["cpu"]["usageNanoCores"].as_u64()?;
    let memory = part["memory"]["workingSetBytes"].as_u64()? / 1024;
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{memory}Ki")}))
}

/// Metadata as metrics-server shows it: what the object is, and when it was measured.
fn metadata(meta: &ObjectMeta, time: &Value) -> Value {
    let mut shown = json!({"name": meta.name, "creationTimestamp": time});
    if let Some(namespace) = &meta.namespace {
        shown["namespace"] = namespace.as_str().into();
    }
    if let Some(labels) = &meta.labels {
        shown["labels"] = json!(labels);
    }
    shown
}

/// Seconds that a rate was measured over, as Go writes a duration.
fn window(part: &Value) -> String {
    format!("{}s", part["cpu"]["windowSeconds"].as_f64().unwrap_or(1.0).round().max(1.0))
}

fn node_metrics(node: &Node, summaries: &BTreeMap<String, Value>) -> Option<Value> {
    let part = &summaries.get(node.metadata.name.as_deref()?)?["node"];
    let time = &part["cpu"]["time"];
    Some(json!({"metadata": metadata(&node.metadata, time), "timestamp": time, "window": window(part), "usage": usage(part)?}))
}

fn pod_metrics(pod: &Pod, summaries: &BTreeMap<String, Value>) -> Option<Value> {
    let summary = summaries.get(pod.spec.as_ref()?.node_name.as_deref()?)?;
    let uid = pod.metadata.uid.as_deref()?;
    let measured = summary["pods"].as_array()?.iter().find(|p| p["podRef"]["uid"] == *uid)?;
    let containers: Vec<&Value> = measured["containers"].as_array()?.iter().collect();
    let used: Option<Vec<Value>> = containers.iter().map(|c| Some(json!({"name": c["name"], "usage": usage(c)?}))).collect();
    let first = containers.first()?;
    let time = &first["cpu"]["time"];
    Some(json!({"metadata": metadata(&pod.metadata, time), "timestamp": time, "window": window(first), "containers": used?}))
}

macro_rules! schema {
    ($type:ident, $kind:literal, $text:literal, $part:literal: $of:tt) => {
        #[doc = $text]
        pub struct $type;

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                concat!("io.k8s.metrics.pkg.apis.metrics.v1beta1.", $kind).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let metadata = generator.subschema_for::<ObjectMeta>();
                json_schema!({
                    "description": $text,
                    "type": "object",
                    "required": ["timestamp", "window", $part],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": metadata,
                        "timestamp": {"description": "The end of the interval that the use was measured over.", "type": "string", "format": "date-time"},
                        "window": {"description": "The length of that interval.", "type": "string"},
                        $part: $of,
                    }
                })
            }
        }
    };
}

schema!(NodeMetrics, "NodeMetrics", "NodeMetrics sets resource usage metrics of a node.", "usage": {
    "description": "The memory usage is the memory working set.", "type": "object", "additionalProperties": {"type": "string"}
});
schema!(PodMetrics, "PodMetrics", "PodMetrics sets resource usage metrics of a pod.", "containers": {
    "description": "Metrics for all containers are collected within the same time window.", "type": "array",
    "items": {"type": "object", "required": ["name", "usage"], "properties": {
        "name": {"type": "string"}, "usage": {"type": "object", "additionalProperties": {"type": "string"}}
    }}
});

#[cfg(test)]
mod tests {
    use super::*;

    fn summaries() -> BTreeMap<String, Value> {
        let part = |cpu: u64| {
            json!({"name": "c", "cpu": {"time": "2024-01-02T03:04:05Z", "usageNanoCores": cpu, "windowSeconds": 9.6},
                   "memory": {"workingSetBytes": 2_097_152}})
        };
        let pod = json!({"podRef": {"uid": "u"}, "containers": [part(7), part(5)]});
        [("n".to_owned(), json!({"node": part(1_500_000), "pods": [pod]}))].into()
    }

    #[test]
    fn use_is_shown_as_metrics_server_shows_it() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"a": "b"}}})).unwrap();
        assert_eq!(
            node_metrics(&node, &summaries()).unwrap(),
            json!({"metadata": {"name": "n", "creationTimestamp": "2024-01-02T03:04:05Z", "labels": {"a": "b"}},
                   "timestamp": "2024-01-02T03:04:05Z", "window": "10s", "usage": {"cpu": "1500000n", "memory": "2048Ki"}})
        );
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"containers": [], "nodeName": "n"}}))
                .unwrap();
        let metrics = pod_metrics(&pod, &summaries()).unwrap();
        assert_eq!(total(&metrics), json!({"cpu": "12n", "memory": "4096Ki"}));
        let gone: Pod = serde_json::from_value(json!({"metadata": {"name": "q", "uid": "v"}, "spec": {"containers": [], "nodeName": "n"}})).unwrap();
        assert!(pod_metrics(&gone, &summaries()).is_none());
    }

    #[test]
    fn a_kubelet_that_cannot_tell_a_rate_yet_is_asked_again() {
        let mut summary = summaries().remove("n").unwrap();
        assert!(!begins(&summary));
        summary["pods"][0]["containers"][1]["cpu"]["usageNanoCores"] = Value::Null;
        assert!(begins(&summary));
    }
}

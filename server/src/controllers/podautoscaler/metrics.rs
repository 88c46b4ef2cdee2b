//! What the metrics API says of an autoscaler's metrics, and the sizes that follow (`pkg/controller/podautoscaler/metrics/client.go`).
//!
//! Owns the requests. Custom and external metrics have no API here, as on a cluster without their adapters.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use shared::quantity::{Format, Quantity};
use shared::selector::Selector;

use super::super::error;
use super::replicas::{Proposal, Resource, Target, Use, propose};
use crate::informers::Informer;

/// A metric that could be had.
pub(super) struct Measured {
    pub replicas: i32,
    /// For events and conditions, e.g. `cpu resource utilization (percentage of request)`.
    pub description: String,
    pub status: MetricStatus,
}

/// A metric that could not: the reason for events and conditions, and the text.
pub(super) type Unmeasured = (&'static str, String);

/// Asks for one metric of the pods that a selector selects.
pub(super) async fn measure(
    client: &Client,
    pods: &Informer<Pod>,
    (namespace, selector): (&str, &str),
    current: i32,
    metric: &MetricSpec,
) -> Result<Measured, Unmeasured> {
    let (name, container, target) = match (&metric.resource, &metric.container_resource) {
        (Some(m), _) if metric.type_ == "Resource" => (m.name.as_str(), None, &m.target),
        (_, Some(m)) if metric.type_ == "ContainerResource" => (m.name.as_str(), Some(m.container.as_str()), &m.target),
        _ => return Err(no_adapter(metric)),
    };
    let what = if target.average_utilization.is_some() { "utilization" } else { "usage" };
    let reason = if container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
    let failed = |why: String| (reason, format!("failed to get {name} {what}: {why}"));
    let goal = goal(target).ok_or_else(|| failed("invalid resource metric source: neither an average utilization nor an average value".into()))?;
    let used = used(client, namespace, selector, name, container).await;
    let used = used.map_err(|e| failed(format!("unable to get metrics for resource {name}: {e}")))?;
    let parsed =
        Selector::parse(selector).map_err(|e| failed(format!("couldn't convert selector into a corresponding internal selector object: {e}")))?;
    let all = pods.list_namespaced(namespace);
    let own: Vec<&Pod> = all.iter().map(|p| &**p).filter(|p| parsed.matches(&p.metadata.labels.clone().unwrap_or_default())).collect();
    let proposal = propose(current, Resource { name, container }, goal, &own, &used, Timestamp::now()).map_err(failed)?;
    let kind = if container.is_some() { "container resource" } else { "resource" };
    let description = match goal {
        Target::Utilization(_) => format!("{name} {kind} utilization (percentage of request)"),
        Target::AverageValue(_) => format!("{name} {kind}"),
    };
    Ok(Measured { replicas: proposal.replicas, description, status: status(name, container, &proposal) })
}

fn goal(target: &MetricTarget) -> Option<Target> {
    let percent = target.average_utilization.map(|p| Target::Utilization(i64::from(p)));
    percent.or_else(|| target.average_value.as_ref().map(|v| Target::AverageValue(Quantity::of(v).millis())))
}

fn status(name: &str, container: Option<&str>, proposal: &Proposal) -> MetricStatus {
    let format = if name == "memory" { Format::BinarySI } else { Format::DecimalSI };
    let average = if name == "memory" { Quantity::from_units(proposal.average / 1000, format) } else { Quantity::from_millis(proposal.average) };
    let current =
        MetricValueStatus { average_utilization: proposal.utilization, average_value: Some(average.to_wire()), ..MetricValueStatus::default() };
    match container {
        None => MetricStatus {
            type_: "Resource".into(),
            resource: Some(ResourceMetricStatus { name: name.to_owned(), current }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".into(),
            container_resource: Some(ContainerResourceMetricStatus { name: name.to_owned(), container: container.to_owned(), current }),
            ..MetricStatus::default()
        },
    }
}

/// What each pod uses of a resource, in milli-units.
async fn used(client: &Client, namespace: &str, selector: &str, name: &str, container: Option<&str>) -> Result<BTreeMap<String, Use>, String> {
    let kind = ApiResource {
        group: "metrics.k8s.io".into(),
        version: "v1beta1".into(),
        api_version: "metrics.k8s.io/v1beta1".into(),
        kind: "PodMetrics".into(),
        plural: "pods".into(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let items = api.list(&ListParams::default().labels(selector)).await;
    let items = items.map_err(|e| format!("unable to fetch metrics from resource metrics API: {}", error::message(&e)))?.items;
    if items.is_empty() {
        return Err("no metrics returned from resource metrics API".into());
    }
    let mut all = BTreeMap::new();
    for item in &items {
        let Some(pod) = item.metadata.name.as_deref() else { continue };
        let mut amount = 0;
        let mut found = false;
        for part in item.data["containers"].as_array().into_iter().flatten().filter(|c| container.is_none_or(|wanted| c["name"] == wanted)) {
            let text = part["usage"][name].as_str().ok_or_else(|| format!("missing resource metric {name} for {namespace}/{pod}"))?;
            // Nanocores are finer than a milli-unit; what is left is noise.
            amount += match text.strip_suffix('n').and_then(|n| n.parse::<i64>().ok()) {
                Some(nano) => nano / 1_000_000,
                None => Quantity::of(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.to_owned())).millis(),
            };
            found = true;
        }
        let at = item.data["timestamp"].as_str().and_then(|t| t.parse().ok()).unwrap_or_else(Timestamp::now);
        let window = item.data["window"].as_str().and_then(|w| w.strip_suffix('s')?.parse::<f64>().ok()).map_or(0, |w| w as i64);
        if found {
            all.insert(pod.to_owned(), Use { amount, at, window });
        }
    }
    Ok(all)
}

/// Reason and text of a metric that needs an adapter.
fn no_adapter(metric: &MetricSpec) -> Unmeasured {
    let api = |group: &str| format!("unable to fetch metrics from {group} API: the server could not find the requested resource");
    match metric.type_.as_str() {
        "Pods" => ("FailedGetPodsMetric", api("custom metrics")),
        "Object" => ("FailedGetObjectMetric", api("custom metrics")),
        "External" => ("FailedGetExternalMetric", api("external metrics")),
        other => ("InvalidMetricSourceType", format!("unknown metric source type \"{other}\"")),
    }
}

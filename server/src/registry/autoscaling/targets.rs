//! The targets column of autoscalers (`formatHPAMetrics`).

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;

use crate::registry::print;

const MAX: usize = 2;
const UNKNOWN: &str = "<unknown>";

/// `cpu: 10%/80%, 5/10 + 1 more...`, or `<none>`.
pub fn text(object: &HorizontalPodAutoscaler) -> String {
    let specs = object.spec.metrics.as_deref().unwrap_or_default();
    let statuses = object.status.as_ref().and_then(|s| s.current_metrics.as_deref()).unwrap_or_default();
    if specs.is_empty() {
        return print::NONE.into();
    }
    let shown: Vec<String> = specs.iter().enumerate().take(MAX).map(|(index, spec)| metric(spec, statuses.get(index))).collect();
    match specs.len() {
        count if count > MAX => format!("{} + {} more...", shown.join(", "), count - MAX),
        _ => shown.join(", "),
    }
}

fn metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    match spec.type_.as_str() {
        "External" => {
            let current = status.and_then(|s| s.external.as_ref()).map(|s| &s.current);
            spec.external.as_ref().map_or_else(String::new, |s| value_or_average(&s.target, current))
        }
        "Object" => {
            let current = status.and_then(|s| s.object.as_ref()).map(|s| &s.current);
            spec.object.as_ref().map_or_else(String::new, |s| value_or_average(&s.target, current))
        }
        "Pods" => {
            let current = status.and_then(|s| s.pods.as_ref()).and_then(|s| s.current.average_value.as_ref());
            let target = spec.pods.as_ref().and_then(|s| s.target.average_value.as_ref());
            format!("{}/{}", quantity(current), quantity(target))
        }
        "Resource" => {
            let current = status.and_then(|s| s.resource.as_ref()).map(|s| &s.current);
            spec.resource.as_ref().map_or_else(String::new, |s| resource(&s.name, &s.target, current))
        }
        "ContainerResource" => {
            let current = status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current);
            spec.container_resource.as_ref().map_or_else(String::new, |s| resource(&s.name, &s.target, current))
        }
        _ => "<unknown type>".into(),
    }
}

fn quantity(wire: Option<&Wire>) -> String {
    wire.map_or_else(|| UNKNOWN.to_owned(), |w| w.0.clone())
}

fn value_or_average(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(average) => format!("{}/{} (avg)", quantity(current.and_then(|c| c.average_value.as_ref())), average.0),
        None => format!("{}/{}", quantity(current.and_then(|c| c.value.as_ref())), quantity(target.value.as_ref())),
    }
}

fn resource(name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(average) = &target.average_value {
        return format!("{name}: {}/{}", quantity(current.and_then(|c| c.average_value.as_ref())), average.0);
    }
    let percent = |value: Option<i32>, missing: &str| value.map_or_else(|| missing.to_owned(), |v| format!("{v}%"));
    let current = percent(current.and_then(|c| c.average_utilization), UNKNOWN);
    format!("{name}: {current}/{}", percent(target.average_utilization, "<auto>"))
}

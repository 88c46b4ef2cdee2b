//! A pod's requests and limits as a whole (`k8s.io/component-helpers/resource/helpers.go`), and what of them a quota counts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use k8s_openapi::jiff::Timestamp;
use shared::quantity::{Format, Quantity};

use super::{Amounts, add, amounts, max};

type Pick = fn(&ResourceRequirements) -> Option<&BTreeMap<String, Wire>>;

fn requests(r: &ResourceRequirements) -> Option<&BTreeMap<String, Wire>> {
    r.requests.as_ref()
}

fn limits(r: &ResourceRequirements) -> Option<&BTreeMap<String, Wire>> {
    r.limits.as_ref()
}

fn of_container(container: &Container, pick: Pick) -> Amounts {
    amounts(container.resources.as_ref().and_then(pick))
}

/// Whether an init container runs beside the containers.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Containers and sidecars run together; an init container runs with the sidecars before it, so the greater of the two counts.
fn aggregate(spec: &PodSpec, pick: Pick) -> Amounts {
    let mut together = Amounts::new();
    for container in &spec.containers {
        add(&mut together, &of_container(container, pick));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut own = of_container(container, pick);
        if is_sidecar(container) {
            add(&mut together, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        max(&mut starting, &own);
    }
    max(&mut together, &starting);
    // What the pod itself asks for takes the place of the containers' sum.
    for (name, amount) in amounts(spec.resources.as_ref().and_then(pick)) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            together.insert(name, amount);
        }
    }
    together
}

/// What a pod requests in all, with its overhead.
pub fn pod_requests(spec: &PodSpec) -> Amounts {
    let mut total = aggregate(spec, requests);
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// What a pod is limited to in all; overhead counts only where there is a limit.
pub fn pod_limits(spec: &PodSpec) -> Amounts {
    let mut total = aggregate(spec, limits);
    for (name, amount) in amounts(spec.overhead.as_ref()) {
        if let Some(limit) = total.get_mut(&name) {
            *limit = limit.plus(amount);
        }
    }
    total
}

/// Whether a pod is of the BestEffort class: no container asks for or is limited in CPU or memory.
pub fn is_best_effort(spec: &PodSpec) -> bool {
    let counted = |r: Option<&ResourceRequirements>| {
        let lists = r.into_iter().flat_map(|r| [r.requests.as_ref(), r.limits.as_ref()]).flatten();
        lists.flatten().any(|(name, amount)| matches!(name.as_str(), "cpu" | "memory") && Quantity::of(amount).signum() > 0)
    };
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    !counted(spec.resources.as_ref()) && !containers.any(|c| counted(c.resources.as_ref()))
}

/// Whether a pod still counts against compute quotas: not once it has ended, nor past its deletion's grace.
fn counts(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    match (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => now.as_second() <= at.0.as_second().saturating_add(grace),
        _ => true,
    }
}

/// Extended resources have a domain that is not Kubernetes' own, e.g. `nvidia.com/gpu`.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io")) && !name.starts_with("requests.")
}

/// The names a quota counts requests and limits under (upstream's `podComputeUsageHelper`).
pub(super) fn quota_names(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut found = Amounts::from([("pods".to_owned(), Quantity::from_units(1, Format::DecimalSI))]);
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                found.insert(name.clone(), *amount);
                found.insert(format!("requests.{name}"), *amount);
            }
            n if n.starts_with("hugepages-") => {
                found.insert(name.clone(), *amount);
                found.insert(format!("requests.{name}"), *amount);
            }
            n if is_extended(n) => {
                found.insert(format!("requests.{name}"), *amount);
            }
            _ => {}
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            found.insert(format!("limits.{name}"), *amount);
        }
    }
    found
}

/// What a container has set, under the names a quota uses.
pub(super) fn container_names(container: &Container) -> Amounts {
    quota_names(&of_container(container, requests), &of_container(container, limits))
}

/// What a pod costs.
pub(super) fn usage(pod: &Pod, now: Timestamp) -> Amounts {
    let mut found = Amounts::from([("count/pods".to_owned(), Quantity::from_units(1, Format::DecimalSI))]);
    if counts(pod, now) {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        add(&mut found, &quota_names(&pod_requests(spec), &pod_limits(spec)));
    }
    found
}

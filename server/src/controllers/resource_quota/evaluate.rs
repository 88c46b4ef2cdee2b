//! What objects cost against quotas (`pkg/quota/v1/evaluator/core`). Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, ResourceQuota, ResourceRequirements, ScopedResourceSelectorRequirement, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shared::quantity::{Format, Quantity};

use crate::controllers::{elapsed, pods};

/// Amounts by resource name.
pub type Usage = BTreeMap<String, Quantity>;

/// One of a thing.
pub fn one() -> Quantity {
    Quantity::from_units(1, Format::DecimalSI)
}

/// Adds `b` to `a`.
pub fn add(a: &mut Usage, b: &Usage) {
    for (name, amount) in b {
        let sum = a.get(name).copied().map_or(*amount, |old| old.plus(*amount));
        a.insert(name.clone(), sum);
    }
}

fn max(a: &mut Usage, b: &Usage) {
    for (name, amount) in b {
        if a.get(name).is_none_or(|old| old < amount) {
            a.insert(name.clone(), *amount);
        }
    }
}

fn amounts(list: Option<&BTreeMap<String, Wire>>) -> Usage {
    list.into_iter().flatten().map(|(name, amount)| (name.clone(), Quantity::of(amount))).collect()
}

fn of(requirements: Option<&ResourceRequirements>, limits: bool) -> Usage {
    amounts(requirements.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() }))
}

/// What a pod asks for, or is limited to: its containers together with its sidecars, or its greediest init container with the
/// sidecars before it, whichever is more; pod-level amounts replace those of the containers; overhead comes on top
/// (`resourcehelper.PodRequests`, `PodLimits`).
pub fn pod_resources(pod: &Pod, limits: bool) -> Usage {
    let Some(spec) = &pod.spec else { return Usage::new() };
    let container = |c: &Container| of(c.resources.as_ref(), limits);
    let mut total = Usage::new();
    spec.containers.iter().for_each(|c| add(&mut total, &container(c)));
    let (mut sidecars, mut peak) = (Usage::new(), Usage::new());
    for init in spec.init_containers.iter().flatten() {
        let mut cost = container(init);
        if init.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &cost);
            add(&mut sidecars, &cost);
            cost = sidecars.clone();
        } else {
            add(&mut cost, &sidecars);
        }
        max(&mut peak, &cost);
    }
    max(&mut total, &peak);
    for (name, amount) in of(spec.resources.as_ref(), limits) {
        if name == "cpu" || name == "memory" || name.starts_with("hugepages-") {
            total.insert(name, amount);
        }
    }
    let mut overhead = amounts(spec.overhead.as_ref());
    if limits {
        // Where there is no limit, overhead does not make one.
        overhead.retain(|name, _| total.get(name).is_some_and(|t| !t.is_zero()));
    }
    add(&mut total, &overhead);
    total
}

/// Whether a pod still counts: it has not ended, and if it is being deleted its time is not up.
pub fn pod_counts(pod: &Pod, now: &Time) -> bool {
    if pods::is_terminal(pod) {
        return false;
    }
    let (Some(deleted), Some(grace)) = (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) else { return true };
    now.0 <= deleted.0 || elapsed(deleted, now).as_secs() <= u64::try_from(grace).unwrap_or_default()
}

/// How long a pod that is being deleted counts on; `None` for those that do not stop by themselves.
pub fn counts_for(pod: &Pod, now: &Time) -> Option<Duration> {
    let (Some(deleted), Some(grace)) = (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) else { return None };
    let until = Duration::from_secs(u64::try_from(grace).unwrap_or_default()) + elapsed(now, deleted) + Duration::from_secs(1);
    pod_counts(pod, now).then(|| until.saturating_sub(elapsed(deleted, now)))
}

/// What a pod costs (`PodUsageFunc`).
pub fn pod_usage(pod: &Pod, now: &Time) -> Usage {
    let mut usage = Usage::from([("count/pods".to_owned(), one())]);
    if !pod_counts(pod, now) {
        return usage;
    }
    usage.insert("pods".into(), one());
    for (name, amount) in pod_resources(pod, false) {
        let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if standard || name.starts_with("hugepages-") {
            usage.insert(name.clone(), amount);
        }
        if standard || name.starts_with("hugepages-") || is_extended(&name) {
            usage.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in pod_resources(pod, true) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
    usage
}

/// A resource of somebody's own, such as `nvidia.com/gpu`.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// What a Service costs.
pub fn service_usage(service: &Service) -> Usage {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let (node_ports, balancers) = match spec.type_.as_deref() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports == Some(false) => {
            (ports.iter().filter(|p| p.node_port.unwrap_or_default() != 0).count(), 1)
        }
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    let count = |n: usize| Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSI);
    Usage::from([
        ("count/services".to_owned(), one()),
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(balancers)),
    ])
}

/// What a claim costs.
pub fn claim_usage(claim: &PersistentVolumeClaim) -> Usage {
    let mut usage = Usage::from([("count/persistentvolumeclaims".to_owned(), one()), ("persistentvolumeclaims".to_owned(), one())]);
    let spec = claim.spec.clone().unwrap_or_default();
    let legacy = claim.metadata.annotations.as_ref().and_then(|a| a.get("volume.beta.kubernetes.io/storage-class").cloned());
    let class = legacy.or(spec.storage_class_name).filter(|c| !c.is_empty());
    if let Some(class) = &class {
        usage.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one());
    }
    if let Some(storage) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")) {
        // What a resize has already been granted counts too.
        let granted = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref()).and_then(|r| r.get("storage")).map(Quantity::of);
        let storage = granted.into_iter().chain([Quantity::of(storage)]).max().unwrap_or_else(Quantity::zero);
        usage.insert("requests.storage".into(), storage);
        if let Some(class) = &class {
            usage.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        }
    }
    usage
}

/// The scopes of a quota, both ways of writing them.
pub fn scopes(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let spec = quota.spec.clone().unwrap_or_default();
    let plain =
        spec.scopes.into_iter().flatten().map(|scope_name| ScopedResourceSelectorRequirement { scope_name, operator: "Exists".into(), values: None });
    plain.chain(spec.scope_selector.into_iter().flat_map(|s| s.match_expressions.into_iter().flatten())).collect()
}

/// Whether a pod is within all scopes.
pub fn pod_in_scopes(pod: &Pod, scopes: &[ScopedResourceSelectorRequirement]) -> bool {
    scopes.iter().all(|scope| pod_in_scope(pod, scope))
}

fn pod_in_scope(pod: &Pod, scope: &ScopedResourceSelectorRequirement) -> bool {
    let Some(spec) = &pod.spec else { return false };
    match scope.scope_name.as_str() {
        "Terminating" => spec.active_deadline_seconds.is_some_and(|s| s >= 0),
        "NotTerminating" => spec.active_deadline_seconds.is_none_or(|s| s < 0),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().unwrap_or_default();
            let named = scope.values.iter().flatten().any(|v| v == class);
            match scope.operator.as_str() {
                "In" => named,
                "NotIn" => !named,
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                _ => false,
            }
        }
        _ => false,
    }
}

fn is_best_effort(pod: &Pod) -> bool {
    let asks = |usage: Usage| usage.iter().any(|(name, amount)| (name == "cpu" || name == "memory") && !amount.is_zero());
    !asks(pod_resources(pod, false)) && !asks(pod_resources(pod, true))
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return false };
    let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = near.iter().flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten());
    let required = required.chain(far.iter().flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten()));
    let preferred = near.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    let preferred = preferred.chain(far.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten()));
    let mut terms = required.chain(preferred.map(|w| &w.pod_affinity_term));
    terms.any(|t| t.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || t.namespace_selector.is_some())
}

/// Whether a scope is about claims, and this claim within it.
pub fn claim_in_scopes(claim: &PersistentVolumeClaim, scopes: &[ScopedResourceSelectorRequirement]) -> bool {
    let class = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref()).unwrap_or_default();
    scopes.iter().all(|scope| {
        let named = scope.values.iter().flatten().any(|v| v == class);
        scope.scope_name == "VolumeAttributesClass"
            && match scope.operator.as_str() {
                "In" => named,
                "NotIn" => !named,
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                _ => false,
            }
    })
}

/// What counts a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Pods.
    Pods,
    /// Services.
    Services,
    /// PersistentVolumeClaims.
    Claims,
    /// The number of objects of a kind: `plural.group`, or the plural alone.
    Objects(String),
}

/// What counts the resource of this name; `None` if nothing does.
pub fn counter(resource: &str) -> Option<Counter> {
    if let Some(kind) = resource.strip_prefix("count/") {
        return Some(match kind {
            "pods" => Counter::Pods,
            "services" => Counter::Services,
            "persistentvolumeclaims" => Counter::Claims,
            other => Counter::Objects(other.to_owned()),
        });
    }
    Some(match resource {
        "pods" | "cpu" | "memory" | "ephemeral-storage" => Counter::Pods,
        "services" | "services.nodeports" | "services.loadbalancers" => Counter::Services,
        "persistentvolumeclaims" | "requests.storage" => Counter::Claims,
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => Counter::Objects(resource.to_owned()),
        other if other.contains(".storageclass.storage.k8s.io/") => Counter::Claims,
        other if other.starts_with("requests.") || other.starts_with("limits.") || other.starts_with("hugepages-") => Counter::Pods,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, ServicePort, ServiceSpec};
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)], sidecar: bool) -> Container {
        let list = |l: &[(&str, &str)]| Some(l.iter().map(|(k, v)| ((*k).to_owned(), Wire((*v).to_owned()))).collect());
        Container {
            resources: Some(ResourceRequirements { requests: list(requests), limits: list(limits), claims: None }),
            restart_policy: sidecar.then(|| "Always".to_owned()),
            ..Container::default()
        }
    }

    fn pod(containers: Vec<Container>, init_containers: Vec<Container>) -> Pod {
        Pod { spec: Some(PodSpec { containers, init_containers: Some(init_containers), ..PodSpec::default() }), ..Pod::default() }
    }

    fn text(usage: &Usage, name: &str) -> String {
        usage.get(name).map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn a_pod_costs_its_containers_or_its_greediest_start() {
        let now = Time(Timestamp::from_second(0).unwrap());
        for (containers, inits, cpu) in [
            (vec![container(&[("cpu", "100m")], &[], false), container(&[("cpu", "200m")], &[], false)], vec![], "300m"),
            (vec![container(&[("cpu", "100m")], &[], false)], vec![container(&[("cpu", "1")], &[], false)], "1"),
            // A sidecar runs along with everything after it.
            (
                vec![container(&[("cpu", "100m")], &[], false)],
                vec![container(&[("cpu", "50m")], &[], true), container(&[("cpu", "200m")], &[], false)],
                "250m",
            ),
            (
                vec![container(&[("cpu", "100m")], &[], false)],
                vec![container(&[("cpu", "120m")], &[], false), container(&[("cpu", "50m")], &[], true)],
                "150m",
            ),
        ] {
            let usage = pod_usage(&pod(containers, inits), &now);
            assert_eq!((text(&usage, "cpu"), text(&usage, "requests.cpu")), (cpu.to_owned(), cpu.to_owned()));
        }
    }

    #[test]
    fn every_name_a_quota_may_use_is_counted() {
        let now = Time(Timestamp::from_second(0).unwrap());
        let requests = [("cpu", "1"), ("memory", "1Gi"), ("ephemeral-storage", "2Gi"), ("hugepages-2Mi", "4Mi"), ("nvidia.com/gpu", "2")];
        let usage = pod_usage(&pod(vec![container(&requests, &[("cpu", "2"), ("memory", "2Gi")], false)], vec![]), &now);
        for (name, amount) in [
            ("pods", "1"),
            ("count/pods", "1"),
            ("cpu", "1"),
            ("requests.memory", "1Gi"),
            ("limits.cpu", "2"),
            ("limits.memory", "2Gi"),
            ("requests.ephemeral-storage", "2Gi"),
            ("hugepages-2Mi", "4Mi"),
            ("requests.nvidia.com/gpu", "2"),
        ] {
            assert_eq!(text(&usage, name), amount, "{name}");
        }
        assert!(!usage.contains_key("nvidia.com/gpu"));
    }

    #[test]
    fn finished_pods_cost_only_their_object() {
        let now = Time(Timestamp::from_second(100).unwrap());
        let mut done = pod(vec![container(&[("cpu", "1")], &[], false)], vec![]);
        done.status.get_or_insert_default().phase = Some("Failed".into());
        assert_eq!(pod_usage(&done, &now).keys().collect::<Vec<_>>(), ["count/pods"]);
        let mut stuck = pod(vec![], vec![]);
        stuck.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(50).unwrap()));
        stuck.metadata.deletion_grace_period_seconds = Some(30);
        assert!(!pod_counts(&stuck, &now));
        assert_eq!(counts_for(&stuck, &now), None);
        stuck.metadata.deletion_grace_period_seconds = Some(60);
        assert!(pod_counts(&stuck, &now));
        assert_eq!(counts_for(&stuck, &now), Some(Duration::from_secs(11)));
        stuck.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(130).unwrap()));
        assert_eq!(counts_for(&stuck, &now), Some(Duration::from_secs(91)));
        stuck.metadata.deletion_timestamp = None;
        assert_eq!(counts_for(&stuck, &now), None);
    }

    #[test]
    fn overhead_and_pod_level_amounts_count() {
        let mut p = pod(vec![container(&[("cpu", "100m"), ("memory", "1Gi")], &[("cpu", "1")], false)], vec![]);
        let spec = p.spec.as_mut().unwrap();
        spec.overhead = Some([("cpu".to_owned(), Wire("50m".into())), ("memory".to_owned(), Wire("10Mi".into()))].into());
        assert_eq!(text(&pod_resources(&p, false), "cpu"), "150m");
        assert_eq!(text(&pod_resources(&p, true), "cpu"), "1050m");
        assert!(!pod_resources(&p, true).contains_key("memory"));
        p.spec.as_mut().unwrap().resources = container(&[("cpu", "2")], &[], false).resources;
        assert_eq!(text(&pod_resources(&p, false), "cpu"), "2050m");
    }

    #[test]
    fn services_cost_their_node_ports_and_balancers() {
        let service = |type_: &str, allocate: Option<bool>, ports: &[i32]| {
            let ports = ports.iter().map(|n| ServicePort { node_port: Some(*n), ..ServicePort::default() }).collect();
            let spec =
                ServiceSpec { type_: Some(type_.into()), allocate_load_balancer_node_ports: allocate, ports: Some(ports), ..ServiceSpec::default() };
            let usage = service_usage(&Service { spec: Some(spec), ..Service::default() });
            (text(&usage, "services.nodeports"), text(&usage, "services.loadbalancers"))
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(service("ClusterIP", None, &[0]), pair("0", "0"));
        assert_eq!(service("NodePort", None, &[30001, 30002]), pair("2", "0"));
        assert_eq!(service("LoadBalancer", None, &[30001]), pair("1", "1"));
        assert_eq!(service("LoadBalancer", Some(false), &[0, 30001]), pair("1", "1"));
    }

    #[test]
    fn scopes_select_pods() {
        let best_effort = pod(vec![container(&[], &[], false)], vec![]);
        let burstable = pod(vec![container(&[("cpu", "1")], &[], false)], vec![]);
        let scope = |name: &str, operator: &str, values: &[&str]| ScopedResourceSelectorRequirement {
            scope_name: name.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
        };
        assert!(pod_in_scopes(&best_effort, &[scope("BestEffort", "Exists", &[]), scope("NotTerminating", "Exists", &[])]));
        assert!(!pod_in_scopes(&burstable, &[scope("BestEffort", "Exists", &[])]));
        let mut urgent = burstable;
        urgent.spec.as_mut().unwrap().priority_class_name = Some("high".into());
        assert!(pod_in_scopes(&urgent, &[scope("PriorityClass", "In", &["high"])]));
        assert!(!pod_in_scopes(&urgent, &[scope("PriorityClass", "NotIn", &["high"])]));
        assert!(!pod_in_scopes(&best_effort, &[scope("PriorityClass", "Exists", &[])]));
    }

    #[test]
    fn names_lead_to_their_counters() {
        for (name, expected) in [
            ("count/deployments.apps", Some(Counter::Objects("deployments.apps".into()))),
            ("count/pods", Some(Counter::Pods)),
            ("secrets", Some(Counter::Objects("secrets".into()))),
            ("requests.nvidia.com/gpu", Some(Counter::Pods)),
            ("gold.storageclass.storage.k8s.io/requests.storage", Some(Counter::Claims)),
            ("requests.storage", Some(Counter::Claims)),
            ("nonsense", None),
        ] {
            assert_eq!(counter(name), expected, "{name}");
        }
    }
}

//! What each kind costs, which quotas it concerns, and what it must say for them (`pkg/quota/v1/evaluator/core/*.go`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodAffinityTerm, PodSpec, ResourceQuota, ScopedResourceSelectorRequirement, Service};
use k8s_openapi::jiff::Timestamp;
use shared::quantity::{Format, Quantity};

use super::{Amounts, pod};
use crate::registry::Object;

/// An object whose cost depends on what is in it; every other one just counts.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// Requests, limits, and the pod itself.
    Pod(&'a Pod),
    /// Node ports and load balancers.
    Service(&'a Service),
    /// Storage.
    Claim(&'a PersistentVolumeClaim),
    /// A count.
    Other,
}

impl<'a> Item<'a> {
    /// The item an object is.
    pub fn of(object: &'a Object) -> Self {
        if let Some(pod) = object.downcast_ref() {
            Item::Pod(pod)
        } else if let Some(service) = object.downcast_ref() {
            Item::Service(service)
        } else if let Some(claim) = object.downcast_ref() {
            Item::Claim(claim)
        } else {
            Item::Other
        }
    }
}

/// `count/deployments.apps`, `count/pods`
fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Core kinds that had a quota name of their own before `count/…`.
const OWN_NAMES: &[&str] = &["configmaps", "secrets", "services", "replicationcontrollers", "resourcequotas", "persistentvolumeclaims"];
const CLASS_CLAIMS: &str = ".storageclass.storage.k8s.io/persistentvolumeclaims";
const CLASS_STORAGE: &str = ".storageclass.storage.k8s.io/requests.storage";

const POD_NAMES: &[&str] = &[
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];

fn one() -> Quantity {
    Quantity::from_units(1, Format::DecimalSI)
}

/// What an object costs, by quota name.
pub fn usage(group: &str, plural: &str, item: Item<'_>, now: Timestamp) -> Amounts {
    if let Item::Pod(pod) = item {
        return pod::usage(pod, now);
    }
    let mut found = Amounts::from([(count_name(group, plural), one())]);
    if group.is_empty() && OWN_NAMES.contains(&plural) {
        found.insert(plural.to_owned(), one());
    }
    match item {
        Item::Service(service) => service_usage(service, &mut found),
        Item::Claim(claim) => claim_usage(claim, &mut found),
        Item::Pod(_) | Item::Other => {}
    }
    found
}

fn service_usage(service: &Service, found: &mut Amounts) {
    let Some(spec) = &service.spec else { return };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let count = |n: usize| Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSI);
    let (node_ports, balancers) = match spec.type_.as_deref() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports == Some(false) => {
            (ports.iter().filter(|p| p.node_port.is_some_and(|n| n != 0)).count(), 1)
        }
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    found.insert("services.nodeports".into(), count(node_ports));
    found.insert("services.loadbalancers".into(), count(balancers));
}

fn claim_usage(claim: &PersistentVolumeClaim, found: &mut Amounts) {
    let annotated = claim.metadata.annotations.as_ref().and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    let spec = claim.spec.as_ref();
    let class = annotated.or_else(|| spec.and_then(|s| s.storage_class_name.as_ref())).filter(|c| !c.is_empty());
    if let Some(class) = class {
        found.insert(format!("{class}{CLASS_CLAIMS}"), one());
    }
    let requested = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
    if let Some(requested) = requested.map(Quantity::of) {
        found.insert("requests.storage".into(), requested);
        if let Some(class) = class {
            found.insert(format!("{class}{CLASS_STORAGE}"), requested);
        }
    }
}

/// Whether a quota's name is one that objects of a kind are counted under.
fn tracks(group: &str, plural: &str, name: &str) -> bool {
    if name == count_name(group, plural) {
        return true;
    }
    if !group.is_empty() {
        return false;
    }
    match plural {
        "pods" => {
            POD_NAMES.contains(&name)
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || name.strip_prefix("requests.").is_some_and(|n| n.contains('/') && !n.contains("kubernetes.io/"))
        }
        "services" => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => {
            matches!(name, "persistentvolumeclaims" | "requests.storage") || name.ends_with(CLASS_CLAIMS) || name.ends_with(CLASS_STORAGE)
        }
        plural => OWN_NAMES.contains(&plural) && name == plural,
    }
}

/// Those of a quota's names that objects of a kind are counted under.
pub fn matching_resources<'n>(group: &str, plural: &str, names: impl IntoIterator<Item = &'n String>) -> BTreeSet<String> {
    names.into_iter().filter(|n| tracks(group, plural, n)).cloned().collect()
}

/// The scopes of a quota, old form and new.
fn scopes(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let Some(spec) = &quota.spec else { return Vec::new() };
    let plain =
        spec.scopes.iter().flatten().map(|s| ScopedResourceSelectorRequirement { scope_name: s.clone(), operator: "Exists".into(), values: None });
    plain.chain(spec.scope_selector.iter().filter_map(|s| s.match_expressions.clone()).flatten()).collect()
}

/// Whether a quota concerns an object: it limits one of its names, and every scope applies.
pub fn matches(quota: &ResourceQuota, group: &str, plural: &str, item: Item<'_>) -> bool {
    let empty = BTreeMap::new();
    let hard = quota.status.as_ref().and_then(|s| s.hard.as_ref()).unwrap_or(&empty);
    hard.keys().any(|n| tracks(group, plural, n)) && in_scope(quota, item)
}

/// Whether every scope of a quota applies to an object. Only pods have scopes.
pub(super) fn in_scope(quota: &ResourceQuota, item: Item<'_>) -> bool {
    scopes(quota).iter().all(|scope| match item {
        Item::Pod(pod) => pod.spec.as_ref().is_some_and(|spec| pod_in_scope(spec, scope)),
        _ => false,
    })
}

fn pod_in_scope(spec: &PodSpec, scope: &ScopedResourceSelectorRequirement) -> bool {
    let terminating = spec.active_deadline_seconds.is_some_and(|s| s >= 0);
    match scope.scope_name.as_str() {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => pod::is_best_effort(spec),
        "NotBestEffort" => !pod::is_best_effort(spec),
        "PriorityClass" => {
            let class = spec.priority_class_name.as_ref().filter(|c| !c.is_empty());
            let listed = class.is_some_and(|c| scope.values.iter().flatten().any(|v| v == c));
            match scope.operator.as_str() {
                "Exists" => class.is_some(),
                "DoesNotExist" => class.is_none(),
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(spec),
        _ => false,
    }
}

fn crosses_namespaces(spec: &PodSpec) -> bool {
    let crosses = |t: &PodAffinityTerm| t.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || t.namespace_selector.is_some();
    let Some(affinity) = &spec.affinity else { return false };
    let near = affinity
        .pod_affinity
        .as_ref()
        .map(|a| (&a.required_during_scheduling_ignored_during_execution, &a.preferred_during_scheduling_ignored_during_execution));
    let far = affinity
        .pod_anti_affinity
        .as_ref()
        .map(|a| (&a.required_during_scheduling_ignored_during_execution, &a.preferred_during_scheduling_ignored_during_execution));
    near.into_iter()
        .chain(far)
        .any(|(required, preferred)| required.iter().flatten().any(crosses) || preferred.iter().flatten().any(|p| crosses(&p.pod_affinity_term)))
}

/// Names that a container must set when a quota limits them.
const REQUIRED: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// What a pod leaves open that a quota needs: `limits.cpu for: nginx; limits.memory for: nginx`.
pub(super) fn unspecified(item: Item<'_>, restricted: &BTreeSet<String>) -> Option<String> {
    let Item::Pod(pod) = item else { return None };
    let spec = pod.spec.as_ref()?;
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let set = pod::container_names(container);
        for name in restricted.iter().filter(|n| REQUIRED.contains(&n.as_str()) && !set.contains_key(*n)) {
            missing.entry(name).or_default().insert(&container.name);
        }
    }
    let shown = |(name, containers): (&str, BTreeSet<&str>)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","));
    (!missing.is_empty()).then(|| missing.into_iter().map(shown).collect::<Vec<_>>().join("; "))
}

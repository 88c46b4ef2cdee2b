//! Amounts of node resources and what a pod asks for
//! (`k8s.io/component-helpers/resource/helpers.go`, `pkg/scheduler/framework/types.go`).
//!
//! Pure values: no I/O, no knowledge of nodes or of the queue.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use shared::quantity::Quantity;

/// CPU that a container without a request counts for in scores.
const DEFAULT_MILLI_CPU: i64 = 100;
/// Bytes of memory that a container without a request counts for in scores.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// An amount of every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Huge pages (bytes) and extended resources (pieces).
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// From a `requests`, `allocatable` or `overhead` map; `pods` is left out, it is counted apart.
    pub fn from_wire(map: &BTreeMap<String, Wire>) -> Self {
        let mut out = Resources::default();
        for (name, amount) in map {
            match name.as_str() {
                "cpu" => out.milli_cpu = Quantity::of(amount).millis(),
                "memory" => out.memory = Quantity::of(amount).value(),
                "ephemeral-storage" => out.ephemeral_storage = Quantity::of(amount).value(),
                "pods" => {}
                _ => {
                    out.scalar.insert(name.clone(), Quantity::of(amount).value());
                }
            }
        }
        out
    }

    /// Whether nothing at all is asked for.
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.scalar.values().all(|v| *v == 0)
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Resources) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    /// Takes another amount away.
    pub fn sub(&mut self, other: &Resources) {
        self.combine(other, |a, b| a.saturating_sub(b));
        self.scalar.retain(|_, v| *v != 0);
    }

    /// The larger of each.
    pub fn max(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let mine = self.scalar.entry(name.clone()).or_default();
            *mine = f(*mine, *amount);
        }
    }

    /// The same with the assumed CPU and memory of a container that names none; used by scores only.
    fn or_defaults(mut self, named: Option<&BTreeMap<String, Wire>>) -> Self {
        let has = |name: &str| named.is_some_and(|m| m.contains_key(name));
        if !has("cpu") {
            self.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !has("memory") {
            self.memory = DEFAULT_MEMORY;
        }
        self
    }
}

/// What a pod takes from its node: the larger of its containers together (with sidecars) and any step of its
/// initialisation, plus overhead. Pod-level requests replace those of containers.
pub fn pod_requests(pod: &Pod) -> Resources {
    sum(pod, false)
}

/// [`pod_requests`] with assumed amounts for containers that ask for nothing.
pub fn pod_nonzero_requests(pod: &Pod) -> Resources {
    sum(pod, true)
}

fn sum(pod: &Pod, defaults: bool) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let of = |container: &Container, init: bool| container_requests(pod, container, init, defaults);
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container, false));
    }
    let (mut sidecars, mut steps) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let request = of(container, true);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&request);
            sidecars.add(&request);
            steps.max(&sidecars);
        } else {
            let mut step = sidecars.clone();
            step.add(&request);
            steps.max(&step);
        }
    }
    running.max(&steps);
    apply_pod_level(&mut running, spec);
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::from_wire(overhead));
    }
    running
}

fn apply_pod_level(total: &mut Resources, spec: &PodSpec) {
    let Some(requests) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) else { return };
    let level = Resources::from_wire(requests);
    if requests.contains_key("cpu") {
        total.milli_cpu = level.milli_cpu;
    }
    if requests.contains_key("memory") {
        total.memory = level.memory;
    }
    total.scalar.extend(level.scalar.into_iter().filter(|(name, _)| name.starts_with("hugepages-")));
}

/// Whether the kubelet has said that a resize will never fit its node.
fn resize_is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    conditions.into_iter().any(|c| c.type_ == "PodResizePending" && c.status == "True" && c.reason.as_deref() == Some("Infeasible"))
}

/// A container's request; while a resize is under way, the larger of what is asked for and what is held, and what is held alone when it
/// is never to be (`determineContainerReqs` in `k8s.io/component-helpers/resource/helpers.go`).
fn container_requests(pod: &Pod, container: &Container, init: bool, defaults: bool) -> Resources {
    let named = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let asked = named.filter(|_| !resize_is_infeasible(pod));
    let mut request = asked.map(Resources::from_wire).unwrap_or_default();
    let statuses = pod.status.as_ref().and_then(|s| if init { s.init_container_statuses.as_ref() } else { s.container_statuses.as_ref() });
    if let Some(status) = statuses.into_iter().flatten().find(|s| s.name == container.name) {
        let actual = status.resources.as_ref().and_then(|r| r.requests.as_ref());
        for held in [status.allocated_resources.as_ref(), actual].into_iter().flatten() {
            request.max(&Resources::from_wire(held));
        }
    }
    if defaults { request.or_defaults(named) } else { request }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap()
    }

    fn container(name: &str, cpu: &str) -> serde_json::Value {
        serde_json::json!({ "name": name, "resources": { "requests": { "cpu": cpu } } })
    }

    fn sidecar(name: &str, cpu: &str) -> serde_json::Value {
        serde_json::json!({ "name": name, "restartPolicy": "Always", "resources": { "requests": { "cpu": cpu } } })
    }

    #[test]
    fn a_pod_needs_the_larger_of_its_running_and_its_starting_phase() {
        for (containers, init, expected) in [
            (vec![container("a", "100m"), container("b", "200m")], vec![], 300),
            (vec![container("a", "100m")], vec![container("i", "1")], 1000),
            (vec![container("a", "500m"), container("b", "600m")], vec![container("i", "1")], 1100),
            (vec![container("a", "100m")], vec![sidecar("s", "200m")], 300),
            (vec![container("a", "100m")], vec![sidecar("s", "200m"), container("i", "500m")], 700),
            (vec![container("a", "100m")], vec![container("i", "500m"), sidecar("s", "200m")], 500),
        ] {
            let pod = pod(serde_json::json!({ "containers": containers, "initContainers": init }));
            assert_eq!(pod_requests(&pod).milli_cpu, expected, "{pod:?}");
        }
    }

    #[test]
    fn overhead_is_added_and_pod_level_requests_replace_the_sum() {
        let mut spec = serde_json::json!({ "containers": [container("a", "100m")], "overhead": { "cpu": "10m" } });
        assert_eq!(pod_requests(&pod(spec.clone())).milli_cpu, 110);
        spec["resources"] = serde_json::json!({ "requests": { "cpu": "2" } });
        assert_eq!(pod_requests(&pod(spec)).milli_cpu, 2010);
    }

    #[test]
    fn a_container_without_requests_still_weighs_in_scores() {
        let pod = pod(serde_json::json!({ "containers": [{ "name": "a" }] }));
        assert!(pod_requests(&pod).is_zero());
        assert_eq!(pod_nonzero_requests(&pod).milli_cpu, 100);
        assert_eq!(pod_nonzero_requests(&pod).memory, 200 << 20);
    }

    #[test]
    fn taking_away_what_was_added_leaves_what_was() {
        let mut a = Resources { milli_cpu: 5, scalar: [("x/gpu".into(), 1)].into(), ..Resources::default() };
        let before = a.clone();
        let b = Resources { milli_cpu: 7, memory: 9, scalar: [("x/gpu".into(), 2), ("y/z".into(), 3)].into(), ..Resources::default() };
        a.add(&b);
        a.sub(&b);
        assert_eq!(a, before);
    }
}

//! Whether the node can take a pod that was bound to it: resources, node selector, host ports, taints
//! (`pkg/kubelet/lifecycle/predicate.go`). The scheduler has checked that, but a pod may name its node itself, and two may race.
//!
//! Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::spec;
use crate::kubelet::status::{self, Failure};
use crate::scheduler::node_selector;
use crate::scheduler::pod_info::HostPort;
use crate::scheduler::resources::{Resources, pod_requests};

/// The reason not to take a pod on, if there is one. `admitted` are the pods that the node has taken on before, ended ones among them.
pub fn refuse(pod: &Pod, node: &Node, admitted: &[Arc<Pod>]) -> Option<Failure> {
    let others = others(pod, admitted);
    out_of_resources(pod, node, &others).or_else(|| unfit(pod, node, &others))
}

/// The pods that take room beside this one.
pub fn others<'a>(pod: &Pod, admitted: &'a [Arc<Pod>]) -> Vec<&'a Pod> {
    admitted.iter().map(|p| &**p).filter(|p| spec::uid(p) != spec::uid(pod) && !status::is_final(p.status.as_ref())).collect()
}

fn rejected(reason: String, message: &str) -> Failure {
    Failure { reason, message: format!("Pod was rejected: {message}") }
}

/// `InsufficientResourceError` of the first resource that does not suffice.
pub fn out_of_resources(pod: &Pod, node: &Node, others: &[&Pod]) -> Option<Failure> {
    let allocatable = node.status.as_ref()?.allocatable.as_ref()?;
    let short = |name: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}");
        rejected(format!("OutOf{name}"), &message)
    };
    let mut used = Resources::default();
    others.iter().for_each(|other| used.add(&pod_requests(other)));
    let pods = allocatable.get("pods").map(|q| shared::quantity::Quantity::of(q).value());
    let running = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if let Some(pods) = pods.filter(|pods| running >= *pods) {
        return Some(short("pods", 1, running, pods));
    }
    let (requests, capacity) = (pod_requests(pod), Resources::from_wire(allocatable));
    let mut amounts = vec![
        ("cpu", requests.milli_cpu, used.milli_cpu, capacity.milli_cpu),
        ("memory", requests.memory, used.memory, capacity.memory),
        ("ephemeral-storage", requests.ephemeral_storage, used.ephemeral_storage, capacity.ephemeral_storage),
    ];
    // Extended resources that the node does not have are somebody else's business (`removeMissingExtendedResources`).
    amounts.extend(requests.scalar.iter().filter_map(|(name, requested)| {
        let capacity = capacity.scalar.get(name)?;
        Some((name.as_str(), *requested, used.scalar.get(name).copied().unwrap_or(0), *capacity))
    }));
    let lacking = amounts.into_iter().find(|(_, requested, used, capacity)| *requested > 0 && *requested > capacity.saturating_sub(*used));
    lacking.map(|(name, requested, used, capacity)| short(name, requested, used, capacity))
}

/// `PredicateFailureError` of the first predicate that fails.
fn unfit(pod: &Pod, node: &Node, others: &[&Pod]) -> Option<Failure> {
    let spec = pod.spec.as_ref()?;
    let failed = |name: &str, why: &str| Some(rejected(name.into(), &format!("Predicate {name} failed: {why}")));
    if !node_selector::pod_allows_node(spec, node) {
        return failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    let wanted = host_ports(pod);
    let taken: Vec<HostPort> = others.iter().flat_map(|other| host_ports(other)).collect();
    if wanted.iter().any(|port| taken.iter().any(|other| other.conflicts(port))) {
        return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    // NoSchedule is the scheduler's.
    if node_selector::untolerated(taints, spec.tolerations.as_deref().unwrap_or_default(), &["NoExecute"]).is_some() {
        return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    None
}

/// The host's ports that a pod takes for as long as it is on the node.
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let lasting = spec::containers(pod).into_iter().filter(|(kind, _)| matches!(kind, spec::Kind::Main | spec::Kind::Sidecar));
    lasting
        .flat_map(|(_, container)| container.ports.unwrap_or_default())
        .filter_map(|port| {
            Some(HostPort {
                protocol: port.protocol.unwrap_or_else(|| "TCP".into()),
                port: port.host_port.filter(|p| *p > 0)?,
                ip: port.host_ip.filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(uid: &str, phase: &str, spec: Value) -> Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{ "name": "a" }]);
        }
        serde_json::from_value(json!({ "metadata": { "name": uid, "uid": uid }, "spec": spec, "status": { "phase": phase } })).unwrap()
    }

    fn asking(resource: &str, amount: &str) -> Value {
        json!({ "containers": [{ "name": "a", "resources": { "requests": { resource: amount } } }] })
    }

    fn port(host: i32) -> Value {
        json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "hostPort": host }] }] })
    }

    #[test]
    fn pods_that_do_not_fit_are_rejected_with_upstreams_words() {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": "n", "labels": { "zone": "a" } },
            "spec": { "taints": [{ "key": "k", "effect": "NoExecute" }, { "key": "s", "effect": "NoSchedule" }] },
            "status": { "allocatable": { "cpu": "1", "memory": "1000", "pods": "3" } },
        }))
        .unwrap();
        let tolerant = |mut spec: Value| {
            spec["tolerations"] = json!([{ "key": "k", "operator": "Exists" }]);
            spec
        };
        let others: Vec<Arc<Pod>> = [
            pod("o1", "Running", asking("cpu", "600m")),
            pod("o2", "Running", port(8080)),
            pod("o3", "Succeeded", asking("memory", "1000")),
            // The same pod as it was before.
            pod("p", "Pending", asking("cpu", "400m")),
        ]
        .map(Arc::new)
        .to_vec();
        for (spec, expected) in [
            (tolerant(asking("cpu", "400m")), None),
            (tolerant(asking("memory", "1000")), None),
            (tolerant(asking("example.com/absent", "5")), None),
            (
                tolerant(asking("cpu", "500m")),
                Some("OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"),
            ),
            (
                tolerant(asking("memory", "1001")),
                Some("OutOfmemory: Pod was rejected: Node didn't have enough resource: memory, requested: 1001, used: 0, capacity: 1000"),
            ),
            (
                tolerant(port(8080)),
                Some("NodePorts: Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"),
            ),
            (tolerant(port(8081)), None),
            (
                tolerant(json!({ "nodeSelector": { "zone": "b" } })),
                Some("NodeAffinity: Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"),
            ),
            (json!({}), Some("TaintToleration: Pod was rejected: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate")),
        ] {
            let found = refuse(&pod("p", "Pending", spec.clone()), &node, &others).map(|f| format!("{}: {}", f.reason, f.message));
            assert_eq!(found.as_deref(), expected, "{spec}");
        }
        let full: Vec<Arc<Pod>> = ["1", "2", "3"].map(|uid| Arc::new(pod(uid, "Running", json!({})))).to_vec();
        let found = refuse(&pod("p", "Pending", tolerant(json!({}))), &node, &full).unwrap();
        assert_eq!(found.reason, "OutOfpods");
    }
}

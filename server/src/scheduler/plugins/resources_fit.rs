//! Room for the pod's requests, and preference for emptier nodes
//! (`pkg/scheduler/framework/plugins/noderesources/fit.go`, `least_allocated.go`).

use std::borrow::Cow;

use super::super::resources::Resources;
use super::*;

/// See the module.
pub struct NodeResourcesFit;

/// Checks requests against a node; `used` is what its pods take.
fn fits(requests: &Resources, node: &NodeInfo) -> Verdict {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut resolvable = true;
    if node.pods.len() as i64 + 1 > node.allowed_pods {
        reasons.push("Too many pods".into());
    }
    let mut check = |name: Cow<'static, str>, wanted: i64, allocatable: i64, used: i64| {
        if wanted > 0 && wanted > allocatable - used {
            reasons.push(name);
            resolvable &= wanted <= allocatable;
        }
    };
    check("Insufficient cpu".into(), requests.milli_cpu, node.allocatable.milli_cpu, node.requested.milli_cpu);
    check("Insufficient memory".into(), requests.memory, node.allocatable.memory, node.requested.memory);
    check("Insufficient ephemeral-storage".into(), requests.ephemeral_storage, node.allocatable.ephemeral_storage, node.requested.ephemeral_storage);
    for (name, wanted) in &requests.scalar {
        let of = |r: &Resources| r.scalar.get(name).copied().unwrap_or(0);
        if *wanted > 0 {
            check(format!("Insufficient {name}").into(), *wanted, of(&node.allocatable), of(&node.requested));
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(Refusal { reasons, resolvable }) }
}

/// Whether the pod would fit on the node if nothing else were there.
fn fits_empty(pod: &PodInfo, node: &k8s_openapi::api::core::v1::Node) -> bool {
    let mut empty = NodeInfo::new("".into());
    empty.set_node(Some(std::sync::Arc::new(node.clone())));
    fits(&pod.requests, &empty).is_ok()
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let requests = &cycle.pod.requests;
        Filter::Nodes(Box::new(move |node| fits(requests, node)))
    }

    /// LeastAllocated over CPU and memory, each with weight 1.
    fn score(&self, cycle: Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let add = &cycle.pod.nonzero;
        let free = |allocatable: i64, requested: i64| if requested > allocatable { 0 } else { (allocatable - requested) * MAX_SCORE / allocatable };
        let one = |node: &NodeInfo| {
            let pairs =
                [(node.allocatable.milli_cpu, node.nonzero.milli_cpu + add.milli_cpu), (node.allocatable.memory, node.nonzero.memory + add.memory)];
            let counted = pairs.iter().filter(|(allocatable, _)| *allocatable > 0);
            let weights = counted.clone().count() as i64;
            if weights == 0 { 0 } else { counted.map(|(a, r)| free(*a, *r)).sum::<i64>() / weights }
        };
        Some(nodes.iter().map(|n| one(n)).collect())
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, _: &Cluster) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => fits_empty(pod, node),
            ClusterEvent::NodeUpdated { old, new } => {
                let allocatable = |n: &k8s_openapi::api::core::v1::Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
                allocatable(old) != allocatable(new) && fits_empty(pod, new)
            }
            // Any pod that goes frees at least its place.
            ClusterEvent::PodRemoved(_) | ClusterEvent::PodShrunk | ClusterEvent::PodChanged => true,
            _ => false,
        }
    }
}

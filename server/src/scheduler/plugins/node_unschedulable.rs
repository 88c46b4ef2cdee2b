//! Cordoned nodes (`pkg/scheduler/framework/plugins/nodeunschedulable/node_unschedulable.go`).

use k8s_openapi::api::core::v1::{Node, Taint};

use super::super::node_selector::tolerates;
use super::*;

/// See the module.
pub struct NodeUnschedulable;

fn cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let pod = cycle.pod;
        Filter::Nodes(Box::new(move |node| {
            if !node.node.as_deref().is_some_and(cordoned) {
                return Ok(());
            }
            let taint = Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
            let tolerations = pod.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
            if tolerations.iter().any(|t| tolerates(t, &taint)) { Ok(()) } else { Err(Refusal::lasting("node(s) were unschedulable")) }
        }))
    }

    fn worth_retrying(&self, event: &ClusterEvent, _: &PodInfo, _: &Cluster) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => !cordoned(node),
            ClusterEvent::NodeUpdated { old, new } => cordoned(old) && !cordoned(new),
            _ => false,
        }
    }
}

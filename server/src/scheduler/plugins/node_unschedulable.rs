//! Cordoned nodes (`pkg/scheduler/framework/plugins/nodeunschedulable/node_unschedulable.go`).

use k8s_openapi::api::core::v1::{Node, Taint};

use super::super::node_selector::tolerates;
use super::*;

/// See the module.
pub struct NodeUnschedulable;

fn cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false)
}

/// Whether a pod tolerates that a node is cordoned.
fn goes_anyway(pod: &PodInfo) -> bool {
    let taint = Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
    pod.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or_default().iter().any(|t| tolerates(t, &taint))
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let pod = cycle.pod;
        Filter::Nodes(Box::new(move |node| {
            let closed = node.node.as_deref().is_some_and(cordoned) && !goes_anyway(pod);
            if closed { Err(Refusal::lasting("node(s) were unschedulable")) } else { Ok(()) }
        }))
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, _: &Cluster) -> bool {
        match event {
            ClusterEvent::PodChanged => goes_anyway(pod),
            ClusterEvent::NodeAdded(node) => !cordoned(node),
            ClusterEvent::NodeUpdated { old, new } => cordoned(old) && !cordoned(new),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{cluster, node, pod, refusal};
    use super::*;

    #[test]
    fn a_pod_that_comes_to_tolerate_it_is_looked_at_again() {
        let cluster = cluster([node("n").cordoned()]);
        let (plain, hardy) = (pod("p").info(), pod("p").tolerate("node.kubernetes.io/unschedulable").info());
        assert!(refusal(&NodeUnschedulable, &plain, &cluster, "n").is_some());
        assert!(!NodeUnschedulable.worth_retrying(&ClusterEvent::PodChanged, &plain, &cluster));
        assert!(NodeUnschedulable.worth_retrying(&ClusterEvent::PodChanged, &hardy, &cluster));
        assert_eq!(refusal(&NodeUnschedulable, &hardy, &cluster, "n"), None);
    }
}

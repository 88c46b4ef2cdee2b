//! Host ports (`pkg/scheduler/framework/plugins/nodeports/node_ports.go`).

use super::*;

/// See the module.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let wanted = &cycle.pod.ports;
        if wanted.is_empty() {
            return Filter::Skip;
        }
        Filter::Nodes(Box::new(move |node| {
            let taken = wanted.iter().any(|w| node.ports.iter().any(|p| p.conflicts(w)));
            if taken { Err(Refusal::resolvable("node(s) didn't have free ports for the requested pod ports")) } else { Ok(()) }
        }))
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, _: &Cluster) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::PodRemoved(gone) => gone.ports.iter().any(|p| pod.ports.iter().any(|w| w.conflicts(p))),
            _ => false,
        }
    }
}

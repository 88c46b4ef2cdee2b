//! `spec.nodeName` set by the user (`pkg/scheduler/framework/plugins/nodename/node_name.go`).

use super::*;

/// See the module.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let Some(wanted) = cycle.pod.node_name() else { return Filter::Skip };
        Filter::Nodes(Box::new(
            move |node| if &*node.name == wanted { Ok(()) } else { Err(Refusal::lasting("node(s) didn't match the requested node name")) },
        ))
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, _: &Cluster) -> bool {
        matches!(event, ClusterEvent::NodeAdded(node) if node.metadata.name.as_deref() == pod.node_name())
    }
}

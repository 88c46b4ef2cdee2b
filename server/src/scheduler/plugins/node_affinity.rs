//! `nodeSelector` and node affinity (`pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go`).

use super::super::node_selector::{pod_allows_node, term_matches};
use super::*;

/// See the module.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let Some(spec) = cycle.pod.spec() else { return Filter::Skip };
        let required = spec
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref())
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if required.is_none() && spec.node_selector.as_ref().is_none_or(|s| s.is_empty()) {
            return Filter::Skip;
        }
        Filter::Nodes(Box::new(move |node| match &node.node {
            Some(object) if pod_allows_node(spec, object) => Ok(()),
            _ => Err(Refusal::lasting("node(s) didn't match Pod's node affinity/selector")),
        }))
    }

    fn score(&self, cycle: Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let affinity = cycle.pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref().filter(|p| !p.is_empty())?;
        let sum = |node: &NodeInfo| {
            let Some(object) = &node.node else { return 0 };
            preferred.iter().filter(|p| term_matches(&p.preference, object)).map(|p| i64::from(p.weight)).sum()
        };
        Some(normalize(nodes.iter().map(|n| sum(n)).collect(), false))
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, _: &Cluster) -> bool {
        let Some(spec) = pod.spec() else { return false };
        match event {
            ClusterEvent::NodeAdded(node) => pod_allows_node(spec, node),
            ClusterEvent::NodeUpdated { old, new } => !pod_allows_node(spec, old) && pod_allows_node(spec, new),
            ClusterEvent::PodChanged => true,
            _ => false,
        }
    }
}

//! Taints (`pkg/scheduler/framework/plugins/tainttoleration/taint_toleration.go`).

use k8s_openapi::api::core::v1::{Node, Toleration};

use super::super::node_selector::{HARD_EFFECTS, tolerates, untolerated};
use super::*;

/// See the module.
pub struct TaintToleration;

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    pod.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

fn allows(node: &Node, pod: &PodInfo) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    untolerated(taints, tolerations(pod), &HARD_EFFECTS).is_none()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let tolerations = tolerations(cycle.pod);
        Filter::Nodes(Box::new(move |node| match untolerated(node.taints(), tolerations, &HARD_EFFECTS) {
            None => Ok(()),
            Some(_) => Err(Refusal::lasting("node(s) had untolerated taint(s)")),
        }))
    }

    fn score(&self, cycle: Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        if nodes.iter().all(|n| n.taints().is_empty()) {
            return None;
        }
        let soft: Vec<&Toleration> =
            tolerations(cycle.pod).iter().filter(|t| matches!(t.effect.as_deref().unwrap_or_default(), "" | "PreferNoSchedule")).collect();
        let count = |node: &NodeInfo| {
            let untolerated = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule" && !soft.iter().any(|t| tolerates(t, taint)));
            i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
        };
        Some(normalize(nodes.iter().map(|n| count(n)).collect(), true))
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, _: &Cluster) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => allows(node, pod),
            ClusterEvent::NodeUpdated { old, new } => !allows(old, pod) && allows(new, pod),
            ClusterEvent::PodChanged => true,
            _ => false,
        }
    }
}

//! What a plugin is, and the one list of them (`pkg/scheduler/framework/interface.go`, `apis/config/v1/default_plugins.go`).
//!
//! A plugin is a file here and a line in [`PLUGINS`]. It is pure: it sees the pod and the cluster, and does no I/O.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod node_volume_limits;
mod resources_fit;
mod taint_toleration;
mod topology_spread;
pub(super) mod volume_binding;
mod volume_restrictions;
mod volume_zone;

use std::borrow::Cow;

use super::cluster::Cluster;
use super::event::ClusterEvent;
use super::node_info::NodeInfo;
use super::pod_info::PodInfo;

/// The plugins of the default profile, in the order in which filters run: the cheap and decisive ones first, as upstream does.
/// SchedulingGates, PrioritySort, DefaultBinder and DefaultPreemption are the queue, the shell and [`super::preemption`].
pub static PLUGINS: &[&dyn Plugin] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &resources_fit::NodeResourcesFit,
    &volume_restrictions::VolumeRestrictions,
    &node_volume_limits::NodeVolumeLimits,
    &volume_binding::VolumeBinding,
    &volume_zone::VolumeZone,
    &topology_spread::PodTopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &balanced_allocation::NodeResourcesBalancedAllocation,
    &image_locality::ImageLocality,
];

/// Highest score of a node, before the plugin's weight.
pub const MAX_SCORE: i64 = 100;

/// What one decision is about.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    /// The pod to place.
    pub pod: &'a PodInfo,
    /// Where.
    pub cluster: &'a Cluster,
}

/// Why a pod cannot go to a node, or to any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Upstream's texts; usually one.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether removing pods could help (upstream's `Unschedulable`, not `UnschedulableAndUnresolvable`).
    pub resolvable: bool,
}

impl Refusal {
    /// A refusal that preemption could resolve.
    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal { reasons: vec![reason.into()], resolvable: true }
    }
    /// A refusal that stands whatever pods go.
    pub fn lasting(reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal { reasons: vec![reason.into()], resolvable: false }
    }
}

/// Outcome of a filter for one node.
pub type Verdict = Result<(), Refusal>;

/// Asks one node.
pub type Check<'a> = Box<dyn Fn(&NodeInfo) -> Verdict + 'a>;

/// A filter made ready for one pod.
pub enum Filter<'a> {
    /// It has nothing to say about this pod.
    Skip,
    /// No node will do.
    Refuse(Refusal),
    /// Asks each node.
    Nodes(Check<'a>),
}

/// A rule about where pods go.
pub trait Plugin: Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// How much its score counts.
    fn weight(&self) -> i64 {
        1
    }
    /// Prepares its filter.
    fn filter<'a>(&self, _cycle: Cycle<'a>) -> Filter<'a> {
        Filter::Skip
    }
    /// Scores from 0 to [`MAX_SCORE`], one a node, in their order; `None` when it does not distinguish them.
    fn score(&self, _cycle: Cycle<'_>, _nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        None
    }
    /// Whether an event may let in a pod that its filter refused (upstream's queueing hints).
    fn worth_retrying(&self, _event: &ClusterEvent, _pod: &PodInfo, _cluster: &Cluster) -> bool {
        false
    }
}

/// Scales scores so that the highest becomes [`MAX_SCORE`]; `reverse` makes the lowest the best (upstream's `DefaultNormalizeScore`).
fn normalize(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        *score = match highest {
            0 => 0,
            _ => *score * MAX_SCORE / highest,
        };
        if reverse {
            *score = MAX_SCORE - *score;
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_plugin_is_listed_twice() {
        let mut names: Vec<_> = PLUGINS.iter().map(|p| p.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PLUGINS.len());
    }

    #[test]
    fn normalizing_scales_to_a_hundred_and_reverses_on_demand() {
        assert_eq!(normalize(vec![0, 5, 10], false), [0, 50, 100]);
        assert_eq!(normalize(vec![0, 5, 10], true), [100, 50, 0]);
        assert_eq!(normalize(vec![0, 0], false), [0, 0]);
        assert_eq!(normalize(vec![0, 0], true), [100, 100]);
    }
}

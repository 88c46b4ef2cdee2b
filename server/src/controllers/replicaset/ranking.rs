//! Which pods go first when there are too many (`ActivePodsWithRanks` in `pkg/controller/controller_utils.go`). Pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::pods;

/// Lower costs go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The first `count` pods to delete of `candidates`. `related` are all active pods of the owner's owner: pods that share their node
/// with many of them go first.
pub fn victims(mut candidates: Vec<Arc<Pod>>, related: &[Arc<Pod>], count: usize, now: &Time) -> Vec<Arc<Pod>> {
    if count < candidates.len() {
        let mut per_node: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|p| pods::is_active(p)) {
            *per_node.entry(pods::node_name(pod)).or_default() += 1;
        }
        let rank = |pod: &Pod| per_node.get(pods::node_name(pod)).copied().unwrap_or_default();
        candidates.sort_by(|a, b| compare(a, rank(a), b, rank(b), now));
    }
    candidates.truncate(count);
    candidates
}

/// `Less` when `a` is to go before `b`.
pub fn compare(a: &Pod, rank_a: usize, b: &Pod, rank_b: usize, now: &Time) -> Ordering {
    // 1. Not yet on a node.
    let assigned = |p: &Pod| !pods::node_name(p).is_empty();
    assigned(a)
        .cmp(&assigned(b))
        // 2. Pending before Unknown before Running.
        .then_with(|| phase_order(a).cmp(&phase_order(b)))
        // 3. Not ready.
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        // 4. Lower deletion cost.
        .then_with(|| cost(a).cmp(&cost(b)))
        // 5. On a node with more of its kind.
        .then_with(|| rank_b.cmp(&rank_a))
        // 6. Ready for a shorter time, on a logarithmic scale so that not always the newest goes.
        .then_with(|| younger(pods::ready_since(a), a, pods::ready_since(b), b, now))
        // 7. More restarts.
        .then_with(|| pods::max_restarts(b).cmp(&pods::max_restarts(a)))
        // 8. Created later.
        .then_with(|| younger(a.metadata.creation_timestamp.as_ref(), a, b.metadata.creation_timestamp.as_ref(), b, now))
}

fn phase_order(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn cost(pod: &Pod) -> i32 {
    let value = pods::annotation(pod, DELETION_COST).unwrap_or_default();
    // As upstream: no plus sign, no leading zeros; anything else counts as none.
    let canonical = value == "0" || !value.trim_start_matches('-').starts_with(['0', '+']) && value != "-" && !value.starts_with('+');
    if canonical { value.parse().unwrap_or_default() } else { 0 }
}

/// The one whose time is later first; times in the same power of two of age are told apart by uid.
fn younger(time_a: Option<&Time>, a: &Pod, time_b: Option<&Time>, b: &Pod, now: &Time) -> Ordering {
    match (time_a, time_b) {
        (Some(x), Some(y)) if x == y => Ordering::Equal,
        (Some(x), Some(y)) => bucket(x, now).cmp(&bucket(y, now)).then_with(|| pods::uid(a).cmp(pods::uid(b))),
        (None, None) => Ordering::Equal,
        // An unknown time counts as the latest.
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
    }
}

/// The binary logarithm of an age in nanoseconds.
fn bucket(time: &Time, now: &Time) -> i64 {
    let age = now.0.duration_since(time.0).as_nanos();
    if age > 0 { i64::from(age.ilog2()) } else { -1 }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodSpec, PodStatus};
    use k8s_openapi::jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    struct Build(Pod);
    fn pod(name: &str) -> Build {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(name.into());
        pod.metadata.creation_timestamp = Some(at(1000));
        pod.spec = Some(PodSpec { node_name: Some("n1".into()), ..PodSpec::default() });
        pod.status = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
        Build(pod).ready(1000)
    }
    impl Build {
        fn node(mut self, node: &str) -> Self {
            self.0.spec.as_mut().unwrap().node_name = (!node.is_empty()).then(|| node.to_owned());
            self
        }
        fn phase(mut self, phase: &str) -> Self {
            self.0.status.as_mut().unwrap().phase = Some(phase.into());
            self
        }
        fn ready(mut self, since: i64) -> Self {
            let condition =
                PodCondition { type_: "Ready".into(), status: "True".into(), last_transition_time: Some(at(since)), ..PodCondition::default() };
            self.0.status.as_mut().unwrap().conditions = Some(vec![condition]);
            self
        }
        fn unready(mut self) -> Self {
            self.0.status.as_mut().unwrap().conditions = None;
            self
        }
        fn cost(mut self, cost: &str) -> Self {
            self.0.metadata.annotations = Some([(DELETION_COST.to_owned(), cost.to_owned())].into());
            self
        }
        fn restarts(mut self, restart_count: i32) -> Self {
            self.0.status.as_mut().unwrap().container_statuses = Some(vec![ContainerStatus { restart_count, ..ContainerStatus::default() }]);
            self
        }
        fn created(mut self, second: i64) -> Self {
            self.0.metadata.creation_timestamp = Some(at(second));
            self
        }
        fn arc(self) -> Arc<Pod> {
            Arc::new(self.0)
        }
    }

    #[test]
    fn each_criterion_decides_only_when_those_before_it_are_equal() {
        let now = at(1_000_000);
        // In every row the first pod is to go before the second.
        for (first, second) in [
            (pod("a").node("").cost("100"), pod("b").phase("Pending").unready()),
            (pod("a").phase("Pending").cost("100"), pod("b").phase("Unknown").cost("1")),
            (pod("a").phase("Unknown"), pod("b").unready()),
            (pod("a").unready().cost("5"), pod("b").cost("-5")),
            (pod("a").cost("-5"), pod("b")),
            (pod("a"), pod("b").cost("5").restarts(9)),
            (pod("a").cost("+5"), pod("b").cost("1")),
            (pod("a").ready(999_000), pod("b").ready(1000).restarts(5)),
            (pod("a").restarts(3), pod("b").restarts(2).created(999_999)),
            (pod("a").created(999_000), pod("b").created(1000)),
            // The same bucket: 1000 and 1001 seconds old; the uid decides.
            (pod("a").created(999_000), pod("b").created(998_999)),
            (pod("a").created(998_999), pod("b").created(999_000)),
        ] {
            let (first, second) = (first.arc(), second.arc());
            assert_eq!(compare(&first, 0, &second, 0, &now), Ordering::Less, "{first:?} {second:?}");
            assert_eq!(compare(&second, 0, &first, 0, &now), Ordering::Greater);
        }
    }

    #[test]
    fn pods_on_a_crowded_node_go_first() {
        let all: Vec<_> = vec![pod("a").node("n1").arc(), pod("b").node("n2").arc(), pod("c").node("n2").arc()];
        let gone = victims(all.clone(), &all, 1, &at(5000));
        assert_eq!(pods::node_name(&gone[0]), "n2");
    }

    proptest! {
        #[test]
        fn the_order_is_total(specs in proptest::collection::vec((0..2u8, 0..3u8, any::<bool>(), -1..2i32, 0..4i64, 0..3i32, 0..4i64), 3)) {
            let now = at(100);
            let pods: Vec<_> = specs.iter().enumerate().map(|(i, (node, phase, ready, cost, since, restarts, created))| {
                let b = pod(&format!("p{i}")).node(if *node == 0 { "" } else { "n" }).phase(["Pending", "Unknown", "Running"][*phase as usize])
                    .cost(&cost.to_string()).restarts(*restarts).created(created * 20);
                if *ready { b.ready(since * 20).arc() } else { b.unready().arc() }
            }).collect();
            let c = |a: usize, b: usize| compare(&pods[a], 0, &pods[b], 0, &now);
            for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                prop_assert_eq!(c(a, b), c(b, a).reverse());
            }
            if c(0, 1) != Ordering::Greater && c(1, 2) != Ordering::Greater {
                prop_assert_ne!(c(0, 2), Ordering::Greater);
            }
        }
    }
}

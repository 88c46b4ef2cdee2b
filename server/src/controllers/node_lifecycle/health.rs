//! From a node's conditions to its taints, and from many nodes to the state of their zone
//! (`pkg/controller/nodelifecycle/node_lifecycle_controller.go`). Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that says nothing.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that become Unknown when a node falls silent.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// One node a zone is tainted for eviction in this time.
pub const EVICTION_PERIOD: Duration = Duration::from_secs(10);
/// The same in a large zone that is partly down.
pub const SLOW_EVICTION_PERIOD: Duration = Duration::from_secs(100);
/// Zones of up to this many nodes are small: when they are partly down nothing is evicted.
const LARGE_ZONE: usize = 50;
const UNHEALTHY_ZONE: f64 = 0.55;

/// A condition of a node.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// `True`, `False`, or `Unknown`, which a node without the condition is too.
pub fn ready(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |c| c.status.as_str())
}

/// The taints of a node.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

/// What a heartbeat changes: anything in the conditions.
pub fn heartbeat(node: &Node) -> Option<&Vec<NodeCondition>> {
    node.status.as_ref()?.conditions.as_ref()
}

/// Whether a change of a node is more than a heartbeat.
pub fn matters(old: &Node, new: &Node) -> bool {
    let statuses = |n: &Node| -> Vec<(String, String)> {
        n.status.iter().flat_map(|s| s.conditions.iter().flatten()).map(|c| (c.type_.clone(), c.status.clone())).collect()
    };
    old.spec != new.spec || statuses(old) != statuses(new) || zone(old) != zone(new)
}

/// The conditions of a silent node; `None` if they say so already.
pub fn silenced(node: &Node, now: &Time) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut changed = false;
    for type_ in REPORTED {
        match conditions.iter_mut().find(|c| c.type_ == *type_) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(now.clone());
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: (*type_).into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(now.clone()),
                });
                changed = true;
            }
        }
    }
    changed.then_some(conditions)
}

/// The NoSchedule taints that a node's conditions call for.
fn no_schedule(node: &Node) -> Vec<&'static str> {
    let status = |type_: &str| condition(node, type_).map_or("", |c| c.status.as_str());
    let mut keys = match status("Ready") {
        "False" => vec![NOT_READY],
        "Unknown" => vec![UNREACHABLE],
        _ => Vec::new(),
    };
    for (type_, key) in [
        ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
        ("DiskPressure", "node.kubernetes.io/disk-pressure"),
        ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
        ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ] {
        if status(type_) == "True" {
            keys.push(key);
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        keys.push(UNSCHEDULABLE);
    }
    keys
}

const NO_SCHEDULE_KEYS: &[&str] = &[
    NOT_READY,
    UNREACHABLE,
    UNSCHEDULABLE,
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/network-unavailable",
    "node.kubernetes.io/pid-pressure",
];

/// The NoExecute taint that a node's readiness calls for.
pub fn no_execute(node: &Node) -> Option<&'static str> {
    match condition(node, "Ready")?.status.as_str() {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    }
}

/// Whether a node has one of our NoExecute taints.
pub fn evicts(node: &Node) -> bool {
    taints(node).iter().any(is_our_no_execute)
}

fn is_our_no_execute(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

/// The taints a node should have, `no_execute` being the one that evicts, if any; those of others stay. `None` if it has them.
pub fn wanted_taints(node: &Node, no_execute: Option<&str>, now: &Time) -> Option<Vec<Taint>> {
    let before = taints(node);
    let (schedule, mut after) = (no_schedule(node), before.to_vec());
    after.retain(|t| {
        let ours_and_unwanted = t.effect == "NoSchedule" && NO_SCHEDULE_KEYS.contains(&t.key.as_str()) && !schedule.contains(&t.key.as_str());
        let stale = is_our_no_execute(t) && Some(t.key.as_str()) != no_execute;
        !ours_and_unwanted && !stale
    });
    let mut ensure = |key: &str, effect: &str| {
        if !after.iter().any(|t| t.key == key && t.effect == effect) {
            after.push(Taint { key: key.into(), effect: effect.into(), time_added: Some(now.clone()), value: None });
        }
    };
    schedule.iter().for_each(|key| ensure(key, "NoSchedule"));
    if let Some(key) = no_execute {
        ensure(key, "NoExecute");
    }
    (after != before).then_some(after)
}

/// Region and zone of a node.
pub fn zone(node: &Node) -> String {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned().unwrap_or_default();
    format!("{}:\0:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// How a zone is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// Nodes that fail, fail by themselves.
    Normal,
    /// Too many are down for that; so many nodes in all.
    Partial(usize),
    /// All are down.
    Full,
}

impl ZoneState {
    /// The time between two nodes tainted for eviction; `None`: none at all.
    pub fn period(self) -> Option<Duration> {
        match self {
            ZoneState::Normal | ZoneState::Full => Some(EVICTION_PERIOD),
            ZoneState::Partial(size) => (size > LARGE_ZONE).then_some(SLOW_EVICTION_PERIOD),
        }
    }
}

/// The state of every zone.
pub fn zones(nodes: &[Arc<Node>]) -> HashMap<String, ZoneState> {
    let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
    for node in nodes {
        let (up, down) = counts.entry(zone(node)).or_default();
        if ready(node) == "True" { *up += 1 } else { *down += 1 }
    }
    let state = |(up, down): (usize, usize)| match (up, down) {
        (0, down) if down > 0 => ZoneState::Full,
        (up, down) if down > 2 && down as f64 / (up + down) as f64 >= UNHEALTHY_ZONE => ZoneState::Partial(up + down),
        _ => ZoneState::Normal,
    };
    counts.into_iter().map(|(zone, count)| (zone, state(count))).collect()
}

/// Whether every node is down: then it is more likely that this process cannot see them, and nothing is evicted.
pub fn all_down(zones: &HashMap<String, ZoneState>) -> bool {
    !zones.is_empty() && zones.values().all(|z| *z == ZoneState::Full)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus};
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn node(zone: &str, conditions: &[(&str, &str)]) -> Node {
        let condition =
            |(type_, status): &(&str, &str)| NodeCondition { type_: (*type_).into(), status: (*status).into(), ..NodeCondition::default() };
        let mut node = Node::default();
        node.metadata.labels = Some([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into());
        node.status = Some(NodeStatus { conditions: Some(conditions.iter().map(condition).collect()), ..NodeStatus::default() });
        node.spec = Some(NodeSpec::default());
        node
    }

    fn now() -> Time {
        Time(Timestamp::from_second(7).unwrap())
    }

    fn keys(node: &Node, execute: Option<&str>) -> Vec<String> {
        let taints = wanted_taints(node, execute, &now()).unwrap_or_else(|| taints(node).to_vec());
        taints.iter().map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap(), t.effect)).collect()
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        for (conditions, execute, expected) in [
            (vec![("Ready", "True")], None, vec!["mine:NoSchedule"]),
            (vec![("Ready", "False")], Some(NOT_READY), vec!["mine:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute"]),
            (vec![("Ready", "Unknown")], None, vec!["mine:NoSchedule", "unreachable:NoSchedule"]),
            (vec![("Ready", "True"), ("DiskPressure", "True")], None, vec!["mine:NoSchedule", "disk-pressure:NoSchedule"]),
            (vec![], None, vec!["mine:NoSchedule"]),
        ] {
            let mut node = node("a", &conditions);
            node.spec.as_mut().unwrap().taints = Some(vec![Taint { key: "mine".into(), effect: "NoSchedule".into(), ..Taint::default() }]);
            assert_eq!(keys(&node, execute), expected, "{conditions:?}");
        }
        let mut cordoned = node("a", &[("Ready", "True")]);
        cordoned.spec.as_mut().unwrap().unschedulable = Some(true);
        assert_eq!(keys(&cordoned, None), ["unschedulable:NoSchedule"]);
    }

    #[test]
    fn a_node_that_becomes_ready_loses_the_taint_it_registered_with() {
        let mut node = node("a", &[("Ready", "True")]);
        node.spec.as_mut().unwrap().taints = Some(vec![Taint { key: NOT_READY.into(), effect: "NoSchedule".into(), ..Taint::default() }]);
        assert_eq!(wanted_taints(&node, None, &now()), Some(Vec::new()));
    }

    #[test]
    fn a_silent_node_is_unknown_in_every_way_it_reports() {
        let silent = silenced(&node("a", &[("Ready", "True"), ("NetworkUnavailable", "False")]), &now()).unwrap();
        let texts: Vec<_> = silent.iter().map(|c| format!("{} {} {}", c.type_, c.status, c.reason.clone().unwrap_or_default())).collect();
        assert_eq!(
            texts,
            [
                "Ready Unknown NodeStatusUnknown",
                "NetworkUnavailable False ",
                "MemoryPressure Unknown NodeStatusNeverUpdated",
                "DiskPressure Unknown NodeStatusNeverUpdated",
                "PIDPressure Unknown NodeStatusNeverUpdated",
            ]
        );
        let mut again = node("a", &[]);
        again.status.as_mut().unwrap().conditions = Some(silent);
        assert_eq!(silenced(&again, &now()), None);
    }

    #[test]
    fn zones_are_judged_by_the_share_of_nodes_that_are_down() {
        let nodes = |up: usize, down: usize| -> Vec<Arc<Node>> {
            let up = (0..up).map(|_| Arc::new(node("a", &[("Ready", "True")])));
            up.chain((0..down).map(|_| Arc::new(node("a", &[("Ready", "Unknown")])))).collect()
        };
        for (up, down, state, period) in [
            (3, 1, ZoneState::Normal, Some(EVICTION_PERIOD)),
            (1, 2, ZoneState::Normal, Some(EVICTION_PERIOD)),
            (2, 3, ZoneState::Partial(5), None),
            (20, 40, ZoneState::Partial(60), Some(SLOW_EVICTION_PERIOD)),
            (0, 1, ZoneState::Full, Some(EVICTION_PERIOD)),
        ] {
            let found = zones(&nodes(up, down));
            let found = *found.values().next().unwrap();
            assert_eq!((found, found.period()), (state, period), "{up} {down}");
        }
        let mut mixed = nodes(0, 2);
        assert!(all_down(&zones(&mixed)));
        mixed.push(Arc::new(node("b", &[("Ready", "True")])));
        assert!(!all_down(&zones(&mixed)));
        assert!(!all_down(&zones(&[])));
    }
}

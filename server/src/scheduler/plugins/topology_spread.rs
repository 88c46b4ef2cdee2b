//! Topology spread constraints, and the default ones (`pkg/scheduler/framework/plugins/podtopologyspread/`).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::super::node_selector::{HARD_EFFECTS, pod_allows_node, untolerated};
use super::super::pod_info::Spread;
use super::*;
use shared::selector::Selector;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const SKEW: &str = "node(s) didn't match pod topology spread constraints";
const MISSING: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// See the module.
pub struct PodTopologySpread;

/// How many live pods of the pod's namespace on a node a constraint counts.
fn matching(node: &NodeInfo, constraint: &Spread, pod: &PodInfo) -> i64 {
    let counted = |(class, _): &(&_, &_)| same_namespace(class, pod) && constraint.selector.matches(&std::sync::Arc::as_ref(class).labels);
    node.classes.iter().filter(counted).map(|(_, count)| count.live).sum()
}

fn same_namespace(class: &std::sync::Arc<super::super::pod_info::Class>, pod: &PodInfo) -> bool {
    class.namespace == pod.class.namespace
}

/// Whether a node takes part in a constraint's count.
fn included(node: &NodeInfo, constraint: &Spread, pod: &PodInfo) -> bool {
    let (Some(object), Some(spec)) = (&node.node, pod.spec()) else { return false };
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    (!constraint.honor_affinity || pod_allows_node(spec, object))
        && (!constraint.honor_taints || untolerated(node.taints(), tolerations, &HARD_EFFECTS).is_none())
}

fn has_all_keys(node: &NodeInfo, constraints: &[Spread]) -> bool {
    constraints.iter().all(|c| node.label(&c.topology_key).is_some())
}

/// Pods counted by domain, for one constraint.
struct Domains<'a> {
    counts: HashMap<&'a str, i64>,
    /// The smallest count; 0 while there are fewer domains than `minDomains`.
    least: i64,
    own: i64,
}

fn domains<'a>(cycle: Cycle<'a>, constraints: &[Spread]) -> Vec<Domains<'a>> {
    let mut all: Vec<Domains<'a>> = constraints
        .iter()
        .map(|c| Domains { counts: HashMap::new(), least: 0, own: i64::from(c.selector.matches(&cycle.pod.class.labels)) })
        .collect();
    for node in cycle.cluster.nodes().filter(|n| has_all_keys(n, constraints)) {
        for (constraint, domains) in constraints.iter().zip(&mut all) {
            if let Some(value) = node.label(&constraint.topology_key)
                && included(node, constraint, cycle.pod)
            {
                *domains.counts.entry(value).or_default() += matching(node, constraint, cycle.pod);
            }
        }
    }
    for (constraint, domains) in constraints.iter().zip(&mut all) {
        let enough = domains.counts.len() as i64 >= constraint.min_domains;
        domains.least = if enough { domains.counts.values().copied().min().unwrap_or(0) } else { 0 };
    }
    all
}

/// The default constraints of a pod that states none: hosts and zones, counting its Services' and owner's pods.
fn defaults(cycle: Cycle<'_>) -> Vec<Spread> {
    let Some(selector) = default_selector(cycle) else { return Vec::new() };
    let constraint = |key: &str, max_skew| Spread {
        max_skew,
        topology_key: key.into(),
        selector: selector.clone(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    };
    vec![constraint(HOSTNAME, 3), constraint(ZONE, 5)]
}

/// Joins the selectors of the Services that select the pod and of the workload that owns it; `None` when there is neither.
fn default_selector(cycle: Cycle<'_>) -> Option<Selector> {
    let namespace = cycle.pod.namespace();
    let owner = cycle.pod.pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    let mut texts = Vec::new();
    let from = ("Service", (namespace.to_owned(), String::new()));
    for ((kind, (ns, _)), selector) in cycle.cluster.workloads.range(from..) {
        if *kind != "Service" || ns != namespace {
            break;
        }
        if selector.matches(&cycle.pod.class.labels) {
            texts.push(selector.to_string());
        }
    }
    if let Some(owner) = owner
        && let Some(kind) = ["ReplicaSet", "ReplicationController", "StatefulSet"].iter().find(|k| **k == owner.kind)
        && let Some(selector) = cycle.cluster.workloads.get(&(*kind, (namespace.to_owned(), owner.name.clone())))
    {
        texts.push(selector.to_string());
    }
    if texts.is_empty() { None } else { Selector::parse(&texts.join(",")).ok() }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let constraints = &cycle.pod.spread;
        if constraints.is_empty() {
            return Filter::Skip;
        }
        let domains = domains(cycle, constraints);
        Filter::Nodes(Box::new(move |node| {
            for (constraint, domains) in constraints.iter().zip(&domains) {
                let Some(value) = node.label(&constraint.topology_key) else { return Err(Refusal::lasting(Cow::Borrowed(MISSING))) };
                let count = domains.counts.get(value).copied().unwrap_or(0);
                if count + domains.own - domains.least > constraint.max_skew {
                    return Err(Refusal::resolvable(Cow::Borrowed(SKEW)));
                }
            }
            Ok(())
        }))
    }

    fn score(&self, cycle: Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let stated = cycle.pod.spec().and_then(|s| s.topology_spread_constraints.as_ref()).is_some_and(|c| !c.is_empty());
        let defaults = if stated { Vec::new() } else { defaults(cycle) };
        let constraints: &[Spread] = if stated { &cycle.pod.soft_spread } else { &defaults };
        if constraints.is_empty() {
            return None;
        }
        Some(soft_scores(cycle, constraints, nodes, stated))
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, _: &Cluster) -> bool {
        let counts =
            |other: &PodInfo| other.class.namespace == pod.class.namespace && pod.spread.iter().any(|c| c.selector.matches(&other.class.labels));
        let keyed = |node: &k8s_openapi::api::core::v1::Node| {
            pod.spread.iter().all(|c| node.metadata.labels.as_ref().is_some_and(|l| l.contains_key(&c.topology_key)))
        };
        match event {
            ClusterEvent::PodPlaced(other) | ClusterEvent::PodRemoved(other) => counts(other),
            ClusterEvent::PodRelabelled(_) | ClusterEvent::PodChanged => true,
            ClusterEvent::NodeAdded(node) | ClusterEvent::NodeRemoved(node) => keyed(node),
            ClusterEvent::NodeUpdated { old, new } => keyed(old) || keyed(new),
            _ => false,
        }
    }
}

fn soft_scores(cycle: Cycle<'_>, constraints: &[Spread], nodes: &[&NodeInfo], require_all: bool) -> Vec<i64> {
    let ignored: Vec<bool> = nodes.iter().map(|n| require_all && !has_all_keys(n, constraints)).collect();
    let considered = || nodes.iter().zip(&ignored).filter(|(_, skip)| !**skip).map(|(n, _)| *n);
    let mut raw = vec![0.0f64; nodes.len()];
    for constraint in constraints {
        let by_host = constraint.topology_key == HOSTNAME;
        let mut counts: HashMap<&str, i64> = HashMap::new();
        let size = if by_host {
            considered().count()
        } else {
            let values: HashSet<&str> = considered().filter_map(|n| n.label(&constraint.topology_key)).collect();
            for node in cycle.cluster.nodes() {
                if let Some(value) = node.label(&constraint.topology_key).filter(|v| values.contains(v))
                    && included(node, constraint, cycle.pod)
                    && (!require_all || has_all_keys(node, constraints))
                {
                    *counts.entry(value).or_default() += matching(node, constraint, cycle.pod);
                }
            }
            values.len()
        };
        let weight = ((size + 2) as f64).ln();
        for (at, node) in nodes.iter().enumerate().filter(|(at, _)| !ignored[*at]) {
            if let Some(value) = node.label(&constraint.topology_key) {
                let count = if by_host { matching(node, constraint, cycle.pod) } else { counts.get(value).copied().unwrap_or(0) };
                raw[at] += count as f64 * weight + (constraint.max_skew - 1) as f64;
            }
        }
    }
    let rounded: Vec<i64> = raw.iter().map(|s| s.round() as i64).collect();
    let kept = || rounded.iter().zip(&ignored).filter(|(_, skip)| !**skip).map(|(s, _)| *s);
    let (least, most) = (kept().min().unwrap_or(0), kept().max().unwrap_or(0));
    let scale = |score: i64| if most == 0 { MAX_SCORE } else { MAX_SCORE * (most + least - score) / most };
    rounded.iter().zip(&ignored).map(|(score, skip)| if *skip { 0 } else { scale(*score) }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{cluster, node, pod, refusal};
    use super::*;

    fn zoned(counts: &[(&str, &str, usize)]) -> Cluster {
        let mut cluster = cluster(counts.iter().map(|(name, zone, _)| node(name).label(ZONE, zone)));
        for (name, _, count) in counts {
            for i in 0..*count {
                cluster.place(pod(&format!("{name}-{i}")).label("app", "x").info(), name);
            }
        }
        cluster
    }

    #[test]
    fn a_hard_constraint_keeps_domains_within_its_skew() {
        let cluster = zoned(&[("a", "z1", 2), ("b", "z2", 1)]);
        let pod = pod("p").label("app", "x").spread(ZONE, 1, "DoNotSchedule").info();
        assert_eq!(refusal(&PodTopologySpread, &pod, &cluster, "a"), Some(SKEW.into()));
        assert_eq!(refusal(&PodTopologySpread, &pod, &cluster, "b"), None);
    }

    #[test]
    fn a_node_without_the_label_is_refused_for_good() {
        let mut cluster = zoned(&[("a", "z1", 0)]);
        cluster.set_node(node("bare").build());
        let pod = pod("p").label("app", "x").spread(ZONE, 1, "DoNotSchedule").info();
        assert_eq!(refusal(&PodTopologySpread, &pod, &cluster, "bare"), Some(MISSING.into()));
        assert_eq!(refusal(&PodTopologySpread, &pod, &cluster, "a"), None);
    }

    #[test]
    fn a_domain_that_goes_may_let_a_pod_in() {
        let mut cluster = zoned(&[("a", "z1", 1), ("b", "z2", 0)]);
        let waiting = pod("p").label("app", "x").spread(ZONE, 1, "DoNotSchedule").info();
        assert!(refusal(&PodTopologySpread, &waiting, &cluster, "a").is_some());
        cluster.remove_node("b");
        let gone = ClusterEvent::NodeRemoved(node("b").label(ZONE, "z2").build());
        assert!(PodTopologySpread.worth_retrying(&gone, &waiting, &cluster));
        assert!(!PodTopologySpread.worth_retrying(&ClusterEvent::NodeRemoved(node("c").build()), &waiting, &cluster));
        assert_eq!(refusal(&PodTopologySpread, &waiting, &cluster, "a"), None);
    }

    #[test]
    fn a_soft_constraint_prefers_the_emptier_domain() {
        let cluster = zoned(&[("a", "z1", 3), ("b", "z2", 1)]);
        let pod = pod("p").label("app", "x").spread(ZONE, 1, "ScheduleAnyway").info();
        let nodes = [cluster.node("a").unwrap(), cluster.node("b").unwrap()];
        let scores = PodTopologySpread.score(Cycle { pod: &pod, cluster: &cluster }, &nodes).unwrap();
        assert!(scores[1] > scores[0], "{scores:?}");
    }

    #[test]
    fn pods_of_a_service_spread_over_hosts_without_being_told() {
        let mut cluster = cluster([node("a").label(HOSTNAME, "a"), node("b").label(HOSTNAME, "b")]);
        cluster.workloads.insert(("Service", ("default".into(), "s".into())), Selector::parse("app=x").unwrap());
        cluster.place(pod("other").label("app", "x").info(), "a");
        let pod = pod("p").label("app", "x").info();
        let nodes = [cluster.node("a").unwrap(), cluster.node("b").unwrap()];
        let scores = PodTopologySpread.score(Cycle { pod: &pod, cluster: &cluster }, &nodes).unwrap();
        assert!(scores[1] > scores[0], "{scores:?}");
    }
}

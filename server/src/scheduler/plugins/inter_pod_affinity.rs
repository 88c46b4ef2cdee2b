//! Pod affinity and anti-affinity, the pod's own and that of pods already placed
//! (`pkg/scheduler/framework/plugins/interpodaffinity/`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::pod_info::{AffinityTerm, Class, Labels};
use super::*;

/// What a required affinity of a placed pod adds to the score of its domain.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// See the module.
pub struct InterPodAffinity;

/// Amounts by topology key and value.
type Pairs<'a> = HashMap<(&'a str, &'a str), i64>;

fn bump<'a>(pairs: &mut Pairs<'a>, node: &'a NodeInfo, key: &'a str, by: i64) {
    if let Some(value) = node.label(key) {
        *pairs.entry((key, value)).or_default() += by;
    }
}

/// The topology keys that occur: there are few of them, however many domains there are.
fn keys<'a>(pairs: &Pairs<'a>) -> BTreeSet<&'a str> {
    pairs.keys().map(|(key, _)| *key).collect()
}

/// The amounts of the domains a node is in.
fn amounts(pairs: &Pairs<'_>, keys: &BTreeSet<&str>, node: &NodeInfo) -> i64 {
    keys.iter().filter_map(|key| node.label(key).and_then(|value| pairs.get(&(*key, value)))).sum()
}

fn all_match(terms: &[AffinityTerm], class: &Class, namespaces: &BTreeMap<String, Labels>) -> bool {
    !terms.is_empty() && terms.iter().all(|t| t.matches(class, namespaces))
}

/// Domains in which a placed pod's required anti-affinity forbids this pod.
fn forbidden(cycle: Cycle<'_>) -> Pairs<'_> {
    let mut pairs = Pairs::new();
    if !cycle.cluster.any_affinity() {
        return pairs;
    }
    for node in cycle.cluster.nodes() {
        for placed in &node.with_affinity {
            for term in placed.anti_affinity.iter().filter(|t| t.matches(&cycle.pod.class, &cycle.cluster.namespaces)) {
                bump(&mut pairs, node, &term.topology_key, 1);
            }
        }
    }
    pairs
}

/// Domains by pods that satisfy the pod's affinity and that its anti-affinity avoids.
fn own_terms<'a>(cycle: Cycle<'a>) -> (Pairs<'a>, Pairs<'a>) {
    let (mut with, mut without) = (Pairs::new(), Pairs::new());
    let pod = cycle.pod;
    if pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
        return (with, without);
    }
    let namespaces = &cycle.cluster.namespaces;
    for node in cycle.cluster.nodes() {
        for (class, count) in &node.classes {
            if all_match(&pod.affinity, class, namespaces) {
                for term in &pod.affinity {
                    bump(&mut with, node, &term.topology_key, count.all);
                }
            }
            for term in pod.anti_affinity.iter().filter(|t| t.matches(class, namespaces)) {
                bump(&mut without, node, &term.topology_key, count.all);
            }
        }
    }
    (with, without)
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let pod = cycle.pod;
        let forbidden = forbidden(cycle);
        if forbidden.is_empty() && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return Filter::Skip;
        }
        let (with, without) = own_terms(cycle);
        let forbidden_keys = keys(&forbidden);
        // The first of pods that want to be together has nobody to join.
        let first = with.is_empty() && all_match(&pod.affinity, &pod.class, &cycle.cluster.namespaces);
        Filter::Nodes(Box::new(move |node| {
            let at = |pairs: &Pairs<'_>, key: &str| node.label(key).is_some_and(|value| pairs.get(&(key, value)).is_some_and(|n| *n > 0));
            let joined = pod.affinity.iter().all(|t| node.label(&t.topology_key).is_some() && (first || at(&with, &t.topology_key)));
            if !joined {
                return Err(Refusal::lasting("node(s) didn't match pod affinity rules"));
            }
            if pod.anti_affinity.iter().any(|t| at(&without, &t.topology_key)) {
                return Err(Refusal::resolvable("node(s) didn't match pod anti-affinity rules"));
            }
            if amounts(&forbidden, &forbidden_keys, node) > 0 {
                return Err(Refusal::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
            }
            Ok(())
        }))
    }

    fn score(&self, cycle: Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let (pod, cluster) = (cycle.pod, cycle.cluster);
        if pod.preferred.is_empty() && !cluster.any_affinity() {
            return None;
        }
        let mut pairs = Pairs::new();
        for node in cluster.nodes() {
            for (class, count) in node.classes.iter().filter(|_| !pod.preferred.is_empty()) {
                for term in pod.preferred.iter().filter(|t| t.matches(class, &cluster.namespaces)) {
                    bump(&mut pairs, node, &term.topology_key, term.weight * count.all);
                }
            }
            for placed in &node.with_affinity {
                for term in placed.affinity.iter().filter(|t| t.matches(&pod.class, &cluster.namespaces)) {
                    bump(&mut pairs, node, &term.topology_key, HARD_AFFINITY_WEIGHT);
                }
                for term in placed.preferred.iter().filter(|t| t.matches(&pod.class, &cluster.namespaces)) {
                    bump(&mut pairs, node, &term.topology_key, term.weight);
                }
            }
        }
        if pairs.is_empty() {
            return None;
        }
        let keys = keys(&pairs);
        let raw: Vec<i64> = nodes.iter().map(|n| amounts(&pairs, &keys, n)).collect();
        let (least, most) = (raw.iter().min()?, raw.iter().max()?);
        Some(raw.iter().map(|s| if most == least { 0 } else { (s - least) * MAX_SCORE / (most - least) }).collect())
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, cluster: &Cluster) -> bool {
        let namespaces = &cluster.namespaces;
        match event {
            ClusterEvent::PodPlaced(other) => all_match(&pod.affinity, &other.class, namespaces),
            ClusterEvent::PodRemoved(other) => {
                pod.anti_affinity.iter().any(|t| t.matches(&other.class, namespaces))
                    || other.anti_affinity.iter().any(|t| t.matches(&pod.class, namespaces))
            }
            ClusterEvent::PodRelabelled(_) | ClusterEvent::PodChanged | ClusterEvent::Namespace => true,
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::NodeUpdated { old, new } => old.metadata.labels != new.metadata.labels,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{cluster, node, pod, refusal};
    use super::*;

    const ZONE: &str = "zone";

    fn two_zones() -> Cluster {
        cluster([node("a").label(ZONE, "1"), node("b").label(ZONE, "2")])
    }

    #[test]
    fn affinity_joins_pods_of_its_domain_and_the_first_may_go_anywhere() {
        let mut cluster = two_zones();
        let wanting = pod("p").label("app", "x").affinity("app=x", ZONE).info();
        assert_eq!(refusal(&InterPodAffinity, &wanting, &cluster, "a"), None);
        cluster.place(pod("q").label("app", "x").info(), "b");
        assert_eq!(refusal(&InterPodAffinity, &wanting, &cluster, "a").as_deref(), Some("node(s) didn't match pod affinity rules"));
        assert_eq!(refusal(&InterPodAffinity, &wanting, &cluster, "b"), None);
        let stranger = pod("s").label("app", "y").affinity("app=z", ZONE).info();
        assert_eq!(refusal(&InterPodAffinity, &stranger, &cluster, "b").as_deref(), Some("node(s) didn't match pod affinity rules"));
    }

    #[test]
    fn anti_affinity_holds_in_both_directions() {
        let mut cluster = two_zones();
        cluster.place(pod("q").label("app", "x").anti_affinity("app=y", ZONE).info(), "a");
        let hated = pod("p").label("app", "y").info();
        assert_eq!(refusal(&InterPodAffinity, &hated, &cluster, "a").as_deref(), Some("node(s) didn't satisfy existing pods anti-affinity rules"));
        let hating = pod("h").anti_affinity("app=x", ZONE).info();
        assert_eq!(refusal(&InterPodAffinity, &hating, &cluster, "a").as_deref(), Some("node(s) didn't match pod anti-affinity rules"));
        assert_eq!(refusal(&InterPodAffinity, &hating, &cluster, "b"), None);
    }

    #[test]
    fn terms_stay_within_their_namespaces() {
        let mut cluster = two_zones();
        cluster.place(pod("q").namespace("other").label("app", "x").info(), "a");
        let pod = pod("p").anti_affinity("app=x", ZONE).info();
        assert_eq!(refusal(&InterPodAffinity, &pod, &cluster, "a"), None);
    }
}

//! One decision: which node a pod goes to, or why none (`pkg/scheduler/schedule_one.go`).
//!
//! Pure: given the pod, the cluster and a source of randomness, it does no I/O and leaves the cluster as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use rand::Rng;

use super::cluster::Cluster;
use super::node_info::NodeInfo;
use super::plugins::{Check, Cycle, Filter, PLUGINS, Refusal};
use super::pod_info::PodInfo;

/// Up to this many nodes, all of them are looked at.
const ALWAYS_ALL: usize = 100;

/// Why no node would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// The text of a plugin that ruled all nodes out at once.
    pub at_once: Option<String>,
    /// Each node's plugin and refusal.
    pub verdicts: BTreeMap<Arc<str>, (&'static str, Refusal)>,
    /// The plugins whose refusals may be lifted by events.
    pub plugins: BTreeSet<&'static str>,
    /// What preemption said, with its prefix; empty when it found room.
    pub preemption: String,
    /// How often each reason was given, when the verdicts themselves are no longer kept.
    summed: BTreeMap<String, usize>,
}

impl Diagnosis {
    /// A diagnosis over one set of refusals, without plugins.
    pub fn of(nodes: usize, refusals: impl Iterator<Item = (Arc<str>, Refusal)>) -> Self {
        Diagnosis { nodes, verdicts: refusals.map(|(n, r)| (n, ("", r))).collect(), ..Diagnosis::default() }
    }

    /// The same without the nodes one by one: it reads the same, and its size does not depend on the cluster's.
    pub fn summary(&self) -> Self {
        Diagnosis { verdicts: BTreeMap::new(), summed: self.counts(), ..self.clone() }
    }

    /// How many nodes gave each reason.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = self.summed.clone();
        for reason in self.verdicts.values().flat_map(|(_, r)| &r.reasons) {
            *counts.entry(reason.clone().into_owned()).or_default() += 1;
        }
        counts
    }
}

impl fmt::Display for Diagnosis {
    /// Upstream's `FitError`: counts of reasons, sorted as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        match &self.at_once {
            Some(text) => write!(f, " {text}.")?,
            None => {
                let mut texts: Vec<String> = self.counts().iter().map(|(reason, count)| format!("{count} {reason}")).collect();
                texts.sort();
                if !texts.is_empty() {
                    write!(f, " {}.", texts.join(", "))?;
                }
            }
        }
        if self.preemption.is_empty() { Ok(()) } else { write!(f, " {}", self.preemption) }
    }
}

/// The filters that have something to say about a pod.
struct Filters<'a>(Vec<(&'static str, Check<'a>)>);

impl<'a> Filters<'a> {
    /// Prepares them; the error is a plugin that refuses every node at once.
    fn prepare(cycle: Cycle<'a>) -> Result<Self, (&'static str, Refusal)> {
        let mut filters = Vec::new();
        for plugin in PLUGINS {
            match plugin.filter(cycle) {
                Filter::Skip => {}
                Filter::Refuse(refusal) => return Err((plugin.name(), refusal)),
                Filter::Nodes(check) => filters.push((plugin.name(), check)),
            }
        }
        Ok(Filters(filters))
    }

    fn check(&self, node: &NodeInfo) -> Result<(), (&'static str, Refusal)> {
        self.0.iter().try_for_each(|(name, check)| check(node).map_err(|refusal| (*name, refusal)))
    }
}

/// Whether one node would take a pod now.
///
/// # Errors
/// The first plugin that refuses, and why.
pub fn check_node(pod: &PodInfo, cluster: &Cluster, node: &str) -> Result<(), (&'static str, Refusal)> {
    let filters = Filters::prepare(Cycle { pod, cluster })?;
    match cluster.node(node) {
        Some(node) => filters.check(node),
        None => Err(("NodeName", Refusal::lasting("node(s) didn't match the requested node name"))),
    }
}

/// How many feasible nodes are enough; upstream's adaptive percentage.
fn enough(nodes: usize) -> usize {
    if nodes <= ALWAYS_ALL {
        return nodes;
    }
    let percentage = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percentage / 100).max(ALWAYS_ALL)
}

/// Picks a node for a pod. `start` is where the search begins and is moved on, so that large clusters are used evenly; `rng`
/// breaks ties.
///
/// # Errors
/// Why no node would do, without preemption's part.
pub fn pick(pod: &PodInfo, cluster: &mut Cluster, start: &mut usize, rng: &mut impl Rng) -> Result<Arc<str>, Box<Diagnosis>> {
    let mut diagnosis = Diagnosis { nodes: cluster.nodes().count(), ..Diagnosis::default() };
    // Room that preemption has made is used first.
    if let Some(nominated) = pod.nominated_node()
        && check_node(pod, cluster, nominated).is_ok()
        && survives_nominated(pod, cluster, nominated).is_ok()
        && let Some(node) = cluster.node(nominated)
    {
        return Ok(node.name.clone());
    }
    let feasible = feasible(pod, cluster, start, &mut diagnosis);
    let feasible: Vec<Arc<str>> = feasible
        .into_iter()
        .filter(|name| match survives_nominated(pod, cluster, name) {
            Ok(()) => true,
            Err((plugin, refusal)) => {
                diagnosis.plugins.insert(plugin);
                diagnosis.verdicts.insert(name.clone(), (plugin, refusal));
                false
            }
        })
        .collect();
    match feasible.as_slice() {
        [] => Err(Box::new(diagnosis)),
        [one] => Ok(one.clone()),
        many => Ok(best(pod, cluster, many, rng)),
    }
}

fn feasible(pod: &PodInfo, cluster: &Cluster, start: &mut usize, diagnosis: &mut Diagnosis) -> Vec<Arc<str>> {
    let filters = match Filters::prepare(Cycle { pod, cluster }) {
        Ok(filters) => filters,
        Err((plugin, refusal)) => {
            diagnosis.plugins.insert(plugin);
            diagnosis.at_once = Some(refusal.reasons.join(", "));
            diagnosis.verdicts = cluster.nodes().map(|n| (n.name.clone(), (plugin, refusal.clone()))).collect();
            return Vec::new();
        }
    };
    let total = diagnosis.nodes;
    let wanted = enough(total);
    let mut found = Vec::new();
    let mut looked = 0;
    let begin = if total == 0 { 0 } else { *start % total };
    for node in cluster.nodes().cycle().skip(begin).take(total) {
        looked += 1;
        match filters.check(node) {
            Ok(()) => {
                found.push(node.name.clone());
                if found.len() >= wanted {
                    break;
                }
            }
            Err((plugin, refusal)) => {
                diagnosis.plugins.insert(plugin);
                diagnosis.verdicts.insert(node.name.clone(), (plugin, refusal));
            }
        }
    }
    *start = begin + looked;
    found
}

/// Whether a node still takes the pod once the pods of the same or a higher priority for which room is being made there have come.
///
/// # Errors
/// The first plugin that refuses then, and why.
pub fn survives_nominated(pod: &PodInfo, cluster: &mut Cluster, node: &str) -> Result<(), (&'static str, Refusal)> {
    let ahead: Vec<Arc<PodInfo>> = cluster
        .nominated(node)
        .iter()
        .filter(|n| n.priority >= pod.priority && n.key != pod.key && cluster.placement(&n.key).is_none())
        .cloned()
        .collect();
    if ahead.is_empty() {
        return Ok(());
    }
    for other in &ahead {
        cluster.place(other.clone(), node);
    }
    let verdict = check_node(pod, cluster, node);
    for other in &ahead {
        cluster.displace(&other.key);
    }
    verdict
}

fn best(pod: &PodInfo, cluster: &Cluster, names: &[Arc<str>], rng: &mut impl Rng) -> Arc<str> {
    let nodes: Vec<&NodeInfo> = names.iter().filter_map(|n| cluster.node(n)).collect();
    let mut totals = vec![0i64; nodes.len()];
    for plugin in PLUGINS {
        if let Some(scores) = plugin.score(Cycle { pod, cluster }, &nodes) {
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * plugin.weight();
            }
        }
    }
    let highest = totals.iter().copied().max().unwrap_or(0);
    let ties: Vec<usize> = (0..nodes.len()).filter(|at| totals[*at] == highest).collect();
    nodes[ties[rng.random_range(0..ties.len())]].name.clone()
}

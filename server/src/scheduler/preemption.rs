//! Which pods give way to one of a higher priority (`pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go`,
//! `pkg/scheduler/framework/preemption/preemption.go`).
//!
//! Pure: it tries removals out on the cluster and always puts the pods back. Deleting victims is the shell's part.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use rand::Rng;
use shared::selector::Selector;

use super::cluster::{Cluster, ObjectKey};
use super::decide::{Diagnosis, check_node, survives_nominated};
use super::plugins::Refusal;
use super::pod_info::PodInfo;

/// Candidates looked at: a tenth of the nodes, but at least this many.
const LEAST_CANDIDATES: usize = 100;

/// Room that can be made.
#[derive(Clone, Debug)]
pub struct Preemption {
    /// Where.
    pub node: Arc<str>,
    /// By deleting these.
    pub victims: Vec<Arc<PodInfo>>,
}

struct Candidate {
    node: Arc<str>,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Finds the node where preemption does the least harm.
///
/// # Errors
/// Upstream's text, without the `preemption: ` prefix.
pub fn preempt(pod: &PodInfo, cluster: &mut Cluster, diagnosis: &Diagnosis, rng: &mut impl Rng) -> Result<Preemption, String> {
    eligible(pod, cluster, diagnosis)?;
    let mut potential: Vec<Arc<str>> = diagnosis.verdicts.iter().filter(|(_, (_, r))| r.resolvable).map(|(n, _)| n.clone()).collect();
    let mut refusals: BTreeMap<Arc<str>, Refusal> =
        cluster.nodes().map(|n| (n.name.clone(), Refusal::lasting("Preemption is not helpful for scheduling"))).collect();
    let wanted = (cluster.nodes().count() / 10).max(LEAST_CANDIDATES);
    if !potential.is_empty() {
        let offset = rng.random_range(0..potential.len());
        potential.rotate_left(offset);
    }
    let mut candidates = Vec::new();
    for node in potential {
        match victims_on(pod, cluster, &node) {
            Ok(candidate) => candidates.push(candidate),
            Err(refusal) => {
                refusals.insert(node, refusal);
            }
        }
        if candidates.len() >= wanted {
            break;
        }
    }
    match candidates.into_iter().min_by_key(harm) {
        Some(best) => Ok(Preemption { node: best.node, victims: best.victims }),
        None => Err(Diagnosis::of(diagnosis.nodes, refusals.into_iter()).to_string()),
    }
}

fn eligible(pod: &PodInfo, cluster: &Cluster, diagnosis: &Diagnosis) -> Result<(), String> {
    if pod.spec().and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return Err("not eligible due to preemptionPolicy=Never.".into());
    }
    let Some(nominated) = pod.nominated_node() else { return Ok(()) };
    // When the nominated node has become impossible, looking for another is right.
    if diagnosis.verdicts.get(nominated).is_some_and(|(_, r)| !r.resolvable) {
        return Ok(());
    }
    let leaving = |p: &Arc<PodInfo>| p.priority < pod.priority && p.terminating();
    if cluster.node(nominated).is_some_and(|n| n.pods.iter().any(leaving)) {
        return Err("not eligible due to a terminating pod on the nominated node.".into());
    }
    Ok(())
}

/// The order in which candidates are compared: fewer budget violations, a less important most important victim, a smaller sum
/// of priorities, fewer victims, and victims that started later.
fn harm(candidate: &Candidate) -> (usize, i32, i64, usize, std::cmp::Reverse<Option<Timestamp>>) {
    let highest = candidate.victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
    let sum = candidate.victims.iter().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = candidate.victims.iter().filter(|v| v.priority == highest).filter_map(|v| v.started()).min();
    (candidate.violations, highest, sum, candidate.victims.len(), std::cmp::Reverse(earliest))
}

/// The fewest and least important pods whose removal lets the pod in.
fn victims_on(pod: &PodInfo, cluster: &mut Cluster, node: &Arc<str>) -> Result<Candidate, Refusal> {
    let mut lower: Vec<Arc<PodInfo>> =
        cluster.node(node).map(|n| n.pods.iter().filter(|p| p.priority < pod.priority).cloned().collect()).unwrap_or_default();
    if lower.is_empty() {
        return Err(Refusal::lasting("No preemption victims found for incoming pod"));
    }
    for victim in &lower {
        cluster.displace(&victim.key);
    }
    let outcome = fits(pod, cluster, node).map_err(|(_, refusal)| refusal).map(|()| {
        lower.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.started().cmp(&b.started())).then_with(|| a.key.cmp(&b.key)));
        let (violating, rest) = by_budget(&lower, cluster);
        let mut candidate = Candidate { node: node.clone(), victims: Vec::new(), violations: 0 };
        for victim in violating {
            candidate.violations += usize::from(!reprieved(pod, cluster, &victim, &mut candidate.victims, node));
        }
        for victim in rest {
            reprieved(pod, cluster, &victim, &mut candidate.victims, node);
        }
        candidate
    });
    for victim in &lower {
        cluster.place(victim.clone(), node);
    }
    outcome
}

/// Whether a node takes the pod now, and also once those have come for whom room was made before.
fn fits(pod: &PodInfo, cluster: &mut Cluster, node: &str) -> Result<(), (&'static str, Refusal)> {
    check_node(pod, cluster, node)?;
    survives_nominated(pod, cluster, node)
}

/// Puts a pod back if there is still room with it; otherwise it is a victim.
fn reprieved(pod: &PodInfo, cluster: &mut Cluster, other: &Arc<PodInfo>, victims: &mut Vec<Arc<PodInfo>>, node: &str) -> bool {
    cluster.place(other.clone(), node);
    let stays = fits(pod, cluster, node).is_ok();
    if !stays {
        cluster.displace(&other.key);
        victims.push(other.clone());
    }
    stays
}

/// Splits pods into those whose removal would violate a disruption budget and the others.
fn by_budget(pods: &[Arc<PodInfo>], cluster: &Cluster) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: BTreeMap<&ObjectKey, i32> = BTreeMap::new();
    pods.iter().cloned().partition(|pod| {
        let mut violates = false;
        for (key, budget) in cluster.budgets.iter().filter(|(key, _)| key.0 == pod.namespace()) {
            let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
            let selects = Selector::from_label_selector(selector).is_ok_and(|s| !s.is_everything() && s.matches(&pod.class.labels));
            let status = budget.status.as_ref();
            if !selects || pod.class.labels.is_empty() || status.and_then(|s| s.disrupted_pods.as_ref()).is_some_and(|d| d.contains_key(pod.name())) {
                continue;
            }
            let left = left.entry(key).or_insert_with(|| status.and_then(|s| s.disruptions_allowed).unwrap_or(0));
            *left -= 1;
            violates |= *left < 0;
        }
        violates
    })
}

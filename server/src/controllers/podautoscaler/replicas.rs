//! How many replicas a resource metric asks for (`pkg/controller/podautoscaler/replica_calculator.go`).
//!
//! Pure: pods and what they use in, a size out. Amounts are milli-units of the resource.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use shared::quantity::Quantity;

/// A ratio this near to one changes nothing (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;
/// While a pod is this young, its CPU counts only once it is ready (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: i64 = 300;
/// A pod that was never ready within this time of its start counts as unready (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const INITIAL_READINESS: i64 = 30;

/// What a pod uses: of one container, or of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub amount: i64,
    /// When it was measured, and over how many seconds.
    pub at: Timestamp,
    pub window: i64,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Percent of what is requested.
    Utilization(i64),
    /// An amount for each pod.
    AverageValue(i64),
}

/// The size, and what the status shows of the metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub replicas: i32,
    /// Percent of what is requested, for a target of that kind.
    pub utilization: Option<i32>,
    /// For each pod.
    pub average: i64,
}

/// A resource of one container, or of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource<'a> {
    pub name: &'a str,
    pub container: Option<&'a str>,
}

/// The pods, by what they say about load.
#[derive(Default)]
struct Groups {
    ready: BTreeSet<String>,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

/// The size that the use of a resource asks for.
///
/// # Errors
/// Why it cannot be told, in upstream's words.
pub(super) fn propose(
    current: i32,
    resource: Resource<'_>,
    target: Target,
    pods: &[&Pod],
    used: &BTreeMap<String, Use>,
    now: Timestamp,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = group(resource, pods, used, now);
    let mut amounts: BTreeMap<String, i64> =
        used.iter().filter(|(name, _)| groups.ready.contains(*name)).map(|(name, used)| (name.clone(), used.amount)).collect();
    if amounts.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let requests = match target {
        Target::Utilization(_) => requests(resource, pods)?,
        Target::AverageValue(_) => BTreeMap::new(),
    };
    let (ratio, utilization, average) = ratio(target, &amounts, &requests);
    let proposal = |replicas: i32| Proposal { replicas, utilization, average };
    let near = |ratio: f64| (1.0 - ratio).abs() <= TOLERANCE;
    let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        return Ok(proposal(if near(ratio) { current } else { ceil(ratio * amounts.len() as f64) }));
    }
    // What is not known is taken for what makes the change smaller.
    let assumed = |name: &String| match target {
        Target::Utilization(percent) => requests.get(name).copied().unwrap_or(0) * percent.max(100) / 100,
        Target::AverageValue(amount) => amount,
    };
    if ratio < 1.0 {
        amounts.extend(groups.missing.iter().map(|name| (name.clone(), assumed(name))));
    } else if ratio > 1.0 {
        amounts.extend(groups.missing.iter().map(|name| (name.clone(), 0)));
    }
    if up_with_unready {
        amounts.extend(groups.unready.iter().map(|name| (name.clone(), 0)));
    }
    let (guarded, ..) = self::ratio(target, &amounts, &requests);
    if near(guarded) || (ratio < 1.0 && guarded > 1.0) || (ratio > 1.0 && guarded < 1.0) {
        return Ok(proposal(current));
    }
    let wanted = ceil(guarded * amounts.len() as f64);
    // The direction stays, whatever was assumed.
    let against = (guarded < 1.0 && wanted > current) || (guarded > 1.0 && wanted < current);
    Ok(proposal(if against { current } else { wanted }))
}

fn ceil(value: f64) -> i32 {
    // Large ratios end at the largest size.
    value.ceil() as i32
}

fn group(resource: Resource<'_>, pods: &[&Pod], used: &BTreeMap<String, Use>, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let status = pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let into = if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            &mut groups.ignored
        } else if phase == "Pending" {
            &mut groups.unready
        } else if let Some(used) = used.get(&name) {
            if resource.name == "cpu" && unready(pod, used, now) { &mut groups.unready } else { &mut groups.ready }
        } else {
            &mut groups.missing
        };
        into.insert(name);
    }
    groups
}

/// Whether a pod's CPU says nothing about load yet.
fn unready(pod: &Pod, used: &Use, now: Timestamp) -> bool {
    let status = pod.status.as_ref();
    let condition = status.and_then(|s| s.conditions.as_ref()).and_then(|list| list.iter().find(|c| c.type_ == "Ready"));
    let (Some(condition), Some(start)) = (condition, status.and_then(|s| s.start_time.as_ref())) else { return true };
    let changed = condition.last_transition_time.as_ref().map_or(start.0, |t| t.0).as_second();
    if start.0.as_second() + CPU_INITIALIZATION > now.as_second() {
        return condition.status == "False" || used.at.as_second() < changed + used.window;
    }
    condition.status == "False" && start.0.as_second() + INITIAL_READINESS > changed
}

/// What the pods request of the resource.
fn requests(resource: Resource<'_>, pods: &[&Pod]) -> Result<BTreeMap<String, i64>, String> {
    let mut all = BTreeMap::new();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let mut sum = 0;
        for container in pod.spec.iter().flat_map(|s| &s.containers).filter(|c| resource.container.is_none_or(|wanted| c.name == wanted)) {
            let request = container.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get(resource.name));
            let request = request.ok_or_else(|| format!("missing request for {} in container {} of Pod {name}", resource.name, container.name))?;
            sum += Quantity::of(request).millis();
        }
        all.insert(name, sum);
    }
    Ok(all)
}

/// Use over target; with the utilization, if that is the target, and the average.
fn ratio(target: Target, amounts: &BTreeMap<String, i64>, requests: &BTreeMap<String, i64>) -> (f64, Option<i32>, i64) {
    let total: i64 = amounts.values().sum();
    let average = total / amounts.len().max(1) as i64;
    match target {
        Target::Utilization(percent) => {
            let requested: i64 = amounts.keys().filter_map(|name| requests.get(name)).sum();
            let utilization = if requested == 0 { 0 } else { total * 100 / requested };
            (utilization as f64 / percent.max(1) as f64, i32::try_from(utilization).ok(), average)
        }
        Target::AverageValue(amount) => (average as f64 / amount.max(1) as f64, None, average),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2024-01-01T01:00:00Z".parse().unwrap()
    }

    fn pod(name: &str, phase: &str, request: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": request}}}]},
            "status": {"phase": phase, "startTime": "2024-01-01T00:00:00Z",
                       "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:01:00Z"}]}
        }))
        .unwrap()
    }

    fn proposed(current: i32, target: Target, pods: &[Pod], used: &[i64]) -> Result<Proposal, String> {
        let used = used.iter().enumerate().map(|(i, amount)| (format!("p{i}"), Use { amount: *amount, at: now(), window: 15 })).collect();
        let pods: Vec<&Pod> = pods.iter().collect();
        propose(current, Resource { name: "cpu", container: None }, target, &pods, &used, now())
    }

    #[test]
    fn the_size_follows_the_use_beyond_the_tolerance() {
        let pods = || (0..3).map(|i| pod(&format!("p{i}"), "Running", "1")).collect::<Vec<_>>();
        for (used, target, size, utilization) in
            [([300, 500, 700], 30, 5, 50), ([300, 500, 700], 50, 3, 50), ([300, 500, 700], 47, 3, 50), ([100, 300, 500], 60, 2, 30)]
        {
            let found = proposed(3, Target::Utilization(target), &pods(), &used).unwrap();
            assert_eq!((found.replicas, found.utilization), (size, Some(utilization)), "{used:?} of {target}");
        }
        assert_eq!(proposed(3, Target::AverageValue(250), &pods(), &[500, 500, 500]).unwrap().replicas, 6);
    }

    #[test]
    fn what_is_not_known_makes_changes_smaller() {
        let mut pods: Vec<Pod> = (0..3).map(|i| pod(&format!("p{i}"), "Running", "1")).collect();
        // Up, with one pod that says nothing: it is taken to be idle.
        assert_eq!(proposed(3, Target::Utilization(50), &pods, &[1000, 1000]).unwrap().replicas, 4);
        // Down: it is taken to use what it requests.
        assert_eq!(proposed(3, Target::Utilization(90), &pods, &[300, 300]).unwrap().replicas, 2);
        pods[2] = pod("p2", "Pending", "1");
        assert_eq!(proposed(3, Target::Utilization(50), &pods, &[1000, 1000]).unwrap().replicas, 4, "a pod that starts may help");
        pods[0].metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
        assert!(proposed(1, Target::Utilization(50), &pods[..1], &[1000]).unwrap_err().contains("pods might be unready"));
    }

    #[test]
    fn a_container_without_a_request_is_named() {
        let mut bare = pod("p0", "Running", "1");
        bare.spec.as_mut().unwrap().containers[0].resources = None;
        assert_eq!(proposed(1, Target::Utilization(50), &[bare], &[5]).unwrap_err(), "missing request for cpu in container c of Pod p0");
    }
}

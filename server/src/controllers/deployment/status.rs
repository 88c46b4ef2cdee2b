//! A deployment's status: counts, conditions and the progress deadline (`pkg/controller/deployment/progress.go`, `sync.go`). Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::Limits;
use crate::controllers::{elapsed, pods};

/// Condition: the rollout moves on.
pub const PROGRESSING: &str = "Progressing";
/// Condition: enough pods serve.
pub const AVAILABLE: &str = "Available";
/// Condition: pods cannot be made or removed.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";
/// Reason: the rollout is complete.
pub const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
/// Reason: nothing moved for too long.
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// A condition of now.
pub fn condition(type_: &str, status: &str, reason: &str, message: impl Into<String>, now: &Time) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    }
}

/// The condition of a type.
pub fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

/// Sets a condition, unless it says the same already; the transition time changes with the status only.
pub fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

/// Removes a condition.
pub fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != type_);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// How long a rollout may stand still; `None` for ever.
pub fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| pods::seconds(seconds))
}

/// The counts and the Available condition that describe the ReplicaSets (`calculateStatus`).
pub fn calculate(deployment: &Deployment, new: Option<&ReplicaSet>, all: &[Arc<ReplicaSet>], limits: &Limits, now: &Time) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&ReplicaSet) -> i32| all.iter().map(|s| count(s)).sum::<i32>();
    let available = sum(|s| s.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default());
    let total = sum(|s| s.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default());
    let some = |count: i32| (count != 0).then_some(count);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(|s| s.status.as_ref().map_or(0, |s| s.replicas))),
        updated_replicas: some(new.and_then(|s| s.status.as_ref()).map_or(0, |s| s.replicas)),
        ready_replicas: some(sum(|s| s.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default())),
        available_replicas: some(available),
        unavailable_replicas: some((total - available).max(0)),
        terminating_replicas: terminating(all),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let availability = if available >= limits.fewest() {
        condition(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    } else {
        condition(AVAILABLE, "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", now)
    };
    set(&mut status, availability);
    status
}

/// Pods on their way out; `None` while a ReplicaSet with pods does not report it.
fn terminating(all: &[Arc<ReplicaSet>]) -> Option<i32> {
    let statuses = all.iter().map(|s| s.status.as_ref().map_or((0, None), |s| (s.replicas, s.terminating_replicas)));
    statuses.map(|(replicas, terminating)| if replicas == 0 { Some(terminating.unwrap_or_default()) } else { terminating }).sum()
}

/// Everything runs the newest template and is available.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let desired = desired(deployment);
    status.updated_replicas.unwrap_or_default() == desired
        && status.replicas.unwrap_or_default() == desired
        && status.available_replicas.unwrap_or_default() == desired
        && status.observed_generation.unwrap_or_default() >= deployment.metadata.generation.unwrap_or_default()
}

/// Pods wanted.
pub fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or_default();
    let rest = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || rest(new) < rest(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: &Time) -> bool {
    let (Some(deadline), Some(progressing)) = (deadline(deployment), find(status, PROGRESSING)) else { return false };
    match progressing.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => progressing.last_update_time.as_ref().is_some_and(|from| elapsed(from, now) > deadline),
    }
}

/// Completes a calculated status with what the rollout is up to (`syncRolloutStatus`).
pub fn judge(
    deployment: &Deployment,
    mut status: DeploymentStatus,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    now: &Time,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let current = find(&old, PROGRESSING).cloned();
    let subject = match new {
        Some(set) => format!("ReplicaSet \"{}\"", set.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let was_complete = status.replicas == status.updated_replicas && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(NEW_AVAILABLE));
    if deadline(deployment).is_none() {
        remove(&mut status, PROGRESSING);
    } else if !was_complete {
        if is_complete(deployment, &status) {
            set(&mut status, condition(PROGRESSING, "True", NEW_AVAILABLE, format!("{subject} has successfully progressed."), now));
        } else if is_progressing(&old, &status) {
            let mut fresh = condition(PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."), now);
            if let Some(current) = current {
                if current.status == "True" {
                    fresh.last_transition_time = current.last_transition_time;
                }
                // Removed first, so that the update time, from which the deadline counts, moves on.
                remove(&mut status, PROGRESSING);
            }
            set(&mut status, fresh);
        } else if is_timed_out(deployment, &status, now) {
            set(&mut status, condition(PROGRESSING, "False", TIMED_OUT, format!("{subject} has timed out progressing."), now));
        }
    }
    match failure(new, all) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    status
}

/// The newest ReplicaSet's failure, or else any other's.
fn failure(new: Option<&ReplicaSet>, all: &[Arc<ReplicaSet>]) -> Option<DeploymentCondition> {
    let of = |set: &ReplicaSet| set.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == REPLICA_FAILURE).cloned();
    let found = new.and_then(of).or_else(|| all.iter().find_map(|s| of(s)))?;
    Some(DeploymentCondition {
        type_: found.type_,
        status: found.status,
        reason: found.reason,
        message: found.message,
        last_update_time: found.last_transition_time.clone(),
        last_transition_time: found.last_transition_time,
    })
}

/// When to look again in case nothing moves until then (`requeueStuckDeployment`).
pub fn next_check(deployment: &Deployment, status: &DeploymentStatus, now: &Time) -> Option<Duration> {
    let (deadline, current) = (deadline(deployment)?, find(status, PROGRESSING)?);
    if is_complete(deployment, status) || matches!(current.reason.as_deref(), Some(TIMED_OUT | NEW_AVAILABLE)) {
        return None;
    }
    // A second more, since times are kept in whole seconds.
    let since = elapsed(current.last_update_time.as_ref()?, now);
    Some(deadline.saturating_sub(since) + Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSetSpec, ReplicaSetStatus};
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn deployment(replicas: i32, deadline: Option<i32>) -> Deployment {
        let mut d = Deployment::default();
        d.metadata.name = Some("web".into());
        d.metadata.generation = Some(2);
        d.spec = Some(DeploymentSpec { replicas: Some(replicas), progress_deadline_seconds: deadline, ..DeploymentSpec::default() });
        d
    }

    fn set_of(replicas: i32, available: i32) -> Arc<ReplicaSet> {
        let mut s = ReplicaSet::default();
        s.metadata.name = Some("web-1".into());
        s.spec = Some(ReplicaSetSpec { replicas: Some(replicas), ..ReplicaSetSpec::default() });
        let status =
            ReplicaSetStatus { replicas, ready_replicas: Some(available), available_replicas: Some(available), ..ReplicaSetStatus::default() };
        s.status = Some(status);
        Arc::new(s)
    }

    fn step(d: &mut Deployment, available: i32, now: i64) -> String {
        let set = set_of(desired(d), available);
        let limits = Limits::strict(desired(d));
        let status = calculate(d, Some(&set), std::slice::from_ref(&set), &limits, &at(now));
        let status = judge(d, status, Some(&set), std::slice::from_ref(&set), &at(now));
        let progressing = find(&status, PROGRESSING).map(|c| format!("{} {}", c.status, c.reason.clone().unwrap())).unwrap_or_default();
        d.status = Some(status);
        progressing
    }

    #[test]
    fn a_rollout_progresses_times_out_and_completes() {
        let mut d = deployment(3, Some(10));
        assert_eq!(step(&mut d, 1, 0), "True ReplicaSetUpdated");
        assert_eq!(next_check(&d, d.status.as_ref().unwrap(), &at(4)), Some(Duration::from_secs(7)));
        assert_eq!(step(&mut d, 1, 10), "True ReplicaSetUpdated");
        assert_eq!(step(&mut d, 1, 11), "False ProgressDeadlineExceeded");
        assert_eq!(next_check(&d, d.status.as_ref().unwrap(), &at(11)), None);
        assert_eq!(step(&mut d, 1, 50), "False ProgressDeadlineExceeded");
        assert_eq!(step(&mut d, 2, 60), "True ReplicaSetUpdated");
        assert_eq!(step(&mut d, 3, 61), "True NewReplicaSetAvailable");
        assert_eq!(step(&mut d, 2, 500), "True NewReplicaSetAvailable");
    }

    #[test]
    fn without_a_deadline_there_is_no_progress_condition() {
        assert_eq!(step(&mut deployment(3, None), 1, 0), "");
        assert_eq!(step(&mut deployment(3, Some(i32::MAX)), 1, 0), "");
    }

    #[test]
    fn the_update_time_moves_with_progress_and_the_transition_time_does_not() {
        let mut d = deployment(3, Some(10));
        step(&mut d, 1, 0);
        step(&mut d, 2, 5);
        let progressing = find(d.status.as_ref().unwrap(), PROGRESSING).unwrap().clone();
        assert_eq!((progressing.last_transition_time, progressing.last_update_time), (Some(at(0)), Some(at(5))));
    }

    #[test]
    fn the_counts_add_up() {
        let d = deployment(4, None);
        let (new, old) = (set_of(2, 1), set_of(3, 3));
        let status = calculate(&d, Some(&new), &[old, new.clone()], &Limits { desired: 4, surge: 1, unavailable: 0 }, &at(0));
        assert_eq!(
            (status.replicas, status.updated_replicas, status.available_replicas, status.unavailable_replicas),
            (Some(5), Some(2), Some(4), Some(1))
        );
        assert_eq!(find(&status, AVAILABLE).unwrap().status, "True");
    }
}

//! What a Job's pods amount to: indexes, failures, failure and success policies (`pkg/controller/job/indexed_job_utils.go`,
//! `pod_failure_policy.go`, `success_policy.go`, `backoff_utils.go`). Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::{elapsed, pods};

/// Keeps a pod until it is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The index of a pod of an Indexed job.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index had failed before this pod.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const BACKOFF_BASE: u64 = 10;
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// Whether its pods have indexes.
pub fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()) == Some("Indexed")
}

/// Whether a pod is replaced only when it has ended, not as soon as it is on its way out.
pub fn replaces_only_failed(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|s| s.pod_replacement_policy.as_deref() == Some("Failed") || s.pod_failure_policy.is_some())
}

/// Whether a pod counts as failed.
pub fn is_failed(job: &Job, pod: &Pod) -> bool {
    pods::phase(pod) == "Failed" || !replaces_only_failed(job) && pods::is_terminating(pod) && pods::phase(pod) != "Succeeded"
}

/// The condition that ended a job.
pub fn finished(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True").map(|c| c.type_.as_str())
}

/// The index of a pod, if it is one of the job's.
pub fn index_of(job: &Job, pod: &Pod) -> Option<i32> {
    let completions = job.spec.as_ref()?.completions?;
    pods::annotation(pod, INDEX)?.parse().ok().filter(|i| (0..completions).contains(i))
}

/// Reads `1,3-5,7`, keeping what is below `limit`; text that makes no sense is skipped.
pub fn parse_indexes(text: &str, limit: i32) -> BTreeSet<i32> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<i32>(), to.parse::<i32>()) {
            set.extend(from.max(0)..=to.min(limit - 1));
        }
    }
    set
}

/// Writes `1,3-5,7`.
pub fn format_indexes(set: &BTreeSet<i32>) -> String {
    let mut parts: Vec<(i32, i32)> = Vec::new();
    for &index in set {
        match parts.last_mut() {
            Some((_, to)) if *to + 1 == index => *to = index,
            _ => parts.push((index, index)),
        }
    }
    let text = |(from, to): &(i32, i32)| match to - from {
        0 => from.to_string(),
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    };
    parts.iter().map(text).collect::<Vec<_>>().join(",")
}

/// What the failure policy makes of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It counts towards the limit.
    Count,
    /// It does not count.
    Ignore,
    /// The job has failed; why.
    FailJob(String),
    /// The index has failed.
    FailIndex,
}

/// Applies the failure policy to a failed pod (`matchPodFailurePolicy`).
pub fn failure_action(job: &Job, pod: &Pod) -> Action {
    let policy = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref());
    if pods::phase(pod) != "Failed" {
        return Action::Count;
    }
    for (number, rule) in policy.into_iter().flat_map(|p| p.rules.iter()).enumerate() {
        let Some(why) = matches_rule(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Action::Ignore,
            "FailIndex" => Action::FailIndex,
            "FailJob" => Action::FailJob(format!("{why} matching FailJob rule at index {number}")),
            _ => Action::Count,
        };
    }
    Action::Count
}

fn matches_rule(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let label = format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), pods::name(pod));
    if let Some(codes) = &rule.on_exit_codes {
        let status = pod.status.as_ref()?;
        let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        let exit = |c: &ContainerStatus| c.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code);
        let hit = |code: i32| code != 0 && codes.values.contains(&code) == (codes.operator == "In");
        let named = all.filter(|c| codes.container_name.as_ref().is_none_or(|n| *n == c.name));
        let found = named.filter_map(|c| Some((c, exit(c)?))).find(|(_, code)| hit(*code))?;
        return Some(format!("Container {} for pod {label} failed with exit code {}", found.0.name, found.1));
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let mut conditions =
        patterns.filter(|p| pods::condition(pod, &p.type_).is_some_and(|c| c.status == p.status.clone().unwrap_or_else(|| "True".into())));
    conditions.next().map(|p| format!("Pod {label} has condition {}", p.type_))
}

/// The rule of the success policy that holds, as upstream words it.
pub fn success_rule(job: &Job, succeeded: &BTreeSet<i32>) -> Option<String> {
    let policy = job.spec.as_ref()?.success_policy.as_ref()?;
    let completions = job.spec.as_ref()?.completions.unwrap_or_default();
    let holds = |rule: &k8s_openapi::api::batch::v1::SuccessPolicyRule| {
        let within = match &rule.succeeded_indexes {
            Some(text) => parse_indexes(text, completions),
            None => (0..completions).collect(),
        };
        let reached = within.intersection(succeeded).count();
        reached >= rule.succeeded_count.map_or(within.len(), |n| usize::try_from(n).unwrap_or_default())
    };
    policy.rules.iter().position(holds).map(|i| format!("Matched rules at index {i}"))
}

/// When a finished pod finished.
pub fn finished_at(pod: &Pod) -> Option<Time> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let ended = statuses.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.clone()).max();
    let unready = || pods::condition(pod, "Ready").and_then(|c| c.last_transition_time.clone());
    ended.or_else(|| pod.metadata.deletion_timestamp.clone()).or_else(unready).or_else(|| pod.metadata.creation_timestamp.clone())
}

/// The failures of a job in a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    /// Since the last success.
    pub failures: u32,
    /// The last of them.
    pub last: Option<Time>,
}

impl Backoff {
    /// Takes in pods that have just finished, in the order in which they did.
    pub fn note<'a>(&mut self, finished: impl Iterator<Item = (&'a Pod, bool)>) {
        let mut all: Vec<_> = finished.map(|(pod, success)| (finished_at(pod), success)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        for (at, success) in all {
            if success {
                *self = Backoff::default();
            } else {
                self.failures += 1;
                self.last = at.or_else(|| self.last.clone());
            }
        }
    }

    /// How long the next pod must wait: 10 s, doubling to 10 min.
    pub fn wait(&self, now: &Time) -> Duration {
        let Some(last) = self.last.as_ref().filter(|_| self.failures > 0) else { return Duration::ZERO };
        delay(self.failures).saturating_sub(elapsed(last, now))
    }
}

/// The delay after this many failures in a row.
pub fn delay(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => Duration::from_secs(BACKOFF_BASE << (n - 1).min(10)).min(BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn job(spec: Value) -> Job {
        let mut spec = spec;
        spec["template"] = json!({});
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns" }, "status": status })).unwrap()
    }

    fn exited(code: i32) -> Value {
        json!({ "phase": "Failed", "containerStatuses": [{ "name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": { "terminated": { "exitCode": code } } }] })
    }

    #[test]
    fn indexes_are_written_as_ranges_of_three_or_more() {
        for (list, text) in [(vec![], ""), (vec![1], "1"), (vec![1, 2], "1,2"), (vec![1, 2, 3], "1-3"), (vec![0, 2, 3, 4, 7, 8], "0,2-4,7,8")] {
            let set: BTreeSet<i32> = list.into_iter().collect();
            assert_eq!(format_indexes(&set), text);
            assert_eq!(parse_indexes(text, 100), set);
        }
        assert_eq!(parse_indexes("3-9,x,1", 5), [1, 3, 4].into());
    }

    #[test]
    fn the_first_matching_rule_of_the_failure_policy_decides() {
        let job = job(json!({ "podFailurePolicy": { "rules": [
            { "action": "FailJob", "onExitCodes": { "containerName": "main", "operator": "In", "values": [42] } },
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            { "action": "FailIndex", "onExitCodes": { "operator": "NotIn", "values": [1, 42] } },
        ] } }));
        let failed = "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 0";
        let mut disrupted = exited(1);
        disrupted["conditions"] = json!([{ "type": "DisruptionTarget", "status": "True" }]);
        for (status, expected) in [
            (exited(42), Action::FailJob(failed.into())),
            (disrupted, Action::Ignore),
            (exited(7), Action::FailIndex),
            (exited(1), Action::Count),
            (json!({ "phase": "Running" }), Action::Count),
        ] {
            assert_eq!(failure_action(&job, &pod(status.clone())), expected, "{status}");
        }
    }

    #[test]
    fn the_success_policy_is_met_by_indexes_or_a_count() {
        let job = job(
            json!({ "completions": 5, "successPolicy": { "rules": [{ "succeededIndexes": "0,2-3", "succeededCount": 2 }, { "succeededCount": 4 }] } }),
        );
        for (done, expected) in [(vec![0], None), (vec![0, 3], Some(0)), (vec![1, 4], None), (vec![0, 1, 4], None), (vec![0, 1, 2, 4], Some(0))] {
            let expected = expected.map(|i| format!("Matched rules at index {i}"));
            assert_eq!(success_rule(&job, &done.iter().copied().collect()), expected, "{done:?}");
        }
    }

    #[test]
    fn waits_double_with_each_failure_in_a_row_and_end_with_a_success() {
        let at = |s: i64| Time(Timestamp::from_second(s).unwrap());
        let failed = |s: i64| pod(json!({ "phase": "Failed", "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": at(s) }] }));
        let (a, b) = (failed(100), failed(50));
        let mut backoff = Backoff::default();
        backoff.note([(&a, false), (&b, false)].into_iter());
        assert_eq!(backoff, Backoff { failures: 2, last: Some(at(100)) });
        assert_eq!(backoff.wait(&at(105)).as_secs(), 15);
        assert_eq!(backoff.wait(&at(200)).as_secs(), 0);
        assert_eq!(delay(20).as_secs(), 600);
        backoff.note([(&a, true)].into_iter());
        assert_eq!(backoff.wait(&at(100)).as_secs(), 0);
    }

    proptest! {
        #[test]
        fn indexes_survive_being_written(set in proptest::collection::btree_set(0..500i32, 0..60)) {
            prop_assert_eq!(parse_indexes(&format_indexes(&set), 500), set);
        }
    }
}

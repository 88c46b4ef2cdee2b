//! One look at a job: what its pods amount to and what follows. Pure; the controller carries it out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::count::{self, Action, FINALIZER, INDEX, INDEX_FAILURES};
use super::{ByIndex, Indexes, Status, condition, is_tracked};
use crate::controllers::{control, elapsed, pods};

/// Pods created or deleted in one go.
const BURST: usize = 500;

/// How a job ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// Reason and message of the success.
    Complete(String, String),
    /// Reason and message of the failure.
    Failed(String, String),
}

/// A job and its pods.
pub struct View {
    /// The job.
    job: Job,
    spec: JobSpec,
    /// Its pods.
    pub pods: Vec<Arc<Pod>>,
    /// Its status, as it is to be written.
    pub status: Status,
    /// Pods that the job still holds, by uid: those whose finalizer is there, as far as is known.
    held: HashSet<String>,
    gone: HashSet<String>,
    succeeded_indexes: Indexes,
    failed_indexes: Indexes,
}

impl View {
    /// Looks at a job. `released` are uids of pods whose finalizer is known to be gone.
    pub fn new(job: &Job, pods: Vec<Arc<Pod>>, released: &HashSet<String>) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        let status = job.status.clone().unwrap_or_default();
        let completions = spec.completions.unwrap_or_default();
        let held = pods.iter().filter(|p| is_tracked(p) && !released.contains(pods::uid(p))).map(|p| pods::uid(p).to_owned()).collect();
        let indexes = |text: &Option<String>| count::parse_indexes(text.as_deref().unwrap_or_default(), completions);
        let mut view = View {
            succeeded_indexes: indexes(&status.completed_indexes),
            failed_indexes: indexes(&status.failed_indexes),
            job: job.clone(),
            spec,
            pods,
            status,
            held,
            gone: HashSet::new(),
        };
        if view.is_indexed() {
            let done: Vec<i32> =
                view.pods.iter().filter(|p| pods::phase(p) == "Succeeded" && view.holds(p)).filter_map(|p| count::index_of(job, p)).collect();
            view.succeeded_indexes.extend(done);
            view.find_failed_indexes();
        }
        view.tally();
        view
    }

    fn is_indexed(&self) -> bool {
        count::is_indexed(&self.job)
    }

    fn holds(&self, pod: &Pod) -> bool {
        self.held.contains(pods::uid(pod))
    }

    /// Whether it can count at all: a pod of an Indexed job without an index, or one beyond the completions, cannot.
    fn is_valid(&self, pod: &Pod) -> bool {
        !self.is_indexed() || count::index_of(&self.job, pod).is_some()
    }

    fn uncounted(&self) -> (HashSet<String>, HashSet<String>) {
        let lists = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        (lists.succeeded.into_iter().flatten().collect(), lists.failed.into_iter().flatten().collect())
    }

    /// Pods that have finished and are in no count yet, and whether they succeeded.
    pub fn newly_finished(&self) -> impl Iterator<Item = (&Pod, bool)> {
        let (succeeded, failed) = self.uncounted();
        let fresh = move |p: &&Arc<Pod>| self.holds(p) && self.is_valid(p) && !succeeded.contains(pods::uid(p)) && !failed.contains(pods::uid(p));
        self.pods.iter().filter(fresh).filter_map(|p| match pods::phase(p) {
            "Succeeded" => Some((&**p, true)),
            _ if count::is_failed(&self.job, p) => Some((&**p, false)),
            _ => None,
        })
    }

    /// All successes, counted or not.
    pub fn succeeded(&self) -> i32 {
        if self.is_indexed() {
            return size(self.succeeded_indexes.len());
        }
        let fresh = self.newly_finished().filter(|(_, success)| *success).count();
        self.status.succeeded.unwrap_or_default() + size(self.uncounted().0.len() + fresh)
    }

    /// All failures that matter, counted or not.
    fn failed(&self) -> i32 {
        let fresh = self.newly_finished().filter(|(p, success)| !success && count::failure_action(&self.job, p) != Action::Ignore).count();
        self.status.failed.unwrap_or_default() + size(self.uncounted().1.len() + fresh)
    }

    /// Pods that run or will run.
    pub fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|p| pods::is_active(p) && !self.gone.contains(pods::uid(p))).cloned().collect()
    }

    fn terminating(&self) -> usize {
        let leaving = |p: &&Arc<Pod>| !pods::is_terminal(p) && (pods::is_terminating(p) || self.gone.contains(pods::uid(p)));
        self.pods.iter().filter(leaving).count()
    }

    fn tally(&mut self) {
        let active = self.active();
        self.status.active = some(active.len());
        self.status.ready = Some(size(active.iter().filter(|p| pods::is_ready(p)).count()));
        self.status.terminating = Some(size(self.terminating()));
    }

    /// These pods have been told to go.
    pub fn deleted(&mut self, pods: &[Arc<Pod>]) {
        self.gone.extend(pods.iter().map(|p| pods::uid(p).to_owned()));
        self.tally();
    }

    /// These pods have been let go and told to go; they are in no count.
    pub fn discarded(&mut self, pods: &[Arc<Pod>]) {
        for pod in pods {
            self.held.remove(pods::uid(pod));
        }
        self.deleted(pods);
    }

    /// So many pods have been made.
    pub fn created(&mut self, made: usize) {
        let active = self.status.active.unwrap_or_default() + size(made);
        self.status.active = (active != 0).then_some(active);
    }

    // ---- indexes ----

    fn by_index(&self) -> ByIndex<'_> {
        let mut by_index = ByIndex::new();
        for pod in &self.pods {
            if let Some(index) = count::index_of(&self.job, pod) {
                by_index.entry(index).or_default().push(pod);
            }
        }
        by_index
    }

    fn failures_before(pod: &Pod) -> i32 {
        pods::annotation(pod, INDEX_FAILURES).and_then(|v| v.parse().ok()).unwrap_or_default()
    }

    /// Indexes that have failed too often, or at once by the failure policy.
    fn find_failed_indexes(&mut self) {
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let exhausted = |p: &&Arc<Pod>| match count::failure_action(&self.job, p) {
            Action::FailIndex => true,
            Action::Ignore => false,
            _ => Self::failures_before(p) >= limit,
        };
        let failed = self.pods.iter().filter(|p| count::is_failed(&self.job, p) && self.holds(p)).filter(exhausted);
        let indexes: Vec<i32> = failed.filter_map(|p| count::index_of(&self.job, p)).filter(|i| !self.succeeded_indexes.contains(i)).collect();
        self.failed_indexes.extend(indexes);
    }

    /// Whether the pod that counts the failures of its index has a successor, so that it may go.
    fn is_succeeded_by(&self, pod: &Pod) -> bool {
        if self.spec.backoff_limit_per_index.is_none() {
            return true;
        }
        let Some(index) = count::index_of(&self.job, pod) else { return true };
        let later = |p: &&Arc<Pod>| {
            pods::uid(p) != pods::uid(pod)
                && count::index_of(&self.job, p) == Some(index)
                && (Self::failures_before(p) > Self::failures_before(pod)
                    || pods::is_active(p)
                    || self.holds(p) && p.metadata.creation_timestamp > pod.metadata.creation_timestamp)
        };
        self.failed_indexes.contains(&index) || self.succeeded_indexes.contains(&index) || self.pods.iter().any(|p| later(&p))
    }

    // ---- sizes ----

    /// How many pods are to run.
    fn wanted(&self) -> usize {
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or_default();
        match self.spec.completions {
            // A work queue: once one has succeeded no more are started.
            None if self.succeeded() > 0 => self.active().len().min(parallelism),
            None => parallelism,
            Some(completions) => {
                let left = completions - self.succeeded() - size(self.failed_indexes.len());
                usize::try_from(left).unwrap_or_default().min(parallelism)
            }
        }
    }

    /// Pods that are too many: all of a suspended job, doubles of an index, then the least useful.
    pub fn surplus(&self, suspended: bool) -> Vec<Arc<Pod>> {
        let mut active = self.active();
        if suspended {
            active.truncate(BURST);
            return active;
        }
        let mut surplus = Vec::new();
        if self.is_indexed() {
            let mut seen = Indexes::new();
            active.retain(|p| {
                let index = count::index_of(&self.job, p);
                let useful = index.is_some_and(|i| !self.succeeded_indexes.contains(&i) && !self.failed_indexes.contains(&i) && seen.insert(i));
                if !useful {
                    surplus.push(p.clone());
                }
                useful
            });
        }
        let excess = active.len().saturating_sub(self.wanted());
        active.sort_by_key(|p| (!pods::node_name(p).is_empty(), pods::is_ready(p), std::cmp::Reverse(p.metadata.creation_timestamp.clone())));
        surplus.extend(active.into_iter().take(excess));
        surplus.truncate(BURST);
        surplus
    }

    /// How many pods are to be started.
    pub fn missing(&self) -> usize {
        let waiting = if count::replaces_only_failed(&self.job) { self.terminating() } else { 0 };
        self.wanted().saturating_sub(self.active().len() + waiting).min(BURST)
    }

    /// New pods, as many as may start now; how long until more may.
    pub fn new_pods(&self, missing: usize, now: &Time) -> (Vec<Pod>, Option<Duration>) {
        if !self.is_indexed() {
            return ((0..missing).map(|_| self.new_pod(None, 0)).collect(), None);
        }
        let by_index = self.by_index();
        let (mut new, mut wait) = (Vec::new(), None::<Duration>);
        for index in 0..self.spec.completions.unwrap_or_default() {
            if new.len() == missing {
                break;
            }
            if self.succeeded_indexes.contains(&index) || self.failed_indexes.contains(&index) {
                continue;
            }
            let there = by_index.get(&index).map(Vec::as_slice).unwrap_or_default();
            let leaving = |p: &Pod| count::replaces_only_failed(&self.job) && !pods::is_terminal(p);
            if there.iter().any(|p| pods::is_active(p) && !self.gone.contains(pods::uid(p)) || leaving(p)) {
                continue;
            }
            let failures = self.failures_of(there);
            if self.spec.backoff_limit_per_index.is_some() && failures > 0 {
                let last = there.iter().filter(|p| count::is_failed(&self.job, p)).filter_map(|p| count::finished_at(p)).max();
                let left = last.map(|at| count::delay(failures.unsigned_abs()).saturating_sub(elapsed(&at, now))).unwrap_or_default();
                if !left.is_zero() {
                    wait = Some(wait.map_or(left, |w| w.min(left)));
                    continue;
                }
            }
            new.push(self.new_pod(Some(index), failures));
        }
        (new, wait)
    }

    /// How often an index has failed, going by its pods.
    fn failures_of(&self, there: &[&Arc<Pod>]) -> i32 {
        let failed = there.iter().filter(|p| count::is_failed(&self.job, p));
        failed.map(|p| Self::failures_before(p) + i32::from(count::failure_action(&self.job, p) != Action::Ignore)).max().unwrap_or_default()
    }

    fn new_pod(&self, index: Option<i32>, failures: i32) -> Pod {
        let meta = &self.job.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let base = index.map_or_else(|| format!("{name}-"), |i| format!("{name}-{i}-"));
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let mut pod = control::pod_from_template(namespace, &base, &self.spec.template, control::controller_ref(&self.job));
        let finalizers = pod.metadata.finalizers.get_or_insert_default();
        finalizers.retain(|f| f != FINALIZER);
        finalizers.push(FINALIZER.into());
        let Some(index) = index else { return pod };
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX.into(), index.to_string());
        if self.spec.backoff_limit_per_index.is_some() {
            annotations.insert(INDEX_FAILURES.into(), failures.to_string());
        }
        pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(format!("{name}-{index}"));
        let from = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
        let value = EnvVar {
            name: "JOB_COMPLETION_INDEX".into(),
            value_from: Some(EnvVarSource { field_ref: Some(from), ..EnvVarSource::default() }),
            value: None,
        };
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let env = container.env.get_or_insert_default();
            if !env.iter().any(|e| e.name == value.name) {
                env.push(value.clone());
            }
        }
        pod
    }

    // ---- counting ----

    /// Uids whose pods have lost their finalizer, or are gone, become numbers.
    pub fn count_released(&mut self) {
        let held = self.held.clone();
        self.settle_uncounted(|uid| !held.contains(uid));
    }

    /// The finalizers of these pods are gone.
    pub fn count_now(&mut self, released: &[Arc<Pod>]) {
        for pod in released {
            self.held.remove(pods::uid(pod));
        }
        self.count_released();
    }

    fn settle_uncounted(&mut self, settled: impl Fn(&str) -> bool) {
        let Some(lists) = &mut self.status.uncounted_terminated_pods else { return };
        let drain = |list: &mut Option<Vec<String>>| {
            let before = list.as_ref().map_or(0, Vec::len);
            if let Some(uids) = list {
                uids.retain(|uid| !settled(uid));
            }
            let after = list.as_ref().map_or(0, Vec::len);
            if after == 0 {
                *list = None;
            }
            size(before - after)
        };
        let (succeeded, failed) = (drain(&mut lists.succeeded), drain(&mut lists.failed));
        if !count::is_indexed(&self.job) {
            add(&mut self.status.succeeded, succeeded);
        }
        add(&mut self.status.failed, failed);
    }

    /// Notes the uids of finished pods. Returns the pods whose finalizer may go once that is written. With an `ending` nothing will run
    /// again, and with the job being deleted nothing will be counted again: then every pod is let go.
    pub fn take_up(&mut self, ending: Option<&Ending>, most: usize) -> Vec<Arc<Pod>> {
        let (succeeded, failed) = self.uncounted();
        let mut lists = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let mut release = Vec::new();
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        let over = ending.is_some() || deleting;
        for pod in &self.pods {
            let uid = pods::uid(pod).to_owned();
            if !self.held.contains(&uid) {
                continue;
            }
            if release.len() >= most {
                break;
            }
            let known = succeeded.contains(&uid) || failed.contains(&uid);
            let (success, failure) = (pods::phase(pod) == "Succeeded", count::is_failed(&self.job, pod));
            let abandoned = ending.is_some() && (pods::is_terminating(pod) || self.gone.contains(&uid));
            if !(success || deleting || abandoned || failure && (over || self.is_succeeded_by(pod))) {
                continue;
            }
            if success {
                if !known && !self.is_indexed() {
                    lists.succeeded.get_or_insert_default().push(uid);
                }
            } else if failure || abandoned && matches!(ending, Some(Ending::Failed(..))) {
                // What is stopped because enough has succeeded has not failed.
                if !known && self.is_valid(pod) && count::failure_action(&self.job, pod) != Action::Ignore {
                    lists.failed.get_or_insert_default().push(uid);
                }
            }
            release.push(pod.clone());
        }
        if self.is_indexed() {
            self.status.succeeded = some(self.succeeded_indexes.len());
            self.status.completed_indexes = text(count::format_indexes(&self.succeeded_indexes));
            if self.spec.backoff_limit_per_index.is_some() {
                self.status.failed_indexes = Some(count::format_indexes(&self.failed_indexes));
            }
        }
        self.status.uncounted_terminated_pods = Some(lists);
        release
    }

    /// Whether every pod is counted and none is left to end.
    pub fn is_settled(&self) -> bool {
        let none = |l: &UncountedTerminatedPods| l.succeeded.as_ref().is_none_or(Vec::is_empty) && l.failed.as_ref().is_none_or(Vec::is_empty);
        let counted = self.status.uncounted_terminated_pods.as_ref().is_none_or(none);
        counted && self.held.is_empty() && self.active().is_empty() && self.terminating() == 0
    }

    // ---- conditions ----

    /// A condition.
    pub fn condition(&self, type_: &str) -> Option<&JobCondition> {
        self.status.conditions.iter().flatten().find(|c| c.type_ == type_)
    }

    /// Sets a condition unless it has that status already.
    pub fn set_condition(&mut self, type_: &str, status: &str, reason: &str, message: &str, now: &Time) {
        if self.condition(type_).is_some_and(|c| c.status == status) {
            return;
        }
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != type_);
        conditions.push(condition(type_, status, reason, message, now));
    }

    /// Says how the job will end, while its pods still do.
    pub fn note_ending(&mut self, ending: &Ending, now: &Time) {
        match ending {
            Ending::Complete(reason, text) => self.set_condition("SuccessCriteriaMet", "True", reason, text, now),
            Ending::Failed(reason, text) => self.set_condition("FailureTarget", "True", reason, text, now),
        }
    }

    /// Ends the job.
    pub fn finish(&mut self, ending: &Ending, now: &Time) {
        match ending {
            Ending::Complete(reason, text) => {
                self.set_condition("Complete", "True", reason, text, now);
                self.status.completion_time = Some(now.clone());
            }
            Ending::Failed(reason, text) => self.set_condition("Failed", "True", reason, text, now),
        }
        self.tally();
    }
}

/// Whether a job is over, and how.
pub fn ending(view: &View, now: &Time) -> Option<Ending> {
    let failed = |reason: &str, text: &str| Some(Ending::Failed(reason.to_owned(), text.to_owned()));
    // What was decided once stays decided.
    for (type_, make) in [("FailureTarget", Ending::Failed as fn(String, String) -> Ending), ("SuccessCriteriaMet", Ending::Complete)] {
        if let Some(decided) = view.condition(type_).filter(|c| c.status == "True") {
            return Some(make(decided.reason.clone().unwrap_or_default(), decided.message.clone().unwrap_or_default()));
        }
    }
    let held = view.pods.iter().filter(|p| view.holds(p) && count::is_failed(&view.job, p));
    for pod in held {
        if let Action::FailJob(text) = count::failure_action(&view.job, pod) {
            return failed("PodFailurePolicy", &text);
        }
    }
    if view.is_indexed()
        && let Some(text) = count::success_rule(&view.job, &view.succeeded_indexes)
    {
        return Some(Ending::Complete("SuccessPolicy".into(), text));
    }
    let limit = view.spec.backoff_limit.unwrap_or(if view.spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 });
    if view.failed() > limit || restarted_too_often(view, limit) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if let (Some(started), Some(deadline)) = (&view.status.start_time, view.spec.active_deadline_seconds)
        && view.spec.suspend != Some(true)
        && elapsed(started, now).as_secs() >= u64::try_from(deadline).unwrap_or_default()
    {
        return failed("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    if view.spec.max_failed_indexes.is_some_and(|most| size(view.failed_indexes.len()) > most) {
        return failed("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
    }
    let reached = || Ending::Complete("CompletionsReached".into(), "Reached expected number of succeeded pods".into());
    match view.spec.completions {
        None => (view.succeeded() > 0 && view.active().is_empty() && view.terminating() == 0).then(reached),
        Some(completions) if view.succeeded() >= completions => Some(reached()),
        Some(completions) if !view.failed_indexes.is_empty() && size(view.succeeded_indexes.len() + view.failed_indexes.len()) >= completions => {
            failed("FailedIndexes", "Job has failed indexes")
        }
        Some(_) => None,
    }
}

/// With restarts in place the failures are in the restart counts (`pastBackoffLimitOnFailure`).
fn restarted_too_often(view: &View, limit: i32) -> bool {
    if view.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let statuses = |p: &Pod| -> i32 {
        let status = p.status.clone().unwrap_or_default();
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten()).map(|c| c.restart_count).sum()
    };
    let restarts: i32 = view.pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending")).map(|p| statuses(p)).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn size(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn some(n: usize) -> Option<i32> {
    (n != 0).then(|| size(n))
}

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn add(count: &mut Option<i32>, n: i32) {
    if n != 0 {
        *count = Some(count.unwrap_or_default() + n);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(spec: Value) -> Job {
        let mut spec = spec;
        spec["template"] = json!({});
        serde_json::from_value(json!({ "metadata": { "name": "j", "uid": "j" }, "spec": spec })).unwrap()
    }

    fn pod(uid: &str, phase: &str, index: Option<i32>, leaving: bool) -> Arc<Pod> {
        let mut pod = json!({ "metadata": { "name": uid, "uid": uid, "finalizers": [FINALIZER], "annotations": {} }, "status": { "phase": phase } });
        if let Some(index) = index {
            pod["metadata"]["annotations"][INDEX] = json!(index.to_string());
        }
        if leaving {
            pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    /// Uids counted as failed, and uids let go.
    fn taken(job: &Job, pods: Vec<Arc<Pod>>, stopped: &[&str], ending: Option<&Ending>) -> (Vec<String>, Vec<String>) {
        let mut view = View::new(job, pods, &HashSet::new());
        let gone: Vec<_> = view.pods.iter().filter(|p| stopped.contains(&pods::uid(p))).cloned().collect();
        view.deleted(&gone);
        let released = view.take_up(ending, 100).iter().map(|p| pods::uid(p).to_owned()).collect();
        (view.uncounted().1.into_iter().collect(), released)
    }

    #[test]
    fn pods_stopped_at_a_success_have_not_failed_and_at_a_failure_have() {
        let job = job(json!({ "parallelism": 1, "completions": 1 }));
        let pods = || vec![pod("done", "Succeeded", None, false), pod("extra", "Running", None, false)];
        let complete = Ending::Complete(String::new(), String::new());
        let failed = Ending::Failed(String::new(), String::new());
        let all = vec!["done".to_owned(), "extra".to_owned()];
        assert_eq!(taken(&job, pods(), &["extra"], Some(&complete)), (vec![], all.clone()));
        assert_eq!(taken(&job, pods(), &["extra"], Some(&failed)), (vec!["extra".into()], all));
        assert_eq!(taken(&job, pods(), &[], None), (vec![], vec!["done".into()]));
    }

    #[test]
    fn a_job_that_is_being_deleted_lets_every_pod_go() {
        let mut job = job(json!({ "parallelism": 1, "completions": 1 }));
        job.metadata.deletion_timestamp = Some(crate::controllers::now());
        let pods = vec![pod("runs", "Running", None, false), pod("failed", "Failed", None, false)];
        assert_eq!(taken(&job, pods, &[], None), (vec!["failed".into()], vec!["runs".into(), "failed".into()]));
    }

    #[test]
    fn pods_without_an_index_that_counts_do_not_count() {
        let job = job(json!({ "parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimit": 0 }));
        let pods = vec![pod("a", "Failed", None, false), pod("b", "Failed", Some(7), false)];
        let view = View::new(&job, pods.clone(), &HashSet::new());
        assert_eq!((view.failed(), ending(&view, &crate::controllers::now())), (0, None));
        assert_eq!(taken(&job, pods, &[], None), (vec![], vec!["a".into(), "b".into()]));
    }
}

//! Runs pods until enough of them have succeeded (`pkg/controller/job/job_controller.go`).
//!
//! Owns pods whose controller is the job. Each carries a finalizer until it is counted: first its uid goes into the job's status, then
//! the finalizer goes, then the uid becomes a number. A crash at any point loses no pod and counts none twice.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use shared::selector::Selector;

use super::control::{self, PodControl};
use super::error::found;
use super::expectations::Expectations;
use super::queue::{Key, Queue};
use super::{Context, Error, elapsed, now, pods, synced};
use crate::events::Kind;
use crate::informers::{Change, Informer};

mod count;
mod plan;

use count::{Backoff, FINALIZER};
use plan::Ending;

const WORKERS: usize = 5;
/// Uids in the status at once.
const MAX_UNCOUNTED: usize = 500;
const CONTROLLER: &str = "kubernetes.io/job-controller";

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Item {
    /// A job.
    Job(Key),
    /// A pod whose job is over, or that has none.
    Leftover(Key),
}

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue: Queue<Item> = Queue::new();
    let expectations = Expectations::default();
    let controller = Arc::new(Controller {
        jobs: ctx.informers.get(),
        pods: ctx.informers.get(),
        control: PodControl { client: ctx.client.clone(), recorder: ctx.recorder.clone(), expectations: expectations.clone() },
        queue: queue.clone(),
        released: Mutex::default(),
        written: Mutex::default(),
        backoffs: Mutex::default(),
        gone: Mutex::default(),
    });
    let all = controller.jobs.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().map(|j| Item::Job(Key::of(&**j))).collect());
    let (state, all_pods, into) = (controller.clone(), controller.pods.clone(), queue.clone());
    ctx.on(&controller.jobs, move |change| {
        let job = change.object();
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        if matches!(change, Change::Deleted(_)) {
            state.gone.lock().entry(Key::of(&**job)).or_default().push(uid.to_owned());
        }
        into.add(Item::Job(Key::of(&**job)));
        if matches!(change, Change::Deleted(_)) {
            let left = all_pods.controlled(job.metadata.namespace.as_deref().unwrap_or_default(), uid);
            left.iter().filter(|p| is_tracked(p)).for_each(|p| into.add(Item::Leftover(Key::of(&**p))));
        }
    });
    let (state, into) = (controller.clone(), queue.clone());
    ctx.on(&controller.pods, move |change| {
        control::observe::<Job>(&expectations, &change);
        let pod = change.object();
        if matches!(change, Change::Deleted(_)) || !is_tracked(pod) {
            state.released.lock().remove(pods::uid(pod));
        }
        let concerned = control::owners_concerned(&state.jobs, &change);
        let orphan = control::owner_key::<Job>(&pod.metadata).is_some() || control::controller_of(&pod.metadata).is_none();
        if concerned.is_empty() && is_tracked(pod) && orphan && !matches!(change, Change::Deleted(_)) {
            into.add(Item::Leftover(Key::of(&**pod)));
        }
        concerned.into_iter().chain(control::possible_owners(&state.jobs, &change, selector)).for_each(|key| into.add(Item::Job(key)));
    });
    let ready = vec![synced(&controller.jobs), synced(&controller.pods)];
    ctx.work(&queue, WORKERS, ready, move |item| {
        let controller = controller.clone();
        async move {
            match item {
                Item::Job(key) => controller.sync(&key).await,
                Item::Leftover(key) => controller.let_go(&key).await,
            }
        }
    });
}

/// What its pods are found by. The API server makes one where there is none; until then there is nothing to go by.
fn selector(job: &Job) -> Option<Selector> {
    Selector::from_label_selector(Some(job.spec.as_ref()?.selector.as_ref()?)).ok()
}

fn version(job: &Job) -> u64 {
    job.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

struct Controller {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    control: PodControl,
    queue: Queue<Item>,
    /// Uids of pods whose finalizer is gone and whose change the cache may not show yet: they must not be counted again.
    released: Mutex<HashSet<String>>,
    /// The resource version last written of each job, by uid: an older one in the cache would not know what has been counted since.
    written: Mutex<HashMap<String, u64>>,
    /// By the job's uid.
    backoffs: Mutex<HashMap<String, (Backoff, HashSet<String>)>>,
    /// Uids of jobs that have gone and of which something may still be kept here.
    gone: Mutex<HashMap<Key, Vec<String>>>,
}

impl Controller {
    fn api(&self, namespace: &str) -> Api<Job> {
        Api::namespaced(self.control.client.clone(), namespace)
    }

    async fn sync(&self, key: &Key) -> Result<(), Error> {
        for uid in self.gone.lock().remove(key).unwrap_or_default() {
            self.backoffs.lock().remove(&uid);
            self.written.lock().remove(&uid);
        }
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else {
            self.control.expectations.forget(key);
            return Ok(());
        };
        let spec = job.spec.clone().unwrap_or_default();
        // A job that is out of date comes back with the change that brings it up to date.
        if spec.managed_by.as_deref().is_some_and(|m| m != CONTROLLER) || self.is_stale(&job) {
            return Ok(());
        }
        if count::finished(&job).is_some() {
            let left = self.pods.controlled(&key.namespace, job.metadata.uid.as_deref().unwrap_or_default());
            left.iter().filter(|p| is_tracked(p)).for_each(|p| self.queue.add(Item::Leftover(Key::of(&**p))));
            return Ok(());
        }
        let Some(selector) = selector(&job) else { return Ok(()) };
        self.control.settle(key).await?;
        let satisfied = self.control.expectations.satisfied(key);
        // Taken before the pods are listed: what is struck off this list later is struck off the cache before.
        let released = self.released.lock().clone();
        let owned = control::claim(&self.control.client, &*job, &selector, &self.pods, Some(FINALIZER)).await?;
        let now = now();
        let mut view = plan::View::new(&job, owned, &released);
        self.note_backoff(&job, &view);
        self.start_clock(key, &job, &mut view, &now);
        let ending = plan::ending(&view, &now);
        let mut result = Ok(());
        if let Some(ending) = &ending {
            self.stop(&job, &mut view).await?;
            view.note_ending(ending, &now);
        } else if satisfied && job.metadata.deletion_timestamp.is_none() {
            result = self.manage(key, &job, &mut view, &now).await;
        }
        self.track(&job, &mut view, ending.as_ref(), &now).await?;
        result
    }

    fn is_stale(&self, job: &Job) -> bool {
        let written = self.written.lock().get(job.metadata.uid.as_deref().unwrap_or_default()).copied();
        written.is_some_and(|written| version(job) < written)
    }

    /// Failures in a row make the next pod wait; each pod is taken in once.
    fn note_backoff(&self, job: &Job, view: &plan::View) {
        let mut backoffs = self.backoffs.lock();
        let (backoff, seen) = backoffs.entry(job.metadata.uid.clone().unwrap_or_default()).or_default();
        let fresh: Vec<_> = view.newly_finished().filter(|(p, _)| seen.insert(pods::uid(p).to_owned())).collect();
        backoff.note(fresh.into_iter());
        let present: HashSet<&str> = view.pods.iter().map(|p| pods::uid(p)).collect();
        seen.retain(|uid| present.contains(uid.as_str()));
    }

    /// The start time, and the deadline that counts from it.
    fn start_clock(&self, key: &Key, job: &Job, view: &mut plan::View, now: &Time) {
        let spec = job.spec.clone().unwrap_or_default();
        if spec.suspend == Some(true) {
            return;
        }
        let started = view.status.start_time.get_or_insert_with(|| now.clone()).clone();
        if let Some(deadline) = spec.active_deadline_seconds {
            let deadline = std::time::Duration::from_secs(u64::try_from(deadline).unwrap_or_default());
            let left = deadline.saturating_sub(elapsed(&started, now));
            if !left.is_zero() {
                self.queue.add_after(Item::Job(key.clone()), left);
            }
        }
    }

    async fn stop(&self, job: &Job, view: &mut plan::View) -> Result<(), Error> {
        let active = view.active();
        if !active.is_empty() && self.control.expectations.satisfied(&Key::of(job)) {
            self.control.delete_batch(job, &active).await?;
            view.deleted(&active);
        }
        Ok(())
    }

    /// Brings the number of running pods to what is wanted (`manageJob`).
    async fn manage(&self, key: &Key, job: &Job, view: &mut plan::View, now: &Time) -> Result<(), Error> {
        let suspended = job.spec.as_ref().and_then(|s| s.suspend) == Some(true);
        self.note_suspension(job, view, suspended, now);
        let surplus = view.surplus(suspended);
        if !surplus.is_empty() {
            // Nobody's failure: they are let go before they are deleted, so that they are never counted.
            let tracked: Vec<_> = surplus.iter().filter(|p| is_tracked(p)).cloned().collect();
            self.release(job, &tracked).await?;
            self.control.delete_batch(job, &surplus).await?;
            view.discarded(&surplus);
            return Ok(());
        }
        if suspended {
            return Ok(());
        }
        let missing = view.missing();
        if missing == 0 {
            return Ok(());
        }
        let per_index = job.spec.as_ref().and_then(|s| s.backoff_limit_per_index).is_some();
        let wait = self.backoffs.lock().get(job.metadata.uid.as_deref().unwrap_or_default()).map(|(b, _)| b.wait(now)).unwrap_or_default();
        if !per_index && !wait.is_zero() {
            self.queue.add_after(Item::Job(key.clone()), wait);
            return Ok(());
        }
        let (new, wait) = view.new_pods(missing, now);
        if let Some(wait) = wait {
            self.queue.add_after(Item::Job(key.clone()), wait);
        }
        if new.is_empty() {
            return Ok(());
        }
        let (made, result) = self.control.create_batch(job, new).await;
        view.created(made);
        result.or_else(|error| if error.is_namespace_terminating() { Ok(()) } else { Err(error) })
    }

    fn note_suspension(&self, job: &Job, view: &mut plan::View, suspended: bool, now: &Time) {
        let known = view.condition("Suspended").map(|c| c.status.clone());
        let (status, reason, text, event) = match (suspended, known.as_deref()) {
            (true, None | Some("False")) => ("True", "JobSuspended", "Job suspended", "Suspended"),
            (false, Some("True")) => ("False", "JobResumed", "Job resumed", "Resumed"),
            _ => return,
        };
        view.set_condition("Suspended", status, reason, text, now);
        // The time spent suspended is nobody's fault: the deadline starts afresh.
        view.status.start_time = (!suspended).then(|| now.clone());
        self.control.recorder.event(job, Kind::Normal, event, text);
    }

    /// Counts what has finished, in the three steps that make it safe, and ends the job when all is counted.
    async fn track(&self, job: &Job, view: &mut plan::View, ending: Option<&Ending>, now: &Time) -> Result<(), Error> {
        view.count_released();
        let release = view.take_up(ending, MAX_UNCOUNTED);
        let mut current = job.clone();
        if !release.is_empty() {
            current = self.put(current, view).await?;
            self.release(job, &release).await?;
            view.count_now(&release);
        }
        if let Some(ending) = ending
            && view.is_settled()
        {
            view.finish(ending, now);
            self.put(current, view).await?;
            let (kind, reason, text) = match ending {
                Ending::Complete(..) => (Kind::Normal, "Completed", "Job completed".to_owned()),
                Ending::Failed(reason, text) => (Kind::Warning, reason.as_str(), text.clone()),
            };
            self.control.recorder.event(job, kind, reason, text);
            return Ok(());
        }
        self.put(current, view).await?;
        Ok(())
    }

    /// Writes the status if it says something new.
    async fn put(&self, mut job: Job, view: &plan::View) -> Result<Job, Error> {
        if job.status.as_ref() == Some(&view.status) {
            return Ok(job);
        }
        job.status = Some(view.status.clone());
        let (namespace, name) = (job.metadata.namespace.clone().unwrap_or_default(), job.metadata.name.clone().unwrap_or_default());
        let mut written = self.api(&namespace).replace_status(&name, &PostParams::default(), &job).await?;
        self.written.lock().insert(written.metadata.uid.clone().unwrap_or_default(), version(&written));
        written.status = job.status;
        Ok(written)
    }

    async fn release(&self, job: &Job, release: &[Arc<Pod>]) -> Result<(), Error> {
        let results = futures::future::join_all(release.iter().map(|pod| self.remove_finalizer(pod))).await;
        let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
        if !errors.is_empty() {
            tracing::debug!(job = ?job.metadata.name, "some finalizers could not be removed");
        }
        super::error::aggregate(errors)
    }

    async fn remove_finalizer(&self, pod: &Pod) -> Result<(), Error> {
        let kept: Vec<_> = pod.metadata.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
        let patch = json!({ "metadata": { "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": kept } });
        self.released.lock().insert(pods::uid(pod).to_owned());
        let api: Api<Pod> = Api::namespaced(self.control.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let result = found(api.patch(pods::name(pod), &PatchParams::default(), &Patch::Merge(patch)).await);
        // A pod that is gone from the cache too has been told of before the uid was noted: nothing else would strike it off.
        let gone = || {
            self.pods.get(pod.metadata.namespace.as_deref().unwrap_or_default(), pods::name(pod)).is_none_or(|p| p.metadata.uid != pod.metadata.uid)
        };
        if matches!(&result, Ok(None) if gone()) || result.is_err() {
            self.released.lock().remove(pods::uid(pod));
        }
        result.map(drop)
    }

    /// Frees a pod whose job is gone or over, or that has none.
    async fn let_go(&self, key: &Key) -> Result<(), Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|p| is_tracked(p)) else { return Ok(()) };
        let is_held = match control::controller_of(&pod.metadata) {
            Some(_) if control::owner_key::<Job>(&pod.metadata).is_none() => true,
            Some(_) => control::resolve_owner(&self.jobs, &pod.metadata).is_some_and(|job| count::finished(&job).is_none()),
            // One that a job is about to adopt keeps what it would only get again.
            None => self.jobs.list_namespaced(&key.namespace).iter().any(|job| adopts(job, &pod)),
        };
        if is_held { Ok(()) } else { self.remove_finalizer(&pod).await }
    }
}

/// Whether a job would adopt a pod without a controller.
fn adopts(job: &Job, pod: &Pod) -> bool {
    let alive = job.metadata.deletion_timestamp.is_none() && count::finished(job).is_none() && !pods::is_terminating(pod);
    alive && selector(job).is_some_and(|s| s.matches(&pod.metadata.labels))
}

/// A condition as it is written.
fn condition(type_: &str, status: &str, reason: &str, message: &str, now: &Time) -> JobCondition {
    JobCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    }
}

/// Indexes of a job, or the lack of them.
type Indexes = BTreeSet<i32>;
/// Pods by index.
type ByIndex<'a> = BTreeMap<i32, Vec<&'a Arc<Pod>>>;
/// The status under construction.
type Status = JobStatus;

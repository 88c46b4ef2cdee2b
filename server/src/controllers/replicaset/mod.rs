//! Keeps as many pods as a ReplicaSet asks for (`pkg/controller/replicaset/replica_set.go`). ReplicationControllers run the same code
//! through [`Replicator`].
//!
//! Owns pods whose controller is the set. Must never look at its cache before the cache shows what it did last.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::PostParams;
use shared::selector::Selector;

use super::control::{self, Namespaced, PodControl};
use super::expectations::Expectations;
use super::queue::{Key, Queue};
use super::{Context, Error, now, pods, synced};
use crate::informers::{Change, Informer};

mod ranking;

/// Pods created or deleted in one go.
const BURST: usize = 500;
const WORKERS: usize = 5;

/// The status both kinds share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Pods that exist and are neither finished nor being deleted.
    pub replicas: i32,
    /// Of those, with all labels of the template.
    pub fully_labeled: i32,
    /// Of those, ready.
    pub ready: i32,
    /// Of those, ready for long enough.
    pub available: i32,
    /// Being deleted and not finished; ReplicationControllers do not report it.
    pub terminating: Option<i32>,
    /// Generation this is about.
    pub observed_generation: i64,
    /// All of its conditions.
    pub conditions: Vec<Condition>,
}

/// A condition of either kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// `ReplicaFailure` is the only one known.
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// When `status` changed.
    pub last_transition_time: Option<Time>,
}

/// A kind that keeps a number of equal pods.
pub trait Replicator: Namespaced + serde::Serialize {
    /// Pods wanted.
    fn replicas(&self) -> i32;
    /// Seconds a pod must be ready to be available.
    fn min_ready_seconds(&self) -> i32;
    /// What its pods are found by; `None` if that makes no sense.
    fn selector(&self) -> Option<Selector>;
    /// What its pods are made of.
    fn template(&self) -> PodTemplateSpec;
    /// Its status as it is.
    fn status(&self) -> Status;
    /// Itself with another status.
    fn with_status(&self, status: Status) -> Self;
}

impl Replicator for ReplicaSet {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }
    fn selector(&self) -> Option<Selector> {
        Selector::from_label_selector(self.spec.as_ref().map(|s| &s.selector)).ok()
    }
    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default()
    }
    fn status(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation.unwrap_or_default(),
            conditions: status
                .conditions
                .into_iter()
                .flatten()
                .map(|c| Condition {
                    type_: c.type_,
                    status: c.status,
                    reason: c.reason,
                    message: c.message,
                    last_transition_time: c.last_transition_time,
                })
                .collect(),
        }
    }
    fn with_status(&self, status: Status) -> Self {
        let conditions = status.conditions.into_iter().map(|c| ReplicaSetCondition {
            type_: c.type_,
            status: c.status,
            reason: c.reason,
            message: c.message,
            last_transition_time: c.last_transition_time,
        });
        let conditions: Vec<_> = conditions.collect();
        let some = |count: i32| (count != 0).then_some(count);
        let status = ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: some(status.fully_labeled),
            ready_replicas: some(status.ready),
            available_replicas: some(status.available),
            terminating_replicas: Some(status.terminating.unwrap_or_default()),
            observed_generation: Some(status.observed_generation),
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        ReplicaSet { metadata: self.metadata.clone(), spec: self.spec.clone(), status: Some(status) }
    }
}

/// Starts the ReplicaSet controller.
pub fn start(ctx: Context) {
    start_for::<ReplicaSet>(&ctx, true);
}

/// Starts the controller for a kind; `terminating` says whether its status counts pods on their way out.
pub fn start_for<R: Replicator>(ctx: &Context, terminating: bool) {
    let (sets, pods) = (ctx.informers.get::<R>(), ctx.informers.get::<Pod>());
    let queue = Queue::new();
    let expectations = Expectations::default();
    let control = PodControl { client: ctx.client.clone(), recorder: ctx.recorder.clone(), expectations: expectations.clone() };
    ctx.enqueue_all(&sets, &queue);
    let (owners, into) = (sets.clone(), queue.clone());
    ctx.on(&pods, move |change| {
        control::observe::<R>(&expectations, &change);
        let concerned = control::owners_concerned(&owners, &change);
        concerned.into_iter().chain(control::possible_owners(&owners, &change, R::selector)).for_each(|key| into.add(key));
    });
    let controller = Arc::new(Controller { sets, pods, control, queue: queue.clone(), terminating });
    let ready = vec![synced(&controller.sets), synced(&controller.pods)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

struct Controller<R: Replicator> {
    sets: Informer<R>,
    pods: Informer<Pod>,
    control: PodControl,
    queue: Queue<Key>,
    terminating: bool,
}

impl<R: Replicator> Controller<R> {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let expectations = &self.control.expectations;
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            expectations.forget(key);
            return Ok(());
        };
        // A selector that cannot be read never will be until the object changes.
        let Some(selector) = set.selector() else { return Ok(()) };
        self.control.settle(key).await?;
        // Before the pods are listed: what is fulfilled now is in the list then.
        let needs_sync = expectations.satisfied(key);
        let owned = control::claim(&self.control.client, &*set, &selector, &self.pods, None).await?;
        let active: Vec<_> = owned.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let managed = if needs_sync && set.metadata().deletion_timestamp.is_none() { self.manage(&set, &active).await } else { Ok(()) };
        let leaving = owned.iter().filter(|p| pods::is_terminating(p) && !pods::is_terminal(p)).count();
        let now = now();
        let terminating = self.terminating.then_some(count(leaving));
        let status = status(&*set, &active, terminating, &managed, &now);
        if status != set.status() {
            let api: Api<R> = Api::namespaced(self.control.client.clone(), &key.namespace);
            api.replace_status(&key.name, &PostParams::default(), &set.with_status(status)).await?;
        }
        if let Some(wait) = pods::next_availability(&active, set.min_ready_seconds(), &now) {
            self.queue.add_after(key.clone(), wait);
        }
        managed
    }

    async fn manage(&self, set: &R, active: &[Arc<Pod>]) -> Result<(), Error> {
        let wanted = usize::try_from(set.replicas()).unwrap_or_default();
        if active.len() < wanted {
            let meta = set.metadata();
            let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
            let (template, base) = (set.template(), format!("{name}-"));
            let make = || control::pod_from_template(namespace, &base, &template, control::controller_ref(set));
            let new = std::iter::repeat_with(make).take((wanted - active.len()).min(BURST)).collect();
            let (_, result) = self.control.create_batch(set, new).await;
            return result.or_else(|error| if error.is_namespace_terminating() { Ok(()) } else { Err(error) });
        }
        if active.len() > wanted {
            let excess = (active.len() - wanted).min(BURST);
            let victims = ranking::victims(active.to_vec(), &self.related(set), excess, &now());
            return self.control.delete_batch(set, &victims).await;
        }
        Ok(())
    }

    /// The pods of every set that has the same owner: how crowded a node is counts over all of them.
    fn related(&self, set: &R) -> Vec<Arc<Pod>> {
        let meta = set.metadata();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let Some(owner) = control::controller_of(meta) else { return self.pods.controlled(namespace, uid) };
        let siblings = self.sets.controlled(namespace, &owner.uid);
        siblings.iter().flat_map(|s| self.pods.controlled(namespace, s.metadata().uid.as_deref().unwrap_or_default())).collect()
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The status that describes what was found (`calculateStatus`).
fn status<R: Replicator>(set: &R, active: &[Arc<Pod>], terminating: Option<i32>, managed: &Result<(), Error>, now: &Time) -> Status {
    let labels: BTreeMap<String, String> = set.template().metadata.and_then(|m| m.labels).unwrap_or_default();
    let labeled = |p: &&Arc<Pod>| labels.iter().all(|(k, v)| p.metadata.labels.as_ref().and_then(|l| l.get(k)) == Some(v));
    let mut status = Status {
        replicas: count(active.len()),
        fully_labeled: count(active.iter().filter(labeled).count()),
        ready: count(active.iter().filter(|p| pods::is_ready(p)).count()),
        available: count(active.iter().filter(|p| pods::is_available(p, set.min_ready_seconds(), now)).count()),
        terminating,
        observed_generation: set.metadata().generation.unwrap_or_default(),
        conditions: set.status().conditions,
    };
    let known = status.conditions.iter().any(|c| c.type_ == "ReplicaFailure");
    match managed {
        Err(error) if !known => {
            let reason = if count(active.len()) < set.replicas() { "FailedCreate" } else { "FailedDelete" };
            status.conditions.push(Condition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some(reason.into()),
                message: Some(error.to_string()),
                last_transition_time: Some(now.clone()),
            });
        }
        Ok(()) if known => status.conditions.retain(|c| c.type_ != "ReplicaFailure"),
        _ => {}
    }
    status
}

/// For controllers that react to pods of sets: whether a change of a pod can matter to counts at all.
pub fn pod_matters(change: &Change<Pod>) -> bool {
    match change {
        Change::Updated { old, new } => {
            pods::phase(old) != pods::phase(new)
                || pods::is_ready(old) != pods::is_ready(new)
                || pods::is_terminating(old) != pods::is_terminating(new)
                || old.metadata.labels != new.metadata.labels
                || old.metadata.owner_references != new.metadata.owner_references
        }
        _ => true,
    }
}

//! The one task that schedules: takes changes in, decides, and sends writes out.
//!
//! Owns the cluster and the queue, so neither needs a lock. Writes run beside it, in task sets that end with it: bindings, of
//! which there may be so many at once, and reports, which nobody waits for.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use shared::selector::Selector;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::cluster::{Cluster, ObjectKey};
use super::decide::{self, Diagnosis};
use super::event::ClusterEvent;
use super::feed::{Feed, Input};
use super::plugins::volume_binding;
use super::pod_info::{Classes, PodInfo};
use super::preemption;
use super::queue::Queue;
use super::{Config, writes};
use crate::events::{Kind, Recorder};
use crate::informers::Change;

/// Changes taken in at once, and decisions made before looking at changes again.
const BATCH: usize = 128;

/// How a binding went.
struct Bound {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    outcome: Result<(), writes::BindError>,
}

/// The scheduler's state.
pub struct Scheduler {
    config: Config,
    client: kube::Client,
    recorder: Recorder,
    cluster: Cluster,
    queue: Queue,
    classes: Classes,
    /// Pods counted on a node that the API does not show there yet, by key, with their UID.
    assumed: HashMap<Arc<str>, String>,
    /// Victims being sent away, by the pod they make room for: it must not choose more until these are gone.
    leaving: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    binds: JoinSet<Bound>,
    /// Bindings of pods whose claims must get their volumes first. That may take minutes, so they are not among those counted.
    slow_binds: JoinSet<Bound>,
    /// Gives the key of a pod whose victims could not all be sent away.
    reports: JoinSet<Option<Arc<str>>>,
    rng: SmallRng,
    start: usize,
}

fn key_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectKey {
    let meta = object.metadata();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Applies a change to a map of objects.
fn keep<K: Metadata<Ty = ObjectMeta>>(map: &mut std::collections::BTreeMap<ObjectKey, Arc<K>>, change: &Change<K>) {
    match change {
        Change::Deleted(gone) => map.remove(&key_of(&**gone)),
        Change::Added(new) | Change::Updated { new, .. } => map.insert(key_of(&**new), new.clone()),
    };
}

/// Whether a node changed in anything that a filter looks at; heartbeats do not.
fn node_matters(old: &Node, new: &Node) -> bool {
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    old.metadata.labels != new.metadata.labels || old.spec != new.spec || allocatable(old) != allocatable(new)
}

impl Scheduler {
    /// A scheduler that has seen nothing yet.
    pub fn new(config: Config, client: kube::Client, recorder: Recorder) -> Self {
        Scheduler {
            rng: SmallRng::seed_from_u64(config.seed),
            config,
            client,
            recorder,
            cluster: Cluster::default(),
            queue: Queue::default(),
            classes: Classes::default(),
            assumed: HashMap::new(),
            leaving: HashMap::new(),
            binds: JoinSet::new(),
            slow_binds: JoinSet::new(),
            reports: JoinSet::new(),
            start: 0,
        }
    }

    /// Schedules until it is dropped.
    pub async fn run(mut self, feed: Feed) {
        let (first, inputs) = feed.open().await;
        for input in first {
            self.take(input);
        }
        let mut inputs = inputs.ready_chunks(BATCH);
        loop {
            let now = Instant::now();
            for _ in 0..BATCH {
                if self.binds.len() >= self.config.binds_in_flight {
                    break;
                }
                let Some(pod) = self.queue.pop(now) else { break };
                self.decide(pod, now);
            }
            // While there is no room for another binding only the end of one matters: what is due by then cannot be decided.
            let room = self.binds.len() < self.config.binds_in_flight;
            let ready = room && self.queue.is_ready(now);
            let deadline = self.queue.deadline().filter(|_| room);
            tokio::select! {
                Some(batch) = inputs.next() => batch.into_iter().for_each(|input| self.take(input)),
                Some(bound) = self.binds.join_next(), if !self.binds.is_empty() => self.joined(bound),
                Some(bound) = self.slow_binds.join_next(), if !self.slow_binds.is_empty() => self.joined(bound),
                Some(report) = self.reports.join_next(), if !self.reports.is_empty() => {
                    if let Ok(Some(incomplete)) = report {
                        // Some of its victims stay: no event will tell it to look for others.
                        self.leaving.remove(&incomplete);
                        self.queue.call(&incomplete, Instant::now());
                    }
                }
                () = tokio::time::sleep_until(deadline.unwrap_or(now)), if deadline.is_some() && !ready => {}
                () = std::future::ready(()), if ready => {}
                else => return,
            }
        }
    }

    fn joined(&mut self, bound: Result<Bound, JoinError>) {
        match bound {
            Ok(bound) => self.bound(bound),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    fn decide(&mut self, pod: Arc<PodInfo>, now: Instant) {
        match decide::pick(&pod, &mut self.cluster, &mut self.start, &mut self.rng) {
            Ok(node) => self.assume_and_bind(pod, node),
            Err(diagnosis) => self.refuse(pod, *diagnosis, now),
        }
    }

    fn assume_and_bind(&mut self, pod: Arc<PodInfo>, node: Arc<str>) {
        self.cluster.withdraw(&pod.key);
        self.leaving.remove(&pod.key);
        self.cluster.place(pod.clone(), &node);
        self.assumed.insert(pod.key.clone(), pod.uid().to_owned());
        let plan = volume_binding::plan(&pod, &self.cluster, &node);
        for (_, volume) in &plan.bind {
            self.cluster.reserved.insert(volume.metadata.name.clone().unwrap_or_default(), pod.uid().to_owned());
        }
        let binds = if plan.is_empty() { &mut self.binds } else { &mut self.slow_binds };
        let client = self.client.clone();
        binds.spawn(async move {
            let outcome = writes::bind(client, pod.clone(), node.clone(), plan).await;
            Bound { pod, node, outcome }
        });
    }

    fn bound(&mut self, bound: Bound) {
        let Bound { pod, node, outcome } = bound;
        self.cluster.reserved.retain(|_, uid| uid.as_str() != pod.uid());
        match outcome {
            Ok(()) => {
                self.config.verdicts.forget(pod.uid());
                self.recorder.event(&*pod.pod, Kind::Normal, "Scheduled", format!("Successfully assigned {} to {node}", pod.key));
            }
            Err(error) => {
                // Once the informer has shown the pod bound, it is bound whatever the answer was.
                if self.assumed.get(&pod.key).is_none_or(|uid| uid != pod.uid()) {
                    return;
                }
                tracing::info!(pod = %pod.key, %node, %error, "binding failed");
                let now = Instant::now();
                self.assumed.remove(&pod.key);
                self.cluster.displace(&pod.key);
                self.queue.failed(&pod.key, now);
                self.announce(&ClusterEvent::PodRemoved(pod.clone()), now);
                let gone = matches!(&error, writes::BindError::Api(kube::Error::Api(status)) if status.code == 404);
                if !gone {
                    self.report(&pod, "SchedulerError", &format!("binding rejected: {error}"), None);
                }
            }
        }
    }

    fn refuse(&mut self, pod: Arc<PodInfo>, mut diagnosis: Diagnosis, now: Instant) {
        let mut nominated = None;
        if diagnosis.nodes > 0 {
            match self.preempt(&pod, &diagnosis) {
                Ok(found) => {
                    nominated = Some(found.node.to_string());
                    self.make_room(&pod, found, now);
                }
                Err(text) => {
                    if !text.starts_with("not eligible due to a terminating pod") && pod.nominated_node().is_some() {
                        self.cluster.withdraw(&pod.key);
                        nominated = Some(String::new());
                    }
                    diagnosis.preemption = format!("preemption: {text}");
                }
            }
        }
        let text = diagnosis.to_string();
        self.queue.refused(&pod.key, diagnosis.plugins.clone(), now);
        self.config.verdicts.set(pod.uid(), Arc::new(diagnosis));
        self.report(&pod, "Unschedulable", &text, nominated.as_deref());
    }

    fn preempt(&mut self, pod: &Arc<PodInfo>, diagnosis: &Diagnosis) -> Result<preemption::Preemption, String> {
        if let Some(victims) = self.leaving.get(&pod.key) {
            let cluster = &self.cluster;
            let there = |v: &Arc<PodInfo>| {
                cluster.placement(&v.key).and_then(|n| cluster.node(n)).is_some_and(|n| n.pods.iter().any(|p| p.key == v.key && p.uid() == v.uid()))
            };
            if victims.iter().any(there) {
                return Err("not eligible due to a terminating pod on the nominated node.".into());
            }
            self.leaving.remove(&pod.key);
        }
        preemption::preempt(pod, &mut self.cluster, diagnosis, &mut self.rng)
    }

    /// Nominates the pod, drops lesser nominations on that node, and sends the victims away.
    fn make_room(&mut self, pod: &Arc<PodInfo>, found: preemption::Preemption, now: Instant) {
        let lesser: Vec<Arc<PodInfo>> = self.cluster.nominated(&found.node).iter().filter(|p| p.priority < pod.priority).cloned().collect();
        for other in lesser {
            self.cluster.withdraw(&other.key);
            self.queue.call(&other.key, now);
            let patch = serde_json::json!({ "metadata": { "uid": other.uid() }, "status": { "nominatedNodeName": null } });
            self.patch(other, patch);
        }
        self.cluster.nominate(pod.clone(), &found.node);
        self.leaving.insert(pod.key.clone(), found.victims.clone());
        let key = pod.key.clone();
        let eviction = writes::evict(self.client.clone(), self.recorder.clone(), pod.clone(), found.victims, found.node);
        self.reports.spawn(async move { if eviction.await { None } else { Some(key) } });
    }

    fn patch(&mut self, pod: Arc<PodInfo>, patch: serde_json::Value) {
        let write = writes::patch_status(self.client.clone(), pod, patch);
        self.reports.spawn(async move {
            write.await;
            None
        });
    }

    fn report(&mut self, pod: &Arc<PodInfo>, reason: &str, message: &str, nominated: Option<&str>) {
        self.recorder.event(&*pod.pod, Kind::Warning, "FailedScheduling", message);
        if let Some(patch) = writes::status_patch(pod, reason, message, nominated) {
            self.patch(pod.clone(), patch);
        }
    }

    fn announce(&mut self, event: &ClusterEvent, now: Instant) {
        self.queue.event(event, now, &self.cluster);
    }

    fn take(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Pod(change) => self.take_pod(change, now),
            Input::Node(change) => self.take_node(change, now),
            Input::Namespace(change) => {
                let name = change.object().metadata.name.clone().unwrap_or_default();
                match &change {
                    Change::Deleted(_) => self.cluster.namespaces.remove(&name),
                    _ => self.cluster.namespaces.insert(name, change.object().metadata.labels.clone().unwrap_or_default()),
                };
                self.announce(&ClusterEvent::Namespace, now);
            }
            Input::Budget(change) => keep(&mut self.cluster.budgets, &change),
            Input::Claim(change) => {
                keep(&mut self.cluster.claims, &change);
                self.announce(&ClusterEvent::Storage, now);
            }
            Input::Volume(change) => {
                let name = key_of(&**change.object()).1;
                match &change {
                    Change::Deleted(_) => self.cluster.volumes.remove(&name),
                    _ => self.cluster.volumes.insert(name, change.object().clone()),
                };
                self.announce(&ClusterEvent::Storage, now);
            }
            Input::Class(change) => {
                let name = key_of(&**change.object()).1;
                match &change {
                    Change::Deleted(_) => self.cluster.storage_classes.remove(&name),
                    _ => self.cluster.storage_classes.insert(name, change.object().clone()),
                };
                self.announce(&ClusterEvent::Storage, now);
            }
            Input::CsiNode(change) => {
                let name = key_of(&**change.object()).1;
                match &change {
                    Change::Deleted(_) => self.cluster.csi_nodes.remove(&name),
                    _ => self.cluster.csi_nodes.insert(name, change.object().clone()),
                };
                self.announce(&ClusterEvent::Storage, now);
            }
            Input::Service(change) => self.take_workload("Service", &change, |o| o.spec.as_ref()?.selector.as_ref().map(Selector::from_map)),
            Input::ReplicationController(change) => {
                self.take_workload("ReplicationController", &change, |o| o.spec.as_ref()?.selector.as_ref().map(Selector::from_map));
            }
            Input::ReplicaSet(change) => {
                self.take_workload("ReplicaSet", &change, |o| Selector::from_label_selector(Some(&o.spec.as_ref()?.selector)).ok());
            }
            Input::StatefulSet(change) => {
                self.take_workload("StatefulSet", &change, |o| Selector::from_label_selector(Some(&o.spec.as_ref()?.selector)).ok());
            }
        }
    }

    fn take_workload<K: Metadata<Ty = ObjectMeta>>(&mut self, kind: &'static str, change: &Change<K>, selector: impl Fn(&K) -> Option<Selector>) {
        let key = (kind, key_of(&**change.object()));
        let selector = match change {
            Change::Deleted(_) => None,
            _ => selector(change.object()).filter(|s| !s.is_everything()),
        };
        match selector {
            Some(selector) => self.cluster.workloads.insert(key, selector),
            None => self.cluster.workloads.remove(&key),
        };
    }

    fn take_node(&mut self, change: Change<Node>, now: Instant) {
        match change {
            Change::Added(node) => {
                self.cluster.set_node(node.clone());
                self.announce(&ClusterEvent::NodeAdded(node), now);
            }
            Change::Updated { old, new } => {
                self.cluster.set_node(new.clone());
                if node_matters(&old, &new) {
                    self.announce(&ClusterEvent::NodeUpdated { old, new }, now);
                }
            }
            Change::Deleted(node) => {
                self.cluster.remove_node(node.metadata.name.as_deref().unwrap_or_default());
                self.announce(&ClusterEvent::NodeRemoved(node), now);
            }
        }
    }

    fn take_pod(&mut self, change: Change<Pod>, now: Instant) {
        let deleted = matches!(change, Change::Deleted(_));
        let replaced = matches!(&change, Change::Updated { old, new } if old.metadata.uid != new.metadata.uid);
        let pod = Arc::new(PodInfo::new(change.object().clone(), &mut self.classes));
        if deleted || replaced || pod.finished() {
            self.gone(&pod, now);
            if deleted || pod.finished() {
                return;
            }
        }
        if pod.node_name().is_some() {
            self.placed(pod, now);
        } else if self.assumed.get(&pod.key).is_some_and(|uid| uid == pod.uid()) {
            // Its binding is under way.
        } else if pod.terminating() {
            self.queue.remove(&pod.key);
            self.cluster.withdraw(&pod.key);
        } else if pod.spec().and_then(|s| s.scheduler_name.as_deref()).unwrap_or("default-scheduler") == self.config.scheduler_name {
            self.waiting(pod, now);
        }
    }

    /// A pod is gone or has finished.
    fn gone(&mut self, pod: &Arc<PodInfo>, now: Instant) {
        self.queue.remove(&pod.key);
        self.cluster.withdraw(&pod.key);
        self.assumed.remove(&pod.key);
        self.leaving.remove(&pod.key);
        self.config.verdicts.forget(pod.uid());
        if let Some(placed) = self.cluster.displace(&pod.key) {
            self.announce(&ClusterEvent::PodRemoved(placed), now);
        }
    }

    /// The API shows a pod on a node.
    fn placed(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let Some(node) = pod.node_name().map(str::to_owned) else { return };
        let confirmed = self.assumed.remove(&pod.key).is_some();
        self.queue.remove(&pod.key);
        self.cluster.withdraw(&pod.key);
        let before = self.cluster.displace(&pod.key);
        self.cluster.place(pod.clone(), &node);
        let event = match before {
            Some(before) if !confirmed => {
                if before.class != pod.class {
                    Some(ClusterEvent::PodRelabelled(pod))
                } else if before.requests != pod.requests {
                    Some(ClusterEvent::PodShrunk)
                } else {
                    None
                }
            }
            _ => Some(ClusterEvent::PodPlaced(pod)),
        };
        if let Some(event) = event {
            self.announce(&event, now);
        }
    }

    /// A pod waits for a node.
    fn waiting(&mut self, pod: Arc<PodInfo>, now: Instant) {
        match pod.nominated_node() {
            Some(node) => self.cluster.nominate(pod.clone(), node),
            // A nomination that is just being written is not in the object yet; only its removal is.
            None if self.queue.get(&pod.key).is_some_and(|p| p.nominated_node().is_some()) => {
                self.cluster.withdraw(&pod.key);
            }
            None => {}
        }
        if pod.gated()
            && let Some(patch) = writes::status_patch(&pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates", None)
        {
            self.patch(pod.clone(), patch);
        }
        self.queue.upsert(pod, now, &self.cluster);
    }
}

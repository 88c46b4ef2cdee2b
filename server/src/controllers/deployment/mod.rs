//! Rolls a Deployment's pods over from one template to the next by sizing its ReplicaSets (`pkg/controller/deployment`).
//!
//! Owns ReplicaSets whose controller is the deployment. Must never touch pods.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use shared::selector::Selector;

use super::queue::{Key, Queue};
use super::{Context, Error, control, now, pods, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

pub mod revision;
mod rollout;
mod status;

pub use rollout::scaled;
use rollout::{Limits, Share, Size};

const WORKERS: usize = 5;

/// Starts the controller.
pub fn start(ctx: Context) {
    let (deployments, sets, pods) = (ctx.informers.get::<Deployment>(), ctx.informers.get::<ReplicaSet>(), ctx.informers.get::<Pod>());
    let queue = Queue::new();
    ctx.enqueue_all(&deployments, &queue);
    let (owners, into) = (deployments.clone(), queue.clone());
    ctx.on(&sets, move |change| {
        let concerned = control::owners_concerned(&owners, &change);
        concerned.into_iter().chain(control::possible_owners(&owners, &change, selector)).for_each(|key| into.add(key));
    });
    // Recreate waits until no old pod is left; nothing but the last pod's end tells.
    let (owners, parents, into) = (deployments.clone(), sets.clone(), queue.clone());
    ctx.on(&pods, move |change| {
        let ended = match &change {
            Change::Deleted(_) => true,
            Change::Updated { old, new } => !pods::is_terminal(old) && pods::is_terminal(new),
            Change::Added(_) => false,
        };
        let owner = ended
            .then(|| control::resolve_owner(&parents, &change.object().metadata))
            .flatten()
            .and_then(|set| control::resolve_owner(&owners, &set.metadata));
        if let Some(deployment) = owner.filter(|d| strategy(d) == "Recreate") {
            into.add(Key::of(&*deployment));
        }
    });
    let ready = vec![synced(&deployments), synced(&sets), synced(&pods)];
    let controller =
        Arc::new(Controller { client: ctx.client.clone(), recorder: ctx.recorder.clone(), deployments, sets, pods, queue: queue.clone() });
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

fn selector(deployment: &Deployment) -> Option<Selector> {
    Selector::from_label_selector(deployment.spec.as_ref().map(|s| &s.selector)).ok()
}

fn strategy(deployment: &Deployment) -> &str {
    deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate")
}

fn limits(deployment: &Deployment) -> Limits {
    let desired = status::desired(deployment);
    if strategy(deployment) != "RollingUpdate" {
        return Limits::strict(desired);
    }
    let rolling = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
    Limits::rolling(desired, rolling.and_then(|r| r.max_surge.as_ref()), rolling.and_then(|r| r.max_unavailable.as_ref()))
}

fn paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or_default()
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default()
}

fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

struct Controller {
    client: kube::Client,
    recorder: Recorder,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    queue: Queue<Key>,
}

/// One sync of one deployment: the deployment and its ReplicaSets as they are after each write.
struct Sync<'a> {
    controller: &'a Controller,
    deployment: Deployment,
    limits: Limits,
    new: Option<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(cached) = self.deployments.get(&key.namespace, &key.name) else { return Ok(()) };
        let Some(selector) = selector(&cached) else { return Ok(()) };
        let mut sync = Sync { controller: self, deployment: (*cached).clone(), limits: limits(&cached), new: None, old: Vec::new() };
        if selector.is_everything() {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&*cached, Kind::Warning, "SelectingAll", text);
            let mut status = cached.status.clone().unwrap_or_default();
            if status.observed_generation < cached.metadata.generation {
                status.observed_generation = cached.metadata.generation;
                sync.write_status(status).await?;
            }
            return Ok(());
        }
        let sets = control::claim(&self.client, &*cached, &selector, &self.sets, None).await?;
        (sync.new, sync.old) = revision::split(&cached, &sets);
        if cached.metadata.deletion_timestamp.is_some() {
            return sync.status_only().await;
        }
        sync.check_paused().await?;
        if paused(&sync.deployment) || sync.is_scaling() {
            return sync.scale_all().await;
        }
        match strategy(&cached) {
            "Recreate" => sync.recreate(&sets).await,
            "RollingUpdate" => sync.roll().await,
            other => Err(Error::Other(format!("unexpected deployment strategy type: {other}"))),
        }
    }
}

impl Sync<'_> {
    fn api(&self) -> Api<Deployment> {
        Api::namespaced(self.controller.client.clone(), self.deployment.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn sets(&self) -> Api<ReplicaSet> {
        Api::namespaced(self.controller.client.clone(), self.deployment.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    fn event(&self, kind: Kind, reason: &str, message: String) {
        self.controller.recorder.event(&self.deployment, kind, reason, message);
    }

    // ---- status ----

    async fn write_status(&mut self, status: DeploymentStatus) -> Result<(), Error> {
        let name = self.deployment.metadata.name.clone().unwrap_or_default();
        let wanted = self.deployment.metadata.annotations.as_ref().and_then(|a| a.get(revision::REVISION)).cloned();
        let mut changed = self.deployment.clone();
        changed.status = Some(status);
        let mut written = self.api().replace_status(&name, &PostParams::default(), &changed).await?;
        written.metadata.managed_fields = None;
        // A kube-apiserver takes the revision annotation along with the status; where only the status counts, it needs a write of its own.
        if let Some(wanted) = wanted
            && written.metadata.annotations.as_ref().and_then(|a| a.get(revision::REVISION)) != Some(&wanted)
        {
            written.metadata.annotations.get_or_insert_default().insert(revision::REVISION.into(), wanted);
            written = self.api().replace(&name, &PostParams::default(), &written).await?;
            written.metadata.managed_fields = None;
        }
        self.deployment = written;
        Ok(())
    }

    fn current_status(&self) -> DeploymentStatus {
        self.deployment.status.clone().unwrap_or_default()
    }

    /// Brings the counts up to date, nothing else.
    async fn status_only(&mut self) -> Result<(), Error> {
        let status = status::calculate(&self.deployment, self.new.as_deref(), &self.all(), &self.limits, &now());
        if Some(&status) != self.deployment.status.as_ref() {
            self.write_status(status).await?;
        }
        Ok(())
    }

    async fn rollout_status(&mut self) -> Result<(), Error> {
        let (now, all) = (now(), self.all());
        let status = status::calculate(&self.deployment, self.new.as_deref(), &all, &self.limits, &now);
        let status = status::judge(&self.deployment, status, self.new.as_deref(), &all, &now);
        if let Some(wait) = status::next_check(&self.deployment, &status, &now) {
            self.controller.queue.add_after(Key::of(&self.deployment), wait);
        }
        if Some(&status) != self.deployment.status.as_ref() {
            self.write_status(status).await?;
        }
        Ok(())
    }

    /// Notes when a deployment with a deadline is paused or resumed, so that the deadline does not run meanwhile.
    async fn check_paused(&mut self) -> Result<(), Error> {
        if status::deadline(&self.deployment).is_none() {
            return Ok(());
        }
        let mut status = self.current_status();
        let reason = status::find(&status, status::PROGRESSING).and_then(|c| c.reason.clone());
        if reason.as_deref() == Some(status::TIMED_OUT) {
            return Ok(());
        }
        let noted = reason.as_deref() == Some("DeploymentPaused");
        let condition = match (paused(&self.deployment), noted) {
            (true, false) => status::condition(status::PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", &now()),
            (false, true) => status::condition(status::PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", &now()),
            _ => return Ok(()),
        };
        status::set(&mut status, condition);
        self.write_status(status).await
    }

    // ---- revisions ----

    /// Numbers the newest ReplicaSet and, if `create`, makes it.
    async fn sync_revision(&mut self, create: bool) -> Result<(), Error> {
        let newest_old = self.old.iter().map(|s| revision::revision(&s.metadata)).max().unwrap_or_default();
        match self.new.clone() {
            Some(set) => self.update_new_set(&set, newest_old + 1).await,
            None if create => self.create_new_set(newest_old + 1).await,
            None => Ok(()),
        }
    }

    async fn update_new_set(&mut self, set: &Arc<ReplicaSet>, number: i64) -> Result<(), Error> {
        let before = revision::annotations(&set.metadata);
        let annotations = revision::inherit(&self.deployment, before.clone(), number, true, &self.limits);
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
        let has = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
        if annotations != before || min_ready != has {
            let patch = json!({
                "metadata": { "uid": set.metadata.uid, "resourceVersion": set.metadata.resource_version, "annotations": annotations },
                "spec": { "minReadySeconds": min_ready },
            });
            // Upstream ends the sync here; its own change brings the deployment back.
            self.new = Some(Arc::new(self.sets().patch(name(set), &PatchParams::default(), &Patch::Merge(patch)).await?));
        }
        let number = annotations.get(revision::REVISION).cloned().unwrap_or_default();
        let mut dirty = self.set_revision(&number);
        let mut status = self.current_status();
        if status::deadline(&self.deployment).is_some() && status::find(&status, status::PROGRESSING).is_none() {
            let text = format!("Found new replica set \"{}\"", name(set));
            status::set(&mut status, status::condition(status::PROGRESSING, "True", "FoundNewReplicaSet", text, &now()));
            dirty = true;
        }
        if dirty { self.write_status(status).await } else { Ok(()) }
    }

    /// Returns whether the deployment's annotation changed.
    fn set_revision(&mut self, number: &str) -> bool {
        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(revision::REVISION.into(), number.to_owned()).as_deref() != Some(number)
    }

    async fn create_new_set(&mut self, number: i64) -> Result<(), Error> {
        let total = self.old.iter().map(|s| replicas(s)).sum();
        let size = if strategy(&self.deployment) == "RollingUpdate" { rollout::new_size(&self.limits, 0, total) } else { self.limits.desired };
        let wanted = revision::new_set(&self.deployment, size, number, &self.limits);
        let created = self.sets().create(&PostParams::default(), &wanted).await.map_err(Error::from);
        let set = match created {
            Ok(set) => {
                if size > 0 {
                    self.event(Kind::Normal, "ScalingReplicaSet", format!("Scaled up replica set {} from 0 to {size}", name(&set)));
                }
                set
            }
            Err(error) if error.is_already_exists() => self.settle_name_taken(&wanted, error).await?,
            Err(error) if error.is_namespace_terminating() => return Err(error),
            Err(error) => {
                let text = format!("Failed to create new replica set \"{}\": {error}", name(&wanted));
                if status::deadline(&self.deployment).is_some() {
                    let mut status = self.current_status();
                    status::set(&mut status, status::condition(status::PROGRESSING, "False", "ReplicaSetCreateError", &text, &now()));
                    if Some(&status) != self.deployment.status.as_ref() {
                        let _ = self.write_status(status).await;
                    }
                }
                self.event(Kind::Warning, "ReplicaSetCreateError", text);
                return Err(error);
            }
        };
        let text = format!("Created new replica set \"{}\"", name(&set));
        self.new = Some(Arc::new(set));
        let mut dirty = self.set_revision(&number.to_string());
        let mut status = self.current_status();
        if status::deadline(&self.deployment).is_some() {
            status::set(&mut status, status::condition(status::PROGRESSING, "True", "NewReplicaSetCreated", text, &now()));
            dirty |= Some(&status) != self.deployment.status.as_ref();
        }
        if dirty { self.write_status(status).await } else { Ok(()) }
    }

    /// The name is taken: by what an earlier sync made (the cache lags), or by a stranger, which takes another hash.
    async fn settle_name_taken(&mut self, wanted: &ReplicaSet, error: Error) -> Result<ReplicaSet, Error> {
        let there = self.sets().get(name(wanted)).await?;
        let ours = control::controller_of(&there.metadata).is_some_and(|r| Some(&r.uid) == self.deployment.metadata.uid.as_ref());
        if ours && revision::is_new(&self.deployment, &there) {
            return Ok(there);
        }
        let mut status = self.current_status();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        self.write_status(status).await?;
        Err(error)
    }

    // ---- sizes ----

    /// Resizes a ReplicaSet and notes the deployment's own size on it. Returns whether the size changed.
    async fn resize(&mut self, set: &Arc<ReplicaSet>, size: i32) -> Result<bool, Error> {
        let before = revision::annotations(&set.metadata);
        let mut annotations = before.clone();
        annotations.insert(revision::DESIRED.into(), self.limits.desired.to_string());
        annotations.insert(revision::MAX.into(), self.limits.most().to_string());
        let from = replicas(set);
        if annotations == before && size == from {
            return Ok(false);
        }
        let patch = json!({
            "metadata": { "uid": set.metadata.uid, "resourceVersion": set.metadata.resource_version, "annotations": annotations },
            "spec": { "replicas": size },
        });
        let patched = Arc::new(self.sets().patch(name(set), &PatchParams::default(), &Patch::Merge(patch)).await?);
        for slot in self.old.iter_mut().chain(self.new.as_mut()) {
            if slot.metadata.uid == patched.metadata.uid {
                *slot = patched.clone();
            }
        }
        if size != from {
            let direction = if size > from { "up" } else { "down" };
            self.event(Kind::Normal, "ScalingReplicaSet", format!("Scaled {direction} replica set {} from {from} to {size}", name(set)));
        }
        Ok(size != from)
    }

    /// The same, but annotations alone are not worth a write.
    async fn resize_if_needed(&mut self, set: &Arc<ReplicaSet>, size: i32) -> Result<bool, Error> {
        if replicas(set) == size { Ok(false) } else { self.resize(set, size).await }
    }

    /// Whether the deployment has another size than when its ReplicaSets were last scaled.
    fn is_scaling(&self) -> bool {
        let mut active = self.old.iter().chain(&self.new).filter(|s| replicas(s) > 0);
        active.any(|s| revision::number(&s.metadata, revision::DESIRED).is_some_and(|n| n != self.limits.desired))
    }

    /// Paused, or only the size changed: no rollout step.
    async fn scale_all(&mut self) -> Result<(), Error> {
        self.sync_revision(false).await?;
        self.scale().await?;
        if paused(&self.deployment) {
            self.clean_up().await?;
        }
        self.status_only().await
    }

    async fn scale(&mut self) -> Result<(), Error> {
        let mut active: Vec<_> = self.all().into_iter().filter(|s| replicas(s) > 0).collect();
        // One active ReplicaSet, or none: the newest takes the whole size.
        if active.len() <= 1 {
            let newest_old = || self.old.iter().max_by_key(|s| revision::revision(&s.metadata)).cloned();
            if let Some(set) = active.pop().or_else(|| self.new.clone()).or_else(newest_old) {
                self.resize_if_needed(&set, self.limits.desired).await?;
            }
            return Ok(());
        }
        if self.new.as_ref().is_some_and(|s| self.is_saturated(s)) {
            for set in self.old.clone() {
                self.resize_if_needed(&set, 0).await?;
            }
            return Ok(());
        }
        if strategy(&self.deployment) == "RollingUpdate" {
            let total: i32 = active.iter().map(|s| replicas(s)).sum();
            let grows = self.limits.desired > 0 && self.limits.most() > total;
            active.sort_by(|a, b| {
                let by_age = if grows { revision::by_age(b, a) } else { revision::by_age(a, b) };
                replicas(b).cmp(&replicas(a)).then(by_age)
            });
            let share = |s: &Arc<ReplicaSet>| Share { replicas: replicas(s), most_before: revision::number(&s.metadata, revision::MAX) };
            let shares: Vec<_> = active.iter().map(share).collect();
            let status_replicas = self.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or_default();
            for (set, size) in active.iter().zip(rollout::proportional(&self.limits, status_replicas, &shares)) {
                self.resize(set, size).await?;
            }
        }
        Ok(())
    }

    /// The newest ReplicaSet has its full size, knows it, and all its pods are available.
    fn is_saturated(&self, set: &ReplicaSet) -> bool {
        let desired = self.limits.desired;
        replicas(set) == desired && revision::number(&set.metadata, revision::DESIRED) == Some(desired) && available(set) == desired
    }

    // ---- strategies ----

    async fn roll(&mut self) -> Result<(), Error> {
        self.sync_revision(true).await?;
        let Some(new) = self.new.clone() else { return self.rollout_status().await };
        let total = self.all().iter().map(|s| replicas(s)).sum();
        let size = if replicas(&new) > self.limits.desired { self.limits.desired } else { rollout::new_size(&self.limits, replicas(&new), total) };
        if self.resize_if_needed(&new, size).await? {
            return self.rollout_status().await;
        }
        if self.shrink_old().await? {
            return self.rollout_status().await;
        }
        self.finish().await
    }

    async fn shrink_old(&mut self) -> Result<bool, Error> {
        let mut old = self.old.clone();
        old.sort_by(|a, b| revision::by_age(a, b));
        if old.iter().all(|s| replicas(s) == 0) {
            return Ok(false);
        }
        let size = |s: &ReplicaSet| Size { replicas: replicas(s), available: available(s) };
        let sizes: Vec<_> = old.iter().map(|s| size(s)).collect();
        let new = self.new.as_deref().map(size).unwrap_or_default();
        let mut shrunk = false;
        for (set, size) in old.iter().zip(rollout::old_sizes(&self.limits, new, &sizes)) {
            shrunk |= self.resize_if_needed(set, size).await?;
        }
        Ok(shrunk)
    }

    async fn recreate(&mut self, sets: &[Arc<ReplicaSet>]) -> Result<(), Error> {
        self.sync_revision(false).await?;
        let mut shrunk = false;
        for set in self.old.clone().into_iter().filter(|s| replicas(s) > 0) {
            shrunk |= self.resize_if_needed(&set, 0).await?;
        }
        if shrunk || self.old_pods_run(sets) {
            return self.rollout_status().await;
        }
        if self.new.is_none() {
            self.sync_revision(true).await?;
        }
        if let Some(new) = self.new.clone() {
            self.resize_if_needed(&new, self.limits.desired).await?;
        }
        self.finish().await
    }

    /// Whether a pod of an old ReplicaSet may still run somewhere.
    fn old_pods_run(&self, sets: &[Arc<ReplicaSet>]) -> bool {
        if self.old.iter().any(|s| s.status.as_ref().is_some_and(|s| s.replicas > 0)) {
            return true;
        }
        let new = self.new.as_ref().and_then(|s| s.metadata.uid.clone());
        let namespace = self.deployment.metadata.namespace.as_deref().unwrap_or_default();
        let old = sets.iter().filter(|s| s.metadata.uid != new);
        old.flat_map(|s| self.controller.pods.controlled(namespace, s.metadata.uid.as_deref().unwrap_or_default())).any(|p| !pods::is_terminal(&p))
    }

    async fn finish(&mut self) -> Result<(), Error> {
        if status::is_complete(&self.deployment, &self.current_status()) {
            self.clean_up().await?;
        }
        self.rollout_status().await
    }

    /// Removes the oldest ReplicaSets beyond the history limit, those with nothing left in them.
    async fn clean_up(&mut self) -> Result<(), Error> {
        let Some(limit) = self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).filter(|l| *l != i32::MAX) else { return Ok(()) };
        let mut candidates: Vec<_> = self.old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).cloned().collect();
        let excess = candidates.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        candidates.sort_by(|a, b| revision::revision(&a.metadata).cmp(&revision::revision(&b.metadata)).then_with(|| revision::by_age(a, b)));
        for set in candidates.iter().take(excess) {
            let status = set.status.as_ref();
            let observed = status.and_then(|s| s.observed_generation).unwrap_or_default();
            if status.is_some_and(|s| s.replicas != 0) || replicas(set) != 0 || set.metadata.generation.unwrap_or_default() > observed {
                continue;
            }
            let same = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
            super::error::found(self.sets().delete(name(set), &DeleteParams::background().preconditions(same)).await)?;
        }
        Ok(())
    }
}

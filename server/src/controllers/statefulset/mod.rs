//! Runs pods with stable names and storage, one after the other unless told otherwise (`pkg/controller/statefulset`).
//!
//! Owns pods and ControllerRevisions whose controller is the set, and makes claims, which it does not own unless the retention policy
//! says so. Names are fixed, so the API server itself refuses a second pod of a name; the cache of pods may lag without harm.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use shared::selector::Selector;

use super::control;
use super::error::found;
use super::history::{self, Made};
use super::queue::{Key, Queue};
use super::{Context, Error, now, pods, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

mod pod;

const WORKERS: usize = 5;
const REVISION_LABEL: &str = "controller.kubernetes.io/hash";

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue: Queue<Key> = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        sets: ctx.informers.get(),
        pods: ctx.informers.get(),
        claims: ctx.informers.get(),
        revisions: ctx.informers.get(),
        queue: queue.clone(),
    });
    ctx.enqueue_all(&controller.sets, &queue);
    let (owners, into) = (controller.sets.clone(), queue.clone());
    ctx.on(&controller.pods, move |change| {
        let concerned = control::owners_concerned(&owners, &change);
        concerned.into_iter().chain(control::possible_owners(&owners, &change, selector)).for_each(|key| into.add(key));
    });
    let (owners, into) = (controller.sets.clone(), queue.clone());
    ctx.on(&controller.revisions, move |change| control::owners_concerned(&owners, &change).into_iter().for_each(|key| into.add(key)));
    // A claim that was in the way is gone.
    let (owners, into) = (controller.sets.clone(), queue.clone());
    ctx.on(&controller.claims, move |change| {
        if let Change::Deleted(gone) = change {
            let (namespace, name) = (gone.metadata.namespace.as_deref().unwrap_or_default(), gone.metadata.name.as_deref().unwrap_or_default());
            owners.list_namespaced(namespace).iter().filter(|s| pod::may_claim(s, name)).for_each(|s| into.add(Key::of(&**s)));
        }
    });
    let ready = vec![synced(&controller.sets), synced(&controller.pods), synced(&controller.claims), synced(&controller.revisions)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

fn selector(set: &StatefulSet) -> Option<Selector> {
    Selector::from_label_selector(set.spec.as_ref().map(|s| &s.selector)).ok()
}

struct Controller {
    client: kube::Client,
    recorder: Recorder,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
    queue: Queue<Key>,
}

/// The two templates a set may run at once.
struct Revisions {
    current: Arc<ControllerRevision>,
    update: Arc<ControllerRevision>,
    all: Vec<Arc<ControllerRevision>>,
}

fn revision_name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// One sync of one set.
struct Sync<'a> {
    controller: &'a Controller,
    set: Arc<StatefulSet>,
    current: (String, PodTemplateSpec),
    update: (String, PodTemplateSpec),
    min_ready: i32,
    monotonic: bool,
    status: StatefulSetStatus,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(()) };
        let Some(selector) = selector(&set) else { return Ok(()) };
        let owned = self.own_pods(&set, &selector).await?;
        let listed = history::list(&self.client, &*set, &selector, &self.revisions).await?;
        let Some(revisions) = self.revisions(&set, listed).await? else { return Ok(()) };
        let spec = set.spec.clone().unwrap_or_default();
        let template = |r: &ControllerRevision| history::template_of(r).unwrap_or_else(|| spec.template.clone());
        let mut sync = Sync {
            controller: self,
            current: (revision_name(&revisions.current).to_owned(), template(&revisions.current)),
            update: (revision_name(&revisions.update).to_owned(), spec.template.clone()),
            min_ready: spec.min_ready_seconds.unwrap_or_default(),
            monotonic: spec.pod_management_policy.as_deref() != Some("Parallel"),
            status: StatefulSetStatus::default(),
            set: set.clone(),
        };
        sync.count(&owned);
        let result = sync.act(&owned).await;
        sync.complete();
        if set.status.as_ref() != Some(&sync.status) {
            self.put_status(&set, sync.status.clone()).await?;
        }
        if let Some(wait) = pods::next_availability(&owned, sync.min_ready, &now()) {
            self.queue.add_after(key.clone(), wait);
        }
        result?;
        self.truncate(&set, &owned, &revisions, &sync.status).await
    }

    async fn own_pods(&self, set: &Arc<StatefulSet>, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        // A pod with another's name is none of its own, whatever its labels say.
        let member_of = set.clone();
        control::claim_members(&self.client, &**set, selector, &self.pods, None, &move |p| pod::ordinal(&member_of, p).is_some()).await
    }

    async fn put_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Error> {
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
        let changed = StatefulSet { metadata: set.metadata.clone(), spec: set.spec.clone(), status: Some(status) };
        api.replace_status(pod::set_name(set), &PostParams::default(), &changed).await?;
        Ok(())
    }

    /// The revisions to run (`getStatefulSetRevisions`); `None` after a collision, which brings the set back.
    async fn revisions(&self, set: &Arc<StatefulSet>, mut all: Vec<Arc<ControllerRevision>>) -> Result<Option<Revisions>, Error> {
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let next = all.last().map_or(1, |r| r.revision + 1);
        let update = match all.iter().rposition(|r| history::keeps(r, &template)) {
            Some(at) if at + 1 == all.len() => all[at].clone(),
            Some(at) => {
                // Rolled back: the same revision under a new number.
                let renumbered = history::renumber(&self.client, &all[at], next).await?;
                all.remove(at);
                all.push(renumbered.clone());
                renumbered
            }
            None => {
                let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default();
                match history::make(&self.client, &**set, &template, next, collisions, REVISION_LABEL).await? {
                    Made::Revision(made) => {
                        all.push(made.clone());
                        made
                    }
                    Made::Collision => {
                        let mut status = set.status.clone().unwrap_or_default();
                        status.collision_count = Some(collisions + 1);
                        self.put_status(set, status).await?;
                        return Ok(None);
                    }
                }
            }
        };
        let named = set.status.as_ref().and_then(|s| s.current_revision.as_deref()).unwrap_or_default();
        let current = all.iter().find(|r| revision_name(r) == named).cloned().unwrap_or_else(|| update.clone());
        Ok(Some(Revisions { current, update, all }))
    }

    async fn truncate(&self, set: &StatefulSet, owned: &[Arc<Pod>], revisions: &Revisions, status: &StatefulSetStatus) -> Result<(), Error> {
        let live = |r: &ControllerRevision| {
            let name = Some(revision_name(r));
            name == status.current_revision.as_deref()
                || name == status.update_revision.as_deref()
                || owned.iter().any(|p| Some(pod::revision(p)) == name)
        };
        let unused: Vec<_> = revisions.all.iter().filter(|r| !live(r)).cloned().collect();
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        history::truncate(&self.client, &unused, limit).await
    }
}

fn is_created(pod: &Pod) -> bool {
    !pods::phase(pod).is_empty()
}

fn runs_and_is_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

fn is_healthy(pod: &Pod) -> bool {
    runs_and_is_ready(pod) && !pods::is_terminating(pod)
}

impl Sync<'_> {
    fn is_available(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::is_available(pod, self.min_ready, &now())
    }

    fn add(count: &mut Option<i32>, n: i32) {
        let sum = count.unwrap_or_default() + n;
        *count = (sum != 0).then_some(sum);
    }

    fn count(&mut self, owned: &[Arc<Pod>]) {
        let old = self.set.status.clone().unwrap_or_default();
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            current_revision: Some(self.current.0.clone()),
            update_revision: Some(self.update.0.clone()),
            collision_count: Some(old.collision_count.unwrap_or_default()),
            conditions: old.conditions,
            available_replicas: Some(0),
            ..StatefulSetStatus::default()
        };
        for pod in owned {
            status.replicas += i32::from(is_created(pod));
            if runs_and_is_ready(pod) {
                Self::add(&mut status.ready_replicas, 1);
                status.available_replicas = Some(status.available_replicas.unwrap_or_default() + i32::from(self.is_available(pod)));
            }
            if is_created(pod) && !pods::is_terminating(pod) {
                self.count_revision(&mut status, pod, 1);
            }
        }
        self.status = status;
    }

    fn count_revision(&self, status: &mut StatefulSetStatus, pod: &Pod, n: i32) {
        if pod::revision(pod) == self.current.0 {
            Self::add(&mut status.current_replicas, n);
        }
        if pod::revision(pod) == self.update.0 {
            Self::add(&mut status.updated_replicas, n);
        }
    }

    /// When every pod runs the update revision, that is the current one (`completeRollingUpdate`).
    fn complete(&mut self) {
        let (_, wanted) = pod::ordinals(&self.set);
        let all = |count: Option<i32>| i64::from(count.unwrap_or_default()) == wanted;
        let done = all(self.status.updated_replicas) && all(self.status.ready_replicas) && all(Some(self.status.replicas));
        if self.strategy() == "RollingUpdate" && done {
            self.status.current_replicas = self.status.updated_replicas;
            self.status.current_revision = self.status.update_revision.clone();
        }
    }

    fn strategy(&self) -> &str {
        self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate")
    }

    fn partition(&self) -> Option<i64> {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.partition).map(i64::from)
    }

    /// A pod for a free ordinal: of the current revision below the partition, of the update revision above.
    fn fresh(&self, ordinal: i64) -> Pod {
        let (start, _) = pod::ordinals(&self.set);
        let in_use = self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or_default();
        let rolling = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
        let below = if rolling.is_some() { self.partition().unwrap_or_default() } else { i64::from(in_use) };
        let current = self.strategy() == "RollingUpdate" && ordinal < start + below;
        let (name, template) = if current { &self.current } else { &self.update };
        pod::new_pod(&self.set, template, name, ordinal)
    }

    async fn act(&mut self, owned: &[Arc<Pod>]) -> Result<(), Error> {
        let (start, wanted) = pod::ordinals(&self.set);
        let mut replicas: BTreeMap<i64, Arc<Pod>> = BTreeMap::new();
        let mut condemned: Vec<(i64, Arc<Pod>)> = Vec::new();
        for pod in owned {
            match pod::ordinal(&self.set, pod) {
                Some(ordinal) if ordinal >= start && ordinal < start + wanted => drop(replicas.insert(ordinal, pod.clone())),
                Some(ordinal) => condemned.push((ordinal, pod.clone())),
                None => {}
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        if self.set.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut any_blocked = false;
        for ordinal in start..start + wanted {
            let blocked = match replicas.get(&ordinal).cloned() {
                None => self.fill(ordinal).await?,
                Some(pod) => self.process(ordinal, &pod).await?,
            };
            // In parallel the others are looked after all the same; only what comes next waits.
            if blocked && self.monotonic {
                return Ok(());
            }
            any_blocked |= blocked;
        }
        if any_blocked {
            return Ok(());
        }
        self.update_condemned_claims(&condemned).await?;
        let unhealthy =
            replicas.values().find(|p| !is_healthy(p)).or_else(|| condemned.iter().rev().map(|(_, p)| p).find(|p| !is_healthy(p))).cloned();
        for (_, pod) in &condemned {
            if self.remove_condemned(pod, unhealthy.as_ref()).await? {
                return Ok(());
            }
        }
        if self.strategy() == "OnDelete" { Ok(()) } else { self.roll(&replicas, start, wanted).await }
    }

    /// Makes the pod of a free ordinal. Returns whether nothing else may be done before it is well.
    async fn fill(&mut self, ordinal: i64) -> Result<bool, Error> {
        let fresh = self.fresh(ordinal);
        if self.has_stale_claim(ordinal, &fresh) {
            // It goes with the pod before; a new pod must not get it.
            return Ok(true);
        }
        self.create(fresh, ordinal).await?;
        Ok(self.monotonic)
    }

    /// Looks after an existing replica. Returns whether nothing else may be done before it is well.
    async fn process(&mut self, ordinal: i64, pod: &Arc<Pod>) -> Result<bool, Error> {
        if pods::is_terminal(pod) {
            if !pods::is_terminating(pod) {
                let (reason, word) =
                    if pods::phase(pod) == "Failed" { ("RecreatingFailedPod", "failed") } else { ("RecreatingTerminatedPod", "terminated") };
                let set = super::full_name(&self.set.metadata);
                let kind = if word == "failed" { Kind::Warning } else { Kind::Normal };
                self.controller.recorder.event(&*self.set, kind, reason, format!("StatefulSet {set} is recreating {word} Pod {}", pods::name(pod)));
                self.delete(pod).await?;
            }
            // Its successor comes when it is gone.
            return Ok(true);
        }
        if pods::phase(pod) == "Pending" {
            self.ensure_claims(ordinal, pod).await?;
        }
        if self.monotonic && (pods::is_terminating(pod) || !runs_and_is_ready(pod) || !self.is_available(pod)) {
            return Ok(true);
        }
        self.update_claims(ordinal, pod, false).await?;
        if !pods::is_terminating(pod) && !pod::is_identified(&self.set, pod) {
            let mut fixed = (**pod).clone();
            pod::identify(&self.set, &mut fixed, ordinal);
            self.pods().replace(pods::name(pod), &PostParams::default(), &fixed).await?;
        }
        Ok(false)
    }

    /// Returns whether nothing else may be removed now.
    async fn remove_condemned(&mut self, pod: &Arc<Pod>, unhealthy: Option<&Arc<Pod>>) -> Result<bool, Error> {
        if pods::is_terminating(pod) {
            return Ok(self.monotonic);
        }
        let first_unhealthy = unhealthy.is_some_and(|u| pods::uid(u) == pods::uid(pod));
        if self.monotonic && !(runs_and_is_ready(pod) && self.is_available(pod)) && !first_unhealthy {
            return Ok(true);
        }
        self.delete(pod).await?;
        let mut status = self.status.clone();
        self.count_revision(&mut status, pod, -1);
        self.status = status;
        Ok(self.monotonic)
    }

    /// Replaces the highest pod that is not of the update revision, down to the partition; as many at once as may be unavailable.
    async fn roll(&mut self, replicas: &BTreeMap<i64, Arc<Pod>>, start: i64, wanted: i64) -> Result<(), Error> {
        let rolling = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
        let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
        let allowed = rolling.and_then(|r| r.max_unavailable.as_ref()).map_or(1, |v| super::deployment::scaled(Some(v), wanted, false)).max(1);
        // Those that are not there yet are as unavailable as those that are not well.
        let well = replicas.values().filter(|p| is_healthy(p) && self.is_available(p)).count();
        let mut unavailable = wanted.saturating_sub(i32::try_from(well).unwrap_or(i32::MAX));
        let first = start + self.partition().unwrap_or_default();
        for (_, pod) in replicas.range(first..).rev() {
            let healthy = is_healthy(pod) && self.is_available(pod);
            if pod::revision(pod) != self.update.0 && !pods::is_terminating(pod) {
                if healthy && unavailable >= allowed {
                    return Ok(());
                }
                self.delete(pod).await?;
                if pod::revision(pod) == self.current.0 {
                    Self::add(&mut self.status.current_replicas, -1);
                }
                unavailable += i32::from(healthy);
            }
            if unavailable >= allowed {
                return Ok(());
            }
        }
        Ok(())
    }

    // ---- writes ----

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.controller.client.clone(), self.set.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.controller.client.clone(), self.set.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn told<T>(&self, verb: &str, what: &str, result: Result<T, Error>) -> Result<T, Error> {
        let (name, title) = (pod::set_name(&self.set), format!("{}{}", verb[..1].to_uppercase(), &verb[1..]));
        match &result {
            Ok(_) => {
                let end = if what.starts_with("Claim") { "success" } else { "successful" };
                let text = format!("{verb} {what} in StatefulSet {name} {end}");
                self.controller.recorder.event(&*self.set, Kind::Normal, &format!("Successful{title}"), text);
            }
            Err(error) => {
                let text = format!("{verb} {what} in StatefulSet {name} failed error: {error}");
                self.controller.recorder.event(&*self.set, Kind::Warning, &format!("Failed{title}"), text);
            }
        }
        result
    }

    async fn create(&mut self, new: Pod, ordinal: i64) -> Result<(), Error> {
        let name = pods::name(&new).to_owned();
        self.ensure_claims(ordinal, &new).await?;
        match self.pods().create(&PostParams::default(), &new).await.map_err(Error::from) {
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            // Made before, and not in the cache yet, which brings the set back; or a stranger's, which the error tells.
            Err(error) if error.is_already_exists() => {
                let there = found(self.pods().get(&name).await)?;
                let ours = there.is_some_and(|p| control::controller_of(&p.metadata).is_some_and(|o| Some(&o.uid) == self.set.metadata.uid.as_ref()));
                return if ours { Ok(()) } else { self.told("create", &format!("Pod {name}"), Err(error)) };
            }
            result => self.told("create", &format!("Pod {name}"), result.map(drop))?,
        }
        self.status.replicas += 1;
        let mut status = self.status.clone();
        self.count_revision(&mut status, &new, 1);
        self.status = status;
        Ok(())
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let result = found(self.pods().delete(pods::name(pod), &DeleteParams::default().preconditions(same)).await);
        if matches!(&result, Err(error) if error.is_conflict()) {
            // Another pod has the name by now.
            return Ok(());
        }
        self.told("delete", &format!("Pod {}", pods::name(pod)), result.map(drop))
    }

    /// Whether a claim of an ordinal still belongs to the pod that had it before (`PodClaimIsStale`).
    fn has_stale_claim(&self, ordinal: i64, new: &Pod) -> bool {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        let names = pod::claims(&self.set, ordinal).into_iter().filter_map(|c| c.metadata.name);
        pod::scaling_deletes_claims(&self.set)
            && names.filter_map(|name| self.controller.claims.get(namespace, &name)).any(|c| pod::is_owned_by_predecessor(&c, new))
    }

    /// Makes the claims of a pod that are missing; all of them belong to whom the retention policy says from the start.
    async fn ensure_claims(&self, ordinal: i64, of: &Pod) -> Result<(), Error> {
        for mut claim in pod::claims(&self.set, ordinal) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
            match self.controller.claims.get(namespace, &name) {
                Some(there) if there.metadata.deletion_timestamp.is_some() => {
                    return Err(Error::Other(format!("pvc {name} is being deleted")));
                }
                Some(there) => {
                    self.own_claim(&there, of, false).await?;
                    continue;
                }
                None => claim.metadata.owner_references = pod::claim_owners(&self.set, Some(of), &claim, false),
            }
            match self.claims().create(&PostParams::default(), &claim).await.map_err(Error::from) {
                Err(error) if error.is_already_exists() => {}
                result => self.told("create", &format!("Claim {name} Pod {}", pods::name(of)), result.map(drop))?,
            }
        }
        Ok(())
    }

    async fn update_condemned_claims(&self, condemned: &[(i64, Arc<Pod>)]) -> Result<(), Error> {
        for (ordinal, pod) in condemned {
            self.update_claims(*ordinal, pod, true).await?;
        }
        Ok(())
    }

    /// Makes the claims of a pod go with whom the retention policy says.
    async fn update_claims(&self, ordinal: i64, pod: &Pod, condemned: bool) -> Result<(), Error> {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        for claim in pod::claims(&self.set, ordinal) {
            if let Some(there) = self.controller.claims.get(namespace, &claim.metadata.name.unwrap_or_default()) {
                self.own_claim(&there, pod, condemned).await?;
            }
        }
        Ok(())
    }

    async fn own_claim(&self, claim: &PersistentVolumeClaim, pod: &Pod, condemned: bool) -> Result<(), Error> {
        let Some(owners) = pod::claim_owners(&self.set, Some(pod), claim, condemned) else { return Ok(()) };
        let mut changed = claim.clone();
        changed.metadata.owner_references = (!owners.is_empty()).then_some(owners);
        found(self.claims().replace(claim.metadata.name.as_deref().unwrap_or_default(), &PostParams::default(), &changed).await)?;
        Ok(())
    }
}

//! Keeps the status of PodDisruptionBudgets, from which the eviction API takes its answers (`pkg/controller/disruption/disruption.go`).
//!
//! Owns the budgets' status, and takes back the `DisruptionTarget` condition of pods that were not disrupted after all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodCondition, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use shared::selector::Selector;

use super::deployment::scaled;
use super::error::found;
use super::queue::{Key, Queue};
use super::scale::Scales;
use super::{Context, Error, control, elapsed, now, pods, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

const WORKERS: usize = 5;
/// A pod whose eviction was granted counts as disrupted for this long even if nobody deletes it.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Item {
    /// A budget.
    Budget(Key),
    /// A pod that was said to be disrupted.
    Pod(Key),
}

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue: Queue<Item> = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        budgets: ctx.informers.get(),
        pods: ctx.informers.get(),
        deployments: ctx.informers.get(),
        sets: ctx.informers.get(),
        stateful: ctx.informers.get(),
        replications: ctx.informers.get(),
        queue: queue.clone(),
        scales: Scales::new(ctx.client.clone()),
    });
    let all = controller.budgets.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().map(|b| Item::Budget(Key::of(&**b))).collect());
    let into = queue.clone();
    ctx.on(&controller.budgets, move |change| into.add(Item::Budget(Key::of(&**change.object()))));
    let (budgets, into) = (controller.budgets.clone(), queue.clone());
    ctx.on(&controller.pods, move |change| {
        let pod = change.object();
        if matches!(&change, Change::Updated { .. }) && !super::replicaset::pod_matters(&change) && !is_target(pod) {
            return;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for budget in budgets.list_namespaced(namespace) {
            let old = match &change {
                Change::Updated { old, .. } => Some(old),
                _ => None,
            };
            let selects = |p: &Pod| selector(&budget).is_some_and(|s| s.matches(&p.metadata.labels));
            if selects(pod) || old.is_some_and(|o| selects(o)) {
                into.add(Item::Budget(Key::of(&*budget)));
            }
        }
        if is_target(pod) && !pods::is_terminating(pod) && !matches!(change, Change::Deleted(_)) {
            into.add(Item::Pod(Key::of(&**pod)));
        }
    });
    controller.follow_sizes(&ctx);
    let ready = vec![
        synced(&controller.budgets),
        synced(&controller.pods),
        synced(&controller.deployments),
        synced(&controller.sets),
        synced(&controller.stateful),
        synced(&controller.replications),
    ];
    ctx.work(&queue, WORKERS, ready, move |item| {
        let controller = controller.clone();
        async move {
            match item {
                Item::Budget(key) => controller.sync(&key).await,
                Item::Pod(key) => controller.take_back(&key).await,
            }
        }
    });
}

fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::from_label_selector(budget.spec.as_ref()?.selector.as_ref()).ok()
}

fn is_target(pod: &Pod) -> bool {
    pods::condition(pod, "DisruptionTarget").is_some_and(|c| c.status == "True")
}

struct Controller {
    client: kube::Client,
    recorder: Recorder,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    stateful: Informer<StatefulSet>,
    replications: Informer<ReplicationController>,
    queue: Queue<Item>,
    scales: Scales,
}

impl Controller {
    /// A workload that is scaled changes how many pods its budgets expect.
    fn follow_sizes(&self, ctx: &Context) {
        fn follow<K: control::Namespaced>(
            ctx: &Context,
            kind: &Informer<K>,
            budgets: &Informer<PodDisruptionBudget>,
            queue: &Queue<Item>,
            size: fn(&K) -> Option<i32>,
        ) {
            let (budgets, queue) = (budgets.clone(), queue.clone());
            ctx.on(kind, move |change| {
                if let Change::Updated { old, new } = &change
                    && size(old) != size(new)
                {
                    let namespace = new.metadata().namespace.as_deref().unwrap_or_default();
                    budgets.list_namespaced(namespace).iter().for_each(|b| queue.add(Item::Budget(Key::of(&**b))));
                }
            });
        }
        follow(ctx, &self.deployments, &self.budgets, &self.queue, |d| d.spec.as_ref()?.replicas);
        follow(ctx, &self.sets, &self.budgets, &self.queue, |s| s.spec.as_ref()?.replicas);
        follow(ctx, &self.stateful, &self.budgets, &self.queue, |s| s.spec.as_ref()?.replicas);
        follow(ctx, &self.replications, &self.budgets, &self.queue, |r| r.spec.as_ref()?.replicas);
    }

    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(()) };
        let Some(selector) = selector(&budget) else { return Ok(()) };
        let selected: Vec<_> = self.pods.list_namespaced(&key.namespace).into_iter().filter(|p| selector.matches(&p.metadata.labels)).collect();
        if selected.is_empty() {
            self.recorder.event(&*budget, Kind::Normal, "NoPods", "No matching pods found");
        }
        let now = now();
        let status = match self.expected(&budget, &selected).await {
            Ok((expected, desired)) => {
                let (status, again) = judge(&budget, &selected, expected, desired, &now);
                if let Some(again) = again {
                    self.queue.add_after(Item::Budget(key.clone()), again);
                }
                status
            }
            Err(error) => {
                // When in doubt, nothing may be disrupted.
                self.recorder.event(
                    &*budget,
                    Kind::Warning,
                    "CalculateExpectedPodCountFailed",
                    format!("Failed to calculate the number of expected pods: {error}"),
                );
                let mut status = budget.status.clone().unwrap_or_default();
                status.disruptions_allowed = Some(0);
                set_condition(&mut status, "False", "SyncFailed", &error.to_string(), budget.metadata.generation, &now);
                self.write(key, &budget, status).await?;
                return Err(error);
            }
        };
        self.write(key, &budget, status).await
    }

    async fn write(&self, key: &Key, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), Error> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &key.namespace);
        let changed = PodDisruptionBudget { metadata: budget.metadata.clone(), spec: budget.spec.clone(), status: Some(status) };
        found(api.replace_status(&key.name, &PostParams::default(), &changed).await)?;
        Ok(())
    }

    /// How many pods there should be, and how many of them must be healthy (`getExpectedPodCount`).
    async fn expected(&self, budget: &PodDisruptionBudget, selected: &[Arc<Pod>]) -> Result<(i32, i32), Error> {
        let spec = budget.spec.clone().unwrap_or_default();
        let there = i32::try_from(selected.len()).unwrap_or(i32::MAX);
        match (&spec.max_unavailable, &spec.min_available) {
            (Some(most), _) => {
                let expected = self.scale(selected).await?;
                Ok((expected, (expected - scaled(Some(most), expected, true)).max(0)))
            }
            (None, Some(IntOrString::Int(least))) => Ok((there, *least)),
            (None, Some(least)) => {
                let expected = self.scale(selected).await?;
                Ok((expected, scaled(Some(least), expected, true)))
            }
            (None, None) => Ok((there, 0)),
        }
    }

    /// The sizes of all workloads the pods belong to. Pods that belong to none are left out, as upstream does.
    async fn scale(&self, selected: &[Arc<Pod>]) -> Result<i32, Error> {
        let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
        for pod in selected {
            let Some(owner) = control::controller_of(&pod.metadata) else { continue };
            if !sizes.contains_key(&owner.uid)
                && let Some((uid, size)) = self.owner_size(pod).await?
            {
                sizes.insert(uid, size);
            }
        }
        Ok(sizes.values().sum())
    }

    async fn owner_size(&self, pod: &Pod) -> Result<Option<(String, i32)>, Error> {
        let (meta, size) =
            (&pod.metadata, |uid: &Option<String>, replicas: Option<i32>| Some((uid.clone().unwrap_or_default(), replicas.unwrap_or(1))));
        if let Some(set) = control::resolve_owner(&self.sets, meta) {
            // The deployment's size counts, not that of a set in the middle of a rollout.
            return Ok(match control::resolve_owner(&self.deployments, &set.metadata) {
                Some(d) => size(&d.metadata.uid, d.spec.as_ref().and_then(|s| s.replicas)),
                None => size(&set.metadata.uid, set.spec.as_ref().and_then(|s| s.replicas)),
            });
        }
        if let Some(set) = control::resolve_owner(&self.stateful, meta) {
            return Ok(size(&set.metadata.uid, set.spec.as_ref().and_then(|s| s.replicas)));
        }
        if let Some(rc) = control::resolve_owner(&self.replications, meta) {
            return Ok(size(&rc.metadata.uid, rc.spec.as_ref().and_then(|s| s.replicas)));
        }
        let Some(owner) = control::controller_of(meta) else { return Ok(None) };
        if matches!(owner.kind.as_str(), "ReplicaSet" | "StatefulSet" | "ReplicationController") {
            // Gone, or not in the cache yet.
            return Ok(None);
        }
        self.custom_size(pod, owner).await
    }

    /// Workloads of other kinds say their size through the scale subresource.
    async fn custom_size(
        &self,
        pod: &Pod,
        owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
    ) -> Result<Option<(String, i32)>, Error> {
        let Some((kind, scales)) = self.scales.resource(&owner.api_version, &owner.kind).await? else {
            return Err(Error::Other(format!("no matches for kind \"{}\" in version \"{}\"", owner.kind, owner.api_version)));
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default(), &kind);
        match found(api.get_subresource("scale", &owner.name).await)? {
            Some(scale) => {
                let replicas = scale.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
                Ok(Some((owner.uid.clone(), i32::try_from(replicas).unwrap_or(i32::MAX))))
            }
            // Gone, and its pods will follow.
            None if scales => Ok(None),
            None => Err(Error::Other(format!("{} does not implement the scale subresource", owner.kind))),
        }
    }

    /// A pod that was to be disrupted and still runs two minutes later was not.
    async fn take_back(&self, key: &Key) -> Result<(), Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|p| is_target(p) && !pods::is_terminating(p) && !pods::is_terminal(p)) else {
            return Ok(());
        };
        let Some(condition) = pods::condition(&pod, "DisruptionTarget").cloned() else { return Ok(()) };
        let now = now();
        let since = condition.last_transition_time.as_ref().map(|t| elapsed(t, &now)).unwrap_or_default();
        if since < DELETION_TIMEOUT {
            self.queue.add_after(Item::Pod(key.clone()), DELETION_TIMEOUT - since);
            return Ok(());
        }
        let mut changed = (*pod).clone();
        pods::set_condition(&mut changed, PodCondition { status: "False".into(), ..condition }, &now);
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version },
            "status": { "conditions": changed.status.and_then(|s| s.conditions).unwrap_or_default() },
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        found(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }
}

/// The status of a budget, and when to look again because a granted eviction was not carried out (`updatePdbStatus`).
fn judge(
    budget: &PodDisruptionBudget,
    selected: &[Arc<Pod>],
    expected: i32,
    desired: i32,
    now: &Time,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let old = budget.status.clone().unwrap_or_default();
    let mut again: Option<Duration> = None;
    let mut disrupted = BTreeMap::new();
    for pod in selected.iter().filter(|p| !pods::is_terminating(p)) {
        let Some(granted) = old.disrupted_pods.as_ref().and_then(|d| d.get(pods::name(pod))) else { continue };
        let left = DELETION_TIMEOUT.saturating_sub(elapsed(granted, now));
        if !left.is_zero() {
            disrupted.insert(pods::name(pod).to_owned(), granted.clone());
            again = Some(again.map_or(left, |a| a.min(left)));
        }
    }
    let healthy = |p: &&Arc<Pod>| !pods::is_terminating(p) && !disrupted.contains_key(pods::name(p)) && pods::is_ready(p);
    let healthy = i32::try_from(selected.iter().filter(healthy).count()).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions,
    };
    let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, state, reason, "", budget.metadata.generation, now);
    (status, again)
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, state: &str, reason: &str, message: &str, generation: Option<i64>, now: &Time) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().find(|c| c.type_ == "DisruptionAllowed").filter(|c| c.status == state).map(|c| c.last_transition_time.clone());
    conditions.retain(|c| c.type_ != "DisruptionAllowed");
    conditions.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: state.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: old.unwrap_or_else(|| now.clone()),
        observed_generation: generation,
    });
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let state = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name }, "status": { "conditions": [{ "type": "Ready", "status": state }] } }))
                .unwrap(),
        )
    }

    #[test]
    fn disruptions_are_what_healthy_pods_leave_over() {
        let at = |s| Time(Timestamp::from_second(s).unwrap());
        let budget = |disrupted: Value| -> PodDisruptionBudget {
            serde_json::from_value(json!({ "metadata": { "name": "b" }, "status": { "disruptedPods": disrupted } })).unwrap()
        };
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        for (disrupted, expected, desired, now, allowed, healthy, again) in [
            (json!({}), 3, 1, 0, 1, 2, None),
            (json!({}), 3, 2, 0, 0, 2, None),
            (json!({}), 0, 0, 0, 0, 2, None),
            (json!({ "a": at(0) }), 3, 1, 30, 0, 1, Some(90)),
            (json!({ "a": at(0) }), 3, 1, 130, 1, 2, None),
        ] {
            let (status, wait) = judge(&budget(disrupted), &pods, expected, desired, &at(now));
            assert_eq!((status.disruptions_allowed, status.current_healthy, wait.map(|w| w.as_secs())), (Some(allowed), Some(healthy), again));
            let condition = &status.conditions.unwrap()[0];
            assert_eq!(condition.reason, if allowed > 0 { "SufficientPods" } else { "InsufficientPods" });
        }
    }
}

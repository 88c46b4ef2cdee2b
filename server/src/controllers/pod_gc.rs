//! Removes pods nobody will ever finish (`pkg/controller/podgc/gc_controller.go`): those of nodes that are gone, those deleted before
//! they were placed, those on nodes out of service, and the oldest finished ones when there are too many.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, Error, now, pods, synced};
use crate::informers::{Change, Informer};

/// A node that is missing for this long will not come back by itself (upstream's quarantine).
const QUARANTINE: Duration = Duration::from_secs(40);

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Item {
    /// A pod.
    Pod(Key),
    /// The number of finished pods.
    Finished,
}

/// Starts the controller.
pub fn start(ctx: Context) {
    let (all_pods, nodes) = (ctx.informers.get::<Pod>(), ctx.informers.get::<Node>());
    let queue: Queue<Item> = Queue::new();
    let collector = Arc::new(Collector {
        client: ctx.client.clone(),
        pods: all_pods.clone(),
        nodes: nodes.clone(),
        queue: queue.clone(),
        threshold: ctx.config.terminated_pod_threshold,
    });
    let all = all_pods.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().map(|p| Item::Pod(Key::of(&**p))).chain([Item::Finished]).collect());
    let (known, into) = (nodes.clone(), queue.clone());
    ctx.on(&all_pods, move |change| {
        let pod = change.object();
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        let node = pods::node_name(pod);
        let unplaced = node.is_empty() && pods::is_terminating(pod);
        if unplaced {
            into.add(Item::Pod(Key::of(&**pod)));
        } else if !node.is_empty() && known.is_synced() && known.get("", node).is_none() {
            into.add_after(Item::Pod(Key::of(&**pod)), QUARANTINE);
        } else if pods::is_terminating(pod) && known.get("", node).is_some_and(|n| is_out_of_service(&n)) {
            into.add(Item::Pod(Key::of(&**pod)));
        }
        if pods::is_terminal(pod) {
            // Many finish together; one count does for all of them.
            into.add_after(Item::Finished, Duration::from_secs(1));
        }
    });
    let (on_nodes, into) = (all_pods.clone(), queue.clone());
    ctx.on(&nodes, move |change| {
        let delay = match &change {
            Change::Deleted(_) => QUARANTINE,
            change if is_out_of_service(change.object()) => Duration::ZERO,
            _ => return,
        };
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        for pod in on_nodes.list().iter().filter(|p| pods::node_name(p) == name) {
            into.add_after(Item::Pod(Key::of(&**pod)), delay);
        }
    });
    // Orphans from before the start: nothing tells of them once both caches are in.
    let (start, ready) = (collector.clone(), vec![synced(&all_pods), synced(&nodes)]);
    ctx.tasks.spawn("pod-garbage-collector-controller/start", async move {
        futures::future::join_all(ready).await;
        for pod in start.pods.list().iter().filter(|p| !pods::node_name(p).is_empty() && start.nodes.get("", pods::node_name(p)).is_none()) {
            start.queue.add_after(Item::Pod(Key::of(&**pod)), QUARANTINE);
        }
    });
    ctx.work(&queue, 5, vec![synced(&all_pods), synced(&nodes)], move |item| {
        let collector = collector.clone();
        async move {
            match item {
                Item::Pod(key) => collector.look_at(&key).await,
                Item::Finished => collector.thin_out().await,
            }
        }
    });
}

fn is_ready(node: &Node) -> bool {
    node.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "Ready" && c.status == "True")
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|t| t.key == "node.kubernetes.io/out-of-service") && !is_ready(node)
}

struct Collector {
    client: kube::Client,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    queue: Queue<Item>,
    threshold: usize,
}

impl Collector {
    async fn look_at(&self, key: &Key) -> Result<(), Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(()) };
        let node = pods::node_name(&pod);
        if node.is_empty() {
            return if pods::is_terminating(&pod) { self.remove(&pod, None).await } else { Ok(()) };
        }
        match self.nodes.get("", node) {
            Some(found) if pods::is_terminating(&pod) && is_out_of_service(&found) => self.remove(&pod, None).await,
            Some(_) => Ok(()),
            None => {
                // Not by the cache alone.
                if found(Api::<Node>::all(self.client.clone()).get_metadata(node).await)?.is_some() {
                    return Ok(());
                }
                self.remove(&pod, Some("PodGC: node no longer exists")).await
            }
        }
    }

    /// Deletes a pod at once; one that has not ended is marked as failed first, so that whoever counts it can tell.
    async fn remove(&self, pod: &Pod, disrupted: Option<&str>) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        if !pods::is_terminal(pod) {
            let mut marked = pod.clone();
            if let Some(text) = disrupted {
                let condition = PodCondition {
                    type_: "DisruptionTarget".into(),
                    status: "True".into(),
                    reason: Some("DeletionByPodGC".into()),
                    message: Some(text.into()),
                    observed_generation: pod.metadata.generation,
                    ..PodCondition::default()
                };
                pods::set_condition(&mut marked, condition, &now());
            }
            let patch = json!({
                "metadata": { "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version },
                "status": { "phase": "Failed", "conditions": marked.status.and_then(|s| s.conditions).unwrap_or_default() },
            });
            if found(api.patch_status(pods::name(pod), &PatchParams::default(), &Patch::Merge(patch)).await)?.is_none() {
                return Ok(());
            }
        }
        let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        found(api.delete(pods::name(pod), &DeleteParams::default().grace_period(0).preconditions(same)).await)?;
        Ok(())
    }

    /// Removes the oldest finished pods beyond the threshold.
    async fn thin_out(&self) -> Result<(), Error> {
        if self.threshold == 0 {
            return Ok(());
        }
        let mut finished: Vec<_> = self.pods.list().into_iter().filter(|p| pods::is_terminal(p) && !pods::is_terminating(p)).collect();
        let excess = finished.len().saturating_sub(self.threshold);
        if excess == 0 {
            return Ok(());
        }
        // Evicted ones first, then by age, as upstream's byEvictionAndCreationTimestamp.
        let evicted = |p: &Pod| p.status.as_ref().is_some_and(|s| s.reason.as_deref() == Some("Evicted"));
        finished.sort_by(|a, b| {
            evicted(b)
                .cmp(&evicted(a))
                .then_with(|| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp))
                .then_with(|| pods::name(a).cmp(pods::name(b)))
        });
        for pod in finished.iter().take(excess) {
            self.remove(pod, None).await?;
        }
        Ok(())
    }
}

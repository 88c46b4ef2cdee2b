//! Deletes what nobody owns any more, and carries out foreground and orphaning deletions (`pkg/controller/garbagecollector`).
//!
//! Owns the ownership graph. Must never delete on the graph's word alone: owners are looked up live, by uid, first.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use super::error::found;
use super::metadata::{Event, Meta, Resource};
use super::queue::Queue;
use super::{Context, Error};

mod graph;

use graph::{FOREGROUND, Graph, Node, ORPHAN, Uid};

const WORKERS: usize = 20;
/// A kind that cannot be listed must not keep the others waiting for ever.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the controller.
pub fn start(ctx: Context) {
    let mut events = ctx.metadata.subscribe();
    let queue = Queue::new();
    let (synced, ready) = watch::channel(false);
    let collector = Arc::new(Collector { client: ctx.client.clone(), graph: Mutex::default(), kinds: Mutex::default() });
    let (into, graph) = (queue.clone(), collector.clone());
    ctx.tasks.spawn("garbage-collector-controller/graph", async move {
        let mut waiting: Option<Vec<String>> = None;
        let mut early: Vec<String> = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Applied(resource, meta) => graph.graph.lock().applied(&resource, &meta).into_iter().for_each(|uid| into.add(uid)),
                Event::Deleted(_, meta) => graph.graph.lock().deleted(&meta).into_iter().for_each(|uid| into.add(uid)),
                Event::Synced(resource) => match &mut waiting {
                    Some(kinds) => kinds.retain(|k| *k != resource.group_resource()),
                    None => early.push(resource.group_resource()),
                },
                Event::Kinds(kinds) => {
                    if waiting.is_none() {
                        waiting = Some(kinds.iter().map(|r| r.group_resource()).filter(|k| !early.contains(k)).collect());
                    }
                    *graph.kinds.lock() = kinds;
                }
            }
            if waiting.as_ref().is_some_and(Vec::is_empty) {
                synced.send_replace(true);
            }
        }
    });
    let ready: futures::future::BoxFuture<'static, ()> = Box::pin(async move {
        let mut ready = ready;
        if tokio::time::timeout(SYNC_TIMEOUT, ready.wait_for(|s| *s)).await.is_err() {
            tracing::warn!("not every kind could be listed; collecting what is known");
        }
    });
    ctx.work(&queue, WORKERS, vec![ready], move |uid| {
        let collector = collector.clone();
        async move { collector.attend(uid).await }
    });
}

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    kinds: Mutex<Arc<Vec<Arc<Resource>>>>,
}

/// What has become of the owners of an object.
#[derive(Default)]
struct Owners {
    /// Are there.
    solid: Vec<OwnerReference>,
    /// Are gone.
    dangling: Vec<OwnerReference>,
    /// Are being deleted and wait for their dependents.
    waiting: Vec<OwnerReference>,
}

impl Collector {
    async fn attend(&self, uid: Uid) -> Result<(), Error> {
        let Some(node) = self.graph.lock().node(uid).cloned() else { return Ok(()) };
        if node.orphans_dependents() {
            return self.orphan(uid, &node).await;
        }
        if node.waits_for_dependents() {
            return self.finish_foreground(uid, &node).await;
        }
        if node.meta.deleting || self.all_solid(&node) {
            return Ok(());
        }
        let Some(live) = self.live(&node).await? else { return Ok(()) };
        let owners = self.classify(&node, live.owner_references.as_deref().unwrap_or_default()).await?;
        if owners.dangling.is_empty() && owners.waiting.is_empty() {
            return Ok(());
        }
        if !owners.solid.is_empty() {
            // Still owned by somebody: only the dead references go.
            return self.patch(&node, &live, json!({ "ownerReferences": owners.solid })).await;
        }
        let dependents = self.graph.lock().dependents(uid);
        let policy = if !owners.waiting.is_empty() && !dependents.is_empty() {
            if dependents.iter().any(Node::waits_for_dependents) {
                // Two that wait for each other would wait for ever.
                let mut unblocked = live.owner_references.clone().unwrap_or_default();
                unblocked.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
                self.patch(&node, &live, json!({ "ownerReferences": unblocked })).await?;
                return Err(Error::other("blocked in a circle; deleting after the references are unblocked"));
            }
            PropagationPolicy::Foreground
        } else {
            let has = |finalizer: &str| live.finalizers.iter().flatten().any(|f| f == finalizer);
            match (has(ORPHAN), has(FOREGROUND)) {
                (true, _) => PropagationPolicy::Orphan,
                (_, true) => PropagationPolicy::Foreground,
                _ => PropagationPolicy::Background,
            }
        };
        self.delete(&node, &live, policy).await
    }

    /// Whether the graph shows every owner to be there and none to wait: the cheap answer for nearly every object.
    fn all_solid(&self, node: &Node) -> bool {
        let graph = self.graph.lock();
        let solid = |o: &OwnerReference| graph.has_owner(&node.meta, &o.uid) && graph.node(Uid::of(&o.uid)).is_none_or(|n| !n.waits_for_dependents());
        node.meta.owners.iter().all(solid)
    }

    fn api(&self, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
        if resource.namespaced {
            Api::namespaced_with(self.client.clone(), namespace, &resource.api)
        } else {
            Api::all_with(self.client.clone(), &resource.api)
        }
    }

    /// The object as it is now, if it is still that object.
    async fn live(&self, node: &Node) -> Result<Option<ObjectMeta>, Error> {
        let live = found(self.api(&node.resource, &node.meta.namespace).get_metadata(&node.meta.name).await)?;
        Ok(live.map(|o| o.metadata).filter(|m| m.uid.as_deref() == Some(&*node.meta.uid)))
    }

    async fn classify(&self, node: &Node, owners: &[OwnerReference]) -> Result<Owners, Error> {
        let mut classes = Owners::default();
        for owner in owners {
            match self.owner(&node.meta, owner).await? {
                None => classes.dangling.push(owner.clone()),
                Some(live) if live.deletion_timestamp.is_some() && live.finalizers.iter().flatten().any(|f| f == FOREGROUND) => {
                    classes.waiting.push(owner.clone());
                }
                Some(_) => classes.solid.push(owner.clone()),
            }
        }
        Ok(classes)
    }

    /// The owner as it is now, if it is still that object.
    async fn owner(&self, dependent: &Meta, owner: &OwnerReference) -> Result<Option<ObjectMeta>, Error> {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let kind = self.kinds.lock().iter().find(|r| r.api.group == group && r.api.kind == owner.kind).cloned();
        let Some(resource) = kind else {
            return Err(Error::Other(format!("unable to get REST mapping for {}/{}.", owner.api_version, owner.kind)));
        };
        if resource.namespaced && dependent.namespace.is_empty() {
            // A cluster-scoped object cannot be owned by one in a namespace. Nothing is deleted over such a mistake.
            tracing::debug!(owner = owner.name, dependent = %dependent.name, "namespaced owner of a cluster-scoped object");
            return Ok(Some(ObjectMeta::default()));
        }
        let live = found(self.api(&resource, &dependent.namespace).get_metadata(&owner.name).await)?;
        Ok(live.map(|o| o.metadata).filter(|m| m.uid.as_ref() == Some(&owner.uid)))
    }

    async fn delete(&self, node: &Node, live: &ObjectMeta, policy: PropagationPolicy) -> Result<(), Error> {
        // The resource version too: whoever gives the object a new owner in this moment saves it.
        let same = Preconditions { uid: live.uid.clone(), resource_version: live.resource_version.clone() };
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }.preconditions(same);
        found(self.api(&node.resource, &node.meta.namespace).delete(&node.meta.name, &params).await)?;
        Ok(())
    }

    async fn patch(&self, node: &Node, live: &ObjectMeta, mut meta: serde_json::Value) -> Result<(), Error> {
        meta["uid"] = json!(live.uid);
        meta["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({ "metadata": meta }));
        let api = self.api(&node.resource, &node.meta.namespace);
        found(api.patch_metadata(&node.meta.name, &PatchParams::default(), &patch).await)?;
        Ok(())
    }

    async fn remove_finalizer(&self, node: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(live) = self.live(node).await? else { return Ok(()) };
        let before = live.finalizers.clone().unwrap_or_default();
        let after: Vec<_> = before.iter().filter(|f| *f != finalizer).collect();
        if after.len() == before.len() {
            return Ok(());
        }
        self.patch(node, &live, json!({ "finalizers": after })).await
    }

    /// Lets an owner go once no dependent blocks it; the dependents are on the queue themselves.
    async fn finish_foreground(&self, uid: Uid, node: &Node) -> Result<(), Error> {
        let dependents = self.graph.lock().dependents(uid);
        let blocks = |d: &&Node| d.meta.owners.iter().any(|o| Uid::of(&o.uid) == uid && o.block_owner_deletion == Some(true));
        if dependents.iter().any(|d| blocks(&d)) {
            return Ok(());
        }
        self.remove_finalizer(node, FOREGROUND).await
    }

    /// Takes the owner out of its dependents' references, then lets it go.
    async fn orphan(&self, uid: Uid, node: &Node) -> Result<(), Error> {
        let dependents = self.graph.lock().dependents(uid);
        let results = join_all(dependents.iter().map(|dependent| async move {
            let Some(live) = self.live(dependent).await? else { return Ok(()) };
            let kept: Vec<_> = live.owner_references.iter().flatten().filter(|o| Uid::of(&o.uid) != uid).collect();
            self.patch(dependent, &live, json!({ "ownerReferences": kept })).await
        }));
        super::error::aggregate(results.await.into_iter().filter_map(Result::err).collect())?;
        self.remove_finalizer(node, ORPHAN).await
    }
}

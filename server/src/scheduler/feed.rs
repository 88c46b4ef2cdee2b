//! What the scheduler watches, as one stream of changes.
//!
//! Owns the list of kinds; the meaning of a change is [`super::shell`]'s.

use std::pin::Pin;

use futures::stream::{SelectAll, Stream, StreamExt, select_all};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::informers::{Change, Informer, Informers, Watchable};

/// A change of a watched object.
pub enum Input {
    Namespace(Change<Namespace>),
    Node(Change<Node>),
    Service(Change<Service>),
    ReplicaSet(Change<ReplicaSet>),
    ReplicationController(Change<ReplicationController>),
    StatefulSet(Change<StatefulSet>),
    Class(Change<StorageClass>),
    CsiNode(Change<CSINode>),
    Volume(Change<PersistentVolume>),
    Claim(Change<PersistentVolumeClaim>),
    Budget(Change<PodDisruptionBudget>),
    Pod(Change<Pod>),
}

/// A stream of inputs.
pub type Inputs = SelectAll<Pin<Box<dyn Stream<Item = Input> + Send>>>;

/// The informers.
#[derive(Clone)]
pub struct Feed {
    namespaces: Informer<Namespace>,
    nodes: Informer<Node>,
    services: Informer<Service>,
    replica_sets: Informer<ReplicaSet>,
    replication_controllers: Informer<ReplicationController>,
    stateful_sets: Informer<StatefulSet>,
    classes: Informer<StorageClass>,
    csi_nodes: Informer<CSINode>,
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
}

impl Feed {
    /// Starts the informers.
    pub fn new(informers: &Informers) -> Self {
        Feed {
            namespaces: informers.get(),
            nodes: informers.get(),
            services: informers.get(),
            replica_sets: informers.get(),
            replication_controllers: informers.get(),
            stateful_sets: informers.get(),
            classes: informers.get(),
            csi_nodes: informers.get(),
            volumes: informers.get(),
            claims: informers.get(),
            budgets: informers.get(),
            pods: informers.get(),
        }
    }

    /// Everything there is, complete, and the stream of what changes from then on. Pods come last, so that what they refer to
    /// is known.
    pub async fn open(&self) -> (Vec<Input>, Inputs) {
        let (mut first, mut streams) = (Vec::new(), Vec::new());
        add(&self.namespaces, Input::Namespace, &mut first, &mut streams).await;
        add(&self.nodes, Input::Node, &mut first, &mut streams).await;
        add(&self.services, Input::Service, &mut first, &mut streams).await;
        add(&self.replica_sets, Input::ReplicaSet, &mut first, &mut streams).await;
        add(&self.replication_controllers, Input::ReplicationController, &mut first, &mut streams).await;
        add(&self.stateful_sets, Input::StatefulSet, &mut first, &mut streams).await;
        add(&self.classes, Input::Class, &mut first, &mut streams).await;
        add(&self.csi_nodes, Input::CsiNode, &mut first, &mut streams).await;
        add(&self.volumes, Input::Volume, &mut first, &mut streams).await;
        add(&self.claims, Input::Claim, &mut first, &mut streams).await;
        add(&self.budgets, Input::Budget, &mut first, &mut streams).await;
        add(&self.pods, Input::Pod, &mut first, &mut streams).await;
        (first, select_all(streams))
    }
}

async fn add<K: Watchable>(
    informer: &Informer<K>,
    wrap: fn(Change<K>) -> Input,
    first: &mut Vec<Input>,
    streams: &mut Vec<Pin<Box<dyn Stream<Item = Input> + Send>>>,
) {
    informer.synced().await;
    let mut changes: UnboundedReceiver<Change<K>> = informer.subscribe();
    while let Ok(change) = changes.try_recv() {
        first.push(wrap(change));
    }
    streams.push(UnboundedReceiverStream::new(changes).map(wrap).boxed());
}

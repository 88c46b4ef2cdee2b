//! Metadata of every kind the API serves, for those who must see everything: the garbage collector and the quota controller.
//!
//! Owns one metadata watch per kind and nothing else: what passes is handed on, not kept. Kinds that come and go with
//! CustomResourceDefinitions and APIServices are noticed through the watches on those.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList, ObjectMeta, OwnerReference};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::Error;
use crate::informers::{Change, Informers, Watchable};
use crate::tasks::Tasks;

/// A kind, as discovery tells it.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Where it is served.
    pub api: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

impl Resource {
    /// Whether it can be listed, watched and so on.
    pub fn supports(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// `plural.group`, or the plural alone in the core group.
    pub fn group_resource(&self) -> String {
        if self.api.group.is_empty() { self.api.plural.clone() } else { format!("{}.{}", self.api.plural, self.api.group) }
    }
}

/// What is known of an object whatever its kind: enough to find it, to follow its owners and to see it being deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// Empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// Its owners.
    pub owners: Box<[OwnerReference]>,
    /// What must be done before it can go.
    pub finalizers: Box<[String]>,
    /// It is being deleted.
    pub deleting: bool,
}

impl From<&ObjectMeta> for Meta {
    fn from(meta: &ObjectMeta) -> Self {
        Meta {
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            owners: meta.owner_references.as_deref().unwrap_or_default().into(),
            finalizers: meta.finalizers.as_deref().unwrap_or_default().into(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

/// What happened to an object of some kind. A change may be a no-op.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is there, like this.
    Applied(Arc<Resource>, Arc<Meta>),
    /// It is gone; this is the last that was seen of it.
    Deleted(Arc<Resource>, Arc<Meta>),
    /// All objects of a kind have been told for the first time.
    Synced(Arc<Resource>),
    /// These are all kinds for now; the objects of kinds no longer served have been told as deleted.
    Kinds(Arc<Vec<Arc<Resource>>>),
}

/// A failure to find out what the API serves.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Kinds found, in the version each group prefers.
    pub resources: Vec<Resource>,
    /// Groups that did not answer, and why.
    pub failed: Vec<(String, String)>,
}

/// Asks the API what it serves. A group that does not answer is told apart and does not hide the others.
///
/// # Errors
/// When the list of groups itself cannot be read.
pub async fn discover(client: &Client) -> Result<Discovered, Error> {
    let mut discovered = Discovered::default();
    let core = client.list_core_api_resources("v1").await?;
    discovered.resources.extend(resources(&core));
    for group in client.list_api_groups().await?.groups {
        // The preferred version comes first; other versions add only kinds that it lacks.
        let preferred = group.preferred_version.iter().chain(&group.versions);
        let (mut versions, mut kinds) = (HashSet::new(), HashSet::new());
        for version in preferred.filter(|v| versions.insert(v.group_version.clone())) {
            match client.list_api_group_resources(&version.group_version).await {
                Ok(list) => discovered.resources.extend(resources(&list).into_iter().filter(|r| kinds.insert(r.api.plural.clone()))),
                Err(error) => discovered.failed.push((version.group_version.clone(), super::error::message(&error))),
            }
        }
    }
    Ok(discovered)
}

fn resources(list: &APIResourceList) -> Vec<Resource> {
    let (group, version) = list.group_version.split_once('/').unwrap_or(("", &list.group_version));
    let served = list.resources.iter().filter(|r| !r.name.contains('/'));
    let resource = |r: &APIResource| Resource {
        api: ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: list.group_version.clone(),
            kind: r.kind.clone(),
            plural: r.name.clone(),
        },
        namespaced: r.namespaced,
        verbs: r.verbs.clone(),
    };
    served.map(resource).collect()
}

/// A kind that has a typed informer anyway, so that its metadata needs no watch of its own.
struct Typed {
    group_resource: String,
    api_version: String,
    follow: fn(Everything, Arc<Resource>) -> BoxFuture<'static, ()>,
}

fn typed<K: Watchable>() -> Typed {
    let (group, plural) = (K::group(&()), K::plural(&()));
    Typed {
        group_resource: if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") },
        api_version: K::api_version(&()).into_owned(),
        follow: |all, resource| Box::pin(async move { all.follow_informer::<K>(resource).await }),
    }
}

/// The kinds whose informers the controllers keep.
fn typed_kinds() -> Vec<Typed> {
    use k8s_openapi::api::{apps, batch, certificates, coordination, core, discovery, policy, storage};
    vec![
        typed::<apps::v1::ControllerRevision>(),
        typed::<apps::v1::DaemonSet>(),
        typed::<apps::v1::Deployment>(),
        typed::<apps::v1::ReplicaSet>(),
        typed::<apps::v1::StatefulSet>(),
        typed::<batch::v1::CronJob>(),
        typed::<batch::v1::Job>(),
        typed::<certificates::v1::CertificateSigningRequest>(),
        typed::<coordination::v1::Lease>(),
        typed::<core::v1::Endpoints>(),
        typed::<core::v1::Namespace>(),
        typed::<core::v1::Node>(),
        typed::<core::v1::PersistentVolume>(),
        typed::<core::v1::PersistentVolumeClaim>(),
        typed::<core::v1::Pod>(),
        typed::<core::v1::ReplicationController>(),
        typed::<core::v1::ResourceQuota>(),
        typed::<core::v1::Service>(),
        typed::<discovery::v1::EndpointSlice>(),
        typed::<policy::v1::PodDisruptionBudget>(),
        typed::<storage::v1::StorageClass>(),
        typed::<storage::v1::VolumeAttributesClass>(),
    ]
}

struct Shared {
    client: Client,
    informers: Informers,
    tasks: Tasks,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<Event>>>,
    rediscover: Notify,
}

/// Every kind's metadata. Clones share the watches.
#[derive(Clone)]
pub struct Everything(Arc<Shared>);

impl Everything {
    /// Nothing is watched until [`Self::start`].
    pub fn new(client: Client, informers: Informers, tasks: Tasks) -> Self {
        Everything(Arc::new(Shared { client, informers, tasks, subscribers: Mutex::default(), rediscover: Notify::new() }))
    }

    /// Everything there is and then every change; those of one kind in order. To be called before [`Self::start`].
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.subscribers.lock().push(sender);
        receiver
    }

    /// Starts the watches, if anybody has subscribed.
    pub fn start(&self) {
        if !self.0.subscribers.lock().is_empty() {
            let all = self.clone();
            self.0.tasks.spawn("metadata/discovery", async move { all.follow_discovery().await });
        }
    }

    fn tell(&self, event: &Event) {
        self.0.subscribers.lock().retain(|s| s.send(event.clone()).is_ok());
    }

    /// Keeps one watch running for every kind that can be watched.
    async fn follow_discovery(&self) {
        let mut watches: BTreeMap<String, Watch> = BTreeMap::new();
        let mut retry = Duration::from_millis(100);
        loop {
            let found = match discover(&self.0.client).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(%error, "discovery failed, will retry");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(Duration::from_secs(30));
                    continue;
                }
            };
            let failed: HashSet<String> = found.failed.iter().map(|(version, _)| version.clone()).collect();
            self.adjust(&mut watches, found.resources, &failed);
            self.tell(&Event::Kinds(Arc::new(watches.values().map(|w| w.resource.clone()).collect())));
            if failed.is_empty() {
                retry = Duration::from_millis(100);
                self.0.rediscover.notified().await;
                // Definitions tend to come in numbers, and take a moment to be served.
                tokio::time::sleep(Duration::from_secs(1)).await;
            } else {
                retry = (retry * 2).min(Duration::from_secs(60));
                tokio::select! {
                    () = self.0.rediscover.notified() => {}
                    () = tokio::time::sleep(retry) => {}
                }
            }
        }
    }

    /// Ends the watches of kinds that are gone and starts those of new ones.
    fn adjust(&self, watches: &mut BTreeMap<String, Watch>, found: Vec<Resource>, failed: &HashSet<String>) {
        let watchable = found.into_iter().filter(|r| r.supports("list") && r.supports("watch") && !is_event(r));
        let wanted: BTreeMap<String, Arc<Resource>> = watchable.map(|r| (r.group_resource(), Arc::new(r))).collect();
        watches.retain(|kind, watch| {
            let version = &watch.resource.api.api_version;
            // A group that did not answer keeps its watches: it is not known to be gone.
            let stays = wanted.get(kind).map_or_else(|| failed.contains(version), |w| w.api.api_version == *version);
            if !stays {
                watch.tasks.cancel();
                for meta in watch.known.lock().drain().map(|(_, meta)| meta) {
                    self.tell(&Event::Deleted(watch.resource.clone(), meta));
                }
            }
            stays
        });
        let typed = typed_kinds();
        for (kind, resource) in wanted {
            if watches.contains_key(&kind) {
                continue;
            }
            let watch = Watch { resource: resource.clone(), tasks: self.0.tasks.child(), known: Arc::default() };
            let task = match typed.iter().find(|t| t.group_resource == kind && t.api_version == resource.api.api_version) {
                Some(typed) => (typed.follow)(self.clone(), resource),
                None => {
                    let (all, known) = (self.clone(), watch.known.clone());
                    Box::pin(async move { all.follow_metadata(resource, known).await })
                }
            };
            watch.tasks.spawn(format!("metadata/{kind}"), task);
            watches.insert(kind, watch);
        }
    }

    async fn follow_informer<K: Watchable>(self, resource: Arc<Resource>) {
        let informer = self.0.informers.get::<K>();
        informer.synced().await;
        let mut changes = informer.subscribe();
        for _ in 0..changes.len() {
            if let Some(change) = changes.recv().await {
                self.changed(&resource, &change);
            }
        }
        self.tell(&Event::Synced(resource.clone()));
        while let Some(change) = changes.recv().await {
            self.changed(&resource, &change);
        }
    }

    fn changed<K: Watchable>(&self, resource: &Arc<Resource>, change: &Change<K>) {
        let meta = Arc::new(Meta::from(change.object().metadata()));
        self.tell(&match change {
            Change::Added(_) | Change::Updated { .. } => Event::Applied(resource.clone(), meta),
            Change::Deleted(_) => Event::Deleted(resource.clone(), meta),
        });
    }

    async fn follow_metadata(self, resource: Arc<Resource>, known: Known) {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.0.client.clone(), &resource.api);
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = HashMap::new(),
                Ok(watcher::Event::InitApply(object)) => {
                    let meta = Arc::new(Meta::from(&object.metadata));
                    listed.insert(meta.uid.clone(), meta);
                }
                Ok(watcher::Event::InitDone) => {
                    let listed = std::mem::take(&mut listed);
                    let before = std::mem::replace(&mut *known.lock(), listed.clone());
                    for (_, meta) in before.into_iter().filter(|(uid, _)| !listed.contains_key(uid)) {
                        self.tell(&Event::Deleted(resource.clone(), meta));
                    }
                    for meta in listed.into_values() {
                        self.tell(&Event::Applied(resource.clone(), meta));
                    }
                    self.tell(&Event::Synced(resource.clone()));
                    self.notice_kinds(&resource);
                }
                Ok(watcher::Event::Apply(object)) => {
                    let meta = Arc::new(Meta::from(&object.metadata));
                    known.lock().insert(meta.uid.clone(), meta.clone());
                    self.tell(&Event::Applied(resource.clone(), meta));
                    self.notice_kinds(&resource);
                }
                Ok(watcher::Event::Delete(object)) => {
                    let meta = Arc::new(Meta::from(&object.metadata));
                    known.lock().remove(&meta.uid);
                    self.tell(&Event::Deleted(resource.clone(), meta));
                    self.notice_kinds(&resource);
                }
                Err(error) => tracing::debug!(kind = resource.api.plural, %error, "metadata watch interrupted"),
            }
        }
    }

    fn notice_kinds(&self, resource: &Resource) {
        if matches!(resource.api.plural.as_str(), "customresourcedefinitions" | "apiservices") {
            self.0.rediscover.notify_one();
        }
    }
}

/// The objects of a kind by uid, so that what vanished while its watch was down is noticed.
type Known = Arc<Mutex<HashMap<Box<str>, Arc<Meta>>>>;

struct Watch {
    resource: Arc<Resource>,
    tasks: Tasks,
    known: Known,
}

/// Events are many, own nothing and are owned by nothing.
fn is_event(resource: &Resource) -> bool {
    resource.api.plural == "events" && matches!(resource.api.group.as_str(), "" | "events.k8s.io")
}

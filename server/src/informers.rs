//! Shared informers: one watch and one decoded copy per kind (and field selector) in a process, however many components read it.
//!
//! Owns the local copies. Must never write to the API.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};

use crate::tasks::Tasks;

/// A kind that can be watched.
pub trait Watchable:
    Resource<DynamicType = ()> + k8s_openapi::Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}
impl<K> Watchable for K where
    K: Resource<DynamicType = ()> + k8s_openapi::Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}

/// What happened to an object. After a reconnect, what was missed arrives as ordinary changes; a change may be a no-op.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// It is new.
    Added(Arc<K>),
    /// It was replaced.
    Updated {
        /// Before.
        old: Arc<K>,
        /// After.
        new: Arc<K>,
    },
    /// It is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest known state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Added(o) | Change::Updated { new: o, .. } | Change::Deleted(o) => o,
        }
    }
}

/// Namespace (empty for cluster-scoped kinds) and name.
type Key = (String, String);

struct Contents<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Who is controlled by whom, kept from the first [`Informer::controlled`] on. Most kinds are never asked.
    owners: Option<Owners>,
    subscribers: Vec<mpsc::UnboundedSender<Change<K>>>,
}

/// Names by namespace and by the uid of the controlling owner; `""` holds those without a controller.
type Owners = HashMap<(String, String), BTreeSet<String>>;

impl<K: Watchable> Contents<K> {
    fn insert(&mut self, key: Key, new: Arc<K>) -> Option<Arc<K>> {
        if let Some(owners) = &mut self.owners {
            if let Some(old) = self.objects.get(&key) {
                Self::disown(owners, &key, old);
            }
            owners.entry((key.0.clone(), controller_uid(&*new).to_owned())).or_default().insert(key.1.clone());
        }
        self.objects.insert(key, new)
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        if let Some(owners) = &mut self.owners {
            Self::disown(owners, key, &old);
        }
        Some(old)
    }

    fn disown(owners: &mut Owners, key: &Key, old: &K) {
        let slot = (key.0.clone(), controller_uid(old).to_owned());
        if let Some(names) = owners.get_mut(&slot) {
            names.remove(&key.1);
            if names.is_empty() {
                owners.remove(&slot);
            }
        }
    }

    fn index(&mut self) -> &Owners {
        self.owners.get_or_insert_with(|| {
            let mut owners = Owners::new();
            for ((namespace, name), object) in &self.objects {
                owners.entry((namespace.clone(), controller_uid(&**object).to_owned())).or_default().insert(name.clone());
            }
            owners
        })
    }

    fn owned_by(&self, namespace: &str, uid: &str) -> Vec<Arc<K>> {
        let names = self.owners.as_ref().and_then(|o| o.get(&(namespace.to_owned(), uid.to_owned())));
        names.into_iter().flatten().filter_map(|name| self.objects.get(&(namespace.to_owned(), name.clone())).cloned()).collect()
    }
}

/// The uid of the owner that controls an object, or `""`.
fn controller_uid<K: Watchable>(object: &K) -> &str {
    object.metadata().owner_references.iter().flatten().find(|r| r.controller == Some(true)).map_or("", |r| r.uid.as_str())
}

/// A live local copy of a kind. Clones share it.
pub struct Informer<K> {
    contents: Arc<RwLock<Contents<K>>>,
    synced: watch::Receiver<bool>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer { contents: self.contents.clone(), synced: self.synced.clone() }
    }
}

impl<K: Watchable> Informer<K> {
    /// One object; `""` is the namespace of cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.contents.read().objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Every object, in the order of namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.contents.read().objects.values().cloned().collect()
    }

    /// Every object of a namespace, in the order of names.
    pub fn list_namespaced(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = (namespace.to_owned(), String::new());
        let contents = self.contents.read();
        contents.objects.range(from..).take_while(|((ns, _), _)| ns == namespace).map(|(_, o)| o.clone()).collect()
    }

    /// Every object of a namespace that the owner with this uid controls, in the order of names.
    pub fn controlled(&self, namespace: &str, uid: &str) -> Vec<Arc<K>> {
        {
            let contents = self.contents.read();
            if contents.owners.is_some() {
                return contents.owned_by(namespace, uid);
            }
        }
        let mut contents = self.contents.write();
        contents.index();
        contents.owned_by(namespace, uid)
    }

    /// Every object of a namespace that nothing controls, in the order of names.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.controlled(namespace, "")
    }

    /// Waits until the first list is in.
    pub async fn synced(&self) {
        // The sender lives as long as the watch task; when that is gone the process is stopping.
        if self.synced.clone().wait_for(|s| *s).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Everything there is, as `Added`, then every change, in order, none left out.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Change<K>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut contents = self.contents.write();
        for object in contents.objects.values() {
            let _ = sender.send(Change::Added(object.clone()));
        }
        contents.subscribers.push(sender);
        receiver
    }
}

/// An object on its way in: its text, with what the watch itself needs to know. Decoding comes last, in [`Applier`], so that the watch
/// with all its states is compiled once and not once for every kind.
///
/// Taking the text needs a watch event to give its type before its object, as every server does.
#[derive(Clone, Debug)]
struct Encoded {
    /// Only the resourceVersion.
    meta: ObjectMeta,
    text: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            metadata: Version<'a>,
        }
        #[derive(Deserialize)]
        struct Version<'a> {
            #[serde(borrow, rename = "resourceVersion")]
            resource_version: Option<Cow<'a, str>>,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let head: Head<'_> = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
        let resource_version = head.metadata.resource_version.map(Cow::into_owned);
        Ok(Encoded { meta: ObjectMeta { resource_version, ..ObjectMeta::default() }, text })
    }
}

impl Resource for Encoded {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(row: &ApiResource) -> Cow<'_, str> {
        row.kind.as_str().into()
    }
    fn group(row: &ApiResource) -> Cow<'_, str> {
        row.group.as_str().into()
    }
    fn version(row: &ApiResource) -> Cow<'_, str> {
        row.version.as_str().into()
    }
    fn plural(row: &ApiResource) -> Cow<'_, str> {
        row.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Applies watcher events to the contents and tells the subscribers.
struct Applier<K> {
    contents: Arc<RwLock<Contents<K>>>,
    /// Keys seen in the list under way, so that what vanished between two lists is noticed.
    listed: Option<BTreeMap<Key, Arc<K>>>,
    /// True from the first complete list on.
    synced: watch::Sender<bool>,
}

/// An [`Applier`] of any kind.
trait Apply: Send {
    /// Applies an event; an object that cannot be decoded leaves the contents as they were.
    fn apply(&mut self, event: watcher::Event<Encoded>) -> serde_json::Result<()>;
}

impl<K: Watchable> Applier<K> {
    fn decode(object: &Encoded) -> serde_json::Result<(Key, Arc<K>)> {
        let mut object: K = serde_json::from_str(object.text.get())?;
        let meta = k8s_openapi::Metadata::metadata_mut(&mut object);
        meta.managed_fields = None;
        let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        Ok((key, Arc::new(object)))
    }

    fn tell(contents: &mut Contents<K>, change: &Change<K>) {
        contents.subscribers.retain(|s| s.send(change.clone()).is_ok());
    }

    fn upsert(contents: &mut Contents<K>, key: Key, new: Arc<K>) {
        let change = match contents.insert(key, new.clone()) {
            None => Change::Added(new),
            Some(old) if old.metadata().resource_version == new.metadata().resource_version => return,
            Some(old) if old.metadata().uid != new.metadata().uid => {
                // Deleted and made again under the same name while the watch was down: two objects, not one that changed.
                Self::tell(contents, &Change::Deleted(old));
                Change::Added(new)
            }
            Some(old) => Change::Updated { old, new },
        };
        Self::tell(contents, &change);
    }

    fn replace(&mut self, listed: BTreeMap<Key, Arc<K>>) {
        let mut contents = self.contents.write();
        let gone: Vec<Key> = contents.objects.keys().filter(|k| !listed.contains_key(*k)).cloned().collect();
        for key in gone {
            if let Some(old) = contents.remove(&key) {
                Self::tell(&mut contents, &Change::Deleted(old));
            }
        }
        for (key, object) in listed {
            Self::upsert(&mut contents, key, object);
        }
    }
}

impl<K: Watchable> Apply for Applier<K> {
    fn apply(&mut self, event: watcher::Event<Encoded>) -> serde_json::Result<()> {
        match event {
            watcher::Event::Init => self.listed = Some(BTreeMap::new()),
            watcher::Event::InitApply(object) => {
                let (key, object) = Self::decode(&object)?;
                if let Some(listed) = &mut self.listed {
                    listed.insert(key, object);
                }
            }
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                self.replace(listed);
                self.synced.send_replace(true);
            }
            watcher::Event::Apply(object) => {
                let (key, object) = Self::decode(&object)?;
                Self::upsert(&mut self.contents.write(), key, object);
            }
            watcher::Event::Delete(object) => {
                let (key, object) = Self::decode(&object)?;
                let mut contents = self.contents.write();
                contents.remove(&key);
                Self::tell(&mut contents, &Change::Deleted(object));
            }
        }
        Ok(())
    }
}

/// Pause before everything is listed again because an object could not be decoded.
const UNDECODABLE_PAUSE: Duration = Duration::from_secs(10);

/// Lists and watches for ever. An object that cannot be decoded stops the copy where it is, rather than show it without the object.
async fn follow(api: Api<Encoded>, config: watcher::Config, plural: String, mut applier: Box<dyn Apply>) {
    loop {
        let mut events = watcher(api.clone(), config.clone()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if let Err(error) = applier.apply(event) {
                        tracing::error!(%plural, %error, "an object cannot be decoded; the copy stays as it was until it can be");
                        break;
                    }
                }
                Err(error) => tracing::debug!(%plural, %error, "watch interrupted"),
            }
        }
        tokio::time::sleep(UNDECODABLE_PAUSE).await;
    }
}

/// The informers that run, by kind and field selector.
type Started = HashMap<(TypeId, String), Box<dyn Any + Send>>;

/// The informers of a process. Clones share them.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    tasks: Tasks,
    started: Arc<Mutex<Started>>,
}

impl Informers {
    /// No informer is started until it is asked for.
    pub fn new(client: Client, tasks: Tasks) -> Self {
        Informers { client, tasks, started: Arc::default() }
    }

    /// The informer of a kind in all namespaces, started at the first call.
    pub fn get<K: Watchable>(&self) -> Informer<K> {
        self.select("")
    }

    /// The informer of the objects that a field selector matches (`spec.nodeName=n1`), started at the first call.
    pub fn select<K: Watchable>(&self, fields: &str) -> Informer<K> {
        let mut started = self.started.lock();
        let key = (TypeId::of::<K>(), fields.to_owned());
        if let Some(informer) = started.get(&key).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return informer.clone();
        }
        let informer = self.start::<K>(fields);
        started.insert(key, Box::new(informer.clone()));
        informer
    }

    fn start<K: Watchable>(&self, fields: &str) -> Informer<K> {
        let contents = Arc::new(RwLock::new(Contents { objects: BTreeMap::new(), owners: None, subscribers: Vec::new() }));
        let (synced, receiver) = watch::channel(false);
        let row = ApiResource::erase::<K>(&());
        let plural = row.plural.clone();
        let api = Api::<Encoded>::all_with(self.client.clone(), &row);
        let config = if fields.is_empty() { watcher::Config::default() } else { watcher::Config::default().fields(fields) };
        let applier = Box::new(Applier::<K> { contents: contents.clone(), listed: None, synced });
        self.tasks.spawn(format!("informer/{plural}"), follow(api, config, plural, applier));
        Informer { contents, synced: receiver }
    }
}

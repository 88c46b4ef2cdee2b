//! Shared informers: one watch and one decoded copy per kind (and field selector) in a process, however many components read it.
//!
//! Owns the local copies. Must never write to the API.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
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

/// Applies watcher events to the contents and tells the subscribers.
struct Applier<K> {
    contents: Arc<RwLock<Contents<K>>>,
    /// Keys seen in the list under way, so that what vanished between two lists is noticed.
    listed: Option<BTreeMap<Key, Arc<K>>>,
}

impl<K: Watchable> Applier<K> {
    fn key(object: &K) -> Key {
        let meta = object.metadata();
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
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

    /// Returns true when a list has completed.
    fn apply(&mut self, event: watcher::Event<K>) -> bool {
        match event {
            watcher::Event::Init => self.listed = Some(BTreeMap::new()),
            watcher::Event::InitApply(object) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(Self::key(&object), Arc::new(object));
                }
            }
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
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
                return true;
            }
            watcher::Event::Apply(object) => Self::upsert(&mut self.contents.write(), Self::key(&object), Arc::new(object)),
            watcher::Event::Delete(object) => {
                let mut contents = self.contents.write();
                contents.remove(&Self::key(&object));
                Self::tell(&mut contents, &Change::Deleted(Arc::new(object)));
            }
        }
        false
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
        let api = Api::<K>::all(self.client.clone());
        let config = if fields.is_empty() { watcher::Config::default() } else { watcher::Config::default().fields(fields) };
        let mut applier = Applier { contents: contents.clone(), listed: None };
        let plural = K::plural(&());
        self.tasks.spawn(format!("informer/{plural}"), async move {
            let mut events =
                watcher(api, config).modify(|object| k8s_openapi::Metadata::metadata_mut(object).managed_fields = None).default_backoff().boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        if applier.apply(event) {
                            synced.send_replace(true);
                        }
                    }
                    Err(error) => tracing::debug!(%plural, %error, "watch interrupted"),
                }
            }
        });
        Informer { contents, synced: receiver }
    }
}

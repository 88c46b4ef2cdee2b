//! ConfigMaps and Secrets that pods refer to: one watch an object for as long as a pod of this node needs it.
//!
//! Owns those watches. Each is for one named object, which is all that the Node authorizer lets a kubelet see.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{FutureExt, select_all};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pods::spec;
use crate::informers::Watchable;
use crate::tasks::Tasks;

/// How long a pod waits for the first answer about an object before it says so.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// What is known of an object.
#[derive(Clone, Debug)]
pub enum Known<K> {
    /// Nothing yet.
    Unknown,
    /// It does not exist.
    Missing,
    /// Its newest state.
    Present(Arc<K>),
}

struct Entry<K> {
    state: watch::Receiver<Known<K>>,
    _stop: DropGuard,
}

/// A watched object. The watch ends with the last clone.
pub struct Ref<K> {
    entry: Arc<Entry<K>>,
    state: watch::Receiver<Known<K>>,
}

impl<K> Clone for Ref<K> {
    fn clone(&self) -> Self {
        Ref { entry: self.entry.clone(), state: self.entry.state.clone() }
    }
}

type Slots<K> = Mutex<HashMap<(String, String), Weak<Entry<K>>>>;

/// The watches of one kind.
struct Watches<K> {
    client: Client,
    tasks: Tasks,
    slots: Slots<K>,
}

/// Retries start quickly: right after a pod was bound, the authorizer may not have seen it yet.
struct Quick(Duration);

impl Iterator for Quick {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        let delay = self.0;
        self.0 = (delay * 2).min(Duration::from_secs(30));
        Some(delay)
    }
}

impl Backoff for Quick {
    fn reset(&mut self) {
        self.0 = Duration::from_millis(20);
    }
}

impl<K: Watchable + Resource<Scope = k8s_openapi::NamespaceResourceScope>> Watches<K> {
    fn new(client: Client, tasks: Tasks) -> Self {
        Watches { client, tasks, slots: Mutex::default() }
    }

    fn get(&self, namespace: &str, name: &str) -> Ref<K> {
        let mut slots = self.slots.lock();
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(entry) = slots.get(&key).and_then(Weak::upgrade) {
            return Ref { state: entry.state.clone(), entry };
        }
        slots.retain(|_, weak| weak.strong_count() > 0);
        let (sender, state) = watch::channel(Known::Unknown);
        let stop = CancellationToken::new();
        let entry = Arc::new(Entry { state: state.clone(), _stop: stop.clone().drop_guard() });
        slots.insert(key, Arc::downgrade(&entry));
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let task = follow(api, name.to_owned(), sender);
        self.tasks.spawn(format!("ref/{}/{namespace}/{name}", K::plural(&())), async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
        Ref { entry, state }
    }
}

async fn follow<K: Watchable>(api: Api<K>, name: String, state: watch::Sender<Known<K>>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).backoff(Quick(Duration::from_millis(20))).boxed();
    let mut seen = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => seen = false,
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                seen = true;
                let version = object.metadata().resource_version.clone();
                state.send_if_modified(|known| {
                    let same = matches!(known, Known::Present(old) if old.metadata().resource_version == version);
                    *known = Known::Present(Arc::new(object));
                    !same
                });
            }
            Ok(watcher::Event::InitDone) if seen => {}
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => {
                state.send_replace(Known::Missing);
            }
            Err(error) => tracing::debug!(%name, %error, "reference watch interrupted"),
        }
    }
}

/// Opens watches.
pub struct References {
    config_maps: Watches<ConfigMap>,
    secrets: Watches<Secret>,
}

impl References {
    /// No watch is open.
    pub fn new(client: Client, tasks: Tasks) -> Self {
        References { config_maps: Watches::new(client.clone(), tasks.clone()), secrets: Watches::new(client, tasks) }
    }

    /// Everything a pod refers to.
    pub fn of(&self, pod: &Pod) -> PodRefs {
        let (config_maps, secrets) = names(pod);
        let namespace = spec::namespace(pod);
        PodRefs {
            config_maps: config_maps.into_iter().map(|n| (n.clone(), self.config_maps.get(namespace, &n))).collect(),
            secrets: secrets.into_iter().map(|n| (n.clone(), self.secrets.get(namespace, &n))).collect(),
        }
    }
}

/// The objects that one pod refers to.
#[derive(Clone, Default)]
pub struct PodRefs {
    config_maps: BTreeMap<String, Ref<ConfigMap>>,
    secrets: BTreeMap<String, Ref<Secret>>,
}

impl PodRefs {
    /// Waits until every object is known to exist or not; false if some answer is still missing after a while.
    pub async fn known(&self) -> bool {
        let maps = self.config_maps.values().map(|r| first_answer(r.state.clone()).boxed());
        let secrets = self.secrets.values().map(|r| first_answer(r.state.clone()).boxed());
        let all = futures::future::join_all(maps.chain(secrets));
        tokio::time::timeout(FIRST_ANSWER, all).await.is_ok()
    }

    /// Waits until one of the objects changes; for ever if there is none.
    pub async fn changed(&mut self) {
        let maps = self.config_maps.values_mut().map(|r| changed(&mut r.state).boxed());
        let secrets = self.secrets.values_mut().map(|r| changed(&mut r.state).boxed());
        let mut all: Vec<_> = maps.chain(secrets).collect();
        all.push(std::future::pending().boxed());
        select_all(all).await;
    }

    /// Counts what is known now as seen, so that [`Self::changed`] waits for something newer.
    pub fn mark_seen(&mut self) {
        self.config_maps.values_mut().for_each(|r| drop(r.state.borrow_and_update()));
        self.secrets.values_mut().for_each(|r| drop(r.state.borrow_and_update()));
    }

    /// A ConfigMap, if it exists.
    pub fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        present(&self.config_maps.get(name)?.state)
    }

    /// A Secret, if it exists.
    pub fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        present(&self.secrets.get(name)?.state)
    }
}

fn present<K>(state: &watch::Receiver<Known<K>>) -> Option<Arc<K>> {
    match &*state.borrow() {
        Known::Present(object) => Some(object.clone()),
        _ => None,
    }
}

async fn first_answer<K>(mut state: watch::Receiver<Known<K>>) {
    // An error means that the watch has ended, with the process.
    let _ = state.wait_for(|known| !matches!(known, Known::Unknown)).await;
}

async fn changed<K>(state: &mut watch::Receiver<Known<K>>) {
    if state.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Names of the ConfigMaps and Secrets that a pod's environment, volumes and image pulls refer to.
fn names(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for (_, container) in spec::containers(pod) {
        for env in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            maps.extend(env.config_map_key_ref.iter().map(|r| r.name.clone()));
            secrets.extend(env.secret_key_ref.iter().map(|r| r.name.clone()));
        }
        for from in container.env_from.iter().flatten() {
            maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
            secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
        }
    }
    let Some(spec) = &pod.spec else { return (maps, secrets) };
    secrets.extend(spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()));
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.iter().map(|v| v.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|v| v.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            maps.extend(source.config_map.iter().map(|s| s.name.clone()));
            secrets.extend(source.secret.iter().map(|s| s.name.clone()));
        }
    }
    secrets.remove("");
    maps.remove("");
    (maps, secrets)
}

#[cfg(test)]
impl PodRefs {
    /// References with fixed contents.
    pub fn fixed(config_maps: Vec<ConfigMap>, secrets: Vec<Secret>) -> Self {
        fn entry<K: Watchable>(object: K) -> (String, Ref<K>) {
            let name = object.metadata().name.clone().unwrap();
            let (_, state) = watch::channel(Known::Present(Arc::new(object)));
            let entry = Arc::new(Entry { state: state.clone(), _stop: CancellationToken::new().drop_guard() });
            (name, Ref { entry, state })
        }
        PodRefs { config_maps: config_maps.into_iter().map(entry).collect(), secrets: secrets.into_iter().map(entry).collect() }
    }
}

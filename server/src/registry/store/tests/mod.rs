//! The store over a real etcd.

mod concurrency;
mod faults;
mod kinds;
mod reads;
mod watches;
mod writes;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use shared::status::ApiError;

use super::{Config, Current, Decoded, DeleteOptions, Deleted, ListOptions, Listed, Store, WatchEvent, WatchOptions, WriteOptions, Written};
use crate::api::user::User;
use crate::cache::{Cache, Entry};
use crate::registry::admit::AdmitAll;
use crate::registry::{Object, Ranges, Registry, Resource};
use crate::storage::testing::Etcd;
use crate::tasks::Tasks;

/// Kinds of the tests' own, so that these tests are about the store alone.
pub(super) static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    Registry::new(vec![
        Resource::of::<kinds::ConfigMaps>(),
        Resource::of::<kinds::Pods>(),
        Resource::of::<kinds::Namespaces>(),
        Resource::of::<kinds::Services>(),
    ])
});

pub(super) fn kind(plural: &str) -> &'static Resource {
    REGISTRY.find("", "v1", plural).unwrap()
}

pub(super) static USER: LazyLock<User> = LazyLock::new(|| User::new("admin", &["system:masters"]));

/// An etcd with a store over it.
pub(super) struct World {
    pub etcd: Etcd,
    pub store: Store,
    pub tasks: Tasks,
}

impl World {
    pub async fn start() -> Self {
        let _ = tracing_subscriber::fmt().with_env_filter("kserver=debug").with_test_writer().try_init();
        let etcd = Etcd::start().await;
        let tasks = Tasks::new();
        let store = store_on(&etcd, &tasks).await;
        World { etcd, store, tasks }
    }

    pub async fn create(&self, plural: &str, object: impl Into<Object>) -> Result<Written, ApiError> {
        create(&self.store, plural, object.into()).await
    }

    pub async fn get(&self, plural: &str, namespace: &str, name: &str) -> Result<Value, ApiError> {
        self.store.get(kind(plural), namespace, name, "").await.map(|e| json(&e))
    }

    pub async fn update(
        &self,
        plural: &str,
        name: &str,
        change: impl Fn(&Current) -> Result<Object, ApiError> + Send + Sync,
    ) -> Result<Written, ApiError> {
        update(&self.store, plural, name, "", change).await
    }

    pub async fn delete(&self, plural: &str, name: &str, options: DeleteOptions) -> Result<Deleted, ApiError> {
        self.store.delete(kind(plural), "ns", name, &options, &USER, &AdmitAll).await
    }

    pub async fn list(&self, plural: &str, change: impl FnOnce(&mut ListOptions)) -> Result<Listed, ApiError> {
        let mut options = ListOptions::default();
        change(&mut options);
        self.store.list(kind(plural), &options).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

pub(super) async fn store_on(etcd: &Etcd, tasks: &Tasks) -> Store {
    let storage = etcd.storage(tasks).await;
    let cache = Cache::start(&REGISTRY, storage.clone(), tasks);
    cache.loaded().await;
    let ranges = Ranges { service_network: [10, 96, 0, 0].into(), service_prefix: 28, node_ports: (30000, 32767) };
    Store::new(&REGISTRY, storage, cache, Config { ranges, event_ttl: Duration::from_secs(3600) })
}

pub(super) async fn create(store: &Store, plural: &str, object: Object) -> Result<Written, ApiError> {
    store.create(kind(plural), "ns", object, &WriteOptions::new(&USER), &AdmitAll).await
}

pub(super) async fn update(
    store: &Store,
    plural: &str,
    name: &str,
    subresource: &str,
    change: impl Fn(&Current) -> Result<Object, ApiError> + Send + Sync,
) -> Result<Written, ApiError> {
    let options = WriteOptions { subresource, ..WriteOptions::new(&USER) };
    let change = |current: Option<&Current>| -> Result<Decoded, ApiError> {
        change(current.expect("these kinds are not created by an update")).map(Into::into)
    };
    store.update(kind(plural), "ns", name, &options, &change, &AdmitAll).await
}

pub(super) fn json(entry: &Arc<Entry>) -> Value {
    serde_json::from_slice(&entry.bytes).unwrap()
}

pub(super) fn meta(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }
}

pub(super) fn config_map(name: &str, data: &[(&str, &str)]) -> Object {
    let data: BTreeMap<String, String> = data.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Object::new(ConfigMap { metadata: meta(name), data: Some(data), ..ConfigMap::default() })
}

pub(super) fn labelled(name: &str, labels: &[(&str, &str)]) -> Object {
    let mut object = config_map(name, &[]);
    object.meta_mut().labels = Some(labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
    object
}

pub(super) fn pod(name: &str, node: &str) -> Object {
    let mut pod = Pod { metadata: meta(name), ..Pod::default() };
    pod.spec.get_or_insert_default().node_name = (!node.is_empty()).then(|| node.to_owned());
    Object::new(pod)
}

pub(super) fn namespace(name: &str) -> Object {
    Object::new(Namespace { metadata: meta(name), ..Namespace::default() })
}

pub(super) fn service(name: &str, ip: Option<&str>, node_port: Option<i32>) -> Object {
    let port = ServicePort { port: 80, node_port, ..ServicePort::default() };
    let spec = ServiceSpec { cluster_ip: ip.map(Into::into), ports: Some(vec![port]), ..ServiceSpec::default() };
    Object::new(Service { metadata: meta(name), spec: Some(spec), ..Service::default() })
}

/// The object with one key of its data set.
pub(super) fn with_data(object: &Object, key: &str, value: &str) -> Object {
    let mut object = object.clone();
    let map: &mut ConfigMap = object.downcast_mut().unwrap();
    map.data.get_or_insert_default().insert(key.into(), value.into());
    object
}

pub(super) fn watch_from(revision: i64) -> WatchOptions {
    WatchOptions { namespace: "ns".into(), resource_version: revision.to_string(), timeout: Duration::from_secs(120), ..WatchOptions::default() }
}

/// The next events, at least `count` unless the watch ends; panics after 30 s.
pub(super) async fn take(stream: &mut super::WatchStream, count: usize) -> Vec<WatchEvent> {
    let mut all = Vec::new();
    while all.len() < count {
        let mut some = Vec::new();
        let more = tokio::time::timeout(Duration::from_secs(30), stream.next(&mut some)).await.expect("events come within 30 s");
        all.append(&mut some);
        if !more {
            break;
        }
    }
    all
}

/// `ADDED name revision`, or what kind of event it is.
pub(super) fn brief(events: &[WatchEvent]) -> Vec<String> {
    events
        .iter()
        .map(|e| match e {
            WatchEvent::Error(error) => format!("ERROR {} {}", error.code(), error.reason()),
            WatchEvent::Bookmark { initial_end, .. } => format!("BOOKMARK {initial_end}"),
            other => format!("{} {}", other.kind(), other.entry().unwrap().name),
        })
        .collect()
}

//! What authentication, authorization and admission read: typed objects from the watch cache, decoded once a revision.
//!
//! Owns the memo of decoded objects. Must never write and must never talk to etcd itself.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use serde::Deserialize;
use shared::status::ApiError;

use crate::cache::{Cache, CacheError, Entry, Interest};
use crate::registry::store::from_json;
use crate::registry::{ApiObject, RESOURCES, Resource};

/// The watch cache, as far as the security layers need it.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// One object as the cache holds it now.
    ///
    /// # Errors
    /// 500 when what is stored under its key is not an object.
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, ApiError>;
    /// All objects of a kind as the cache holds them now; `""` is every namespace.
    ///
    /// # Errors
    /// 500 when one of them cannot be read: nobody may decide on a list with holes.
    fn list(&self, resource: &'static Resource, namespace: &str) -> Result<Vec<Arc<Entry>>, ApiError>;
    /// Waits until the cache holds everything that was committed before the call.
    ///
    /// # Errors
    /// When etcd cannot be asked in time.
    async fn refresh(&self) -> Result<(), ApiError>;
    /// Waits until an object exists, at most this long.
    ///
    /// # Errors
    /// 500 when what is stored under its key is not an object.
    async fn wait_for(&self, resource: &'static Resource, namespace: &str, name: &str, timeout: Duration) -> Result<Option<Arc<Entry>>, ApiError>;
}

type Key = (TypeId, Box<str>, Box<str>);

/// The revision an object was decoded at, and the object.
type Decoded = (i64, Arc<dyn Any + Send + Sync>);

/// Past this many entries the memo starts anew; it is for the few objects that every write consults.
const MEMO_LIMIT: usize = 8192;

/// Typed reads over the cache. Clones share the memo.
#[derive(Clone)]
pub struct Reader {
    objects: Arc<dyn Objects>,
    /// Last decoded form of an object, valid while its revision is the cache's.
    memo: Arc<Mutex<HashMap<Key, Decoded>>>,
}

#[derive(Deserialize)]
struct MetaOnly {
    #[serde(default)]
    metadata: ObjectMeta,
}

impl Reader {
    /// Reads through `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Reader { objects, memo: Arc::default() }
    }

    /// An object, if its kind is registered and it exists.
    ///
    /// # Errors
    /// 500 when it cannot be decoded.
    pub fn get<T: ApiObject>(&self, namespace: &str, name: &str) -> Result<Option<Arc<T>>, ApiError> {
        let Some(resource) = RESOURCES.of::<T>() else { return Ok(None) };
        self.objects.get(resource, namespace, name)?.map(|entry| self.decode(&entry)).transpose()
    }

    /// Like [`Self::get`], but an absent object is looked for once more after the cache has caught up with etcd.
    ///
    /// # Errors
    /// When the cache cannot catch up in time.
    pub async fn get_fresh<T: ApiObject>(&self, namespace: &str, name: &str) -> Result<Option<Arc<T>>, ApiError> {
        if let Some(found) = self.get(namespace, name)? {
            return Ok(Some(found));
        }
        self.objects.refresh().await?;
        self.get(namespace, name)
    }

    /// Waits until an object exists, at most this long.
    ///
    /// # Errors
    /// 500 when it cannot be decoded.
    pub async fn wait_for<T: ApiObject>(&self, namespace: &str, name: &str, timeout: Duration) -> Result<Option<Arc<T>>, ApiError> {
        let Some(resource) = RESOURCES.of::<T>() else { return Ok(None) };
        self.objects.wait_for(resource, namespace, name, timeout).await?.map(|entry| self.decode(&entry)).transpose()
    }

    /// All objects of a kind; `""` is every namespace.
    ///
    /// # Errors
    /// 500 when one cannot be decoded.
    pub fn list<T: ApiObject>(&self, namespace: &str) -> Result<Vec<Arc<T>>, ApiError> {
        Ok(self.list_revisions(namespace)?.into_iter().map(|(_, object)| object).collect())
    }

    /// All objects of a kind with the revisions they are stored at.
    ///
    /// # Errors
    /// 500 when one cannot be decoded.
    pub fn list_revisions<T: ApiObject>(&self, namespace: &str) -> Result<Vec<(i64, Arc<T>)>, ApiError> {
        let Some(resource) = RESOURCES.of::<T>() else { return Ok(Vec::new()) };
        self.objects.list(resource, namespace)?.iter().map(|e| Ok((e.revision, self.decode(e)?))).collect()
    }

    /// The metadata of an object of any registered kind, without decoding the rest.
    ///
    /// # Errors
    /// 500 when it cannot be decoded.
    pub fn meta(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, ApiError> {
        let Some(entry) = self.objects.get(resource, namespace, name)? else { return Ok(None) };
        serde_json::from_slice::<MetaOnly>(&entry.bytes).map(|m| Some(m.metadata)).map_err(|e| undecodable(resource.kind, &entry, &e))
    }

    /// The cache below.
    pub fn objects(&self) -> &Arc<dyn Objects> {
        &self.objects
    }

    fn decode<T: ApiObject>(&self, entry: &Entry) -> Result<Arc<T>, ApiError> {
        let key = (TypeId::of::<T>(), entry.namespace.clone(), entry.name.clone());
        if let Some((revision, value)) = self.memo.lock().get(&key)
            && *revision == entry.revision
            && let Ok(value) = value.clone().downcast::<T>()
        {
            return Ok(value);
        }
        let value = Arc::new(from_json::<T>(&entry.bytes, None).map_err(|e| undecodable(T::KIND, entry, &e))?);
        let mut memo = self.memo.lock();
        if memo.len() >= MEMO_LIMIT {
            memo.clear();
        }
        memo.insert(key, (entry.revision, value.clone()));
        Ok(value)
    }
}

fn undecodable(kind: &str, entry: &Entry, error: &serde_json::Error) -> ApiError {
    ApiError::internal(format!("the stored {kind} {}/{} cannot be decoded: {error}", entry.namespace, entry.name))
}

/// How long a write waits for the cache to catch up before it is refused.
const CATCH_UP: Duration = Duration::from_secs(3);

fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::internal(error)
}

#[async_trait]
impl Objects for Cache {
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, ApiError> {
        Cache::get(self, resource, namespace, name).map_err(unreadable)
    }

    fn list(&self, resource: &'static Resource, namespace: &str) -> Result<Vec<Arc<Entry>>, ApiError> {
        Cache::list(self, resource, namespace).map_err(unreadable)
    }

    async fn refresh(&self) -> Result<(), ApiError> {
        match self.catch_up(CATCH_UP).await {
            Ok(_) => Ok(()),
            Err(CacheError::Undecodable(error)) => Err(unreadable(error)),
            Err(error) => Err(ApiError::timeout(error.to_string(), 1)),
        }
    }

    async fn wait_for(&self, resource: &'static Resource, namespace: &str, name: &str, timeout: Duration) -> Result<Option<Arc<Entry>>, ApiError> {
        let interest = Interest::Object(namespace.into(), name.into());
        let mut watcher = self.watch(resource, interest, self.revision()).map_err(unreadable)?;
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            // Looked for after the watcher was set up, so that nothing is missed in between.
            if let Some(found) = Cache::get(self, resource, namespace, name).map_err(unreadable)? {
                return Ok(Some(found));
            }
            if tokio::time::timeout_at(deadline, watcher.changed()).await.is_err() {
                return Ok(None);
            }
            watcher.ready(&mut Vec::new()).map_err(unreadable)?;
        }
    }
}

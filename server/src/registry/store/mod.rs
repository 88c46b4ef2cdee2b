//! The generic store: the semantics of every verb, over any kind (`k8s.io/apiserver/pkg/registry/generic/registry/store.go`).
//!
//! Owns the order of a write: defaults, metadata, the kind's strategy, admission, claims, one etcd transaction, retries. Reads come from
//! the cache. Must know nothing of HTTP.

mod continuation;
mod create;
mod decode;
mod delete;
mod errors;
mod list;
mod managed;
mod meta;
mod names;
mod reset;
mod track;
mod update;
mod watch;
mod write;
mod yaml;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared::selector::{FieldSelector, Selector};
use shared::status::ApiError;

pub use decode::{Decoded, FieldValidation, decode};
pub use managed::apply;
pub use track::{Findings, from_json};
pub use watch::{WatchEvent, WatchStream};
pub use yaml::yaml_to_json;

use super::{Object, Ranges, Registry, Resource};
use crate::api::user::User;
use crate::cache::{Cache, Entry};
use crate::storage::Storage;

/// How long a reader waits for the cache to reach a revision (upstream's `blockTimeout`).
const WAIT: Duration = Duration::from_secs(3);

/// What a list or a deletion of a collection selects.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// `""` is all namespaces.
    pub namespace: String,
    /// Label selector.
    pub labels: Selector,
    /// Field selector.
    pub fields: FieldSelector,
    /// `""`: consistent; `"0"`: whatever is at hand; else see `resource_version_match`.
    pub resource_version: String,
    /// `""`, `Exact` or `NotOlderThan`.
    pub resource_version_match: String,
    /// Most items of a page; 0 is all.
    pub limit: usize,
    /// Where the page before ended.
    pub continue_token: String,
}

/// A list, or a page of one.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The list's resourceVersion.
    pub revision: i64,
    /// In the order of their keys.
    pub items: Vec<Arc<Entry>>,
    /// For the next page, if there is one.
    pub continue_token: Option<String>,
    /// How many items follow this page; `None` when that is not known.
    pub remaining: Option<i64>,
}

/// What a watch selects, and where it starts.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// `""` is all namespaces.
    pub namespace: String,
    /// Label selector.
    pub labels: Selector,
    /// Field selector.
    pub fields: FieldSelector,
    /// `""` and `"0"` start with all objects as ADDED; else what comes after it.
    pub resource_version: String,
    /// Only `NotOlderThan`, and only with `send_initial_events`.
    pub resource_version_match: String,
    /// Whether BOOKMARK events are wanted.
    pub allow_bookmarks: bool,
    /// Whether to start with all objects and a bookmark that ends them.
    pub send_initial_events: Option<bool>,
    /// When the watch ends; zero is after half an hour or so.
    pub timeout: Duration,
}

/// What a write does to `metadata.managedFields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// The manager takes the fields that it changes.
    Update,
    /// The change has settled it: a server-side apply.
    Settled,
    /// Nothing: the server itself writes.
    Keep,
}

/// Who writes, and how.
#[derive(Clone, Debug)]
pub struct WriteOptions<'a> {
    /// Who asks.
    pub user: &'a User,
    /// Do everything but store.
    pub dry_run: bool,
    /// Name under which fields are owned.
    pub field_manager: String,
    /// What becomes of who owns which field.
    pub tracking: Tracking,
    /// Subresource written to, or empty. `status` keeps everything else; others are restricted by the change itself.
    pub subresource: &'a str,
    /// Whether a server-side apply takes fields over.
    pub force: bool,
    /// Whether an update creates what does not exist whatever its kind (server-side apply).
    pub create: bool,
}

impl<'a> WriteOptions<'a> {
    /// A write of the main resource.
    pub fn new(user: &'a User) -> Self {
        WriteOptions { user, dry_run: false, field_manager: String::new(), tracking: Tracking::Keep, subresource: "", force: false, create: false }
    }
}

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose this owner.
    Orphan,
    /// They are collected afterwards.
    Background,
    /// They go first.
    Foreground,
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds; negative is 1.
    pub grace_period_seconds: Option<i64>,
    /// Not together with `orphan_dependents`.
    pub propagation_policy: Option<Propagation>,
    /// The older way to say `Orphan` or `Background`.
    pub orphan_dependents: Option<bool>,
    /// `preconditions.uid`
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`
    pub resource_version: Option<String>,
    /// Do everything but store.
    pub dry_run: bool,
}

/// An object as it is stored now, given to a change.
#[derive(Clone, Debug)]
pub struct Current {
    /// Decoded, with its resourceVersion.
    pub object: Object,
    /// Its bytes and revision.
    pub entry: Arc<Entry>,
    /// Whether it is stored in another version than it would be now, so that even an update that changes nothing is to be written.
    pub outdated: bool,
}

/// The result of a create or an update.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as it is now; with a dry run, as it would be.
    pub entry: Arc<Entry>,
    /// Texts for `Warning:` headers.
    pub warnings: Vec<String>,
    /// Whether it did not exist before.
    pub created: bool,
}

/// The result of a deletion.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The object's last state, or how it waits for its deletion.
    pub entry: Arc<Entry>,
    /// Whether it is gone; if not, finalizers or a grace period hold it.
    pub gone: bool,
    /// Texts for `Warning:` headers.
    pub warnings: Vec<String>,
}

/// What makes the new object of an update from the one that is stored (`None`: there is none, and it is to be created). Runs again when
/// somebody else was faster, so it must not use itself up.
pub type Change<'a> = &'a (dyn Fn(Option<&Current>) -> Result<Decoded, ApiError> + Send + Sync);

/// Times and limits that may be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ranges of cluster IPs and node ports.
    pub ranges: Ranges,
    /// How long Events live (upstream's `--event-ttl`).
    pub event_ttl: Duration,
}

/// The verbs. Clones share everything.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    registry: &'static Registry,
    storage: Storage,
    cache: Cache,
    config: Config,
}

impl Store {
    /// A store over a connection and a cache of the same kinds.
    pub fn new(registry: &'static Registry, storage: Storage, cache: Cache, config: Config) -> Self {
        Store { inner: Arc::new(Inner { registry, storage, cache, config }) }
    }

    /// The kinds it serves.
    pub fn registry(&self) -> &'static Registry {
        self.inner.registry
    }

    /// The cache behind the reads, for look-ups without semantics (authorization, admission, metrics).
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// The connection to etcd, for readiness checks.
    pub fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    /// One object. `resource_version` `""`: as of now; `"0"`: whatever is at hand; else not older than that.
    ///
    /// # Errors
    /// 404; 400 for a bad resourceVersion; 504 for one in the future, or when etcd does not answer.
    pub async fn get(&self, resource: &'static Resource, namespace: &str, name: &str, resource_version: &str) -> Result<Arc<Entry>, ApiError> {
        self.reach(resource_version).await?;
        match self.inner.cache.get(resource, namespace, name).map_err(errors::undecodable)? {
            Some(entry) => self.shown(resource, entry).await,
            None => Err(ApiError::not_found(resource.group_resource(), name)),
        }
    }

    /// Waits until the cache is as fresh as a resourceVersion demands.
    async fn reach(&self, resource_version: &str) -> Result<(), ApiError> {
        let cache = &self.inner.cache;
        match parse_resource_version(resource_version)? {
            None => cache.catch_up(WAIT).await.map_err(errors::cache)?,
            Some(0) => cache.wait_for(1, WAIT).await.map_err(errors::cache)?,
            Some(revision) => cache.wait_for(revision, WAIT).await.map_err(errors::future_revision)?,
        }
        Ok(())
    }

    /// An entry as its kind shows it now. For kinds with a Rust type that is what is stored.
    async fn shown(&self, resource: &'static Resource, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
        let Some(slot) = &resource.custom else { return Ok(entry) };
        let shown = slot.show(resource, vec![entry]).await?;
        shown.into_iter().next().ok_or_else(|| ApiError::internal("an object was lost on the way"))
    }

    /// [`Self::shown`] of many, in the same order.
    async fn shown_all(&self, resource: &'static Resource, entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, ApiError> {
        match &resource.custom {
            None => Ok(entries),
            Some(slot) => slot.show(resource, entries).await,
        }
    }

    /// A stored object, as its kind shows it now, decoded.
    async fn decode_stored(&self, resource: &'static Resource, stored: Arc<Entry>) -> Result<Current, ApiError> {
        let outdated = resource.custom.as_ref().is_some_and(|slot| slot.outdated(&stored.bytes));
        let entry = self.shown(resource, stored).await?;
        match resource.ops.decode(&entry.bytes) {
            Ok(object) => Ok(Current { object, entry, outdated }),
            Err(error) => {
                Err(errors::undecodable(crate::cache::Undecodable { key: resource.key(&entry.namespace, &entry.name), reason: error.to_string() }))
            }
        }
    }
}

/// `None` for `""`.
///
/// # Errors
/// 400 when it is not a number.
pub fn parse_resource_version(text: &str) -> Result<Option<i64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(revision) if revision >= 0 => Ok(Some(revision)),
        _ => Err(ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))),
    }
}

/// A JSON object as bytes that may be shared.
fn shared_bytes(bytes: Vec<u8>) -> Bytes {
    Bytes::from(bytes)
}

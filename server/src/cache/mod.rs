//! Every object in memory, fed by one etcd watch over `/registry/`, encoded once and shared as bytes by reads, lists and watches.
//!
//! Owns the copies and the event history. Must never write (but for the one key that makes etcd's revision visible, see `pump`).

mod entry;
mod history;
mod pump;
mod table;
mod watcher;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

pub use entry::Prepared;
pub use table::{Interest, Snapshot};
pub use watcher::{Gone, Watcher};

use crate::registry::{Claim, Registry, Resource};
use crate::storage::{Storage, StorageError};
use crate::tasks::Tasks;
use table::Table;

/// One object at one revision. Immutable and shared.
#[derive(Debug)]
pub struct Entry {
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Etcd mod_revision: the object's resourceVersion.
    pub revision: i64,
    /// Labels, sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the kind's selectable fields, in the order of `Resource::fields`; absent ones are empty.
    pub fields: Box<[Box<str>]>,
    /// The object's JSON, with its resourceVersion.
    pub bytes: Bytes,
    /// Where in them the resourceVersion's digits begin.
    pub version_at: usize,
    /// See [`Entry::remember`].
    shown: Shown,
}

/// An entry as a definition shows it, with the definition's id; `None` when it shows it as it is.
#[derive(Debug, Default)]
struct Shown(Mutex<Option<Box<(u64, Option<Arc<Entry>>)>>>);

impl Entry {
    /// Keeps how a definition shows the object, so that only its first reader has to work it out. For kinds that were defined at run time.
    pub fn remember(&self, definition: u64, shown: Option<Arc<Entry>>) {
        *self.shown.0.lock() = Some(Box::new((definition, shown)));
    }
    /// What was kept for a definition; the inner `None` is the entry itself.
    pub fn recall(&self, definition: u64) -> Option<Option<Arc<Entry>>> {
        self.shown.0.lock().as_ref().filter(|known| known.0 == definition).map(|known| known.1.clone())
    }
}

impl shared::selector::Labels for Entry {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|i| &*self.labels[i].1)
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub struct Event {
    /// The object after the change; for a deletion its last state, at the deletion's revision.
    pub entry: Arc<Entry>,
    /// The object before the change, if it existed.
    pub previous: Option<Arc<Entry>>,
    /// Whether it was deleted.
    pub deleted: bool,
    /// See [`Event::left`].
    left: OnceLock<Arc<Entry>>,
}

impl Event {
    /// A change of an object.
    pub fn new(entry: Arc<Entry>, previous: Option<Arc<Entry>>, deleted: bool) -> Self {
        Event { entry, previous, deleted, left: OnceLock::new() }
    }
    /// The revision it happened at.
    pub fn revision(&self) -> i64 {
        self.entry.revision
    }
    /// What a watcher whose selector the object has just stopped matching sees as deleted: the state before, at this revision.
    pub fn left(&self) -> &Arc<Entry> {
        if self.deleted {
            return &self.entry;
        }
        self.left.get_or_init(|| Arc::new(self.previous.as_ref().unwrap_or(&self.entry).at(self.entry.revision)))
    }
}

/// A key that cannot be read: whoever lists its kind must be told rather than shown a list without it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Undecodable {
    /// Full etcd key.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// Why the cache did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// Etcd did not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The cache has not come as far as the revision in time.
    #[error("the watch cache is at revision {current}, not yet at {wanted}")]
    Behind {
        /// Where it is.
        current: i64,
        /// Where it should be.
        wanted: i64,
    },
    /// An object cannot be read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
}

impl Inner {
    /// All tables.
    fn all_tables(&self) -> Vec<Arc<Table>> {
        self.tables.values().cloned().chain(self.custom.read().values().cloned()).collect()
    }
}

/// All objects. Clones share them.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    storage: Storage,
    /// By etcd prefix, as in [`Resource::prefix`].
    tables: HashMap<&'static str, Arc<Table>>,
    /// The table of each [`Resource::index`].
    by_index: Vec<Arc<Table>>,
    /// Tables of kinds that were defined at run time, by etcd prefix.
    custom: RwLock<HashMap<String, Arc<Table>>>,
    /// Everything up to this revision is in the tables; 0 before the first load.
    revision: watch::Sender<i64>,
    /// The same without the channel's lock, for the hot paths.
    latest: AtomicI64,
    /// Keys below `/registry/kserver/claims/`, with the key of their owner.
    claims: RwLock<HashMap<String, String>>,
    /// What the store is writing just now, so that nothing is parsed twice.
    pending: Mutex<HashMap<String, Arc<Prepared>>>,
    /// Someone waits for a revision that the watch may never show.
    nudge: Notify,
    history: history::Budget,
}

/// How long a new table waits for the watch to reach what was read.
const WAIT: Duration = Duration::from_secs(3);
/// How long a reader waits before the pump is asked to make etcd's revision visible.
const PATIENCE: Duration = Duration::from_millis(250);

impl Cache {
    /// Starts loading and watching. Readers wait until the first load is done.
    pub fn start(registry: &'static Registry, storage: Storage, tasks: &Tasks) -> Self {
        let mut tables: HashMap<&'static str, Arc<Table>> = HashMap::new();
        let mut by_index = Vec::new();
        for resource in registry.iter() {
            // Kinds served under several group versions share their storage.
            let table = tables.entry(resource.prefix.as_str()).or_insert_with(|| Arc::new(Table::new(resource)));
            by_index.push(table.clone());
        }
        let inner = Arc::new(Inner {
            storage,
            tables,
            by_index,
            custom: RwLock::default(),
            revision: watch::Sender::new(0),
            latest: AtomicI64::new(0),
            claims: RwLock::default(),
            pending: Mutex::default(),
            nudge: Notify::new(),
            history: history::Budget::default(),
        });
        tasks.spawn("cache", pump::run(inner.clone()));
        tasks.spawn("cache/history", history::run(inner.clone()));
        Cache { inner }
    }

    fn table(&self, resource: &'static Resource) -> Arc<Table> {
        if let Some(table) = self.inner.by_index.get(resource.index) {
            return table.clone();
        }
        // A kind that has just gone looks like one of which nothing is known any more.
        self.inner.custom.read().get(&resource.prefix).cloned().unwrap_or_else(|| Arc::new(Table::new(resource)))
    }

    /// Begins to hold a kind that was defined at run time. Its objects are there when this returns.
    ///
    /// # Errors
    /// Etcd cannot be read; nothing is held then.
    pub async fn add(&self, resource: &'static Resource) -> Result<(), StorageError> {
        let table = {
            let mut custom = self.inner.custom.write();
            if custom.contains_key(&resource.prefix) {
                return Ok(());
            }
            let table = Arc::new(Table::loading(resource));
            custom.insert(resource.prefix.clone(), table.clone());
            table
        };
        // From here on the table collects what happens; what was before is read now.
        match pump::load_table(&self.inner, &table).await {
            Ok(revision) => {
                // Whoever reads the table next must not be told of an older state than it is in.
                let _ = self.wait_for(revision, WAIT).await;
                Ok(())
            }
            Err(error) => {
                self.remove(resource);
                Err(error)
            }
        }
    }

    /// Stops holding a kind that was defined at run time; its watchers end.
    pub fn remove(&self, resource: &Resource) {
        if let Some(table) = self.inner.custom.write().remove(&resource.prefix) {
            table.close();
        }
    }

    /// Everything up to this revision is in the cache; 0 before the first load.
    pub fn revision(&self) -> i64 {
        self.inner.latest.load(Ordering::Acquire)
    }

    /// Waits until the first load is done.
    pub async fn loaded(&self) {
        let mut receiver = self.inner.revision.subscribe();
        // The sender lives in this cache.
        let _ = receiver.wait_for(|r| *r > 0).await;
    }

    /// Waits until everything up to a revision is in the cache.
    ///
    /// # Errors
    /// It does not come that far in time.
    pub async fn wait_for(&self, revision: i64, timeout: Duration) -> Result<(), CacheError> {
        if self.revision() >= revision && self.revision() > 0 {
            return Ok(());
        }
        let mut receiver = self.inner.revision.subscribe();
        let deadline = tokio::time::Instant::now() + timeout;
        let reached = |r: &i64| *r >= revision && *r > 0;
        if tokio::time::timeout(PATIENCE.min(timeout), receiver.wait_for(reached)).await.is_ok() {
            return Ok(());
        }
        // Asking costs etcd a write, so nobody may ask for what etcd itself has not come to.
        if self.inner.storage.revision().await.is_ok_and(|newest| newest >= revision) {
            self.inner.nudge.notify_one();
        }
        match tokio::time::timeout_at(deadline, receiver.wait_for(reached)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(CacheError::Behind { current: self.revision(), wanted: revision }),
        }
    }

    /// Waits until the cache shows every write that was answered before this call began, and all that anybody has been shown.
    ///
    /// # Errors
    /// Etcd does not answer, or the watch lags.
    pub async fn catch_up(&self, timeout: Duration) -> Result<(), CacheError> {
        let revision = self.inner.storage.read_index().await?;
        let reached = self.wait_for(revision, timeout).await;
        if reached.is_err() {
            // Etcd may have been put back to before it.
            self.inner.storage.look_again().await?;
        }
        reached
    }

    /// One object as it is in the cache.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, Undecodable> {
        self.table(resource).get(namespace, name)
    }

    /// Objects in the order of their keys, as they were at a revision; see [`Snapshot`].
    ///
    /// # Errors
    /// An object in the range cannot be read.
    pub fn snapshot(&self, resource: &'static Resource, namespace: &str, from: &str, at: Option<i64>) -> Result<Snapshot, Undecodable> {
        self.table(resource).snapshot(namespace, from, at, || self.revision())
    }

    /// The objects of a kind in a namespace (`""`: all) that there are now.
    ///
    /// # Errors
    /// An object in the range cannot be read.
    pub fn list(&self, resource: &'static Resource, namespace: &str) -> Result<Vec<Arc<Entry>>, Undecodable> {
        Ok(self.snapshot(resource, namespace, "", None)?.objects)
    }

    /// How many objects of a kind there are.
    pub fn count(&self, resource: &'static Resource) -> usize {
        self.table(resource).len()
    }

    /// Everything that happens to the kind's objects after a revision. `interest` narrows what wakes the watcher; it may still be given
    /// other events and must check each one.
    ///
    /// # Errors
    /// [`Gone`] when the history does not reach back that far.
    pub fn watch(&self, resource: &'static Resource, interest: Interest, after: i64) -> Result<Watcher, Gone> {
        Watcher::new(self.inner.clone(), self.table(resource), interest, after)
    }

    /// Whether a claim is taken, as far as the cache knows, and by the owner of which key.
    pub fn claim_owner(&self, claim: &Claim) -> Option<String> {
        self.inner.claims.read().get(&claim.key()).cloned()
    }

    /// Announces a value that is about to be written, so that the event need not be parsed again. Ends when the guard is dropped.
    pub fn announce(&self, key: String, prepared: Arc<Prepared>) -> Announced<'_> {
        self.inner.pending.lock().insert(key.clone(), prepared);
        Announced { cache: self, key, keep: false }
    }
}

/// An announced write; see [`Cache::announce`].
pub struct Announced<'a> {
    cache: &'a Cache,
    key: String,
    keep: bool,
}

impl Announced<'_> {
    /// The write went through: if its event is still to come, the announcement stays until then.
    pub fn written(mut self, revision: i64) {
        self.keep = self.cache.revision() < revision;
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.cache.inner.pending.lock().remove(&self.key);
        }
    }
}

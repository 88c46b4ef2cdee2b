//! The only module that knows etcd: conditional transactions, reads, one watch, leases, compaction.
//!
//! Owns the connections. Must never interpret an object.

mod channel;
mod compaction;
mod error;
mod known;
mod lease;
mod pool;
mod revision;
mod version;
mod watch;

#[cfg(test)]
pub mod testing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, GetOptions, KvClient, PutOptions, Txn, TxnOp, TxnOpResponse};
use rustls::ClientConfig;
use tokio::time::Instant;

#[cfg(test)]
pub(crate) use compaction::step as compaction_step;
pub use compaction::{INTERVAL as COMPACTION_INTERVAL, run as compact_periodically};
pub use error::StorageError;
pub use watch::{Change, Watch, WatchError};

use crate::tasks::Tasks;

/// Everything the server stores lies below this prefix; one watch over it sees every revision that matters.
pub const PREFIX: &str = "/registry/";

/// Keys that belong to this server alone and are no objects.
pub const OWN_PREFIX: &str = "/registry/kserver/";

/// What must hold of a key for a transaction to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key's mod_revision is this one.
    Revision(i64),
    /// Nothing: for keys that are only ever written together with another key whose revision is compared.
    Any,
}

/// One conditional change of a transaction.
#[derive(Clone, Debug)]
pub struct Write {
    /// Full etcd key, below `/registry/`.
    pub key: String,
    /// The condition.
    pub expect: Expect,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
    /// Etcd lease that the key dies with; 0 is none.
    pub lease: i64,
}

/// A stored value, opened; `Err` says why it cannot be (another encryption key, a tampered value).
pub type Opened = Result<Bytes, String>;

/// A key as it is stored.
#[derive(Clone, Debug)]
pub struct Kv {
    /// Full etcd key.
    pub key: String,
    /// Its value.
    pub value: Opened,
    /// Its mod_revision.
    pub revision: i64,
}

/// How a transaction ended, when that is known.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every condition held, and everything is written.
    Committed {
        /// The revision of every key written.
        revision: i64,
    },
    /// A condition did not hold, and nothing is written.
    Conflict {
        /// What is stored now, one for each write, in their order.
        current: Vec<Option<Kv>>,
        /// The revision this was read at.
        revision: i64,
    },
}

/// One page of a range.
#[derive(Clone, Debug)]
pub struct Page {
    /// Keys in order.
    pub kvs: Vec<Kv>,
    /// The store's revision when it was read (not the one it was read at).
    pub revision: i64,
    /// Whether the range goes on.
    pub more: bool,
    /// Keys in the whole range, from its start.
    pub count: i64,
}

/// Changes values on their way to and from disk: encryption at rest. The key is to be authenticated with the value.
pub trait Transform: Send + Sync {
    /// The bytes to store.
    ///
    /// # Errors
    /// Why they cannot be made.
    fn seal(&self, key: &str, plain: Bytes) -> Result<Bytes, String>;
    /// The bytes that were sealed; a value that was stored in plain is returned as it is.
    ///
    /// # Errors
    /// Why the value cannot be read.
    fn open(&self, key: &str, stored: &[u8]) -> Opened;
}

/// Stores everything as it is.
pub struct Plain;

impl Transform for Plain {
    fn seal(&self, _: &str, plain: Bytes) -> Result<Bytes, String> {
        Ok(plain)
    }
    fn open(&self, _: &str, stored: &[u8]) -> Opened {
        Ok(Bytes::copy_from_slice(stored))
    }
}

/// How to reach etcd.
#[derive(Clone)]
pub struct Config {
    /// `http://host:port` or `https://host:port`, one a member.
    pub endpoints: Vec<String>,
    /// Whom `https` endpoints are to be signed by, and the certificate to show them.
    pub tls: Option<Arc<ClientConfig>>,
    /// HTTP/2 connections to each member.
    pub connections: usize,
    /// Longest wait for an answer, all retries included.
    pub deadline: Duration,
    /// Encryption at rest.
    pub transform: Arc<dyn Transform>,
    /// Nobody else writes below [`PREFIX`]: the certificates for this etcd lie in this server's data directory, which is locked.
    pub exclusive: bool,
}

impl Config {
    /// Plain connections with the defaults.
    pub fn new(endpoints: Vec<String>) -> Self {
        Config { endpoints, tls: None, connections: 2, deadline: Duration::from_secs(10), transform: Arc::new(Plain), exclusive: false }
    }
}

/// The first key after all keys with this prefix.
pub fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A connection to etcd. Clones share it.
#[derive(Clone)]
pub struct Storage {
    pool: Arc<pool::Pool>,
    revisions: revision::Shared,
    leases: Arc<lease::Leases>,
    transform: Arc<dyn Transform>,
    deadline: Duration,
    exclusive: bool,
    known: Arc<known::Known>,
}

impl Storage {
    /// Prepares connections, without waiting for one: etcd may come up later.
    ///
    /// # Errors
    /// Endpoints or certificates that make no sense.
    pub async fn connect(config: &Config, tasks: &Tasks) -> Result<Self, StorageError> {
        let pool = Arc::new(pool::Pool::new(config).await?);
        let revisions = revision::Shared::start(pool.clone(), config.deadline, tasks);
        version::report(pool.clone(), tasks);
        Ok(Storage {
            pool,
            revisions,
            leases: Arc::default(),
            transform: config.transform.clone(),
            deadline: config.deadline,
            exclusive: config.exclusive,
            known: Arc::default(),
        })
    }

    /// Writes all or nothing.
    ///
    /// A call whose outcome is unknown is tried again within the deadline: the conditions make that safe. Whether it was an earlier attempt
    /// that went through, or somebody else's, only what is new can tell (see [`landed`]).
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]: nothing was written. [`StorageError::Unknown`]: it may or may not have been.
    pub async fn commit(&self, writes: &[Write]) -> Result<Outcome, StorageError> {
        let pending = self.known.pending();
        let outcome = self.transact(writes).await;
        // A conflict shows what others have written.
        if let Ok(Outcome::Committed { revision } | Outcome::Conflict { revision, .. }) = &outcome {
            self.known.at_least(*revision);
        }
        if !matches!(outcome, Err(StorageError::Unknown(_))) {
            pending.answered();
        }
        outcome
    }

    async fn transact(&self, writes: &[Write]) -> Result<Outcome, StorageError> {
        if writes.len() > 128 {
            return Err(StorageError::TooLarge(format!("{} keys in a transaction; etcd allows 128", writes.len())));
        }
        let sealed: Vec<Option<Bytes>> = writes
            .iter()
            .map(|w| w.value.clone().map(|v| self.transform.seal(&w.key, v)).transpose())
            .collect::<Result<_, _>>()
            .map_err(StorageError::Other)?;
        let txn = transaction(writes, &sealed);
        let mut unsure = false;
        let deadline = Instant::now() + self.deadline;
        let response = self
            .pool
            .retry(deadline, |mut kv: KvClient| {
                let txn = txn.clone();
                async move { kv.txn(txn).await }
            })
            .uncertain(&mut unsure)
            .await?;
        let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
        if response.succeeded() {
            return Ok(Outcome::Committed { revision });
        }
        let current = self.current(&response, writes);
        if !unsure {
            return Ok(Outcome::Conflict { current, revision });
        }
        match landed(writes, &current) {
            Some(revision) => {
                Ok(Outcome::Committed { revision: if revision > 0 { revision } else { response.header().map_or(0, |h| h.revision()) } })
            }
            None => Err(StorageError::Unknown("the connection to etcd broke during the write".into())),
        }
    }

    /// What the failed transaction found under each key.
    fn current(&self, response: &etcd_client::TxnResponse, writes: &[Write]) -> Vec<Option<Kv>> {
        let mut current: Vec<Option<Kv>> = response
            .op_responses()
            .iter()
            .map(|op| match op {
                TxnOpResponse::Get(get) => get.kvs().first().map(|kv| self.kv(kv)),
                _ => None,
            })
            .collect();
        current.resize_with(writes.len(), || None);
        current
    }

    fn kv(&self, kv: &etcd_client::KeyValue) -> Kv {
        let key = String::from_utf8_lossy(kv.key()).into_owned();
        Kv { value: self.transform.open(&key, kv.value()), key, revision: kv.mod_revision() }
    }

    /// Reads a key, linearizably.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn get(&self, key: &str) -> Result<Option<Kv>, StorageError> {
        let response = self.pool.retry(Instant::now() + self.deadline, |mut kv: KvClient| async move { kv.get(key, None).await }).await?;
        self.known.at_least(response.header().map_or(0, etcd_client::ResponseHeader::revision));
        Ok(response.kvs().first().map(|kv| self.kv(kv)))
    }

    /// Reads up to `limit` keys from `from` to before `end`, as they were at a revision (0: now).
    ///
    /// # Errors
    /// [`StorageError::Compacted`] when the revision is gone; no answer in time.
    pub async fn range(&self, from: &[u8], end: &[u8], revision: i64, limit: i64) -> Result<Page, StorageError> {
        let response = self
            .pool
            .retry(Instant::now() + self.deadline, |mut kv: KvClient| {
                let options = GetOptions::new().with_range(end).with_revision(revision).with_limit(limit);
                async move { kv.get(from, Some(options)).await }
            })
            .await?;
        Ok(Page {
            kvs: response.kvs().iter().map(|kv| self.kv(kv)).collect(),
            revision: response.header().map_or(0, etcd_client::ResponseHeader::revision),
            more: response.more(),
            count: response.count(),
        })
    }

    /// The revision of etcd at some moment after this call began. Callers at the same time share one read.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn revision(&self) -> Result<i64, StorageError> {
        self.revisions.read().await
    }

    /// A revision that shows every write which was answered before this call began, and everything that an answer has shown. Costs nothing
    /// where this server is the only one that writes, unless a write has ended without an answer: then etcd is asked once.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn read_index(&self) -> Result<i64, StorageError> {
        if !self.exclusive {
            return self.revision().await;
        }
        if let Some(unanswered) = self.known.unanswered() {
            self.known.at_least(self.revision().await?);
            self.known.settle(unanswered);
        }
        Ok(self.known.revision())
    }

    /// A change is about to be shown: who asks from now on must see it too.
    pub fn shows(&self, revision: i64) {
        self.known.at_least(revision);
    }

    /// [`Self::revision`]; forgets what lies beyond it, when etcd has been put back to an older state.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn look_again(&self) -> Result<i64, StorageError> {
        let before = self.known.revision();
        let revision = self.revision().await?;
        if revision < before {
            self.known.at_most(revision);
        }
        Ok(revision)
    }

    /// Watches everything below [`PREFIX`] from a revision on (inclusive).
    ///
    /// # Errors
    /// No answer in time.
    pub async fn watch(&self, from: i64) -> Result<Watch, StorageError> {
        watch::open(&self.pool, self.transform.clone(), from, self.deadline).await
    }

    /// A lease that ends no sooner than `ttl` from now; calls of the same minute share one.
    ///
    /// # Errors
    /// No answer in time.
    pub async fn lease(&self, ttl: Duration) -> Result<i64, StorageError> {
        self.leases.get(&self.pool, ttl, Instant::now() + self.deadline).await
    }

    /// Forgets a lease that etcd turned out not to know.
    pub fn forget_lease(&self, id: i64) {
        self.leases.forget(id);
    }

    /// Throws history up to a revision away.
    ///
    /// # Errors
    /// No answer in time. A revision that is already gone is no error.
    pub async fn compact(&self, revision: i64) -> Result<(), StorageError> {
        let result = self.pool.retry(Instant::now() + self.deadline, |mut kv: KvClient| async move { kv.compact(revision, None).await }).await;
        match result {
            Ok(_) | Err(StorageError::Compacted) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn transaction(writes: &[Write], sealed: &[Option<Bytes>]) -> Txn {
    let compares: Vec<Compare> = writes
        .iter()
        .filter_map(|w| {
            let revision = match w.expect {
                Expect::Absent => 0,
                Expect::Revision(revision) => revision,
                Expect::Any => return None,
            };
            Some(Compare::mod_revision(w.key.as_str(), CompareOp::Equal, revision))
        })
        .collect();
    let changes: Vec<TxnOp> = writes
        .iter()
        .zip(sealed)
        .map(|(w, value)| match value {
            Some(value) => {
                let options = (w.lease != 0).then(|| PutOptions::new().with_lease(w.lease));
                TxnOp::put(w.key.as_str(), value.as_ref(), options)
            }
            None => TxnOp::delete(w.key.as_str(), None),
        })
        .collect();
    let reads: Vec<TxnOp> = writes.iter().map(|w| TxnOp::get(w.key.as_str(), None)).collect();
    Txn::new().when(compares).and_then(changes).or_else(reads)
}

/// Whether an earlier attempt of the same transaction explains what is stored now: every value put is there and every key deleted is not.
/// Returns the revision it was written at, 0 when only deletions could tell.
///
/// A new object has an id of its own, so its value is nobody else's. Two updates of one object may well write the same bytes, of which
/// only one went through: nothing can be said of them.
fn landed(writes: &[Write], current: &[Option<Kv>]) -> Option<i64> {
    // The first write is the object's; the others are bound to it.
    if writes.first().is_some_and(|w| w.expect != Expect::Absent && w.value.is_some()) {
        return None;
    }
    let mut revision = 0;
    for (write, kv) in writes.iter().zip(current) {
        match (&write.value, kv) {
            (None, None) => {}
            (Some(value), Some(kv)) if kv.value.as_ref().is_ok_and(|v| v == value) => revision = kv.revision,
            _ => return None,
        }
    }
    Some(revision)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn write(expect: Expect, value: Option<&'static str>) -> Write {
        Write { key: "/registry/x".into(), expect, value: value.map(Bytes::from), lease: 0 }
    }

    fn stored(value: &'static str) -> Option<Kv> {
        Some(Kv { key: "/registry/x".into(), value: Ok(value.into()), revision: 7 })
    }

    #[test]
    fn only_what_is_new_shows_who_wrote_it() {
        let new = write(Expect::Absent, Some("a"));
        assert_eq!(landed(std::slice::from_ref(&new), &[stored("a")]), Some(7));
        assert_eq!(landed(std::slice::from_ref(&new), &[stored("b")]), None);
        // Somebody else may have written the very same.
        assert_eq!(landed(&[write(Expect::Revision(3), Some("a"))], &[stored("a")]), None);
        assert_eq!(landed(&[write(Expect::Revision(3), None)], &[None]), Some(0), "gone is gone");
        // What a new object takes along, such as its quota, is bound to it.
        assert_eq!(landed(&[new, write(Expect::Revision(3), Some("q"))], &[stored("a"), stored("q")]), Some(7));
    }

    #[tokio::test]
    async fn a_reader_waits_for_its_own_servers_writes_and_for_others_only_where_there_are_some() {
        let etcd = testing::Etcd::start().await;
        let tasks = Tasks::new();
        let alone = Storage::connect(&Config { exclusive: true, ..etcd.config() }, &tasks).await.unwrap();
        let shared = Storage::connect(&etcd.config(), &tasks).await.unwrap();
        let written = |outcome: Outcome| match outcome {
            Outcome::Committed { revision } => revision,
            Outcome::Conflict { .. } => panic!("the key is new"),
        };
        let first = written(alone.commit(&[write(Expect::Absent, Some("a"))]).await.unwrap());
        assert_eq!((alone.read_index().await.unwrap(), shared.read_index().await.unwrap()), (first, first));
        let second = written(shared.commit(&[write(Expect::Revision(first), Some("b"))]).await.unwrap());
        assert_eq!((alone.read_index().await.unwrap(), shared.read_index().await.unwrap()), (first, second));
        // What a conflict has shown is known.
        alone.commit(&[write(Expect::Absent, Some("b"))]).await.unwrap();
        assert_eq!(alone.read_index().await.unwrap(), second);
        // A write that nobody waits for any more may have happened all the same.
        let third = written(shared.commit(&[write(Expect::Revision(second), Some("c"))]).await.unwrap());
        drop(Box::pin(alone.commit(&[write(Expect::Absent, Some("d"))])).now_or_never());
        assert_eq!(alone.read_index().await.unwrap(), third);
    }
}

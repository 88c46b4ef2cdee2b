//! Keeps the cache in step with etcd: one load, then one watch for all kinds.
//!
//! States: loading → watching → (connection lost) watching again from the next revision → (history gone, or etcd restored from an older
//! state) loading. A watch that is silent is checked against etcd's own revision, because a broken one looks just like a quiet one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use rand::Rng;
use tokio::time::Instant;

use super::history::Ring;
use super::table::{Applied, Objects, Table};
use super::{Entry, Inner, Undecodable};
use crate::storage::{Change, Expect, Kv, OWN_PREFIX, Opened, PREFIX, StorageError, Watch, WatchError, Write, prefix_end};

/// Keys in a page of the first load: as many of etcd's largest values (1.5 MiB) as fit into one answer.
const PAGE: i64 = 128;
/// A watch that says nothing for this long is checked.
const SILENCE: Duration = Duration::from_secs(15);
/// After a nudge, an event must come within this time.
const PROOF: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Responses applied before watchers are woken, at most.
const TOGETHER: usize = 64;

const CLAIMS: &str = "/registry/kserver/claims/";

enum End {
    /// The watch broke; go on from the next revision.
    Reconnect,
    /// The next revision cannot be had any more.
    Reload,
}

pub(super) async fn run(inner: Arc<Inner>) {
    let mut backoff = Backoff::default();
    loop {
        match load(&inner).await {
            Ok(revision) => tracing::info!(revision, "cache loaded"),
            Err(error) => {
                tracing::warn!(%error, "loading the cache failed, will be tried again");
                backoff.pause().await;
                continue;
            }
        }
        while let End::Reconnect = follow(&inner, &mut backoff).await {
            backoff.pause().await;
        }
    }
}

#[derive(Default)]
struct Backoff {
    pause: Duration,
}

impl Backoff {
    async fn pause(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let wait = rand::rng().random_range(self.pause / 2..=self.pause);
        tokio::time::sleep(wait).await;
    }
    fn reset(&mut self) {
        self.pause = Duration::ZERO;
    }
}

/// Reads everything at one revision and replaces the tables' contents.
async fn load(inner: &Inner) -> Result<i64, StorageError> {
    // A table that comes while this reads is read on its own: here it might miss what was read before.
    let tables = inner.all_tables();
    let mut contents: HashMap<&'static str, Contents> = HashMap::new();
    let mut claims = HashMap::new();
    let revision = each_key(inner, PREFIX, |kv| {
        if let Some(claim) = kv.key.strip_prefix(CLAIMS) {
            claims.insert(format!("{CLAIMS}{claim}"), owner(&kv.value));
        } else if let Some((table, tail)) = inner.find(&kv.key) {
            sort(&table, &kv, tail, contents.entry(table.resource.prefix.as_str()).or_default());
        }
    })
    .await?;
    inner.pending.lock().clear();
    *inner.claims.write() = claims;
    for table in tables {
        let (objects, bad) = contents.remove(table.resource.prefix.as_str()).unwrap_or_default();
        table.replace(objects, bad, revision);
    }
    inner.history.recount(inner);
    inner.publish(revision);
    Ok(revision)
}

/// Reads the contents of a table that is held from now on. Returns the revision they were read at.
pub(super) async fn load_table(inner: &Inner, table: &Table) -> Result<i64, StorageError> {
    let prefix = table.resource.prefix.as_str();
    let mut contents = Contents::default();
    let revision = each_key(inner, prefix, |kv| sort(table, &kv, kv.key.strip_prefix(prefix).unwrap_or_default(), &mut contents)).await?;
    table.loaded(contents.0, contents.1, revision);
    Ok(revision)
}

/// Objects, and keys that cannot be read.
type Contents = (Objects, BTreeMap<Box<str>, Undecodable>);

fn sort(table: &Table, kv: &Kv, tail: &str, (objects, bad): &mut Contents) {
    match parse(table, kv) {
        Ok(entry) => drop(objects.insert(tail.into(), Arc::new(entry))),
        Err(undecodable) => drop(bad.insert(tail.into(), undecodable)),
    }
}

/// Reads every key below a prefix, page by page and all as of one revision, which it returns.
async fn each_key(inner: &Inner, prefix: &str, mut each: impl FnMut(Kv)) -> Result<i64, StorageError> {
    let (mut from, end) = (prefix.as_bytes().to_vec(), prefix_end(prefix));
    let mut revision = 0;
    loop {
        let page = inner.storage.range(&from, &end, revision, PAGE).await?;
        if revision == 0 {
            revision = page.revision;
        }
        let Some(last) = page.kvs.last() else { return Ok(revision) };
        from = [last.key.as_bytes(), b"\0"].concat();
        page.kvs.into_iter().for_each(&mut each);
        if !page.more {
            return Ok(revision);
        }
    }
}

fn owner(value: &Opened) -> String {
    value.as_ref().map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
}

fn parse(table: &Table, kv: &Kv) -> Result<Entry, Undecodable> {
    let bad = |reason: String| Undecodable { key: kv.key.clone(), reason };
    let value = kv.value.as_ref().map_err(|e| bad(e.clone()))?;
    let entry = Entry::parse(table.resource, value, kv.revision).map_err(|e| bad(e.to_string()))?;
    check_key(table, &kv.key, &entry)?;
    Ok(entry)
}

/// An object under another object's key would be served under the wrong name.
fn check_key(table: &Table, key: &str, entry: &Entry) -> Result<(), Undecodable> {
    if table.resource.key(&entry.namespace, &entry.name) == key {
        return Ok(());
    }
    Err(Undecodable { key: key.to_owned(), reason: format!("it holds an object named {}/{}", entry.namespace, entry.name) })
}

/// Watches from the revision after the cache's until that ends.
async fn follow(inner: &Inner, backoff: &mut Backoff) -> End {
    let from = inner.latest.load(Ordering::Acquire) + 1;
    match inner.storage.look_again().await {
        // A watch from a future revision would be silent for ever.
        Ok(revision) if revision < from - 1 => {
            tracing::error!(etcd = revision, cache = from - 1, "etcd went back in time, everything is loaded anew");
            return End::Reload;
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "etcd does not answer");
            return End::Reconnect;
        }
    }
    let mut watch = match inner.storage.watch(from).await {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(%error, "opening the watch failed");
            return End::Reconnect;
        }
    };
    let mut deadline = Instant::now() + SILENCE;
    let mut proof_due = false;
    loop {
        tokio::select! {
            batch = watch.next() => match batch {
                Ok(batch) => {
                    backoff.reset();
                    let end = apply_ready(inner, batch.changes(), &mut watch);
                    if let Some(end) = end {
                        return end;
                    }
                    (deadline, proof_due) = (Instant::now() + SILENCE, false);
                }
                Err(error) => return ended(&error),
            },
            () = inner.nudge.notified(), if !proof_due => {
                bump(inner).await;
                (deadline, proof_due) = (Instant::now() + PROOF, true);
            }
            () = tokio::time::sleep_until(deadline) => {
                if proof_due {
                    tracing::warn!("the watch shows nothing although etcd has news; opening it again");
                    return End::Reconnect;
                }
                match check(inner).await {
                    Silence::Quiet => deadline = Instant::now() + SILENCE,
                    Silence::Suspicious => {
                        bump(inner).await;
                        (deadline, proof_due) = (Instant::now() + PROOF, true);
                    }
                    Silence::Unreachable => return End::Reconnect,
                }
            }
        }
    }
}

fn ended(error: &WatchError) -> End {
    match error {
        WatchError::Compacted(_) => {
            tracing::warn!(%error, "the watch fell behind, everything is loaded anew");
            End::Reload
        }
        WatchError::Cancelled(_) | WatchError::Lost(_) => {
            tracing::warn!(%error, "the watch ended, opening it again");
            End::Reconnect
        }
    }
}

enum Silence {
    /// Etcd has nothing new either.
    Quiet,
    /// Etcd is ahead: others write outside our prefix, or the watch is broken.
    Suspicious,
    Unreachable,
}

async fn check(inner: &Inner) -> Silence {
    match inner.storage.revision().await {
        Ok(revision) if revision <= inner.latest.load(Ordering::Acquire) => Silence::Quiet,
        Ok(_) => Silence::Suspicious,
        Err(_) => Silence::Unreachable,
    }
}

/// Writes a key below our prefix: its event carries the cache past every earlier revision, wherever those were written.
async fn bump(inner: &Inner) {
    let write = Write { key: format!("{OWN_PREFIX}progress"), expect: Expect::Any, value: Some(Bytes::from_static(b"{}")), lease: 0 };
    if let Err(error) = inner.storage.commit(&[write]).await {
        tracing::debug!(%error, "progress key not written");
    }
}

/// Applies a batch and whatever else has already arrived, then publishes the revision and wakes the watchers once.
fn apply_ready<'a>(inner: &Inner, changes: impl Iterator<Item = Change<'a>>, watch: &mut Watch) -> Option<End> {
    let mut woken = Vec::new();
    let mut last = inner.apply(changes, &mut woken);
    let mut end = None;
    for _ in 1..TOGETHER {
        match watch.next().now_or_never() {
            Some(Ok(batch)) => last = last.max(inner.apply(batch.changes(), &mut woken)),
            Some(Err(error)) => {
                end = Some(ended(&error));
                break;
            }
            None => break,
        }
    }
    inner.publish(last);
    for ring in woken {
        ring.wake();
    }
    end
}

impl Inner {
    /// The table that a key belongs to, and what follows its prefix.
    fn find<'k>(&self, key: &'k str) -> Option<(Arc<Table>, &'k str)> {
        let below = key.strip_prefix(PREFIX)?;
        // A prefix is one segment (`pods/`) or two (`services/specs/`).
        let first = PREFIX.len() + below.find('/')? + 1;
        let second = key[first..].find('/').map(|i| first + i + 1);
        let known = [Some(first), second].into_iter().flatten().find_map(|cut| self.tables.get(&key[..cut]).map(|t| (t.clone(), &key[cut..])));
        known.or_else(|| second.and_then(|cut| self.custom.read().get(&key[..cut]).map(|t| (t.clone(), &key[cut..]))))
    }

    /// Everything up to a revision is in the tables.
    fn publish(&self, revision: i64) {
        self.latest.store(revision, Ordering::Release);
        self.revision.send_replace(revision);
    }

    /// Applies changes to the tables. Returns the last revision.
    fn apply<'a>(&self, changes: impl Iterator<Item = Change<'a>>, woken: &mut Vec<Arc<Ring>>) -> i64 {
        let mut last = self.latest.load(Ordering::Acquire);
        for change in changes {
            last = last.max(change.revision);
            self.storage.shows(change.revision);
            if change.key.starts_with(CLAIMS) {
                match &change.value {
                    Some(value) => drop(self.claims.write().insert(change.key.to_owned(), owner(value))),
                    None => drop(self.claims.write().remove(change.key)),
                }
                continue;
            }
            let Some((table, tail)) = self.find(change.key) else { continue };
            let applied = self.applied(&table, &change);
            let weight = table.apply(tail, applied, woken);
            self.history.add(self, weight);
        }
        last
    }

    fn applied(&self, table: &Table, change: &Change<'_>) -> Applied {
        let bad = |reason: &str| Applied::Undecodable(Undecodable { key: change.key.to_owned(), reason: reason.to_owned() }, change.revision);
        let value = match &change.value {
            None => return Applied::Deleted(change.revision),
            Some(Err(reason)) => return bad(reason),
            Some(Ok(value)) => value,
        };
        let mut pending = self.pending.lock();
        if pending.get(change.key).is_some_and(|p| p.stored() == value)
            && let Some(prepared) = pending.remove(change.key)
        {
            drop(pending);
            return Applied::Put(prepared.at(change.revision));
        }
        drop(pending);
        let entry = match Entry::parse(table.resource, value, change.revision) {
            Ok(entry) => entry,
            Err(error) => return bad(&error.to_string()),
        };
        match check_key(table, change.key, &entry) {
            Ok(()) => Applied::Put(Arc::new(entry)),
            Err(undecodable) => Applied::Undecodable(undecodable, change.revision),
        }
    }
}

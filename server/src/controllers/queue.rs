//! The work queue: a key waits in it at most once, is never worked on twice at the same time, and comes back later after a failure
//! (`client-go/util/workqueue`).
//!
//! Owns what is waiting and when it is due. Costs nothing while nothing is due.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Error;
use crate::informers::Watchable;

/// First delay after a failure; each further one doubles it.
const BACKOFF_BASE: Duration = Duration::from_millis(5);
/// Longest delay after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(1000);
/// Longest delay: users may ask for any number of seconds, and the clock does not reach as far.
const DELAY_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Namespace (empty for cluster-scoped kinds) and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Never empty.
    pub name: String,
}

impl Key {
    /// From its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }
    /// The key of an object.
    pub fn of<K: Watchable>(object: &K) -> Self {
        let meta = object.metadata();
        Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// What can wait in a queue.
pub trait Item: Clone + Eq + Hash + std::fmt::Debug + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + std::fmt::Debug + Send + Sync + 'static> Item for T {}

struct Resync<T> {
    every: Duration,
    next: Instant,
    all: Arc<dyn Fn() -> Vec<T> + Send + Sync>,
}

struct State<T> {
    ready: VecDeque<T>,
    /// In `ready`, or to be put there when the work under way on it is done.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    resync: Option<Resync<T>>,
}

struct Inner<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

/// A work queue. Clones share it.
pub struct Queue<T>(Arc<Inner<T>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue(self.0.clone())
    }
}

impl<T: Item> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Item> Queue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            resync: None,
        };
        Queue(Arc::new(Inner { state: Mutex::new(state), wake: Notify::new() }))
    }

    /// Asks for work on a key, now.
    pub fn add(&self, item: T) {
        if self.0.state.lock().add(item) {
            self.0.wake.notify_one();
        }
    }

    /// Asks for work on a key after a delay; the earliest of several requests counts.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        if self.0.state.lock().add_at(item, Instant::now() + delay.min(DELAY_MAX)) {
            self.0.wake.notify_one();
        }
    }

    /// Asks for work on a key after a delay that doubles with each call since [`Self::forget`].
    pub fn add_rate_limited(&self, item: T) {
        let delay = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(item.clone()).or_default();
            let delay = backoff(*failures);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(item, delay);
    }

    /// Starts the delays of a key afresh.
    pub fn forget(&self, item: &T) {
        self.0.state.lock().failures.remove(item);
    }

    /// How often work on a key has failed in a row.
    pub fn failures(&self, item: &T) -> u32 {
        self.0.state.lock().failures.get(item).copied().unwrap_or_default()
    }

    /// Queues everything `all` returns every now and then, as a net under missed events.
    pub fn set_resync(&self, every: Duration, all: impl Fn() -> Vec<T> + Send + Sync + 'static) {
        // Spread over the second half of the period, so that the controllers' resyncs do not fall together.
        let next = Instant::now() + every.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.0.state.lock().resync = Some(Resync { every, next, all: Arc::new(all) });
    }

    /// Nothing waits, nothing is under way; what is delayed does not count.
    pub fn is_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.ready.is_empty() && state.processing.is_empty()
    }

    fn take(&self) -> Option<T> {
        let mut state = self.0.state.lock();
        state.promote(Instant::now());
        let item = state.ready.pop_front()?;
        state.dirty.remove(&item);
        state.processing.insert(item.clone());
        Some(item)
    }

    fn done(&self, item: &T) {
        let mut state = self.0.state.lock();
        state.processing.remove(item);
        if state.dirty.contains(item) {
            state.ready.push_back(item.clone());
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let state = self.0.state.lock();
        let delayed = state.delayed.first_key_value().map(|((at, _), _)| *at);
        let resync = state.resync.as_ref().map(|r| r.next);
        delayed.into_iter().chain(resync).min()
    }

    /// Works on up to `workers` keys at once, for ever. A failed key comes back after its backoff.
    pub async fn run<F, Fut>(self, name: &str, workers: usize, handler: F)
    where
        F: Fn(T) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < workers
                && let Some(item) = self.take()
            {
                let work = handler(item.clone());
                running.push(async move { (item, work.await) });
            }
            // A due key cannot be taken while every worker is busy: then only an end of work matters.
            let due = if running.len() < workers { self.next_due() } else { None };
            tokio::select! {
                Some((item, result)) = running.next(), if !running.is_empty() => {
                    match result {
                        Ok(()) => self.forget(&item),
                        Err(error) => {
                            let failures = self.failures(&item);
                            if error.is_conflict() || failures < 3 {
                                tracing::debug!(controller = name, ?item, %error, "reconcile failed, will retry");
                            } else {
                                tracing::warn!(controller = name, ?item, %error, failures, "reconcile failed, will retry");
                            }
                            self.add_rate_limited(item.clone());
                        }
                    }
                    self.done(&item);
                }
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }
}

impl<T: Item> State<T> {
    /// Returns whether a worker has something new to do.
    fn add(&mut self, item: T) -> bool {
        if let Some(slot) = self.due.remove(&item) {
            self.delayed.remove(&slot);
        }
        if !self.dirty.insert(item.clone()) || self.processing.contains(&item) {
            return false;
        }
        self.ready.push_back(item);
        true
    }

    fn add_at(&mut self, item: T, at: Instant) -> bool {
        if let Some(slot) = self.due.get(&item).copied() {
            if slot.0 <= at {
                return false;
            }
            self.delayed.remove(&slot);
        }
        self.sequence += 1;
        let slot = (at, self.sequence);
        self.delayed.insert(slot, item.clone());
        self.due.insert(item, slot);
        // Only an earlier deadline than the one slept for needs the loop's attention.
        self.delayed.first_key_value().is_some_and(|(first, _)| *first == slot)
    }

    fn promote(&mut self, now: Instant) {
        while let Some((slot, item)) = self.delayed.first_key_value().map(|(slot, item)| (*slot, item.clone())) {
            if slot.0 > now {
                break;
            }
            self.delayed.remove(&slot);
            self.due.remove(&item);
            self.add(item);
        }
        let Some(resync) = &mut self.resync else { return };
        if resync.next <= now {
            resync.next = now + resync.every;
            let all = resync.all.clone();
            for item in all() {
                self.add(item);
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_BASE.saturating_mul(1u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn delays_double_up_to_the_cap() {
        assert_eq!(backoff(0), Duration::from_millis(5));
        assert_eq!(backoff(1), Duration::from_millis(10));
        assert_eq!(backoff(10), Duration::from_millis(5120));
        assert_eq!(backoff(18), BACKOFF_MAX);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn a_key_waits_once_and_is_never_worked_on_twice_at_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.take(), Some("a"));
        queue.add("a");
        assert_eq!(queue.take(), Some("b"));
        assert_eq!(queue.take(), None);
        queue.done(&"a");
        assert_eq!(queue.take(), Some("a"));
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!(queue.take(), None);
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_delays_counts() {
        let queue = Queue::new();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(20));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(queue.take(), Some("a"));
        queue.done(&"a");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(queue.take(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_delay_is_too_long() {
        let queue = Queue::new();
        queue.add_after("a", Duration::MAX);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(queue.take(), None);
        queue.add("a");
        assert_eq!(queue.take(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_key_is_retried_until_it_succeeds() {
        let (queue, calls) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        queue.add("a");
        let counter = calls.clone();
        let worker = queue.clone().run("test", 2, move |_| {
            let n = counter.fetch_add(1, Ordering::SeqCst);
            async move { if n < 4 { Err(Error::other("no")) } else { Ok(()) } }
        });
        let _ = tokio::time::timeout(Duration::from_secs(1), worker).await;
        assert_eq!(calls.load(Ordering::SeqCst), 5);
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_resync_brings_every_key_back() {
        let (queue, calls) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        queue.set_resync(Duration::from_secs(60), || vec!["a", "b"]);
        let counter = calls.clone();
        let worker = queue.clone().run("test", 1, move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        });
        let _ = tokio::time::timeout(Duration::from_secs(190), worker).await;
        let calls = calls.load(Ordering::SeqCst);
        assert!((6..=8).contains(&calls), "{calls}");
    }
}

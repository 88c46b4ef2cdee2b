//! The bounded event history: what watchers read from, and what lets a client resume.
//!
//! Watchers have no queues of their own. Each keeps a position in a ring that all of them share, so an idle watcher costs next to
//! nothing and a slow one costs nobody anything: when the ring has moved past its position, it is told that it is gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Event, Inner};

/// Bytes of history over all kinds.
const BYTES: usize = 32 << 20;
/// Events older than this are forgotten whatever their size: etcd's own history ends there too.
const AGE: Duration = Duration::from_secs(300);
/// Events of one kind, so that small objects do not make for long scans.
const EVENTS: usize = 1 << 16;

/// Events in order, with positions that never repeat.
pub(super) struct Ring {
    events: RwLock<Events>,
    /// The position after the last event; `u64::MAX` when the ring is closed.
    end: watch::Sender<u64>,
}

struct Events {
    queue: VecDeque<(Arc<Event>, usize, Instant)>,
    /// Position of the first event in the queue.
    first: u64,
    weight: usize,
}

const CLOSED: u64 = u64::MAX;

impl Ring {
    pub(super) fn new() -> Self {
        Ring { events: RwLock::new(Events { queue: VecDeque::new(), first: 0, weight: 0 }), end: watch::Sender::new(0) }
    }

    /// Adds an event; watchers sleep on until [`Self::wake`].
    pub(super) fn push(&self, event: Arc<Event>, weight: usize) {
        let mut events = self.events.write();
        events.weight += weight;
        events.queue.push_back((event, weight, Instant::now()));
    }

    /// Wakes the watchers.
    pub(super) fn wake(&self) {
        let events = self.events.read();
        let end = events.first + events.queue.len() as u64;
        drop(events);
        self.end.send_if_modified(|e| {
            *e != CLOSED && *e != end && {
                *e = end;
                true
            }
        });
    }

    /// Ends all watchers.
    pub(super) fn close(&self) {
        self.end.send_replace(CLOSED);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    pub(super) fn watchers(&self) -> usize {
        self.end.receiver_count()
    }

    /// Removes the oldest event.
    pub(super) fn pop(&self) -> Option<Arc<Event>> {
        let mut events = self.events.write();
        let (event, weight, _) = events.queue.pop_front()?;
        events.first += 1;
        events.weight -= weight;
        Some(event)
    }

    pub(super) fn weight(&self) -> usize {
        self.events.read().weight
    }

    pub(super) fn last_revision(&self) -> Option<i64> {
        self.events.read().queue.back().map(|(e, ..)| e.revision())
    }

    /// The position of the first event after a revision.
    pub(super) fn position_after(&self, revision: i64) -> u64 {
        let events = self.events.read();
        events.first + events.queue.partition_point(|(e, ..)| e.revision() <= revision) as u64
    }

    /// The events after a revision; `None` when the ring is closed.
    pub(super) fn after(&self, revision: i64) -> Option<Vec<Arc<Event>>> {
        if *self.end.borrow() == CLOSED {
            return None;
        }
        let events = self.events.read();
        let from = events.queue.partition_point(|(e, ..)| e.revision() <= revision);
        Some(events.queue.range(from..).map(|(e, ..)| e.clone()).collect())
    }

    /// Events from a position on, at most about `limit`, appended to `into`; whole revisions. Returns the new position, `None` when the
    /// ring has moved past the position or is closed.
    pub(super) fn read(&self, position: u64, limit: usize, into: &mut Vec<Arc<Event>>) -> Option<u64> {
        if *self.end.borrow() == CLOSED {
            return None;
        }
        let events = self.events.read();
        let skip = usize::try_from(position.checked_sub(events.first)?).unwrap_or(usize::MAX);
        let mut taken = 0;
        for (event, ..) in events.queue.range(skip.min(events.queue.len())..) {
            if taken >= limit && into.last().is_some_and(|last| last.revision() != event.revision()) {
                break;
            }
            into.push(event.clone());
            taken += 1;
        }
        Some(position + taken as u64)
    }

    fn too_old(&self, now: Instant) -> bool {
        self.events.read().queue.front().is_some_and(|(.., at)| now.duration_since(*at) > AGE)
    }

    fn len(&self) -> usize {
        self.events.read().queue.len()
    }
}

/// Keeps the sum of all rings bounded.
#[derive(Default)]
pub(super) struct Budget {
    used: AtomicUsize,
}

impl Budget {
    /// Accounts for new events and, when there are too many bytes, lets the kind that holds most forget an eighth of the budget.
    pub(super) fn add(&self, inner: &Inner, weight: usize) {
        if self.used.fetch_add(weight, Ordering::Relaxed) + weight <= BYTES {
            return;
        }
        if let Some(largest) = inner.all_tables().into_iter().max_by_key(|t| t.history_weight()) {
            let target = largest.history_weight().saturating_sub(BYTES / 8);
            let freed = largest.forget(|ring| ring.weight() <= target);
            self.used.fetch_sub(freed.min(self.used.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }

    /// Starts counting again after all rings were replaced.
    pub(super) fn recount(&self, inner: &Inner) {
        self.used.store(inner.all_tables().iter().map(|t| t.history_weight()).sum(), Ordering::Relaxed);
    }
}

/// Forgets what is too old, once a minute.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(60));
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for table in inner.all_tables() {
            table.forget(|ring| !ring.too_old(now) && ring.len() <= EVENTS);
        }
        inner.history.recount(&inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Entry;

    fn event(revision: i64) -> Arc<Event> {
        let entry = Entry {
            namespace: "".into(),
            name: "n".into(),
            revision,
            labels: Box::default(),
            fields: Box::default(),
            bytes: bytes::Bytes::new(),
            version_at: 0,
            shown: Default::default(),
        };
        Arc::new(Event::new(Arc::new(entry), None, false))
    }

    #[test]
    fn a_read_never_splits_a_revision() {
        let ring = Ring::new();
        for revision in [5, 6, 6, 6, 7] {
            ring.push(event(revision), 1);
        }
        let mut got = Vec::new();
        let next = ring.read(ring.position_after(0), 2, &mut got).unwrap();
        assert_eq!(got.iter().map(|e| e.revision()).collect::<Vec<_>>(), [5, 6, 6, 6]);
        got.clear();
        assert_eq!(ring.read(next, 2, &mut got), Some(5));
        assert_eq!(got.len(), 1);
    }

    #[test]
    fn a_reader_that_the_ring_has_moved_past_is_told() {
        let ring = Ring::new();
        ring.push(event(1), 1);
        ring.push(event(2), 1);
        let position = ring.position_after(0);
        ring.pop();
        assert_eq!(ring.read(position, 10, &mut Vec::new()), None);
        assert!(ring.read(ring.position_after(1), 10, &mut Vec::new()).is_some());
        ring.close();
        assert_eq!(ring.read(ring.position_after(1), 10, &mut Vec::new()), None);
    }
}

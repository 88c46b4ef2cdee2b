//! The objects of one kind, in the order of their etcd keys, with the events that led there.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::history::Ring;
use super::{Entry, Event, Undecodable};
use crate::registry::Resource;

/// What a watcher wants to be woken for; the narrower, the fewer wakeups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// Every object of the kind.
    All,
    /// The objects of a namespace.
    Namespace(Box<str>),
    /// One object, by namespace and name.
    Object(Box<str>, Box<str>),
    /// Objects whose selectable field (its index in `Resource::fields`) has a value, or had it before the change.
    Field(usize, Box<str>),
}

impl Interest {
    fn wants(&self, event: &Event) -> bool {
        let (entry, previous) = (&event.entry, event.previous.as_ref());
        match self {
            Interest::All => true,
            Interest::Namespace(namespace) => entry.namespace == *namespace,
            Interest::Object(namespace, name) => entry.namespace == *namespace && entry.name == *name,
            Interest::Field(index, value) => {
                let has = |e: &Entry| e.fields.get(*index).is_some_and(|f| f == value);
                has(entry) || previous.is_some_and(|p| has(p))
            }
        }
    }
}

/// Objects as they were at one revision.
pub struct Snapshot {
    /// The objects, in the order of their keys.
    pub objects: Vec<Arc<Entry>>,
    /// The revision they belong to.
    pub revision: i64,
}

/// A watcher's place in a ring.
pub(super) struct Joined {
    pub ring: Arc<Ring>,
    pub end: watch::Receiver<u64>,
    pub position: u64,
}

impl Joined {
    fn new(ring: &Arc<Ring>, after: i64) -> Self {
        Joined { end: ring.subscribe(), position: ring.position_after(after), ring: ring.clone() }
    }
}

pub(super) struct Table {
    pub(super) resource: &'static Resource,
    state: RwLock<State>,
}

struct State {
    /// By what follows the prefix in the key, so that the order is etcd's.
    objects: Objects,
    /// Keys that cannot be read.
    undecodable: BTreeMap<Box<str>, Undecodable>,
    /// Every event after `floor` is in here.
    all: Arc<Ring>,
    floor: i64,
    /// The contents were read at this revision: changes up to it are in them.
    read_at: i64,
    /// The same events again, sorted by who wants them; a ring lives as long as it has watchers.
    narrow: HashMap<Interest, Arc<Ring>>,
    /// What has happened while the table's first contents are still being read; `None` once they are there.
    early: Option<Vec<(Box<str>, Applied)>>,
}

impl Table {
    pub(super) fn new(resource: &'static Resource) -> Self {
        Table { resource, state: RwLock::new(State::new(BTreeMap::new(), BTreeMap::new(), i64::MAX)) }
    }

    /// A table whose contents are still to be read, by [`Self::loaded`].
    pub(super) fn loading(resource: &'static Resource) -> Self {
        let table = Table::new(resource);
        table.state.write().early = Some(Vec::new());
        table
    }

    /// Ends a table's loading: its contents at a revision, and what has happened since. Nothing if they came another way meanwhile.
    pub(super) fn loaded(&self, objects: Objects, undecodable: BTreeMap<Box<str>, Undecodable>, revision: i64) {
        let mut woken = Vec::new();
        {
            let mut state = self.state.write();
            let Some(early) = state.early.take() else { return };
            *state = State::new(objects, undecodable, revision);
            for (tail, change) in early {
                state.apply(&tail, change, &mut woken);
            }
        }
        woken.iter().for_each(|ring| ring.wake());
    }

    /// Ends all watchers.
    pub(super) fn close(&self) {
        self.state.read().close();
    }

    fn tail(&self, namespace: &str, name: &str) -> String {
        if self.resource.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    pub(super) fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, Undecodable> {
        let tail = self.tail(namespace, name);
        let state = self.state.read();
        if let Some(bad) = state.undecodable.get(tail.as_str()) {
            return Err(bad.clone());
        }
        Ok(state.objects.get(tail.as_str()).cloned())
    }

    pub(super) fn undecodable(&self, namespace: &str) -> Option<Undecodable> {
        let state = self.state.read();
        let prefix = self.prefix(namespace);
        range(&state.undecodable, &prefix, "").next().map(|(_, bad)| bad.clone())
    }

    fn prefix(&self, namespace: &str) -> String {
        if self.resource.namespaced && !namespace.is_empty() { format!("{namespace}/") } else { String::new() }
    }

    /// Objects of a namespace (`""`: all) whose key's tail is at or after `from`; `at` an earlier revision when the history still reaches
    /// back there. The revision of the answer says which one it became.
    pub(super) fn snapshot(&self, namespace: &str, from: &str, at: Option<i64>, now: impl FnOnce() -> i64) -> Result<Snapshot, Undecodable> {
        let prefix = self.prefix(namespace);
        let state = self.state.read();
        if let Some((_, bad)) = range(&state.undecodable, &prefix, "").next() {
            return Err(bad.clone());
        }
        let objects = || range(&state.objects, &prefix, from).map(|(_, e)| e.clone());
        // Read under the lock: what is published is in the table, and what is not may be; undo the latter too.
        let revision = at.unwrap_or_else(now);
        let since = state.all.after(revision);
        if revision < state.floor || since.is_none() {
            // The caller asked for what is gone: it sees the present and that it is the present.
            let revision = state.all.last_revision().unwrap_or(state.floor);
            return Ok(Snapshot { objects: objects().collect(), revision });
        }
        let since = since.unwrap_or_default();
        if since.is_empty() {
            return Ok(Snapshot { objects: objects().collect(), revision });
        }
        let mut changed: BTreeMap<Box<str>, Option<Arc<Entry>>> = BTreeMap::new();
        for event in &since {
            let tail = self.tail(&event.entry.namespace, &event.entry.name).into_boxed_str();
            if tail.starts_with(prefix.as_str()) && *tail >= *from {
                changed.entry(tail).or_insert_with(|| event.previous.clone());
            }
        }
        let mut merged: BTreeMap<&str, &Arc<Entry>> = range(&state.objects, &prefix, from).map(|(k, e)| (&**k, e)).collect();
        for (tail, before) in &changed {
            match before {
                Some(entry) => merged.insert(tail, entry),
                None => merged.remove(&**tail),
            };
        }
        Ok(Snapshot { objects: merged.into_values().cloned().collect(), revision })
    }

    /// Replaces everything, as it is at a revision. Watchers end: what happened in between is not known.
    pub(super) fn replace(&self, objects: Objects, undecodable: BTreeMap<Box<str>, Undecodable>, revision: i64) {
        let mut state = self.state.write();
        state.close();
        *state = State::new(objects, undecodable, revision);
    }

    /// Applies one change; `woken` collects the rings that got an event.
    pub(super) fn apply(&self, tail: &str, change: Applied, woken: &mut Vec<Arc<Ring>>) -> usize {
        let mut state = self.state.write();
        if let Some(early) = &mut state.early {
            early.push((tail.into(), change));
            return 0;
        }
        state.apply(tail, change, woken)
    }

    /// A place in the ring for an interest, which is made from the whole history for its first watcher; `None` when the history does not
    /// reach back to the revision.
    pub(super) fn join(&self, interest: &Interest, after: i64) -> Option<Joined> {
        if *interest == Interest::All {
            let state = self.state.read();
            return (after >= state.floor).then(|| Joined::new(&state.all, after));
        }
        let mut state = self.state.write();
        if after < state.floor {
            return None;
        }
        if !state.narrow.contains_key(interest) {
            let ring = Ring::new();
            for event in state.all.after(i64::MIN).unwrap_or_default() {
                if interest.wants(&event) {
                    ring.push(event, 0);
                }
            }
            state.narrow.insert(interest.clone(), Arc::new(ring));
        }
        state.narrow.get(interest).map(|ring| Joined::new(ring, after))
    }

    /// A watcher of an interest has ended; its ring goes with the last one.
    pub(super) fn leave(&self, interest: &Interest, ring: &Arc<Ring>) {
        if *interest == Interest::All {
            return;
        }
        let mut state = self.state.write();
        // Watchers join under the same lock, so the leaving one is the last if it is alone.
        if ring.watchers() <= 1 && state.narrow.get(interest).is_some_and(|r| Arc::ptr_eq(r, ring)) {
            state.narrow.remove(interest);
        }
    }

    /// Watches can start after this revision or a later one.
    pub(super) fn floor(&self) -> i64 {
        self.state.read().floor
    }

    /// Bytes that the history holds on to.
    pub(super) fn history_weight(&self) -> usize {
        self.state.read().all.weight()
    }

    /// Forgets the oldest events until `enough` says so of what is left. Returns the bytes freed.
    pub(super) fn forget(&self, enough: impl Fn(&Ring) -> bool) -> usize {
        let mut state = self.state.write();
        let before = state.all.weight();
        while !enough(&state.all) {
            let Some(event) = state.all.pop() else { break };
            state.floor = state.floor.max(event.revision());
            for ring in state.wanting(&event).iter().skip(1) {
                ring.pop();
            }
        }
        before - state.all.weight()
    }
}

/// Objects by what follows their kind's prefix in their keys.
pub(super) type Objects = BTreeMap<Box<str>, Arc<Entry>>;

impl State {
    fn new(objects: Objects, undecodable: BTreeMap<Box<str>, Undecodable>, floor: i64) -> Self {
        let read_at = if floor == i64::MAX { 0 } else { floor };
        State { objects, undecodable, all: Arc::new(Ring::new()), floor, read_at, narrow: HashMap::new(), early: None }
    }

    fn close(&self) {
        for ring in self.narrow.values().chain([&self.all]) {
            ring.close();
        }
    }

    fn apply(&mut self, tail: &str, change: Applied, woken: &mut Vec<Arc<Ring>>) -> usize {
        // A table that was read on its own may be ahead of the watch.
        if change.revision() <= self.read_at {
            return 0;
        }
        let event = match change {
            Applied::Put(entry) => {
                self.undecodable.remove(tail);
                let previous = self.objects.insert(tail.into(), entry.clone());
                Event::new(entry, previous, false)
            }
            Applied::Deleted(revision) => {
                self.undecodable.remove(tail);
                let Some(previous) = self.objects.remove(tail) else { return 0 };
                Event::new(Arc::new(previous.at(revision)), Some(previous), true)
            }
            Applied::Undecodable(bad, revision) => {
                // Nobody may take the object for deleted, nor miss that it changed: watchers end, and listing fails until it is mended.
                self.objects.remove(tail);
                self.undecodable.insert(tail.into(), bad);
                self.close();
                self.all = Arc::new(Ring::new());
                self.narrow.clear();
                self.floor = revision;
                return 0;
            }
        };
        let event = Arc::new(event);
        let weight = event.entry.weight();
        for ring in self.wanting(&event) {
            ring.push(event.clone(), weight);
            if !woken.iter().any(|w| Arc::ptr_eq(w, &ring)) {
                woken.push(ring);
            }
        }
        weight
    }

    /// The rings that want an event, the one for all first.
    fn wanting(&self, event: &Event) -> Vec<Arc<Ring>> {
        let mut rings = vec![self.all.clone()];
        if self.narrow.is_empty() {
            return rings;
        }
        let mut add = |interest: Interest| {
            if let Some(ring) = self.narrow.get(&interest)
                && !rings.iter().any(|r| Arc::ptr_eq(r, ring))
            {
                rings.push(ring.clone());
            }
        };
        let entry = &event.entry;
        add(Interest::Namespace(entry.namespace.clone()));
        add(Interest::Object(entry.namespace.clone(), entry.name.clone()));
        for state in [Some(entry), event.previous.as_ref()].into_iter().flatten() {
            for (index, value) in state.fields.iter().enumerate() {
                add(Interest::Field(index, value.clone()));
            }
        }
        rings
    }
}

/// A change as the table takes it.
pub(super) enum Applied {
    /// Created or replaced.
    Put(Arc<Entry>),
    /// Deleted at this revision.
    Deleted(i64),
    /// Written at this revision with a value that cannot be read.
    Undecodable(Undecodable, i64),
}

impl Applied {
    fn revision(&self) -> i64 {
        match self {
            Applied::Put(entry) => entry.revision,
            Applied::Deleted(revision) | Applied::Undecodable(_, revision) => *revision,
        }
    }
}

/// What lies below a prefix, at or after `from`.
fn range<'a, V>(map: &'a BTreeMap<Box<str>, V>, prefix: &'a str, from: &str) -> impl Iterator<Item = (&'a Box<str>, &'a V)> {
    let start = if from > prefix { from } else { prefix };
    map.range::<str, _>((Bound::Included(start), Bound::Unbounded)).take_while(move |(k, _)| k.starts_with(prefix))
}

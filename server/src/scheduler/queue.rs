//! Pods that wait for a node (`pkg/scheduler/backend/queue/scheduling_queue.go`).
//!
//! Owns which pod is next and when a refused pod is tried again. Pure: time is given to it, events come in by [`Queue::event`].

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::event::ClusterEvent;
use super::plugins::PLUGINS;
use super::pod_info::PodInfo;

/// First wait of a pod that could not be placed; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A refused pod that no event concerns is tried again after this.
const FLUSH: Duration = Duration::from_secs(300);

/// Where a pod is in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Next, by priority and then age; the number is its turn.
    Active { priority: i32, turn: u64 },
    /// Waits until this instant; after an error even when nothing else is to be done.
    Backoff { until: Instant, error: bool },
    /// Refused; waits for an event.
    Unschedulable { since: Instant },
    /// Its gates keep it out.
    Gated,
    /// Being decided or bound.
    InFlight,
}

struct Entry {
    pod: Arc<PodInfo>,
    state: State,
    attempts: u32,
    /// Plugins that refused it; none means that any event may help.
    plugins: BTreeSet<&'static str>,
    failed: Option<Instant>,
}

impl Entry {
    fn backoff_until(&self) -> Option<Instant> {
        let shift = self.attempts.saturating_sub(1).min(16);
        self.failed.map(|at| at + (FIRST_BACKOFF * (1 << shift)).min(LONGEST_BACKOFF))
    }
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    entries: HashMap<Arc<str>, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, Arc<str>)>,
    backoff: BTreeSet<(Instant, Arc<str>)>,
    unschedulable: BTreeSet<(Instant, Arc<str>)>,
    turn: u64,
}

impl Queue {
    /// A new pod, or a newer state of one that waits. A pod being decided only gets its new state.
    pub fn upsert(&mut self, pod: Arc<PodInfo>, now: Instant, cluster: &Cluster) {
        let key = pod.key.clone();
        let Some(entry) = self.entries.get_mut(&key) else {
            let entry = Entry { pod: pod.clone(), state: State::Gated, attempts: 0, plugins: BTreeSet::new(), failed: None };
            self.entries.insert(key.clone(), entry);
            if !pod.gated() {
                self.activate(&key);
            }
            return;
        };
        let old = std::mem::replace(&mut entry.pod, pod.clone());
        let changed = old.pod.spec != pod.pod.spec || old.class != pod.class;
        match entry.state {
            State::Gated if !pod.gated() => self.activate(&key),
            State::Active { .. } if old.priority != pod.priority => self.activate(&key),
            State::Unschedulable { .. } if changed => self.consider(&key, &ClusterEvent::PodChanged, now, cluster),
            _ => {}
        }
    }

    /// A pod that waits, or is being decided.
    pub fn get(&self, key: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(key).map(|e| &e.pod)
    }

    /// Forgets a pod: it is gone, or placed.
    pub fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.unlist(&entry.pod, &entry.state);
        }
    }

    /// The next pod to decide. Pods in backoff that an event has called are taken early when there is nothing else to do.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.tick(now);
        let key = match self.active.first() {
            Some((_, _, key)) => key.clone(),
            None => self.backoff.iter().map(|(_, key)| key).find(|key| self.is_early(key)).cloned()?,
        };
        self.set(&key, State::InFlight);
        let entry = self.entries.get_mut(&key)?;
        entry.attempts += 1;
        Some(entry.pod.clone())
    }

    fn is_early(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|e| matches!(e.state, State::Backoff { error: false, .. }))
    }

    /// Whether [`Self::pop`] would give a pod.
    pub fn is_ready(&self, now: Instant) -> bool {
        !self.active.is_empty() || self.backoff.iter().any(|(until, key)| *until <= now || self.is_early(key))
    }

    /// The pod being decided was refused by these plugins.
    pub fn refused(&mut self, key: &str, plugins: BTreeSet<&'static str>, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.plugins = plugins;
            entry.failed = Some(now);
            let state = if entry.pod.gated() { State::Gated } else { State::Unschedulable { since: now } };
            self.set(key, state);
        }
    }

    /// Placing the pod failed for no fault of its own; it is tried again after its backoff.
    pub fn failed(&mut self, key: &str, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failed = Some(now);
            let until = entry.backoff_until().unwrap_or(now);
            self.set(key, State::Backoff { until, error: true });
        }
    }

    /// Calls the refused pods that an event may let in.
    pub fn event(&mut self, event: &ClusterEvent, now: Instant, cluster: &Cluster) {
        let waiting: Vec<Arc<str>> = self.unschedulable.iter().map(|(_, key)| key.clone()).collect();
        for key in waiting {
            self.consider(&key, event, now, cluster);
        }
    }

    /// Calls one refused pod whatever refused it.
    pub fn call(&mut self, key: &str, now: Instant) {
        let Some(entry) = self.entries.get(key).filter(|e| matches!(e.state, State::Unschedulable { .. })) else { return };
        match entry.backoff_until().filter(|until| *until > now) {
            Some(until) => self.set(key, State::Backoff { until, error: false }),
            None => self.activate(&entry.pod.key.clone()),
        }
    }

    fn consider(&mut self, key: &str, event: &ClusterEvent, now: Instant, cluster: &Cluster) {
        let Some(entry) = self.entries.get(key) else { return };
        let hinted = || PLUGINS.iter().any(|p| entry.plugins.contains(p.name()) && p.worth_retrying(event, &entry.pod, cluster));
        if entry.plugins.is_empty() || hinted() {
            self.call(key, now);
        }
    }

    /// Moves what has waited long enough.
    pub fn tick(&mut self, now: Instant) {
        while let Some((until, key)) = self.backoff.first().cloned().filter(|(until, _)| *until <= now) {
            self.backoff.remove(&(until, key.clone()));
            self.activate(&key);
        }
        while let Some((since, key)) = self.unschedulable.first().cloned().filter(|(since, _)| *since + FLUSH <= now) {
            self.unschedulable.remove(&(since, key.clone()));
            self.activate(&key);
        }
    }

    /// When [`Self::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let flush = self.unschedulable.first().map(|(since, _)| *since + FLUSH);
        backoff.into_iter().chain(flush).min()
    }

    fn activate(&mut self, key: &Arc<str>) {
        self.turn += 1;
        let priority = self.entries.get(key).map_or(0, |e| e.pod.priority);
        self.set(key, State::Active { priority, turn: self.turn });
    }

    fn set(&mut self, key: &str, state: State) {
        let Some(mut entry) = self.entries.remove(key) else { return };
        self.unlist(&entry.pod, &entry.state);
        let key = entry.pod.key.clone();
        match &state {
            State::Active { priority, turn } => {
                self.active.insert((Reverse(*priority), *turn, key.clone()));
            }
            State::Backoff { until, .. } => {
                self.backoff.insert((*until, key.clone()));
            }
            State::Unschedulable { since } => {
                self.unschedulable.insert((*since, key.clone()));
            }
            State::Gated | State::InFlight => {}
        }
        entry.state = state;
        self.entries.insert(key, entry);
    }

    fn unlist(&mut self, pod: &Arc<PodInfo>, state: &State) {
        match state {
            State::Active { priority, turn } => {
                self.active.remove(&(Reverse(*priority), *turn, pod.key.clone()));
            }
            State::Backoff { until, .. } => {
                self.backoff.remove(&(*until, pod.key.clone()));
            }
            State::Unschedulable { since } => {
                self.unschedulable.remove(&(*since, pod.key.clone()));
            }
            State::Gated | State::InFlight => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{node, pod};
    use super::*;

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|p| p.name().to_owned()).collect()
    }

    fn refused_by_fit() -> BTreeSet<&'static str> {
        ["NodeResourcesFit"].into()
    }

    #[test]
    fn pods_come_by_priority_and_then_by_age() {
        let (mut queue, cluster, now) = (Queue::default(), Cluster::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.upsert(pod(name).priority(priority).info(), now, &cluster);
        }
        assert_eq!(names(&mut queue, now), ["b", "d", "a", "c"]);
    }

    #[test]
    fn a_refused_pod_waits_for_an_event_that_concerns_it() {
        let (mut queue, cluster, now) = (Queue::default(), Cluster::default(), Instant::now());
        queue.upsert(pod("a").cpu("5").info(), now, &cluster);
        queue.pop(now).unwrap();
        queue.refused("default/a", refused_by_fit(), now);
        assert!(queue.pop(now + Duration::from_secs(60)).is_none());
        queue.event(&ClusterEvent::NodeAdded(node("small").build()), now + Duration::from_secs(60), &cluster);
        assert!(queue.pop(now + Duration::from_secs(60)).is_none());
        queue.event(&ClusterEvent::NodeAdded(node("big").allocatable("cpu", "8").build()), now + Duration::from_secs(60), &cluster);
        assert!(queue.pop(now + Duration::from_secs(60)).is_some());
    }

    #[test]
    fn what_no_event_concerns_is_tried_again_after_five_minutes() {
        let (mut queue, cluster, now) = (Queue::default(), Cluster::default(), Instant::now());
        queue.upsert(pod("a").info(), now, &cluster);
        queue.pop(now).unwrap();
        queue.refused("default/a", refused_by_fit(), now);
        assert_eq!(queue.deadline(), Some(now + FLUSH));
        assert!(queue.pop(now + FLUSH - Duration::from_millis(1)).is_none());
        assert!(queue.pop(now + FLUSH).is_some());
    }

    #[test]
    fn errors_back_off_from_one_to_ten_seconds() {
        let (mut queue, cluster, mut now) = (Queue::default(), Cluster::default(), Instant::now());
        queue.upsert(pod("a").info(), now, &cluster);
        for seconds in [1, 2, 4, 8, 10, 10] {
            queue.pop(now).unwrap();
            queue.failed("default/a", now);
            assert_eq!(queue.deadline(), Some(now + Duration::from_secs(seconds)));
            assert!(!queue.is_ready(now));
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn a_called_pod_in_backoff_is_taken_early_when_nothing_else_waits() {
        let (mut queue, cluster, now) = (Queue::default(), Cluster::default(), Instant::now());
        queue.upsert(pod("a").info(), now, &cluster);
        queue.pop(now).unwrap();
        queue.refused("default/a", refused_by_fit(), now);
        queue.event(&ClusterEvent::PodShrunk, now, &cluster);
        queue.upsert(pod("b").info(), now, &cluster);
        assert_eq!(names(&mut queue, now), ["b", "a"]);
    }

    #[test]
    fn a_gated_pod_stays_out_until_its_gates_are_gone() {
        let (mut queue, cluster, now) = (Queue::default(), Cluster::default(), Instant::now());
        queue.upsert(pod("a").set("/spec/schedulingGates", serde_json::json!([{ "name": "g" }])).info(), now, &cluster);
        assert!(queue.pop(now).is_none());
        queue.upsert(pod("a").info(), now, &cluster);
        assert!(queue.pop(now).is_some());
    }

    #[test]
    fn a_removed_pod_is_in_no_list_any_more() {
        let (mut queue, cluster, now) = (Queue::default(), Cluster::default(), Instant::now());
        for name in ["a", "b", "c"] {
            queue.upsert(pod(name).info(), now, &cluster);
        }
        queue.pop(now).unwrap();
        queue.refused("default/a", refused_by_fit(), now);
        queue.pop(now).unwrap();
        queue.failed("default/b", now);
        for key in ["default/a", "default/b", "default/c"] {
            queue.remove(key);
        }
        assert!(!queue.is_ready(now + FLUSH));
        assert_eq!(queue.deadline(), None);
    }
}

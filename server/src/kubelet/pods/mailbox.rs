//! How the rest of the kubelet talks to a pod's worker: the newest pod, a nudge, and the wish to stop.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::kubelet::runtime::observe::Observed;
use crate::kubelet::status::Failure;

/// The mailbox of one worker. Every field has one writer: the dispatcher; `observed` is the worker's own, `evicted` the eviction's.
pub struct Mailbox {
    pod: Mutex<Arc<Pod>>,
    changed: Arc<Notify>,
    stopping: watch::Sender<Stopping>,
    observed: watch::Sender<Arc<Observed>>,
    evicted: Mutex<Option<Failure>>,
}

/// Whether and how the pod is to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopping {
    /// It has a deletion timestamp or no object any more.
    pub wanted: bool,
    /// Its object is gone from the API.
    pub gone: bool,
    /// Seconds, if the deletion named them.
    pub grace: Option<i64>,
}

impl Mailbox {
    /// A mailbox with its first letter.
    pub fn new(pod: Arc<Pod>) -> Self {
        let mailbox = Mailbox {
            stopping: watch::Sender::new(stopping(&pod, false)),
            pod: Mutex::new(pod),
            changed: Arc::new(Notify::new()),
            observed: watch::Sender::new(Arc::default()),
            evicted: Mutex::default(),
        };
        mailbox.nudge();
        mailbox
    }

    /// The newest pod.
    pub fn pod(&self) -> Arc<Pod> {
        self.pod.lock().clone()
    }

    /// Puts a newer pod in; `gone` if this was its last state.
    pub fn update(&self, pod: Arc<Pod>, gone: bool) {
        let wish = stopping(&pod, gone);
        *self.pod.lock() = pod;
        self.stopping.send_if_modified(|s| std::mem::replace(s, wish) != wish);
        self.nudge();
    }

    /// Makes the worker look at the runtime again.
    pub fn nudge(&self) {
        self.changed.notify_one();
    }

    /// Makes the worker end its pod.
    pub fn evict(&self, why: Failure) {
        self.evicted.lock().get_or_insert(why);
        self.nudge();
    }

    /// Why the pod is to be ended, if it is.
    pub fn evicted(&self) -> Option<Failure> {
        self.evicted.lock().clone()
    }

    /// Notified with every letter and nudge.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// Follows the wish to stop.
    pub fn stopping(&self) -> watch::Receiver<Stopping> {
        self.stopping.subscribe()
    }

    /// Publishes what the worker saw.
    pub fn saw(&self, observed: &Observed) {
        self.observed.send_replace(Arc::new(observed.clone()));
    }

    /// What the worker saw last.
    pub fn observed(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.subscribe()
    }
}

fn stopping(pod: &Pod, gone: bool) -> Stopping {
    let deleted = pod.metadata.deletion_timestamp.is_some();
    Stopping { wanted: deleted || gone, gone, grace: pod.metadata.deletion_grace_period_seconds.filter(|_| deleted) }
}

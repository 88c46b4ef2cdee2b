//! Pods of this node: one worker each, fed from the API's watch and the runtime's events.
//!
//! Owns the workers. A pod is known by its UID: another pod of the same name gets a worker of its own.

pub mod admit;
pub mod backoff;
pub mod container;
pub mod dns;
pub mod hooks;
pub mod kill;
pub mod mailbox;
pub mod orphans;
pub mod plan;
pub mod predicates;
pub mod report;
pub mod resize;
pub mod sandbox;
pub mod spec;
pub mod start;
pub mod storage;
pub mod terminate;
pub mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use self::mailbox::Mailbox;
use self::worker::Worker;
use super::Kubelet;
use crate::informers::Change;

/// The workers, by pod UID.
#[derive(Default)]
pub struct Workers {
    mailboxes: Mutex<HashMap<String, Arc<Mailbox>>>,
    /// UIDs of the pods that were taken on; one is decided about after the other.
    admitted: Mutex<HashSet<String>>,
}

impl Workers {
    /// Makes the worker of a pod look again.
    pub fn nudge(&self, uid: &str) {
        if let Some(mailbox) = self.mailboxes.lock().get(uid) {
            mailbox.nudge();
        }
    }

    /// The mailbox of a pod.
    pub fn get(&self, uid: &str) -> Option<Arc<Mailbox>> {
        self.mailboxes.lock().get(uid).cloned()
    }

    /// Decides whether a pod is taken on, knowing which ones were before it.
    pub fn admit<R>(&self, uid: &str, refuse: impl FnOnce(&HashSet<String>) -> Option<R>) -> Option<R> {
        let mut admitted = self.admitted.lock();
        let refused = refuse(&admitted);
        if refused.is_none() {
            admitted.insert(uid.to_owned());
        }
        refused
    }

    /// Every mailbox.
    pub fn all(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes.lock().values().cloned().collect()
    }
}

/// Gives every pod that the API assigns to this node its worker, for as long as it is polled.
pub async fn dispatch(kubelet: Arc<Kubelet>) {
    let mut changes = kubelet.pods.subscribe();
    while let Some(change) = changes.recv().await {
        match change {
            Change::Added(pod) => deliver(&kubelet, &pod, false),
            Change::Updated { old, new } => {
                if old.metadata.uid != new.metadata.uid {
                    // Deleted and made anew between two looks.
                    deliver(&kubelet, &old, true);
                }
                deliver(&kubelet, &new, false);
            }
            Change::Deleted(pod) => deliver(&kubelet, &pod, true),
        }
    }
}

fn deliver(kubelet: &Arc<Kubelet>, pod: &Arc<Pod>, gone: bool) {
    let uid = spec::uid(pod).to_owned();
    let mut mailboxes = kubelet.workers.mailboxes.lock();
    if let Some(mailbox) = mailboxes.get(&uid) {
        return mailbox.update(pod.clone(), gone);
    }
    if gone {
        return;
    }
    let mailbox = Arc::new(Mailbox::new(pod.clone()));
    mailboxes.insert(uid.clone(), mailbox.clone());
    drop(mailboxes);
    let (kubelet, name) = (kubelet.clone(), format!("pod/{}/{}", spec::namespace(pod), spec::name(pod)));
    kubelet.tasks.clone().spawn(name, async move {
        Worker::new(kubelet.clone(), mailbox).run().await;
        kubelet.workers.mailboxes.lock().remove(&uid);
        kubelet.workers.admitted.lock().remove(&uid);
    });
}

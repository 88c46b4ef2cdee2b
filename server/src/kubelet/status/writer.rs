//! Sends a pod's newest status to the API, one write at a time, newer ones superseding those still waiting.
//!
//! Owns the retry. Must never send a status for another pod of the same name: the UID is a precondition of every patch.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::patch::patch;
use crate::kubelet::pods::spec;

/// The status wanted for one pod and the one on record. Clones share both.
#[derive(Clone)]
pub struct StatusWriter {
    wanted: Arc<watch::Sender<Option<PodStatus>>>,
    written: Arc<watch::Sender<PodStatus>>,
    gone: Arc<Mutex<bool>>,
}

impl StatusWriter {
    /// Starts from the status the API has.
    pub fn new(pod: &Pod) -> Self {
        StatusWriter {
            wanted: Arc::new(watch::Sender::new(None)),
            written: Arc::new(watch::Sender::new(pod.status.clone().unwrap_or_default())),
            gone: Arc::default(),
        }
    }

    /// Asks for this status.
    pub fn set(&self, status: PodStatus) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&status);
            *wanted = Some(status);
            changed
        });
    }

    /// The last status written.
    pub fn written(&self) -> PodStatus {
        self.written.borrow().clone()
    }

    /// Waits until the newest status is on record, or the pod is gone.
    pub async fn flushed(&self, uid: &str) {
        let mut written = self.written.subscribe();
        loop {
            let wanted = self.wanted.borrow().clone();
            let settled = wanted.is_none_or(|w| patch(uid, &written.borrow_and_update(), &w).is_none());
            if settled || *self.gone.lock() || written.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends statuses for as long as it is polled.
    pub async fn run(&self, client: Client, pod: &Pod) {
        let api: Api<Pod> = Api::namespaced(client, spec::namespace(pod));
        let mut wanted = self.wanted.subscribe();
        let mut delay = Duration::from_millis(200);
        loop {
            let next = wanted.borrow_and_update().clone();
            let change = next.as_ref().and_then(|next| patch(spec::uid(pod), &self.written.borrow(), next));
            let (Some(change), Some(next)) = (change, next) else {
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match api.patch_status(spec::name(pod), &PatchParams::default(), &Patch::Strategic(&change)).await {
                Ok(_) => {
                    delay = Duration::from_millis(200);
                    self.written.send_replace(next);
                }
                // Another pod has the name by now, or none: nobody is left to tell.
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 && status.message.contains("UID") => {
                    *self.gone.lock() = true;
                    self.written.send_replace(next);
                }
                Err(error) => {
                    tracing::warn!(pod = %spec::title(pod), %error, "pod status not written");
                    // Let a newer status go at once; otherwise try this one again.
                    let _ = tokio::time::timeout(delay, wanted.changed()).await;
                    delay = (delay * 2).min(Duration::from_secs(10));
                }
            }
        }
    }
}

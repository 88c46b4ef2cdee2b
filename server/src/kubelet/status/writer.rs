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

/// What the API has, as far as is known here.
#[derive(Clone, Debug, Default, PartialEq)]
struct OnRecord {
    status: PodStatus,
    /// Resource version of the pod that has it; they grow (KEP-5504).
    version: u64,
}

impl OnRecord {
    fn of(pod: &Pod) -> Self {
        let version = pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        OnRecord { status: pod.status.clone().unwrap_or_default(), version }
    }
}

/// The patch that is to be sent, if any. A pod that has ended, whoever said so, does not come to life again.
fn change(uid: &str, written: &PodStatus, wanted: &PodStatus) -> Option<serde_json::Value> {
    let ended = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if ended(written) && !ended(wanted) { None } else { patch(uid, written, wanted) }
}

/// The status wanted for one pod and the one on record. Clones share both.
#[derive(Clone)]
pub struct StatusWriter {
    wanted: Arc<watch::Sender<Option<PodStatus>>>,
    written: Arc<watch::Sender<OnRecord>>,
    gone: Arc<Mutex<bool>>,
}

impl StatusWriter {
    /// Starts from the status the API has.
    pub fn new(pod: &Pod) -> Self {
        StatusWriter { wanted: Arc::new(watch::Sender::new(None)), written: Arc::new(watch::Sender::new(OnRecord::of(pod))), gone: Arc::default() }
    }

    /// Takes note of a pod as the API has it now. Where somebody else has written into fields that are the kubelet's, for instance
    /// the node controller when this node was silent, they are put right again (`needsReconcile` in `pkg/kubelet/status/status_manager.go`).
    pub fn reconcile(&self, pod: &Pod) {
        let seen = OnRecord::of(pod);
        self.written.send_if_modified(|written| {
            // An older state than the one just written is only late.
            if seen.version <= written.version {
                return false;
            }
            let differs = patch(spec::uid(pod), &seen.status, &written.status).is_some();
            *written = OnRecord { version: seen.version, ..if differs { seen } else { std::mem::take(written) } };
            differs
        });
    }

    /// Asks for this status.
    pub fn set(&self, status: PodStatus) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&status);
            *wanted = Some(status);
            changed
        });
    }

    /// The status on record.
    pub fn written(&self) -> PodStatus {
        self.written.borrow().status.clone()
    }

    /// Waits until the newest status is on record, or the pod is gone.
    pub async fn flushed(&self, uid: &str) {
        let mut written = self.written.subscribe();
        loop {
            let wanted = self.wanted.borrow().clone();
            let settled = wanted.is_none_or(|w| change(uid, &written.borrow_and_update().status, &w).is_none());
            if settled || *self.gone.lock() || written.changed().await.is_err() {
                return;
            }
        }
    }

    /// Notes that `status` was written, and which version of the pod has it; what is known of a newer version stays.
    fn wrote(&self, status: PodStatus, version: u64) {
        self.written.send_modify(|written| {
            if version == 0 || version >= written.version {
                *written = OnRecord { status, version: version.max(written.version) };
            }
        });
    }

    /// Sends statuses for as long as it is polled.
    pub async fn run(&self, client: Client, pod: &Pod) {
        let api: Api<Pod> = Api::namespaced(client, spec::namespace(pod));
        let (mut wanted, mut written) = (self.wanted.subscribe(), self.written.subscribe());
        let mut delay = Duration::from_millis(200);
        loop {
            let next = wanted.borrow_and_update().clone();
            let change = next.as_ref().and_then(|next| change(spec::uid(pod), &written.borrow_and_update().status, next));
            let (Some(change), Some(next)) = (change, next) else {
                let heard = tokio::select! {
                    heard = wanted.changed() => heard,
                    heard = written.changed() => heard,
                };
                if heard.is_err() {
                    return;
                }
                continue;
            };
            match api.patch_status(spec::name(pod), &PatchParams::default(), &Patch::Strategic(&change)).await {
                Ok(answer) => {
                    delay = Duration::from_millis(200);
                    self.wrote(next, OnRecord::of(&answer).version);
                }
                // Another pod has the name by now, or none: nobody is left to tell.
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 && status.message.contains("UID") => {
                    *self.gone.lock() = true;
                    self.wrote(next, 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(version: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u", "resourceVersion": version }, "status": { "phase": phase } })).unwrap()
    }

    #[test]
    fn what_others_write_is_noticed_and_what_is_late_is_not() {
        let writer = StatusWriter::new(&pod("5", "Pending"));
        let phase = |w: &StatusWriter| w.written().phase.unwrap_or_default();
        writer.wrote(pod("7", "Running").status.unwrap(), 7);
        writer.reconcile(&pod("6", "Pending"));
        assert_eq!(phase(&writer), "Running", "an event from before the last write");
        writer.reconcile(&pod("8", "Failed"));
        assert_eq!(phase(&writer), "Failed", "somebody else's write");
        writer.wrote(pod("7", "Running").status.unwrap(), 7);
        assert_eq!(phase(&writer), "Failed", "an answer that comes after a newer event");
        writer.wrote(pod("9", "Running").status.unwrap(), 9);
        assert_eq!(phase(&writer), "Running");
    }
}

//! The end of a pod: stop with grace, last status, volumes and cgroups away, object deleted, remains removed
//! (`SyncTerminatingPod` and `SyncTerminatedPod` in `pkg/kubelet/kubelet.go`).
//!
//! Every step can be repeated: a kubelet that is killed in between goes on from what the runtime shows.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::mailbox::Stopping;
use super::worker::{Next, Worker};
use super::{kill, sandbox, spec};
use crate::kubelet::runtime::RuntimeError;
use crate::kubelet::runtime::observe::Observed;
use crate::kubelet::{cgroups, volumes};

/// Time until another try to clean up or to delete the object.
const RETRY: Duration = Duration::from_secs(2);

impl Worker {
    /// One round for a pod that is not to run (any more).
    pub(super) async fn terminate(&mut self, pod: &Arc<Pod>, observed: Observed, stop: Stopping) -> Next {
        let mut observed = observed;
        if observed.is_alive() {
            self.publish(pod, &observed);
            self.probes.stop_restarts();
            // What still serves is to get its traffic, so readiness goes on being told.
            if let Err(error) = self.reporting(pod, &observed, self.kill(pod, &observed, stop)).await {
                return self.failed(pod, &error);
            }
            observed = match self.observe(pod).await {
                Ok(observed) => observed,
                Err(error) => return self.failed(pod, &error),
            };
            if observed.is_alive() {
                return Next::Wait(Some(Duration::from_millis(200)));
            }
        }
        // Nothing runs any more, so there is nothing left to ask, and the pod's address may be another's.
        self.probes.retain(|_| false);
        self.ended = true;
        if !stop.gone {
            self.publish(pod, &observed);
        }
        if let Err(error) = self.clean_up(pod).await {
            tracing::warn!(pod = %spec::title(pod), %error, "pod not cleaned up");
            return Next::Wait(Some(RETRY));
        }
        let stop = *self.mailbox.stopping().borrow();
        if !stop.wanted {
            // It has ended by itself: its logs stay until somebody deletes it.
            return Next::Wait(None);
        }
        if !stop.gone {
            self.writer.flushed(spec::uid(pod)).await;
            if let Err(error) = self.delete(pod).await {
                tracing::warn!(pod = %spec::title(pod), %error, "pod object not deleted");
                return Next::Wait(Some(RETRY));
            }
        }
        match self.remove(pod, &observed).await {
            Ok(()) => Next::Done,
            Err(error) => self.failed(pod, &error),
        }
    }

    /// Stops everything within the grace period; a shorter one that arrives meanwhile takes over.
    async fn kill(&self, pod: &Arc<Pod>, observed: &Observed, stop: Stopping) -> Result<(), RuntimeError> {
        let grace_of = |stop: Stopping| match stop.grace {
            Some(seconds) => kill::grace(seconds),
            // `immediateEvictionGracePeriodSeconds`
            None if self.mailbox.evicted().is_some() => kill::grace(1),
            None => kill::default_grace(pod),
        };
        let mut news = self.mailbox.stopping();
        let (mut grace, mut hooks) = (grace_of(stop), true);
        loop {
            let kill = kill::pod(&self.kubelet, pod, observed, grace, hooks);
            tokio::pin!(kill);
            let shorter = async {
                loop {
                    if news.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    let wanted = grace_of(*news.borrow_and_update());
                    if wanted < grace {
                        return wanted;
                    }
                }
            };
            tokio::select! {
                result = &mut kill => return result,
                wanted = shorter => {
                    grace = wanted;
                    hooks = false;
                }
            }
        }
    }

    /// Takes volumes and cgroups away.
    async fn clean_up(&mut self, pod: &Pod) -> Result<(), String> {
        if self.cleaned {
            return Ok(());
        }
        volumes::tear_down(&self.kubelet.pod_dir(spec::uid(pod))).await?;
        self.volumes = volumes::PodVolumes::default();
        let group = cgroups::pod_path(&self.kubelet.config.cgroup_root, pod);
        if let Err(error) = self.kubelet.cgroups.remove(&group) {
            // An empty directory that stays does no harm; it goes with the sandbox or at the next start.
            tracing::debug!(%group, %error, "cgroup not removed yet");
        }
        self.cleaned = true;
        Ok(())
    }

    /// Deletes the object, if it is still this pod.
    async fn delete(&self, pod: &Pod) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.kubelet.client.clone(), spec::namespace(pod));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(spec::name(pod), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes containers, sandboxes, logs and what is remembered.
    async fn remove(&mut self, pod: &Pod, observed: &Observed) -> Result<(), RuntimeError> {
        for container in observed.containers.iter().filter(|c| !c.sandbox_id.is_empty()) {
            self.kubelet.runtime.remove_container(&container.id).await?;
        }
        for sandbox in &observed.sandboxes {
            self.kubelet.runtime.stop_sandbox(&sandbox.id).await?;
            self.kubelet.runtime.remove_sandbox(&sandbox.id).await?;
        }
        let _ = tokio::fs::remove_dir_all(sandbox::log_directory(&self.kubelet.logs_dir(), pod)).await;
        let group = cgroups::pod_path(&self.kubelet.config.cgroup_root, pod);
        if let Err(error) = self.kubelet.cgroups.remove(&group) {
            tracing::debug!(%group, %error, "cgroup not removed");
        }
        self.kubelet.images.forget(spec::uid(pod));
        self.kubelet.index.forget(spec::uid(pod));
        Ok(())
    }
}

//! Stops a pod's containers with grace: preStop hook, stop signal, kill (`killContainer` in
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`).
//!
//! Main containers stop together, sidecars after them in reverse order, all within one grace period.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use super::report::ContainerReport;
use super::{container, hooks, spec};
use crate::events::Kind as EventKind;
use crate::kubelet::Kubelet;
use crate::kubelet::images::Report;
use crate::kubelet::probes::check::Target;
use crate::kubelet::runtime::RuntimeError;
use crate::kubelet::runtime::observe::{Container, Observed};

/// What a container gets at least after its hook (upstream: `minimumGracePeriodInSeconds`).
const MINIMUM: Duration = Duration::from_secs(2);

/// Stops one running container. `hook` says whether its preStop hook is to run.
pub async fn container(
    kubelet: &Kubelet,
    pod: &Arc<Pod>,
    running: &Container,
    grace: Duration,
    hook: bool,
    message: String,
) -> Result<(), RuntimeError> {
    let report = ContainerReport::new(kubelet, pod, &running.name);
    report.event(EventKind::Normal, "Killing", message);
    let started = Instant::now();
    let found = spec::container(pod, &running.name).filter(|(kind, _)| container::has_hooks(*kind));
    let handler = found.as_ref().and_then(|(_, c)| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.clone());
    if let (Some((_, spec)), Some(handler), true) = (found, handler, hook && !grace.is_zero()) {
        let target = Target {
            runtime: kubelet.runtime.clone(),
            container_id: running.id.clone(),
            container: Arc::new(spec),
            ip: kubelet.pod_ip(pod).unwrap_or(kubelet.config.node_ip),
        };
        match tokio::time::timeout(grace, hooks::run(&target, &handler)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => report.event(EventKind::Warning, "FailedPreStopHook", format!("PreStopHook failed: {error}")),
            Err(_) => tracing::info!(pod = %spec::title(pod), container = %running.name, "preStop hook not completed in grace period"),
        }
    }
    let left = grace.saturating_sub(started.elapsed());
    kubelet.runtime.stop_container(&running.id, if grace < MINIMUM { grace } else { left.max(MINIMUM) }).await
}

/// Stops everything that runs in a pod, then its sandboxes.
pub async fn pod(kubelet: &Kubelet, pod: &Arc<Pod>, observed: &Observed, grace: Duration, hooks: bool) -> Result<(), RuntimeError> {
    let started = Instant::now();
    let sidecars: Vec<String> = {
        let containers = spec::containers(pod);
        containers.iter().filter(|(kind, _)| *kind == spec::Kind::Sidecar).map(|(_, c)| c.name.clone()).collect()
    };
    let stop = |running: &Container, grace: Duration| {
        let message = format!("Stopping container {}", running.name);
        let running = running.clone();
        async move { container(kubelet, pod, &running, grace, hooks, message).await }
    };
    let (side, main): (Vec<&Container>, Vec<&Container>) = observed.running().partition(|c| sidecars.contains(&c.name));
    join_all(main.into_iter().map(|c| stop(c, grace))).await.into_iter().collect::<Result<(), _>>()?;
    let mut ordered = side;
    ordered.sort_by_key(|c| std::cmp::Reverse(sidecars.iter().position(|n| *n == c.name)));
    for sidecar in ordered {
        stop(sidecar, grace.saturating_sub(started.elapsed())).await?;
    }
    for sandbox in observed.sandboxes.iter().filter(|s| s.ready) {
        kubelet.runtime.stop_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// The grace period of a pod that is not being deleted.
pub fn default_grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

//! Stops a pod's containers with grace: preStop hook, stop signal, kill (`killContainer` in
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`).
//!
//! Main containers stop together, sidecars after them in reverse order, all within one grace period. Hooks do not wait for their turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::report::ContainerReport;
use super::{container, hooks, spec};
use crate::events::Kind as EventKind;
use crate::kubelet::Kubelet;
use crate::kubelet::images::Report;
use crate::kubelet::probes::check::Target;
use crate::kubelet::runtime::observe::{Container, Observed};
use crate::kubelet::runtime::{LONGEST, RuntimeError};

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
    container_in_turn(kubelet, pod, running, grace, hook, message, std::future::ready(())).await
}

/// [`container`], with the stop signal held back until `turn` has come, but not longer than the grace period.
async fn container_in_turn(
    kubelet: &Kubelet,
    pod: &Arc<Pod>,
    running: &Container,
    grace: Duration,
    hook: bool,
    message: String,
    turn: impl Future<Output = ()>,
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
    let _ = tokio::time::timeout(grace.saturating_sub(started.elapsed()), turn).await;
    kubelet.runtime.stop_container(&running.id, grace.saturating_sub(started.elapsed()).max(MINIMUM)).await
}

/// Stops everything that runs in a pod, then its sandboxes.
pub async fn pod(kubelet: &Kubelet, pod: &Arc<Pod>, observed: &Observed, grace: Duration, hooks: bool) -> Result<(), RuntimeError> {
    let running: Vec<(&Container, CancellationToken)> = observed.running().map(|c| (c, CancellationToken::new())).collect();
    let stops = running.iter().map(|(container, ended)| {
        let before: Vec<CancellationToken> =
            running.iter().filter(|(other, _)| goes_before(pod, &other.name, &container.name)).map(|(_, ended)| ended.clone()).collect();
        let turn = async move {
            for other in &before {
                other.cancelled().await;
            }
        };
        async move {
            let message = format!("Stopping container {}", container.name);
            let result = container_in_turn(kubelet, pod, container, grace, hooks, message, turn).await;
            ended.cancel();
            result
        }
    });
    join_all(stops).await.into_iter().collect::<Result<(), _>>()?;
    for sandbox in observed.sandboxes.iter().filter(|s| s.ready) {
        kubelet.runtime.stop_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Whether a container has to have ended before another gets its stop signal
/// (`pkg/kubelet/kuberuntime/kuberuntime_termination_order.go`): everything before a sidecar, later sidecars before earlier ones.
fn goes_before(pod: &Pod, first: &str, then: &str) -> bool {
    let sidecar = |name: &str| {
        let mut init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
        init.position(|c| c.name == name && spec::init_kind(c) == spec::Kind::Sidecar)
    };
    match (sidecar(first), sidecar(then)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(first), Some(then)) => first > then,
    }
}

/// A grace period in seconds: at least one, and none so long that nobody can compute with it.
pub fn grace(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)).min(LONGEST)
}

/// The grace period of a pod that is not being deleted.
pub fn default_grace(pod: &Pod) -> Duration {
    grace(pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_end_last_and_in_reverse() {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": {
            "initContainers": [{ "name": "s1", "restartPolicy": "Always" }, { "name": "i" }, { "name": "s2", "restartPolicy": "Always" }],
            "containers": [{ "name": "a" }, { "name": "b" }],
        } }))
        .unwrap();
        for (first, then, expected) in [
            ("a", "s1", true),
            ("s1", "a", false),
            ("a", "b", false),
            ("s2", "s1", true),
            ("s1", "s2", false),
            ("i", "s1", true),
            ("s1", "s1", false),
        ] {
            assert_eq!(goes_before(&pod, first, then), expected, "{first} {then}");
        }
    }

    #[test]
    fn grace_periods_stay_within_what_can_be_computed() {
        assert_eq!((grace(-1).as_secs(), grace(0).as_secs(), grace(30).as_secs()), (1, 1, 30));
        assert_eq!(grace(i64::MAX), LONGEST);
    }
}

//! The printed row of a pod (`printPod`).

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::status;
use crate::registry::{Column, PrintContext, print};

/// The columns of pods.
pub const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Ready"),
    Column::new("Status"),
    Column::new("Restarts"),
    print::AGE,
    Column::new("IP").wide(),
    Column::new("Node").wide(),
    Column::new("Nominated Node").wide(),
    Column::new("Readiness Gates").wide(),
];

/// The reason the node controller gives pods of a node it cannot reach.
const NODE_LOST: &str = "NodeLost";

/// What the statuses of a pod's containers add up to.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<Time>,
}

/// All cells after the name.
pub fn cells(pod: &Pod, context: &PrintContext) -> Vec<Value> {
    let none = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&none);
    let summary = summarize(pod, status);
    let restarts = match summary.last_restart {
        Some(time) if summary.restarts != 0 => format!("{} ({} ago)", summary.restarts, context.age(Some(&time))),
        _ => summary.restarts.to_string(),
    };
    let ip = status.pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.as_str());
    vec![
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        print::age(&pod.metadata, context),
        print::or_none(ip),
        print::or_none(pod.spec.as_ref().and_then(|s| s.node_name.as_deref())),
        print::or_none(status.nominated_node_name.as_deref()),
        readiness_gates(pod).into(),
    ]
}

fn summarize(pod: &Pod, status: &PodStatus) -> Summary {
    let init: &[Container] = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let containers = pod.spec.as_ref().map_or(0, |s| s.containers.len());
    let mut summary = Summary {
        reason: status.reason.clone().filter(|r| !r.is_empty()).or_else(|| status.phase.clone()).unwrap_or_default(),
        ready: 0,
        total: containers + init.iter().filter(|c| is_sidecar(c)).count(),
        restarts: 0,
        last_restart: None,
    };
    if status::condition(pod, "PodScheduled").is_some_and(|c| c.reason.as_deref() == Some("SchedulingGated")) {
        summary.reason = "SchedulingGated".into();
    }
    let initializing = init_containers(&mut summary, init, status);
    if !initializing || status::is_true(pod, "Initialized") {
        main_containers(&mut summary, init, status, status::is_ready(pod));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if status.reason.as_deref() == Some(NODE_LOST) {
            summary.reason = "Unknown".into();
        } else if !status::is_terminal(pod) {
            summary.reason = "Terminating".into();
        }
    }
    summary
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Counts init containers; says whether one of them still has to finish.
fn init_containers(summary: &mut Summary, init: &[Container], status: &PodStatus) -> bool {
    for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
        count_restarts(summary, container);
        let sidecar = init.iter().any(|c| c.name == container.name && is_sidecar(c));
        let state = container.state.clone().unwrap_or_default();
        match (state.terminated, state.waiting.and_then(|w| w.reason)) {
            (Some(end), _) if end.exit_code == 0 => continue,
            _ if sidecar && container.started == Some(true) => {
                summary.ready += usize::from(container.ready);
                continue;
            }
            (Some(end), _) => {
                let reason = end.reason.clone().filter(|r| !r.is_empty());
                summary.reason = format!("Init:{}", reason.unwrap_or_else(|| ended(end.signal, end.exit_code)));
            }
            (None, Some(reason)) if !reason.is_empty() && reason != "PodInitializing" => summary.reason = format!("Init:{reason}"),
            _ => summary.reason = format!("Init:{index}/{}", init.len()),
        }
        return true;
    }
    false
}

/// `Signal:9` or `ExitCode:1`.
fn ended(signal: Option<i32>, exit_code: i32) -> String {
    match signal.filter(|s| *s != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!("ExitCode:{exit_code}"),
    }
}

fn count_restarts(summary: &mut Summary, container: &ContainerStatus) {
    summary.restarts += container.restart_count;
    let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.finished_at.clone());
    if ended.as_ref().map(|t| t.0) > summary.last_restart.as_ref().map(|t| t.0) {
        summary.last_restart = ended;
    }
}

/// Counts the main containers; of those that are not running, the first in the list names the status.
fn main_containers(summary: &mut Summary, init: &[Container], status: &PodStatus, pod_ready: bool) {
    summary.restarts = 0;
    summary.last_restart = None;
    for container in status.init_container_statuses.iter().flatten() {
        if init.iter().any(|c| c.name == container.name && is_sidecar(c)) {
            count_restarts(summary, container);
        }
    }
    let mut running = false;
    for container in status.container_statuses.iter().flatten().rev() {
        count_restarts(summary, container);
        let state = container.state.clone().unwrap_or_default();
        let waiting = state.waiting.and_then(|w| w.reason).filter(|r| !r.is_empty());
        if let Some(reason) = waiting {
            summary.reason = reason;
        } else if let Some(end) = state.terminated {
            summary.reason = end.reason.clone().filter(|r| !r.is_empty()).unwrap_or_else(|| ended(end.signal, end.exit_code));
        } else if container.ready && state.running.is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        summary.reason = if pod_ready { "Running" } else { "NotReady" }.into();
    }
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    if gates.is_empty() {
        return print::NONE.into();
    }
    let open = gates.iter().filter(|g| status::is_true(pod, &g.condition_type)).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Pods;
    use super::*;
    use crate::registry::testing::{cells, with};

    fn row(patch: Value) -> [String; 3] {
        let base = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let cells = cells::<Pods>(with(base, patch));
        [1, 2, 3].map(|i| cells[i].as_str().unwrap().to_owned())
    }

    fn running(ready: bool, restarts: i32) -> Value {
        json!({"name": "x", "ready": ready, "restartCount": restarts, "image": "", "imageID": "", "state": {"running": {}}})
    }

    fn waiting(reason: &str) -> Value {
        json!({"name": "x", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"waiting": {"reason": reason}}})
    }

    fn terminated(end: Value) -> Value {
        json!({"name": "x", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"terminated": end}})
    }

    #[test]
    fn the_status_is_upstreams() {
        let statuses = |phase: &str, list: Value| json!({"status": {"phase": phase, "containerStatuses": list}});
        for (patch, expected) in [
            (json!({"status": {"phase": "Pending"}}), ["0/2", "Pending", "0"]),
            (statuses("Running", json!([running(true, 1), running(true, 2)])), ["2/2", "Running", "3"]),
            (statuses("Pending", json!([waiting("ContainerCreating"), waiting("ContainerCreating")])), ["0/2", "ContainerCreating", "0"]),
            (statuses("Running", json!([waiting("CrashLoopBackOff"), running(true, 0)])), ["1/2", "CrashLoopBackOff", "0"]),
            (statuses("Succeeded", json!([terminated(json!({"exitCode": 0, "reason": "Completed"}))])), ["0/2", "Completed", "0"]),
            (statuses("Failed", json!([terminated(json!({"exitCode": 3}))])), ["0/2", "ExitCode:3", "0"]),
            (statuses("Failed", json!([terminated(json!({"exitCode": 0, "signal": 9}))])), ["0/2", "Signal:9", "0"]),
            (statuses("Failed", json!([terminated(json!({"exitCode": 1, "reason": "Error"}))])), ["0/2", "Error", "0"]),
            (statuses("Running", json!([terminated(json!({"exitCode": 0, "reason": "Completed"})), running(true, 0)])), ["1/2", "NotReady", "0"]),
            (json!({"status": {"phase": "Failed", "reason": "Evicted"}}), ["0/2", "Evicted", "0"]),
            (json!({"metadata": {"deletionTimestamp": "2024-06-01T12:00:00Z"}, "status": {"phase": "Running"}}), ["0/2", "Terminating", "0"]),
            (
                json!({"metadata": {"deletionTimestamp": "2024-06-01T12:00:00Z"}, "status": {"phase": "Running", "reason": "NodeLost"}}),
                ["0/2", "Unknown", "0"],
            ),
            (
                json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}}),
                ["0/2", "SchedulingGated", "0"],
            ),
        ] {
            assert_eq!(row(patch.clone()), expected, "{patch}");
        }
    }

    #[test]
    fn init_containers_show_how_far_they_are() {
        let of = |list: Value| {
            row(json!({
                "spec": {"initContainers": [{"name": "i"}, {"name": "j"}]},
                "status": {"phase": "Pending", "initContainerStatuses": list}
            }))
        };
        let done = terminated(json!({"exitCode": 0}));
        assert_eq!(of(json!([running(false, 2)])), ["0/2", "Init:0/2", "2"]);
        assert_eq!(of(json!([done, waiting("PodInitializing")])), ["0/2", "Init:1/2", "0"]);
        assert_eq!(of(json!([waiting("ImagePullBackOff")])), ["0/2", "Init:ImagePullBackOff", "0"]);
        assert_eq!(of(json!([terminated(json!({"exitCode": 2}))])), ["0/2", "Init:ExitCode:2", "0"]);
        assert_eq!(of(json!([terminated(json!({"exitCode": 2, "reason": "Error"}))])), ["0/2", "Init:Error", "0"]);
    }

    #[test]
    fn sidecars_count_as_containers() {
        let mut sidecar = running(true, 4);
        sidecar["name"] = "s".into();
        sidecar["started"] = true.into();
        let patch = json!({
            "spec": {"initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {"phase": "Running", "initContainerStatuses": [sidecar], "containerStatuses": [running(true, 1), running(true, 0)]}
        });
        assert_eq!(row(patch), ["3/3", "Running", "5"]);
    }

    #[test]
    fn restarts_say_when_the_last_one_was() {
        let mut status = running(true, 2);
        status["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2024-06-01T11:55:00Z"}});
        let patch = json!({"status": {"phase": "Running", "containerStatuses": [status]}});
        assert_eq!(row(patch), ["1/2", "Running", "2 (5m ago)"]);
    }

    #[test]
    fn wide_columns_show_where_the_pod_is() {
        let cells = cells::<Pods>(json!({
            "metadata": {"name": "p"},
            "spec": {"nodeName": "n", "containers": [], "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
            "status": {"podIPs": [{"ip": "10.0.0.9"}], "conditions": [{"type": "a", "status": "True"}]}
        }));
        assert_eq!(cells[5..], ["10.0.0.9", "n", "<none>", "1/2"]);
    }
}

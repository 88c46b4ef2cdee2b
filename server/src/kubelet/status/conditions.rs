//! Pod conditions that the kubelet owns (`pkg/kubelet/status/generate.go`). Conditions of others, readiness gates among them, are only read.
//!
//! Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

use super::Input;
use crate::kubelet::pods::spec::{self, Kind};

/// Types that the kubelet writes.
pub const OWNED: [&str; 7] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", "PodResizePending", "PodResizeInProgress"];

type Verdict = (bool, Option<&'static str>, Option<String>);

/// The kubelet's conditions for a pod of this phase, with transition times kept where nothing changed.
pub fn conditions(input: &Input<'_>, phase: &str, status: &PodStatus, before: &[PodCondition]) -> Vec<PodCondition> {
    let containers_ready = containers_ready(input, status, phase);
    let ready = ready(input, &containers_ready, before);
    let sandbox = input.observed.sandbox().is_some_and(|s| s.ready && (spec::host_network(input.pod) || !s.ips.is_empty()));
    let verdicts: [(&str, Verdict); 4] = [
        ("PodReadyToStartContainers", (sandbox, None, None)),
        ("Initialized", initialized(input, status, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ];
    let mut list: Vec<PodCondition> = verdicts.into_iter().map(|(kind, verdict)| condition(input, kind, verdict, before)).collect();
    match before.iter().find(|c| c.type_ == "PodScheduled") {
        Some(scheduled) => list.push(scheduled.clone()),
        None => list.push(condition(input, "PodScheduled", (true, None, None), before)),
    }
    list.extend(input.resize.map(|r| condition(input, r.kind, (true, Some(r.reason), Some(r.message.clone())), before)));
    list
}

fn condition(input: &Input<'_>, kind: &str, (value, reason, message): Verdict, before: &[PodCondition]) -> PodCondition {
    let status = if value { "True" } else { "False" };
    let kept = before.iter().find(|c| c.type_ == kind && c.status == status).and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.map(Into::into),
        message,
        last_transition_time: Some(kept.unwrap_or_else(|| input.now.clone())),
        observed_generation: input.pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn initialized(input: &Input<'_>, status: &PodStatus, phase: &str) -> Verdict {
    let all = spec::containers(input.pod);
    // A main container that was ever made proves that initialization was complete.
    let ran = status.container_statuses.iter().flatten().any(|s| s.container_id.is_some());
    let incomplete: Vec<&str> = all
        .iter()
        .filter(|(kind, _)| matches!(kind, Kind::Init | Kind::Sidecar))
        .filter(|(kind, c)| {
            let found = status.init_container_statuses.iter().flatten().find(|s| s.name == c.name);
            !found.is_some_and(|s| if *kind == Kind::Sidecar { s.started == Some(true) } else { s.ready })
        })
        .map(|(_, c)| c.name.as_str())
        .collect();
    match phase {
        "Succeeded" => (true, Some("PodCompleted"), None),
        _ if ran || incomplete.is_empty() => (true, None, None),
        _ => (false, Some("ContainersNotInitialized"), Some(format!("containers with incomplete status: [{}]", incomplete.join(" ")))),
    }
}

fn containers_ready(input: &Input<'_>, status: &PodStatus, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return (false, Some("PodCompleted"), None),
        "Failed" => return (false, Some("PodFailed"), None),
        _ => {}
    }
    let all = spec::containers(input.pod);
    let statuses: Vec<&ContainerStatus> = status.init_container_statuses.iter().chain(&status.container_statuses).flatten().collect();
    let unready: Vec<&str> = all
        .iter()
        .filter(|(kind, _)| matches!(kind, Kind::Main | Kind::Sidecar))
        .filter(|(_, c)| !statuses.iter().any(|s| s.name == c.name && s.ready))
        .map(|(_, c)| c.name.as_str())
        .collect();
    if unready.is_empty() {
        return (true, None, None);
    }
    (false, Some("ContainersNotReady"), Some(format!("containers with unready status: [{}]", unready.join(" "))))
}

fn ready(input: &Input<'_>, containers: &Verdict, before: &[PodCondition]) -> Verdict {
    if !containers.0 {
        return containers.clone();
    }
    let gates = input.pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
    let unmet: Vec<String> = gates
        .filter_map(|gate| match before.iter().find(|c| c.type_ == gate.condition_type) {
            None => Some(format!("corresponding condition of pod readiness gate \"{}\" does not exist.", gate.condition_type)),
            Some(c) if c.status != "True" => {
                Some(format!("the status of pod readiness gate \"{}\" is not \"True\", but {}", gate.condition_type, c.status))
            }
            Some(_) => None,
        })
        .collect();
    if unmet.is_empty() {
        return (true, None, None);
    }
    (false, Some("ReadinessGatesNotReady"), Some(unmet.join(", ")))
}

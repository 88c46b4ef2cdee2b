//! `containerStatuses` and their kin from what the runtime says (`convertToAPIContainerStatuses` in `pkg/kubelet/kubelet_pods.go`).
//!
//! Pure.

use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::Input;
use crate::kubelet::pods::spec::{self, Kind};
use crate::kubelet::runtime::observe::{Container, State};

/// The status of every container in the spec, in its order.
pub fn statuses(input: &Input<'_>) -> Vec<(Kind, ContainerStatus)> {
    let all = spec::containers(input.pod);
    let has_init = all.iter().any(|(kind, _)| matches!(kind, Kind::Init | Kind::Sidecar));
    let mut listed: Vec<(Kind, ContainerStatus)> = all.iter().map(|(kind, c)| (*kind, one(input, *kind, c, has_init))).collect();
    let initialized = has_initialized(&listed);
    listed.iter_mut().for_each(|(kind, status)| finish(input, *kind, status, initialized));
    listed
}

fn before<'a>(input: &'a Input<'_>, name: &str) -> Option<&'a ContainerStatus> {
    let status = input.pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == name)
}

fn one(input: &Input<'_>, kind: Kind, container: &Spec, has_init: bool) -> ContainerStatus {
    let name = &container.name;
    let mut made = input.observed.containers.iter().filter(|c| c.name == *name);
    let (latest, previous) = (made.next(), made.find(|c| c.state == State::Exited));
    let mut status = ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        resources: latest.and_then(|c| input.applied.get(&c.id).cloned().or_else(|| container.resources.clone())),
        ..ContainerStatus::default()
    };
    let old = before(input, name);
    status.last_state = match previous {
        Some(previous) => Some(ContainerState { terminated: Some(terminated(previous)), ..ContainerState::default() }),
        None => old.and_then(|o| o.last_state.clone()).filter(|s| *s != ContainerState::default()),
    };
    let Some(latest) = latest else {
        status.restart_count = old.map_or(0, |o| o.restart_count);
        status.state = Some(waiting_state(input, kind, name, has_init));
        return status;
    };
    if !latest.image.is_empty() && !latest.image.starts_with("sha256:") {
        status.image.clone_from(&latest.image);
    }
    status.image_id.clone_from(&latest.image_id);
    status.container_id = (!latest.id.is_empty()).then(|| format!("containerd://{}", latest.id));
    status.restart_count = i32::try_from(latest.restart_count).unwrap_or(i32::MAX);
    status.state = Some(match latest.state {
        State::Running => {
            ContainerState { running: Some(ContainerStateRunning { started_at: time(latest.started_at) }), ..ContainerState::default() }
        }
        State::Exited if input.waiting.contains_key(name) => {
            status.last_state = Some(ContainerState { terminated: Some(terminated(latest)), ..ContainerState::default() });
            waiting_state(input, kind, name, has_init)
        }
        State::Exited => ContainerState { terminated: Some(terminated(latest)), ..ContainerState::default() },
        State::Created => waiting_state(input, kind, name, has_init),
        State::Unknown => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some("The container could not be located when the pod was terminated".into()),
                ..terminated(latest)
            }),
            ..ContainerState::default()
        },
    });
    let health = input.health.get(&latest.id);
    if latest.state == State::Running {
        status.started = Some(kind != Kind::Init && health.is_none_or(|h| h.started));
        status.ready = matches!(kind, Kind::Main | Kind::Sidecar) && health.is_none_or(|h| h.started && h.ready);
    }
    status
}

/// Whether main containers may have run (`hasPodInitialized` in `pkg/kubelet/status/status_manager.go`).
fn has_initialized(listed: &[(Kind, ContainerStatus)]) -> bool {
    let ran = |s: &ContainerStatus| {
        s.last_state.as_ref().is_some_and(|l| l.terminated.is_some()) || s.state.as_ref().is_some_and(|state| state.waiting.is_none())
    };
    if listed.iter().any(|(kind, status)| *kind == Kind::Main && ran(status)) {
        return true;
    }
    match listed.iter().rfind(|(kind, _)| matches!(kind, Kind::Init | Kind::Sidecar)) {
        None => true,
        Some((Kind::Sidecar, last)) => last.started == Some(true),
        Some((_, last)) => last.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0),
    }
}

/// What becomes known only with the state at hand.
fn finish(input: &Input<'_>, kind: Kind, status: &mut ContainerStatus, initialized: bool) {
    let state = status.state.clone().unwrap_or_default();
    if kind == Kind::Init {
        status.ready = state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    }
    // A pod that has ended has no container that could still start (`TerminatePod` in `pkg/kubelet/status/status_manager.go`).
    if input.terminal && kind == Kind::Main && state.waiting.is_some() && status.container_id.is_some() {
        if let Some(last) = status.last_state.take() {
            status.state = Some(last);
        }
    } else if initialized && input.terminal && kind == Kind::Main && state.waiting.is_some() && !input.observed.is_alive() && input.failure.is_none()
    {
        let lost = ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..ContainerStateTerminated::default()
        };
        status.state = Some(ContainerState { terminated: Some(lost), ..ContainerState::default() });
    }
}

fn waiting_state(input: &Input<'_>, kind: Kind, name: &str, has_init: bool) -> ContainerState {
    let waiting = match input.waiting.get(name) {
        Some(known) => {
            ContainerStateWaiting { reason: Some(known.reason.clone()), message: (!known.message.is_empty()).then(|| known.message.clone()) }
        }
        None => {
            let reason = if has_init && kind != Kind::Ephemeral { "PodInitializing" } else { "ContainerCreating" };
            ContainerStateWaiting { reason: Some(reason.into()), message: None }
        }
    };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(container: &Container) -> ContainerStateTerminated {
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerStateTerminated {
        exit_code: container.exit_code,
        reason: Some(reason.into()),
        message: (!container.message.is_empty()).then(|| container.message.clone()),
        started_at: time(container.started_at),
        finished_at: time(container.finished_at),
        container_id: (!container.id.is_empty()).then(|| format!("containerd://{}", container.id)),
        signal: None,
    }
}

/// A time in whole seconds, as the API carries it.
pub fn time(nanos: i64) -> Option<Time> {
    (nanos > 0).then(|| Timestamp::from_second(nanos / 1_000_000_000).ok().map(Time)).flatten()
}

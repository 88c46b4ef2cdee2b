//! A pod's status from its spec and what the runtime says (`pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status/generate.go`).
//!
//! Pure: [`compute`] gives the whole status; [`patch`] turns it into what is sent; [`writer`] sends it.

pub mod conditions;
pub mod containers;
pub mod patch;
pub mod writer;

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pods::plan::{Health, Waiting};
use super::pods::spec::{self, Kind};
use super::runtime::observe::Observed;

/// Reason and message that go before everything the runtime says: a refused, evicted or overdue pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For instance `DeadlineExceeded`.
    pub reason: String,
    /// For the user.
    pub message: String,
}

/// Why containers are not (yet) as large or small as the spec wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    /// `PodResizePending` or `PodResizeInProgress`.
    pub kind: &'static str,
    /// For instance `Infeasible`.
    pub reason: &'static str,
    /// For the user.
    pub message: String,
}

/// What a status depends on.
pub struct Input<'a> {
    /// The pod as the API has it, with its last status.
    pub pod: &'a Pod,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// What probes found, by container id.
    pub health: &'a HashMap<String, Health>,
    /// Why containers wait, by name.
    pub waiting: &'a HashMap<String, Waiting>,
    /// Set when the kubelet itself ends the pod.
    pub failure: Option<&'a Failure>,
    /// What running containers are held to, by container id; those that are missing are as the spec says.
    pub applied: &'a HashMap<String, ResourceRequirements>,
    /// Set while a resize is not done.
    pub resize: Option<&'a Resize>,
    /// Nothing will be started any more: the phase must be a final one once everything has stopped.
    pub terminal: bool,
    /// The node's addresses.
    pub node_ips: &'a [IpAddr],
    /// The time of this status.
    pub now: Time,
}

/// The status of a pod.
pub fn compute(input: &Input<'_>) -> PodStatus {
    let before = input.pod.status.clone().unwrap_or_default();
    // A pod that was refused never had containers to speak of.
    let refused = input.failure.is_some() && input.observed.containers.is_empty();
    let listed = if refused { Vec::new() } else { containers::statuses(input) };
    let of = |wanted: &[Kind]| -> Vec<ContainerStatus> {
        listed.iter().filter(|(kind, _)| wanted.contains(kind)).map(|(_, status)| status.clone()).collect()
    };
    let (init, main, debug) = (of(&[Kind::Init, Kind::Sidecar]), of(&[Kind::Main]), of(&[Kind::Ephemeral]));
    let phase = match input.failure {
        Some(_) => "Failed",
        None => phase(input, &init, &main),
    };
    let computed = phase;
    let (phase, reason, message) = settle(input, phase, &before);
    let ips = addresses(input, &before);
    let mut status = PodStatus {
        phase: Some(phase),
        host_ip: input.node_ips.first().map(ToString::to_string),
        host_ips: Some(input.node_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: before.start_time.clone().or_else(|| Some(input.now.clone())),
        qos_class: Some(spec::qos_class(input.pod).into()),
        observed_generation: input.pod.metadata.generation,
        reason,
        message,
        container_statuses: (!refused).then_some(main),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!debug.is_empty()).then_some(debug),
        ..PodStatus::default()
    };
    // Conditions do not wait: a pod that is about to be final gets no traffic any more.
    let told = if matches!(computed, "Succeeded" | "Failed") { computed } else { status.phase.as_deref().unwrap_or_default() };
    status.conditions = Some(conditions::conditions(input, told, &status, before.conditions.as_deref().unwrap_or_default()));
    status
}

/// Phase, reason and message as they may be told: a final phase is kept, whoever wrote it, and a new one waits until nothing runs any
/// more, since whoever sees it may take the pod's resources as free (`mergePodStatus` in `pkg/kubelet/status/status_manager.go`).
fn settle(input: &Input<'_>, phase: &str, before: &PodStatus) -> (String, Option<String>, Option<String>) {
    let old = before.phase.as_deref().filter(|p| !p.is_empty()).unwrap_or("Pending");
    let is_final = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let kept = || (old.to_owned(), before.reason.clone(), before.message.clone());
    match input.failure {
        _ if is_final(old) && !is_final(phase) => kept(),
        _ if !is_final(old) && is_final(phase) && input.observed.running().next().is_some() => kept(),
        Some(failure) => (phase.to_owned(), Some(failure.reason.clone()), Some(failure.message.clone())),
        // They belong to the phase.
        None if old == phase => kept(),
        None => (phase.to_owned(), None, None),
    }
}

/// Addresses of the pod; those of a finished pod stay on record.
fn addresses(input: &Input<'_>, before: &PodStatus) -> Vec<String> {
    if spec::host_network(input.pod) {
        // Known as soon as something runs, as upstream.
        return if input.observed.sandbox().is_some() { input.node_ips.iter().map(ToString::to_string).collect() } else { Vec::new() };
    }
    let current: Vec<String> = input.observed.sandbox().iter().flat_map(|s| s.ips.iter().map(ToString::to_string)).collect();
    if current.is_empty() && (input.terminal || input.pod.metadata.deletion_timestamp.is_some()) {
        return before.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    }
    current
}

fn last_exit(status: &ContainerStatus) -> Option<i32> {
    status.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code)
}

/// `getPhase` in `pkg/kubelet/kubelet_pods.go`.
fn phase(input: &Input<'_>, init: &[ContainerStatus], main: &[ContainerStatus]) -> &'static str {
    let all = spec::containers(input.pod);
    let find = |name: &str| all.iter().find(|(_, c)| c.name == name);
    let restarts = |name: &str, code: i32| find(name).is_some_and(|(kind, c)| spec::should_restart(input.pod, *kind, c, code));
    let (mut pending_init, mut failed_init) = (false, false);
    for status in init {
        let Some((kind, _)) = find(&status.name) else { continue };
        let state = status.state.clone().unwrap_or_default();
        match (kind, &state.terminated, last_exit(status)) {
            (Kind::Sidecar, _, _) => pending_init |= state.running.is_none() || status.started != Some(true),
            (_, Some(ended), _) => failed_init |= ended.exit_code != 0 && !restarts(&status.name, ended.exit_code),
            (_, None, _) => pending_init = true,
        }
        if let (Kind::Init, Some(ended)) = (kind, &state.terminated) {
            pending_init |= ended.exit_code != 0;
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded, mut restarting) = (0, 0, 0, 0, false);
    for status in main {
        let state = status.state.clone().unwrap_or_default();
        let exit = state.terminated.as_ref().map(|t| t.exit_code);
        match (state.running.is_some(), exit.or_else(|| last_exit(status).filter(|_| state.waiting.is_some()))) {
            (true, _) => running += 1,
            (false, None) => waiting += 1,
            (false, Some(code)) => {
                stopped += 1;
                succeeded += usize::from(code == 0);
                restarting |= restarts(&status.name, code);
            }
        }
    }
    let ran = running + stopped > 0;
    if failed_init && !ran {
        return "Failed";
    }
    if input.terminal && running == 0 && waiting == 0 && stopped > 0 {
        return if stopped == succeeded { "Succeeded" } else { "Failed" };
    }
    match () {
        () if pending_init && !ran => "Pending",
        () if waiting > 0 => "Pending",
        () if running > 0 => "Running",
        () if stopped > 0 && restarting => "Running",
        () if stopped > 0 && stopped == succeeded => "Succeeded",
        () if stopped > 0 => "Failed",
        () => "Pending",
    }
}

/// Whether a pod has ended for good.
pub fn is_final(status: Option<&PodStatus>) -> bool {
    matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests;

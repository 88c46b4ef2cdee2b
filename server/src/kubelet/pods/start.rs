//! Starts a pod's sandbox and containers (`startContainer` in `pkg/kubelet/kuberuntime/kuberuntime_container.go`).
//!
//! I/O only: what to start was decided by [`super::plan`]. Errors become `state.waiting` and events with upstream's wording.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::plan::{Start, Waiting};
use super::report::ContainerReport;
use super::spec::Kind;
use super::{container, dns, hooks, sandbox, spec};
use crate::events::Kind as EventKind;
use crate::kubelet::images::Report;
use crate::kubelet::probes::check::Target;
use crate::kubelet::refs::PodRefs;
use crate::kubelet::runtime::observe::{Observed, Sandbox};
use crate::kubelet::runtime::{RuntimeError, observe};
use crate::kubelet::volumes::PodVolumes;
use crate::kubelet::{Kubelet, env};

/// Attempts tried when a name is still taken by a leftover that no list shows.
const NAME_TRIES: u32 = 5;
/// Time until another try after a container could not be configured or created.
const RETRY: Duration = Duration::from_secs(10);

/// Why a container did not start, and when to try again (`None`: the crash backoff decides).
#[derive(Debug)]
pub struct NotStarted {
    /// For `state.waiting`.
    pub waiting: Waiting,
    /// When to try again.
    pub retry_in: Option<Duration>,
    /// A change of a ConfigMap or Secret may mend it.
    pub is_config: bool,
}

/// The CRI configuration of a pod's sandbox.
pub fn sandbox_config(kubelet: &Kubelet, pod: &Pod, attempt: u32) -> k8s_cri::v1::PodSandboxConfig {
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let cluster = dns::Cluster { dns: kubelet.config.cluster_dns, domain: &kubelet.config.cluster_domain, host: &host };
    sandbox::config(&sandbox::Input {
        pod,
        attempt,
        dns: cluster,
        cgroup_root: &kubelet.config.cgroup_root,
        logs: &kubelet.logs_dir(),
        seccomp: &kubelet.seccomp_dir(),
        app_armor: kubelet.abilities.app_armor,
    })
}

/// Creates and starts a sandbox with its cgroup and log directory.
pub async fn sandbox(kubelet: &Kubelet, pod: &Arc<Pod>, attempt: u32) -> Result<Sandbox, RuntimeError> {
    let logs = sandbox::log_directory(&kubelet.logs_dir(), pod);
    let group = super::super::cgroups::pod_path(&kubelet.config.cgroup_root, pod);
    let limits = super::super::cgroups::pod_limits(pod);
    if let Err(error) = std::fs::create_dir_all(&logs).and_then(|()| kubelet.cgroups.create(&group, &limits)) {
        tracing::warn!(pod = %spec::title(pod), %error, "log directory or cgroup not prepared");
    }
    kubelet.weigh_classes();
    let (mut attempt, last) = (attempt, attempt.saturating_add(NAME_TRIES));
    let id = loop {
        match kubelet.runtime.run_sandbox(sandbox_config(kubelet, pod, attempt)).await {
            Err(error) if error.message().contains("is reserved for") && attempt < last => attempt += 1,
            other => break other?,
        }
    };
    kubelet.index.learn(&id, spec::uid(pod), true);
    let status = kubelet.runtime.sandbox_status(&id).await?;
    let network = status.network.unwrap_or_default();
    let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|i| i.ip));
    let ips = texts.filter_map(|text| text.parse().ok()).collect();
    Ok(Sandbox { id, attempt, ready: true, created_at: status.created_at, ips })
}

/// What starting a container depends on.
pub struct Context<'a> {
    /// The node.
    pub kubelet: &'a Kubelet,
    /// The pod.
    pub pod: &'a Arc<Pod>,
    /// What the runtime has; its newest sandbox is the one to start in.
    pub observed: &'a Observed,
    /// ConfigMaps and Secrets.
    pub refs: &'a PodRefs,
    /// Volumes, all set up.
    pub volumes: &'a PodVolumes,
}

/// Pulls the image if need be, creates the container, starts it and runs its postStart hook.
pub async fn start(context: &Context<'_>, start: &Start) -> Result<(), NotStarted> {
    let Some((kind, container)) = spec::container(context.pod, &start.name) else { return Ok(()) };
    let report = ContainerReport::new(context.kubelet, context.pod, &start.name);
    let image = pull(context, &container, &report).await?;
    let created = create(context, start, &container, &image, &report).await?;
    report.event(EventKind::Normal, "Created", "Container created".into());
    if let Err(error) = context.kubelet.runtime.start_container(&created).await {
        let message = error.message().to_owned();
        report.event(EventKind::Warning, "Failed", format!("Error: {message}"));
        return Err(NotStarted { waiting: waiting("RunContainerError", message), retry_in: None, is_config: false });
    }
    report.event(EventKind::Normal, "Started", "Container started".into());
    post_start(context, kind, &container, &created, &report).await
}

fn waiting(reason: &str, message: String) -> Waiting {
    Waiting { reason: reason.into(), message }
}

async fn pull(context: &Context<'_>, container: &Container, report: &ContainerReport) -> Result<String, NotStarted> {
    let pod_spec = context.pod.spec.as_ref();
    let named = pod_spec.into_iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
    let secrets: Vec<_> = named.filter_map(|s| context.refs.secret(&s.name)).collect();
    let attempt = context.observed.sandbox().map_or(0, |s| s.attempt);
    let config = sandbox_config(context.kubelet, context.pod, attempt);
    let ensured = context.kubelet.images.ensure(spec::uid(context.pod), container, &secrets, &config, report).await;
    ensured.map_err(|unavailable| {
        report.event(EventKind::Warning, "Failed", format!("Error: {}", unavailable.reason));
        let waiting = waiting(unavailable.reason, unavailable.message);
        NotStarted { waiting, retry_in: Some(unavailable.retry_in), is_config: false }
    })
}

async fn create(context: &Context<'_>, start: &Start, container: &Container, image: &str, report: &ContainerReport) -> Result<String, NotStarted> {
    let (kubelet, pod) = (context.kubelet, context.pod);
    let Some(sandbox) = context.observed.sandbox() else {
        return Err(NotStarted { waiting: waiting("ContainerCreating", String::new()), retry_in: None, is_config: false });
    };
    let config_error = |message: String| {
        report.event(EventKind::Warning, "Failed", format!("Error: {message}"));
        NotStarted { waiting: waiting("CreateContainerConfigError", message), retry_in: Some(RETRY), is_config: true }
    };
    let mut start = start.clone();
    let last = start.restart_count.saturating_add(NAME_TRIES);
    loop {
        let config = configure(context, &start, container, image, &sandbox.ips).await.map_err(config_error)?;
        let of_sandbox = sandbox_config(kubelet, pod, sandbox.attempt);
        match kubelet.runtime.create_container(&sandbox.id, config, of_sandbox).await {
            Ok(id) => {
                kubelet.index.learn(&id, spec::uid(pod), true);
                return Ok(id);
            }
            // A create that was interrupted may have kept the name.
            Err(error) if error.message().contains("is reserved for") && start.restart_count < last => start.restart_count += 1,
            Err(error) => {
                let message = error.message().to_owned();
                report.event(EventKind::Warning, "Failed", format!("Error: {message}"));
                return Err(NotStarted { waiting: waiting("CreateContainerError", message), retry_in: Some(RETRY), is_config: false });
            }
        }
    }
}

async fn configure(
    context: &Context<'_>,
    start: &Start,
    container: &Container,
    image: &str,
    ips: &[IpAddr],
) -> Result<k8s_cri::v1::ContainerConfig, String> {
    let (kubelet, pod) = (context.kubelet, context.pod);
    let node_ips = [kubelet.config.node_ip];
    let pod_ips: Vec<IpAddr> = if spec::host_network(pod) { node_ips.to_vec() } else { ips.to_vec() };
    let env = env::variables(&env::Input {
        pod,
        container,
        refs: context.refs,
        services: &kubelet.services.list(),
        node_ips: &node_ips,
        pod_ips: &pod_ips,
        allocatable: kubelet.machine.allocatable(),
    })?;
    let found = kubelet.runtime.image_status(image).await.map_err(|e| e.to_string())?.unwrap_or_default();
    let place = container::Place {
        pod,
        container,
        dir: &kubelet.pod_dir(spec::uid(pod)),
        pod_ips: &pod_ips,
        domain: &kubelet.config.cluster_domain,
        env: &env,
    };
    // A handful of small file operations on the kubelet's own directory.
    let mounts = tokio::task::block_in_place(|| container::mounts(&place, context.volumes))?;
    container::config(&container::Input {
        pod,
        container,
        start,
        image_ref: image,
        image_user: (found.uid.map(|u| u.value), &found.username),
        env: &env,
        mounts,
        target_id: target(pod, context.observed, &start.name)?,
        node_memory: kubelet.machine.memory,
        seccomp: &kubelet.seccomp_dir(),
        app_armor: kubelet.abilities.app_armor,
    })
}

/// The container whose processes an ephemeral container wants to see. It has to run (`getTargetID` in
/// `pkg/kubelet/kuberuntime/kuberuntime_container.go`).
fn target(pod: &Pod, observed: &Observed, name: &str) -> Result<Option<String>, String> {
    let mut ephemeral = pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
    let wanted = ephemeral.find(|c| c.name == name).and_then(|c| c.target_container_name.as_deref()).filter(|n| !n.is_empty());
    let Some(wanted) = wanted else { return Ok(None) };
    let running = observed.current(wanted).filter(|c| c.state == observe::State::Running);
    running.map(|c| Some(c.id.clone())).ok_or_else(|| format!("unable to find target container {wanted}"))
}

async fn post_start(context: &Context<'_>, kind: Kind, container: &Container, id: &str, report: &ContainerReport) -> Result<(), NotStarted> {
    let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()).filter(|_| container::has_hooks(kind)) else {
        return Ok(());
    };
    let ip = context.observed.sandbox().and_then(|s| s.ips.first().copied()).unwrap_or(context.kubelet.config.node_ip);
    let target = Target { runtime: context.kubelet.runtime.clone(), container_id: id.to_owned(), container: Arc::new(container.clone()), ip };
    let Err(error) = hooks::run(&target, handler).await else { return Ok(()) };
    report.event(EventKind::Warning, "FailedPostStartHook", format!("PostStartHook failed: {error}"));
    let running = observe::Container { id: id.to_owned(), name: container.name.clone(), ..stub() };
    let message = "FailedPostStartHook".to_owned();
    if let Err(error) = super::kill::container(context.kubelet, context.pod, &running, super::kill::default_grace(context.pod), false, message).await
    {
        tracing::warn!(pod = %spec::title(context.pod), %error, "container not killed after its postStart hook failed");
    }
    Err(NotStarted { waiting: waiting("PostStartHookError", error), retry_in: None, is_config: false })
}

/// A running container of which only id and name matter.
fn stub() -> observe::Container {
    observe::Container {
        id: String::new(),
        name: String::new(),
        sandbox_id: String::new(),
        restart_count: 0,
        state: observe::State::Running,
        created_at: 0,
        started_at: 0,
        finished_at: 0,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_id: String::new(),
        hash: String::new(),
        log_path: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ephemeral_container_needs_its_target_to_run() {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": {
            "containers": [{ "name": "a" }],
            "ephemeralContainers": [{ "name": "free" }, { "name": "debug", "targetContainerName": "a" }],
        } }))
        .unwrap();
        let sandbox = Sandbox { id: "s".into(), attempt: 0, ready: true, created_at: 1, ips: vec![] };
        let container = observe::Container { id: "a1".into(), name: "a".into(), sandbox_id: "s".into(), ..stub() };
        let mut observed = Observed { sandboxes: vec![sandbox], containers: vec![container] };
        assert_eq!(target(&pod, &observed, "free"), Ok(None));
        assert_eq!(target(&pod, &observed, "debug"), Ok(Some("a1".into())));
        observed.containers[0].state = observe::State::Exited;
        assert_eq!(target(&pod, &observed, "debug"), Err("unable to find target container a".into()));
    }
}

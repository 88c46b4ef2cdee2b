//! What the runtime says about one pod, in the terms the state machine and the status need.
//!
//! Owns the translation from CRI messages; reads termination messages. Must not decide anything.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_cri::v1 as cri;

use super::{Result, Runtime, labels};
use crate::kubelet::logs;

/// Longest termination message kept, in bytes (upstream: 4096).
const MAX_MESSAGE: u64 = 4096;
/// Longest message taken from the end of the log, in bytes and lines (upstream: 2048 and 80).
const MAX_LOG_MESSAGE: u64 = 2048;
const MAX_LOG_LINES: usize = 80;

/// A sandbox of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Whether it runs.
    pub ready: bool,
    /// Unix time in nanoseconds.
    pub created_at: i64,
    /// Pod addresses, primary first; empty for host network and for sandboxes that are not ready.
    pub ips: Vec<IpAddr>,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Has ended.
    Exited,
    /// The runtime lost track of it.
    Unknown,
}

/// A container of the pod, alive or dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id; empty when the runtime has no record any more and the API's status stands in.
    pub id: String,
    /// Name in the pod's spec.
    pub name: String,
    /// Sandbox it belongs to.
    pub sandbox_id: String,
    /// How often the container was started before.
    pub restart_count: u32,
    /// What it is doing.
    pub state: State,
    /// Unix times in nanoseconds; 0 when it did not happen.
    pub created_at: i64,
    /// See `created_at`.
    pub started_at: i64,
    /// See `created_at`.
    pub finished_at: i64,
    /// Valid once exited.
    pub exit_code: i32,
    /// The runtime's reason (`Completed`, `Error`, `OOMKilled`, `StartError`).
    pub reason: String,
    /// Termination message or the runtime's error.
    pub message: String,
    /// Image name as the runtime reports it.
    pub image: String,
    /// Image id or digest.
    pub image_id: String,
    /// Spec hash from the annotation.
    pub hash: String,
    /// Log file as given at creation.
    pub log_path: String,
}

/// Everything the runtime knows of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Container>,
}

impl Observed {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }
    /// The newest container of a name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }
    /// The newest container of a name, if it belongs to the newest sandbox.
    pub fn current(&self, name: &str) -> Option<&Container> {
        let sandbox = self.sandbox()?;
        self.container(name).filter(|c| c.sandbox_id == sandbox.id)
    }
    /// Whether anything runs: a sandbox or a container.
    pub fn is_alive(&self) -> bool {
        self.sandboxes.iter().any(|s| s.ready) || self.running().next().is_some()
    }
    /// Containers that run.
    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.state == State::Running)
    }
}

/// What does not change any more and need not be asked for again.
#[derive(Default)]
pub struct Cache {
    exited: HashMap<String, Container>,
    addresses: HashMap<String, Vec<IpAddr>>,
}

/// Asks the runtime about one pod.
pub async fn observe(runtime: &Runtime, pod_uid: &str, cache: &mut Cache) -> Result<Observed> {
    let (sandboxes, containers) = tokio::try_join!(runtime.list_sandboxes(Some(pod_uid)), runtime.list_containers(Some(pod_uid)))?;
    let mut observed = Observed::default();
    for item in sandboxes {
        let ready = item.state() == cri::PodSandboxState::SandboxReady;
        let ips = if ready { addresses(runtime, &item.id, cache).await? } else { Vec::new() };
        let attempt = item.metadata.as_ref().map_or(0, |m| m.attempt);
        observed.sandboxes.push(Sandbox { id: item.id, attempt, ready, created_at: item.created_at, ips });
    }
    let known: std::collections::HashSet<String> = containers.iter().map(|c| c.id.clone()).collect();
    cache.exited.retain(|id, _| known.contains(id));
    for item in containers {
        if let Some(exited) = cache.exited.get(&item.id) {
            observed.containers.push(exited.clone());
            continue;
        }
        let status = match runtime.container_status(&item.id).await {
            Ok(status) => status,
            // Removed between the two calls.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let container = translate(status, &item.pod_sandbox_id);
        if container.state == State::Exited {
            cache.exited.insert(container.id.clone(), container.clone());
        }
        observed.containers.push(container);
    }
    observed.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.attempt)));
    observed.containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.restart_count)));
    Ok(observed)
}

async fn addresses(runtime: &Runtime, sandbox: &str, cache: &mut Cache) -> Result<Vec<IpAddr>> {
    if let Some(ips) = cache.addresses.get(sandbox) {
        return Ok(ips.clone());
    }
    let status = match runtime.sandbox_status(sandbox).await {
        Ok(status) => status,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let network = status.network.unwrap_or_default();
    let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|i| i.ip));
    let ips: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    if !ips.is_empty() {
        cache.addresses.insert(sandbox.to_owned(), ips.clone());
    }
    Ok(ips)
}

fn translate(status: cri::ContainerStatus, sandbox_id: &str) -> Container {
    let state = match status.state() {
        cri::ContainerState::ContainerCreated => State::Created,
        cri::ContainerState::ContainerRunning => State::Running,
        cri::ContainerState::ContainerExited => State::Exited,
        cri::ContainerState::ContainerUnknown => State::Unknown,
    };
    let mut message = status.message.clone();
    if state == State::Exited
        && let Some(text) = termination_message(&status)
    {
        message = text;
    }
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    Container {
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
        sandbox_id: sandbox_id.to_owned(),
        restart_count: annotation(labels::RESTART_COUNT).parse().unwrap_or(0),
        hash: annotation(labels::HASH),
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        image: status.image.map(|i| i.image).unwrap_or_default(),
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        reason: status.reason,
        message,
        log_path: status.log_path,
        id: status.id,
    }
}

/// What the container left at its termination message path, or the end of its log if the policy asks for that.
fn termination_message(status: &cri::ContainerStatus) -> Option<String> {
    let path = status.annotations.get(labels::TERMINATION_PATH)?;
    let mount = status.mounts.iter().find(|m| m.container_path == *path && !path.is_empty());
    let text = mount.and_then(|m| read_tail(&m.host_path, MAX_MESSAGE)).unwrap_or_default();
    if !text.is_empty() {
        return Some(text);
    }
    let fallback = status.annotations.get(labels::TERMINATION_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    (fallback && status.exit_code != 0).then(|| last_log_lines(&status.log_path)).flatten()
}

/// The last bytes of a regular file; links are not followed, the container could have made one.
fn read_tail(path: &str, limit: u64) -> Option<String> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let meta = file.metadata().ok()?;
    if !meta.is_file() {
        return None;
    }
    file.seek(SeekFrom::Start(meta.len().saturating_sub(limit))).ok()?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_log_lines(path: &str) -> Option<String> {
    // Each stored line carries about 45 bytes of prefix, so read somewhat more than is kept.
    let text = read_tail(path, MAX_LOG_MESSAGE * 4)?;
    let lines: Vec<logs::Line<'_>> = text.lines().filter_map(|line| logs::parse(line.as_bytes())).collect();
    let mut message = String::new();
    for line in &lines[lines.len().saturating_sub(MAX_LOG_LINES)..] {
        message.push_str(&String::from_utf8_lossy(line.text));
        if !line.partial {
            message.push('\n');
        }
    }
    let mut start = message.len().saturating_sub(MAX_LOG_MESSAGE as usize);
    while !message.is_char_boundary(start) {
        start += 1;
    }
    Some(message[start..].to_owned())
}

/// Stands in for containers that the runtime has no record of any more but the API has: a pod taken down with `kserver down`,
/// a wiped runtime. What ran then counts as ended with 137 (`pkg/kubelet/kubelet_pods.go`, `ContainerStatusUnknown`).
pub fn remember(observed: &mut Observed, statuses: &[k8s_openapi::api::core::v1::ContainerStatus]) {
    for status in statuses {
        let Some(id) = &status.container_id else { continue };
        if observed.container(&status.name).is_some() {
            continue;
        }
        let state = status.state.clone().unwrap_or_default();
        let past = state.terminated.clone().or_else(|| status.last_state.clone().and_then(|s| s.terminated).filter(|_| state.running.is_none()));
        let nanos = |t: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            t.as_ref().and_then(|t| i64::try_from(t.0.as_nanosecond()).ok()).unwrap_or(0)
        };
        let mut container = Container {
            id: String::new(),
            name: status.name.clone(),
            sandbox_id: String::new(),
            restart_count: u32::try_from(status.restart_count).unwrap_or(0),
            state: State::Exited,
            created_at: 0,
            started_at: 0,
            finished_at: 0,
            exit_code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: "The container could not be located when the pod was terminated".into(),
            image: status.image.clone(),
            image_id: status.image_id.clone(),
            hash: String::new(),
            log_path: String::new(),
        };
        match past {
            Some(ended) => {
                container.exit_code = ended.exit_code;
                container.reason = ended.reason.clone().unwrap_or_default();
                container.message = ended.message.clone().unwrap_or_default();
                container.started_at = nanos(&ended.started_at);
                container.finished_at = nanos(&ended.finished_at);
                container.id = ended.container_id.unwrap_or_default().trim_start_matches("containerd://").to_owned();
            }
            None => container.id = id.trim_start_matches("containerd://").to_owned(),
        }
        observed.containers.push(container);
    }
}

/// Shares an observation between the worker, the prober and the log followers.
pub type Shared = tokio::sync::watch::Receiver<Arc<Observed>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_has_newlines_only_where_the_container_wrote_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let head = "2016-10-06T00:17:09.669794202Z stdout";
        for (text, expected) in [
            (format!("{head} P DONE\n"), "DONE"),
            (format!("{head} F a b\n{head} P c\n{head} F d\n"), "a b\ncd\n"),
            (format!("cut off\n{head} F last\n"), "last\n"),
        ] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(last_log_lines(path.to_str().unwrap()).as_deref(), Some(expected), "{text}");
        }
    }
}

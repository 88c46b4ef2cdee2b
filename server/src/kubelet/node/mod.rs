//! The node itself: registration, heartbeat, status, pod network configuration.
//!
//! Owns the Node object's kubelet part and its Lease.

pub mod cni;
pub mod lease;
pub mod machine;
pub mod object;
pub mod registration;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use self::object::{Condition, Facts};
use self::registration::Registration;
use super::Kubelet;
use crate::events::Kind as EventKind;
use crate::informers::Change;

/// Time between looks at the machine (`nodeStatusUpdateFrequency`) and renewals of the lease.
pub const PERIOD: Duration = Duration::from_secs(10);
/// Memory that has to be left, in bytes (`evictionHard: memory.available`).
const MIN_MEMORY: i64 = 100 << 20;
/// Part of the disk that has to be left, in percent (`evictionHard: nodefs.available`).
const MIN_DISK: i64 = 10;

/// Looks at the machine and the runtime.
pub async fn look(kubelet: &Kubelet) -> Condition {
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|t| machine::meminfo(&t, "MemAvailable"));
    let disk = machine::disk(&kubelet.config.root_dir);
    let pids = (read_number("/proc/sys/kernel/pid_max"), running_tasks());
    let images = kubelet.runtime.list_images().await.unwrap_or_default();
    let named = images.into_iter().map(|i| {
        let names: Vec<String> = i.repo_digests.into_iter().chain(i.repo_tags).collect();
        (if names.is_empty() { vec![i.id] } else { names }, i64::try_from(i.size).unwrap_or(i64::MAX))
    });
    Condition {
        not_ready: not_ready(kubelet).await,
        memory_pressure: memory.is_some_and(|m| m < MIN_MEMORY),
        disk_pressure: disk.is_some_and(|d| d.available / (d.total / 100).max(1) < MIN_DISK),
        pid_pressure: matches!(pids, (Some(max), Some(used)) if used * 100 > max * 95),
        images: named.collect(),
    }
}

fn read_number(path: &str) -> Option<i64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Tasks that exist, from `/proc/loadavg` (`running/all`).
fn running_tasks() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

async fn not_ready(kubelet: &Kubelet) -> Option<String> {
    let status = match kubelet.runtime.status().await {
        Ok(status) => status,
        Err(_) => return Some("container runtime is down".into()),
    };
    let bad: Vec<String> = status
        .conditions
        .iter()
        .filter(|c| !c.status)
        .map(|c| {
            let what = if c.r#type == "NetworkReady" { "container runtime network not ready" } else { "container runtime not ready" };
            format!("{what}: {}={} reason:{} message:{}", c.r#type, c.status, c.reason, c.message)
        })
        .collect();
    (!bad.is_empty()).then(|| bad.join("; "))
}

/// Keeps the Node's status current and configures the pod network, for as long as it is polled.
pub async fn run(kubelet: Arc<Kubelet>, facts: Facts) {
    let mut registration = Registration::new(kubelet.client.clone(), facts);
    let node = register(&kubelet, &mut registration).await;
    let uid = tokio::sync::watch::Sender::new(node.metadata.uid.clone().unwrap_or_default());
    kubelet.recorder.event(&node, EventKind::Normal, "Starting", "Starting kubelet.");
    let renewals = lease::run(kubelet.client.clone(), kubelet.config.node_name.clone(), uid.subscribe(), PERIOD);
    kubelet.tasks.spawn("node-lease", renewals);
    let mut changes = kubelet.nodes.subscribe();
    let mut runtime = kubelet.runtime_up();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ranges: Vec<String> = Vec::new();
    let mut latest = node;
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(Change::Deleted(_)) => {
                    tracing::warn!("the Node object was deleted; registering again");
                    latest = register(&kubelet, &mut registration).await;
                    uid.send_replace(latest.metadata.uid.clone().unwrap_or_default());
                }
                Some(change) => {
                    latest = (**change.object()).clone();
                    let overwritten = registration.reconcile(&latest);
                    if configure_network(&kubelet, &latest, &mut ranges) {
                        // containerd watches its directory and needs a moment to load the file.
                        wait_for_network(&kubelet).await;
                    } else if !overwritten {
                        continue;
                    }
                }
                None => return,
            },
            changed = runtime.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {}
        }
        report(&kubelet, &mut registration, &latest).await;
    }
}

async fn register(kubelet: &Kubelet, registration: &mut Registration) -> Node {
    let mut pause = Duration::from_millis(100);
    loop {
        match registration.register(&look(kubelet).await).await {
            Ok(node) => return node,
            Err(error) => tracing::warn!(%error, "node not registered"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(7));
    }
}

async fn report(kubelet: &Kubelet, registration: &mut Registration, node: &Node) {
    match registration.report(&look(kubelet).await).await {
        Ok(changed) => {
            for condition in changed {
                let reason = match (condition.type_.as_str(), condition.status.as_str()) {
                    ("Ready", "True") => "NodeReady",
                    ("Ready", _) => "NodeNotReady",
                    ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
                    ("MemoryPressure", _) => "NodeHasSufficientMemory",
                    ("DiskPressure", "True") => "NodeHasDiskPressure",
                    ("DiskPressure", _) => "NodeHasNoDiskPressure",
                    ("PIDPressure", "True") => "NodeHasInsufficientPID",
                    _ => "NodeHasSufficientPID",
                };
                let text = format!("Node {} status is now: {reason}", kubelet.config.node_name);
                kubelet.recorder.event(node, EventKind::Normal, reason, text);
            }
        }
        Err(error) => tracing::warn!(%error, "node status not written"),
    }
}

/// Writes the CNI configuration if the node's pod ranges are new; true if it did.
fn configure_network(kubelet: &Kubelet, node: &Node, ranges: &mut Vec<String>) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let given = kubelet.config.pod_cidr.clone().map(|c| vec![c]);
    let wanted = spec.pod_cidrs.filter(|c| !c.is_empty()).or_else(|| spec.pod_cidr.map(|c| vec![c])).or(given).unwrap_or_default();
    if wanted.is_empty() || wanted == *ranges {
        return false;
    }
    let data: &Path = &kubelet.config.root_dir.join("cni-ipam");
    match cni::write(&kubelet.config.cni_conf_dir, &kubelet.config.bridge, &wanted, data) {
        Ok(_) => {
            tracing::info!(ranges = ?wanted, bridge = %kubelet.config.bridge, "pod network configured");
            *ranges = wanted;
            true
        }
        Err(error) => {
            tracing::error!(%error, "pod network not configured");
            false
        }
    }
}

/// Until the runtime reports its network ready, or for two seconds; the regular look does the rest.
async fn wait_for_network(kubelet: &Kubelet) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    let mut pause = Duration::from_millis(5);
    while tokio::time::Instant::now() < deadline && not_ready(kubelet).await.is_some() {
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

//! The `simulated` runtime: nodes and pods that exist in the API only, for work on the control plane, tests and scale.
//!
//! Nodes register and keep their leases; pods go from Pending to Running and ready (or to Succeeded, if they are not to run for
//! ever), and are deleted when asked to. `containerRuntimeVersion` says `simulated://`. No container is ever run.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tokio::sync::Semaphore;

use super::node::lease;
use super::node::machine::{self, Machine, VERSION};
use super::node::object::{Condition, Facts};
use super::node::registration::{self, Registration};
use super::pods::spec::{self, Kind};
use super::runtime::observe::{Container, Observed, Sandbox, State};
use super::status::{self, patch};
use crate::informers::{Change, Informers};
use crate::tasks::Tasks;

/// Time between lease renewals; the lease is good for 40 s, and the node controller waits 50 s.
const LEASE: Duration = Duration::from_secs(15);
/// How long a pod that ends by itself runs.
const WORK: Duration = Duration::from_secs(1);
/// Status writes under way at once.
const PARALLEL: usize = 32;
/// Pods a node takes.
const MAX_PODS: u32 = 250;

/// Registers `simulated-node-0` … and plays the kubelet for the pods bound to them. `client` gives each node its own identity;
/// `informers` must be allowed to watch all pods.
pub async fn run(nodes: usize, client: impl Fn(&str) -> Client, informers: &Informers, tasks: &Tasks) -> anyhow::Result<()> {
    let mut clients = HashMap::new();
    for index in 0..nodes {
        let name = format!("simulated-node-{index}");
        let client = client(&name);
        clients.insert(name.clone(), (client.clone(), address(index)));
        tasks.spawn(format!("simulated-node/{name}"), node(client, name, address(index)));
    }
    let pods = informers.get::<Pod>();
    let simulation = Arc::new(Simulation { clients, writes: Semaphore::new(PARALLEL), tasks: tasks.clone() });
    tasks.spawn("simulated-pods", async move {
        let mut changes = pods.subscribe();
        while let Some(change) = changes.recv().await {
            match change {
                Change::Added(pod) | Change::Updated { new: pod, .. } => simulation.look(pod),
                Change::Deleted(_) => {}
            }
        }
    });
    Ok(())
}

/// Addresses of the benchmarking range, which no real network uses.
fn address(index: usize) -> IpAddr {
    let low = u32::try_from(index).unwrap_or(0) & 0xffff;
    IpAddr::V4(Ipv4Addr::from(0xc612_0000 | (low + 1)))
}

/// An address for a pod, the same at every look: from 198.19.0.0/16.
fn pod_address(uid: &str) -> IpAddr {
    let hash = uid.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    IpAddr::V4(Ipv4Addr::from(0xc613_0000 | (hash & 0xffff)))
}

/// Keeps one node registered.
async fn node(client: Client, name: String, ip: IpAddr) {
    let runtime = format!("simulated://{}", env!("CARGO_PKG_VERSION"));
    let facts = Facts {
        name: name.clone(),
        ip,
        port: 10250,
        machine: Machine { millicores: 32_000, memory: 128 << 30, storage: 512 << 30 },
        max_pods: MAX_PODS,
        info: k8s_openapi::api::core::v1::NodeSystemInfo { kubelet_version: VERSION.into(), ..machine::info(&runtime) },
        labels: [("type".to_owned(), "simulated".to_owned())].into(),
        taints: Vec::new(),
    };
    let condition = Condition::default();
    let mut registration = Registration::new(client.clone(), facts);
    let mut pause = Duration::from_millis(100);
    let object = loop {
        match registration.register(&condition).await {
            Ok(object) => break object,
            Err(error) => tracing::warn!(node = %name, %error, "simulated node not registered"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(7));
    };
    let reports = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(300));
        loop {
            ticks.tick().await;
            if let Err(error) = registration.report(&condition).await {
                tracing::warn!(%error, "simulated node's status not written");
            }
        }
    };
    tokio::select! {
        () = lease::run(client, name, tokio::sync::watch::channel(object.metadata.uid.unwrap_or_default()).1, LEASE) => {}
        () = reports => {}
    }
}

/// What a simulated pod should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing; it is where it should be.
    Rest,
    /// Run.
    Run,
    /// Succeed, after having run a moment.
    Succeed,
    /// Vanish.
    Delete,
}

fn step(pod: &Pod) -> Step {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let ends = spec::restart_policy(pod) != "Always";
    match (pod.metadata.deletion_timestamp.is_some(), phase) {
        (true, _) => Step::Delete,
        (_, "Pending") => Step::Run,
        (_, "Running") if ends => Step::Succeed,
        _ => Step::Rest,
    }
}

struct Simulation {
    clients: HashMap<String, (Client, IpAddr)>,
    writes: Semaphore,
    tasks: Tasks,
}

impl Simulation {
    fn look(self: &Arc<Self>, pod: Arc<Pod>) {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        let step = step(&pod);
        if step == Step::Rest || !self.clients.contains_key(&node) {
            return;
        }
        let simulation = self.clone();
        self.tasks.spawn("simulated-pod", async move {
            if step == Step::Succeed {
                tokio::time::sleep(WORK).await;
            }
            let Ok(_permit) = simulation.writes.acquire().await else { return };
            if let Err(error) = simulation.act(&node, &pod, step).await {
                // A conflict or a missing pod: the change that caused it is on its way here.
                tracing::debug!(pod = %spec::title(&pod), %error, "simulated step not written");
            }
        });
    }

    async fn act(&self, node: &str, pod: &Pod, step: Step) -> Result<(), kube::Error> {
        let Some((client, ip)) = self.clients.get(node) else { return Ok(()) };
        let api: Api<Pod> = Api::namespaced(client.clone(), spec::namespace(pod));
        if step == Step::Delete {
            let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
            let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
            return api.delete(spec::name(pod), &params).await.map(drop);
        }
        let wanted = wanted(pod, *ip, step == Step::Succeed);
        let before = pod.status.clone().unwrap_or_default();
        let Some(patch) = patch::patch(spec::uid(pod), &before, &wanted) else { return Ok(()) };
        api.patch_status(spec::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }
}

/// The status that the real kubelet would report if every container ran, or had ended well.
fn wanted(pod: &Pod, node_ip: IpAddr, done: bool) -> k8s_openapi::api::core::v1::PodStatus {
    let now = registration::now();
    let nanos = i64::try_from(now.0.as_nanosecond()).unwrap_or(0);
    let containers = spec::containers(pod).into_iter().filter(|(kind, _)| *kind != Kind::Ephemeral);
    let containers = containers.map(|(kind, c)| {
        let ended = done || kind == Kind::Init;
        Container {
            id: format!("simulated-{}-{}", spec::uid(pod), c.name),
            name: c.name,
            sandbox_id: "simulated".into(),
            restart_count: 0,
            state: if ended { State::Exited } else { State::Running },
            created_at: nanos,
            started_at: nanos,
            finished_at: if ended { nanos } else { 0 },
            exit_code: 0,
            reason: if ended { "Completed".into() } else { String::new() },
            message: String::new(),
            image_id: format!("simulated:{}", c.image.as_deref().unwrap_or_default()),
            image: c.image.unwrap_or_default(),
            hash: String::new(),
            log_path: String::new(),
        }
    });
    let sandbox = Sandbox { id: "simulated".into(), attempt: 0, ready: !done, created_at: nanos, ips: vec![pod_address(spec::uid(pod))] };
    let observed = Observed { sandboxes: vec![sandbox], containers: containers.collect() };
    status::compute(&status::Input {
        pod,
        observed: &observed,
        health: &HashMap::new(),
        waiting: &HashMap::new(),
        failure: None,
        applied: &HashMap::new(),
        resize: None,
        terminal: done,
        node_ips: &[node_ip],
        now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(policy: &str, phase: &str, deleted: bool) -> Pod {
        let stamp = deleted.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "deletionTimestamp": stamp },
            "spec": { "nodeName": "simulated-node-0", "restartPolicy": policy, "containers": [{ "name": "a", "image": "x" }] },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    #[test]
    fn pods_run_and_those_that_end_succeed() {
        for (policy, phase, deleted, expected) in [
            ("Always", "Pending", false, Step::Run),
            ("Always", "Running", false, Step::Rest),
            ("Never", "Running", false, Step::Succeed),
            ("OnFailure", "Succeeded", false, Step::Rest),
            ("Always", "Running", true, Step::Delete),
            ("Never", "Succeeded", true, Step::Delete),
        ] {
            assert_eq!(step(&pod(policy, phase, deleted)), expected, "{policy} {phase} {deleted}");
        }
    }

    #[test]
    fn the_status_is_that_of_a_healthy_pod() {
        let running = wanted(&pod("Always", "Pending", false), "198.18.0.1".parse().unwrap(), false);
        assert_eq!(running.phase.as_deref(), Some("Running"));
        assert!(running.conditions.unwrap().iter().all(|c| c.status == "True"));
        let done = wanted(&pod("Never", "Running", false), "198.18.0.1".parse().unwrap(), true);
        assert_eq!(done.phase.as_deref(), Some("Succeeded"));
    }
}

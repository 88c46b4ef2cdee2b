//! Watches over nodes: one that falls silent becomes Unknown, is tainted, and its pods count as not ready
//! (`pkg/controller/nodelifecycle`).
//!
//! Owns the `node.kubernetes.io/*` taints and the conditions of silent nodes. Deletes nothing: that is taint-eviction's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::error::found;
use super::queue::{Key, Queue};
use super::{Config, Context, Error, elapsed, now, pods, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

mod health;

use health::ZoneState;

const WORKERS: usize = 8;
const LEASES: &str = "kube-node-lease";

/// Starts the controller.
pub fn start(ctx: Context) {
    let (nodes, all_pods, leases) = (ctx.informers.get::<Node>(), ctx.informers.get::<Pod>(), ctx.informers.get::<Lease>());
    let queue: Queue<Key> = Queue::new();
    let lifecycle = Arc::new(Lifecycle {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        config: ctx.config.clone(),
        nodes: nodes.clone(),
        pods: all_pods.clone(),
        queue: queue.clone(),
        probes: Mutex::default(),
        zones: Mutex::default(),
    });
    let all = nodes.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().map(|n| Key::of(&**n)).collect());
    let state = lifecycle.clone();
    ctx.on(&nodes, move |change| state.node_changed(&change));
    // A renewed lease only moves the time of the last sign; the timer that is running finds that out.
    let state = lifecycle.clone();
    ctx.on(&leases, move |change| {
        let lease = change.object();
        if lease.metadata.namespace.as_deref() == Some(LEASES)
            && let Some(renewed) = lease.spec.as_ref().and_then(|s| s.renew_time.clone())
        {
            state.renewed(lease.metadata.name.as_deref().unwrap_or_default(), renewed);
        }
    });
    // A pod that comes to a silent node is not ready either.
    let (known, into) = (nodes.clone(), queue.clone());
    ctx.on(&all_pods, move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_))
            && pods::is_ready(pod)
            && known.get("", pods::node_name(pod)).is_some_and(|n| health::ready(&n) == "Unknown")
        {
            into.add(Key::new("", pods::node_name(pod)));
        }
    });
    ctx.work(&queue, WORKERS, vec![synced(&nodes), synced(&all_pods), synced(&leases)], move |key| {
        let lifecycle = lifecycle.clone();
        async move { lifecycle.sync(&key).await }
    });
}

/// The last sign of life of a node. Only changes count, and when they were seen here: other clocks are not trusted.
struct Probe {
    at: Instant,
    renewed: Option<MicroTime>,
}

#[derive(Default)]
struct Zones {
    states: HashMap<String, ZoneState>,
    /// When the next node of a zone may be tainted for eviction.
    next: HashMap<String, Instant>,
}

struct Lifecycle {
    client: kube::Client,
    recorder: Recorder,
    config: Arc<Config>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    queue: Queue<Key>,
    probes: Mutex<HashMap<String, Probe>>,
    zones: Mutex<Zones>,
}

impl Lifecycle {
    fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        let name = node.metadata.name.clone().unwrap_or_default();
        match change {
            Change::Added(_) => {
                self.probes.lock().entry(name.clone()).or_insert_with(|| Probe { at: Instant::now(), renewed: None });
                self.event(node, "RegisteredNode", format!("Node {name} event: Registered Node {name} in Controller"));
            }
            Change::Updated { old, new } => {
                if health::heartbeat(old) != health::heartbeat(new) && health::ready(new) != "Unknown" {
                    self.sign_of_life(&name);
                }
                if !health::matters(old, new) {
                    return;
                }
            }
            Change::Deleted(_) => {
                self.probes.lock().remove(&name);
                self.event(node, "RemovingNode", format!("Node {name} event: Removing Node {name} from Controller"));
            }
        }
        self.judge_zones();
        self.queue.add(Key::new("", name));
    }

    fn sign_of_life(&self, name: &str) {
        let mut probes = self.probes.lock();
        let renewed = probes.remove(name).and_then(|p| p.renewed);
        probes.insert(name.to_owned(), Probe { at: Instant::now(), renewed });
    }

    fn renewed(&self, name: &str, renewed: MicroTime) {
        let mut probes = self.probes.lock();
        let probe = probes.entry(name.to_owned()).or_insert_with(|| Probe { at: Instant::now(), renewed: None });
        if probe.renewed.as_ref().is_none_or(|before| *before < renewed) {
            *probe = Probe { at: Instant::now(), renewed: Some(renewed) };
        }
    }

    /// Looks at all zones anew. When everything goes down, or the first node comes back, every node is looked at again.
    fn judge_zones(&self) {
        let nodes = self.nodes.list();
        let states = health::zones(&nodes);
        let mut zones = self.zones.lock();
        let (was, is) = (health::all_down(&zones.states), health::all_down(&states));
        zones.states = states;
        if was == is {
            return;
        }
        if was {
            // It was this process that could not see them: they all get their full time again.
            self.probes.lock().values_mut().for_each(|p| p.at = Instant::now());
        }
        for node in &nodes {
            self.queue.add(Key::of(&**node));
        }
    }

    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(node) = self.nodes.get("", &key.name) else { return Ok(()) };
        let left = self.time_left(&node);
        if !left.is_zero() {
            self.queue.add_after(key.clone(), left);
        } else if self.silence(&node).await? {
            // That change brings the node back, when its zone has been judged anew: nothing is evicted on what was known before.
            return Ok(());
        }
        self.taint(key, &node).await?;
        if health::ready(&node) == "Unknown" && health::condition(&node, "Ready").is_some() {
            self.mark_pods(&key.name).await?;
        }
        Ok(())
    }

    /// How long the node may still be silent.
    fn time_left(&self, node: &Node) -> Duration {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let silent = self.probes.lock().get(name).map(|p| p.at.elapsed()).unwrap_or_default();
        let grace = if health::condition(node, "Ready").is_some() { self.config.node_monitor_grace } else { self.config.node_startup_grace };
        let silent = match (&node.metadata.creation_timestamp, health::condition(node, "Ready")) {
            (Some(created), None) => elapsed(created, &now()).max(silent),
            _ => silent,
        };
        grace.saturating_sub(silent)
    }

    /// Returns whether the node had to be told apart from those that report.
    async fn silence(&self, node: &Node) -> Result<bool, Error> {
        let Some(conditions) = health::silenced(node, &now()) else { return Ok(false) };
        let was_ready = health::ready(node) == "True";
        let name = node.metadata.name.clone().unwrap_or_default();
        let patch = json!({
            "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
            "status": { "conditions": conditions },
        });
        let api: Api<Node> = Api::all(self.client.clone());
        let written = found(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        if was_ready && written.is_some() {
            self.event(node, "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        }
        Ok(true)
    }

    async fn taint(&self, key: &Key, node: &Node) -> Result<(), Error> {
        let wanted = match health::no_execute(node) {
            // Being evicted already; only the reason may change.
            Some(taint) if health::evicts(node) && !self.is_blind() => Some(taint),
            Some(taint) => self.may_evict(key, node).then_some(taint),
            None => None,
        };
        let Some(taints) = health::wanted_taints(node, wanted, &now()) else { return Ok(()) };
        let patch = json!({
            "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": taints },
        });
        let api: Api<Node> = Api::all(self.client.clone());
        found(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    fn is_blind(&self) -> bool {
        health::all_down(&self.zones.lock().states)
    }

    /// Whether the node's zone has an eviction to give; if it will have one later the node comes back then.
    fn may_evict(&self, key: &Key, node: &Node) -> bool {
        let mut zones = self.zones.lock();
        let zone = health::zone(node);
        let period = zones.states.get(&zone).copied().unwrap_or(ZoneState::Normal).period();
        let (false, Some(period)) = (health::all_down(&zones.states), period) else { return false };
        let now = Instant::now();
        let next = zones.next.entry(zone).or_insert(now);
        if *next > now {
            self.queue.add_after(key.clone(), *next - now);
            return false;
        }
        *next = now + period;
        true
    }

    /// Nobody can tell whether the pods of a silent node still serve, so no traffic is sent to them.
    async fn mark_pods(&self, node: &str) -> Result<(), Error> {
        let mut errors = Vec::new();
        for pod in self.pods.list().iter().filter(|p| pods::node_name(p) == node && pods::is_ready(p)) {
            let mut marked = (**pod).clone();
            let Some(ready) = pods::condition(pod, "Ready").cloned() else { continue };
            pods::set_condition(&mut marked, PodCondition { status: "False".into(), ..ready }, &now());
            let patch = json!({
                "metadata": { "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version },
                "status": { "conditions": marked.status.and_then(|s| s.conditions).unwrap_or_default() },
            });
            let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
            match found(api.patch_status(pods::name(pod), &PatchParams::default(), &Patch::Merge(patch)).await) {
                Ok(Some(_)) => self.recorder.event(&**pod, Kind::Warning, "NodeNotReady", "Node is not ready"),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        super::error::aggregate(errors)
    }

    fn event(&self, node: &Node, reason: &str, text: String) {
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        self.recorder.event_on(object, Kind::Normal, reason, text);
    }
}

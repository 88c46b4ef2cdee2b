//! A node with what is already on it (`pkg/scheduler/framework/types.go`).
//!
//! Owns the sums; they change only by [`NodeInfo::add`] and [`NodeInfo::remove`].

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use shared::quantity::Quantity;

use super::pod_info::{Class, HostPort, PodInfo};
use super::resources::Resources;

/// How many pods of a class a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub all: i64,
    /// Those whose deletion has not begun.
    pub live: i64,
}

/// A node and its pods.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Name.
    pub name: Arc<str>,
    /// The object; `None` while only its pods are known.
    pub node: Option<Arc<Node>>,
    /// What pods may take.
    pub allocatable: Resources,
    /// How many pods there may be.
    pub allowed_pods: i64,
    /// What its pods take.
    pub requested: Resources,
    /// The same with assumed amounts, for scores.
    pub nonzero: Resources,
    /// Its pods, bound or assumed.
    pub pods: Vec<Arc<PodInfo>>,
    /// Those with any affinity.
    pub with_affinity: Vec<Arc<PodInfo>>,
    /// Ports taken.
    pub ports: Vec<HostPort>,
    /// Pods by what selectors see of them.
    pub classes: HashMap<Arc<Class>, Count>,
}

impl NodeInfo {
    /// A node of which nothing is known yet.
    pub fn new(name: Arc<str>) -> Self {
        NodeInfo {
            name,
            node: None,
            allocatable: Resources::default(),
            allowed_pods: 0,
            requested: Resources::default(),
            nonzero: Resources::default(),
            pods: Vec::new(),
            with_affinity: Vec::new(),
            ports: Vec::new(),
            classes: HashMap::new(),
        }
    }

    /// Takes a new state of the object.
    pub fn set_node(&mut self, node: Option<Arc<Node>>) {
        let allocatable = node.as_ref().and_then(|n| n.status.as_ref()).and_then(|s| s.allocatable.as_ref());
        self.allocatable = allocatable.map(Resources::from_wire).unwrap_or_default();
        self.allowed_pods = allocatable.and_then(|a| a.get("pods")).map_or(0, |q| Quantity::of(q).value());
        self.node = node;
    }

    /// Puts a pod on the node.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.nonzero.add(&pod.nonzero);
        self.ports.extend(pod.ports.iter().cloned());
        let count = self.classes.entry(pod.class.clone()).or_default();
        count.all += 1;
        count.live += i64::from(!pod.terminating());
        if pod.has_affinity() {
            self.with_affinity.push(pod.clone());
        }
        self.pods.push(pod);
    }

    /// Takes a pod off the node; `None` when it is not there.
    pub fn remove(&mut self, key: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|p| &*p.key == key)?;
        let pod = self.pods.swap_remove(at);
        self.requested.sub(&pod.requests);
        self.nonzero.sub(&pod.nonzero);
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(count) = self.classes.get_mut(&pod.class) {
            count.all -= 1;
            count.live -= i64::from(!pod.terminating());
            if count.all == 0 {
                self.classes.remove(&pod.class);
            }
        }
        self.with_affinity.retain(|p| p.key != pod.key);
        Some(pod)
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.as_ref()?.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Its taints.
    pub fn taints(&self) -> &[Taint] {
        self.node.as_ref().and_then(|n| n.spec.as_ref()).and_then(|s| s.taints.as_deref()).unwrap_or_default()
    }
}

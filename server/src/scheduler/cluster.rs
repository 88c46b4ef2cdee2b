//! The cluster as decisions see it: nodes with their pods, bound and assumed, and the few other objects that plugins ask about
//! (`pkg/scheduler/backend/cache/cache.go`).
//!
//! Owned by the one task that decides, so it needs no lock and is never copied: it *is* the snapshot, kept up to date change by
//! change. Must do no I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use shared::selector::Selector;

use super::node_info::NodeInfo;
use super::pod_info::{Labels, PodInfo};

/// Namespace (empty for cluster-scoped kinds) and name.
pub type ObjectKey = (String, String);

/// How common an image is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageState {
    /// Bytes.
    pub size: i64,
    /// Nodes that hold it.
    pub nodes: i64,
}

/// Everything a decision may look at.
#[derive(Default)]
pub struct Cluster {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, usize>,
    /// Where each placed pod is.
    placed: HashMap<Arc<str>, Arc<str>>,
    /// Pods waiting for room that preemption makes, by node.
    nominated: HashMap<String, Vec<Arc<PodInfo>>>,
    /// Number of placed pods with any affinity, so that most decisions need not look.
    affinity_pods: usize,
    images: HashMap<String, ImageState>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, Labels>,
    /// Selectors of Services and of workloads: what the default spread constraints count.
    pub workloads: BTreeMap<(&'static str, ObjectKey), Selector>,
    /// Claims.
    pub claims: BTreeMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    /// Volumes, by name.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// Storage classes, by name.
    pub storage_classes: BTreeMap<String, Arc<StorageClass>>,
    /// What CSI drivers say of their nodes, by name.
    pub csi_nodes: BTreeMap<String, Arc<CSINode>>,
    /// Volumes promised to claims of pods whose binding is under way, by name, with the UID of the pod.
    pub reserved: HashMap<String, String>,
    /// Disruption budgets.
    pub budgets: BTreeMap<ObjectKey, Arc<PodDisruptionBudget>>,
}

impl Cluster {
    /// The nodes that exist. Positions change when nodes come and go.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> + Clone {
        self.nodes.iter().filter(|n| n.node.is_some())
    }

    /// A node that exists.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|at| &self.nodes[*at]).filter(|n| n.node.is_some())
    }

    /// Whether any placed pod has affinity.
    pub fn any_affinity(&self) -> bool {
        self.affinity_pods > 0
    }

    /// How common an image is.
    pub fn image(&self, name: &str) -> ImageState {
        self.images.get(name).copied().unwrap_or_default()
    }

    /// Takes a new or changed node.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        let at = self.slot(&name);
        let old = self.nodes[at].node.take();
        self.count_images(old.as_deref(), -1);
        self.count_images(Some(&node), 1);
        self.nodes[at].set_node(Some(node));
    }

    /// Takes a node away. Its pods stay known until they are deleted too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(&at) = self.by_name.get(name) {
            let old = self.nodes[at].node.take();
            self.count_images(old.as_deref(), -1);
            self.nodes[at].set_node(None);
            self.forget_if_empty(at);
        }
    }

    fn count_images(&mut self, node: Option<&Node>, by: i64) {
        let images = node.and_then(|n| n.status.as_ref()).and_then(|s| s.images.as_ref());
        for image in images.into_iter().flatten() {
            for name in image.names.iter().flatten() {
                let state = self.images.entry(name.clone()).or_default();
                state.size = image.size_bytes.unwrap_or(0);
                state.nodes += by;
                if state.nodes <= 0 {
                    self.images.remove(name);
                }
            }
        }
    }

    fn slot(&mut self, name: &Arc<str>) -> usize {
        *self.by_name.entry(name.clone()).or_insert_with(|| {
            self.nodes.push(NodeInfo::new(name.clone()));
            self.nodes.len() - 1
        })
    }

    fn forget_if_empty(&mut self, at: usize) {
        if self.nodes[at].node.is_none() && self.nodes[at].pods.is_empty() {
            let gone = self.nodes.swap_remove(at);
            self.by_name.remove(&gone.name);
            if let Some(moved) = self.nodes.get(at) {
                self.by_name.insert(moved.name.clone(), at);
            }
        }
    }

    /// Puts a pod on a node, bound or assumed, in place of what was known of it.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.displace(&pod.key);
        let name: Arc<str> = node.into();
        let at = self.slot(&name);
        self.affinity_pods += usize::from(pod.has_affinity());
        self.placed.insert(pod.key.clone(), name);
        self.nodes[at].add(pod);
    }

    /// Takes a pod off its node.
    pub fn displace(&mut self, key: &str) -> Option<Arc<PodInfo>> {
        let name = self.placed.remove(key)?;
        let at = *self.by_name.get(&name)?;
        let pod = self.nodes[at].remove(key)?;
        self.affinity_pods -= usize::from(pod.has_affinity());
        self.forget_if_empty(at);
        Some(pod)
    }

    /// The node a pod is on.
    pub fn placement(&self, key: &str) -> Option<&str> {
        self.placed.get(key).map(|n| &**n)
    }

    /// Remembers that room is being made for a pod.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.key);
        self.nominated.entry(node.to_owned()).or_default().push(pod);
    }

    /// Forgets a nomination; true when there was one.
    pub fn withdraw(&mut self, key: &str) -> bool {
        let mut found = false;
        self.nominated.retain(|_, pods| {
            let before = pods.len();
            pods.retain(|p| &*p.key != key);
            found |= pods.len() < before;
            !pods.is_empty()
        });
        found
    }

    /// Pods for which room is being made on a node.
    pub fn nominated(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{node, pod};
    use super::*;

    #[test]
    fn a_node_that_goes_keeps_its_pods_until_they_go_too() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("a").build());
        cluster.set_node(node("b").build());
        cluster.place(pod("p").cpu("1").info(), "a");
        cluster.remove_node("a");
        assert!(cluster.node("a").is_none());
        assert_eq!(cluster.placement("default/p"), Some("a"));
        cluster.set_node(node("a").build());
        assert_eq!(cluster.node("a").unwrap().requested.milli_cpu, 1000);
        cluster.remove_node("a");
        cluster.displace("default/p");
        assert_eq!(cluster.nodes().map(|n| &*n.name).collect::<Vec<_>>(), ["b"]);
        assert!(cluster.node("b").is_some());
    }

    #[test]
    fn placing_a_pod_again_moves_it_and_never_counts_it_twice() {
        let mut cluster = Cluster::default();
        for name in ["a", "b"] {
            cluster.set_node(node(name).build());
        }
        cluster.place(pod("p").cpu("1").info(), "a");
        cluster.place(pod("p").cpu("2").info(), "b");
        assert_eq!(cluster.node("a").unwrap().requested.milli_cpu, 0);
        assert_eq!(cluster.node("b").unwrap().requested.milli_cpu, 2000);
    }

    #[test]
    fn images_are_counted_by_node() {
        let mut cluster = Cluster::default();
        for name in ["a", "b"] {
            cluster.set_node(node(name).image("i:1", 7).build());
        }
        assert_eq!((cluster.image("i:1").nodes, cluster.image("i:1").size), (2, 7));
        cluster.set_node(node("a").build());
        cluster.remove_node("b");
        assert_eq!(cluster.image("i:1").nodes, 0);
    }
}

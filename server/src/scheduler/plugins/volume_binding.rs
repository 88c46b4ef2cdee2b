//! Claims must exist, and be bound to volumes that the node can reach, or be bindable once a node is chosen
//! (`pkg/scheduler/framework/plugins/volumebinding/`).
//!
//! Claims of `WaitForFirstConsumer` classes are matched with free volumes that the node can reach, or handed to their provisioner; what
//! [`plan`] says is carried out before the pod is bound.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use super::super::node_selector::selector_matches;
use super::*;
use crate::controllers::persistent_volume::matching;

/// See the module.
pub struct VolumeBinding;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";

/// Names of a pod's claims, and whether each is made for the pod.
pub fn claim_names(pod: &Pod) -> Vec<(String, bool)> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let claim = |v: &k8s_openapi::api::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(source), _) => Some((source.claim_name.clone(), false)),
        (_, Some(_)) => Some((format!("{name}-{}", v.name), true)),
        _ => None,
    };
    volumes.iter().filter_map(claim).collect()
}

/// How far a claim is.
enum State {
    /// Bound to a volume of this name.
    Bound(String),
    /// Waits for a node to be chosen.
    Delayed,
    /// Somebody else must bind it first.
    Unbound,
}

fn state(claim: &PersistentVolumeClaim, cluster: &Cluster) -> State {
    let spec = claim.spec.as_ref();
    let bound = is_bound(claim);
    if let Some(volume) = spec.and_then(|s| s.volume_name.as_ref()).filter(|v| !v.is_empty()) {
        return if bound { State::Bound(volume.clone()) } else { State::Unbound };
    }
    match class(claim, cluster) {
        Some(class) if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => State::Delayed,
        _ => State::Unbound,
    }
}

fn class<'a>(claim: &PersistentVolumeClaim, cluster: &'a Cluster) -> Option<&'a StorageClass> {
    cluster.storage_classes.get(matching::claim_class(claim)).map(|class| &**class)
}

/// Whether a claim has its volume.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_ref()).is_some_and(|v| !v.is_empty());
    named
        && (claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("pv.kubernetes.io/bind-completed"))
            || claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound"))
}

/// The node that was chosen for a claim.
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    matching::annotation(&claim.metadata, SELECTED_NODE)
}

/// What is wrong with a claim whatever the node; upstream's texts.
fn problem(cycle: Cycle<'_>, name: &str, ephemeral: bool) -> Result<Arc<PersistentVolumeClaim>, String> {
    let Some(claim) = cycle.cluster.claims.get(&(cycle.pod.namespace().to_owned(), name.to_owned())) else {
        return Err(if ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
        } else {
            format!("persistentvolumeclaim \"{name}\" not found")
        });
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
        let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        return Err(format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""));
    }
    Ok(claim.clone())
}

/// What must be done for a pod's claims before it is bound to a node.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Claims that get these volumes.
    pub bind: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>)>,
    /// Claims whose provisioner is told the node.
    pub provision: Vec<Arc<PersistentVolumeClaim>>,
}

impl Plan {
    /// Nothing need be done.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

/// The plan for a pod on a node that [`VolumeBinding`] allows.
pub fn plan(pod: &PodInfo, cluster: &Cluster, node: &str) -> Plan {
    let claims = claim_names(&pod.pod).into_iter().filter_map(|(name, _)| cluster.claims.get(&(pod.namespace().to_owned(), name)));
    let delayed: Vec<_> = claims.filter(|c| matches!(state(c, cluster), State::Delayed)).cloned().collect();
    cluster.node(node).and_then(|node| choose(pod, cluster, node, &delayed)).unwrap_or_default()
}

/// How claims that wait for a node would get their volumes on this one; `None` when they cannot.
fn choose(pod: &PodInfo, cluster: &Cluster, node: &NodeInfo, claims: &[Arc<PersistentVolumeClaim>]) -> Option<Plan> {
    let mut plan = Plan::default();
    for claim in claims {
        match selected_node(claim) {
            // Its provisioner is at work for that node already.
            Some(selected) if selected == &*node.name => {
                plan.provision.push(claim.clone());
                continue;
            }
            Some(_) => return None,
            None => {}
        }
        let taken = |v: &PersistentVolume| plan.bind.iter().any(|(_, other)| other.metadata.name == v.metadata.name);
        let free = |v: &&Arc<PersistentVolume>| {
            let holder = v.metadata.name.as_ref().and_then(|name| cluster.reserved.get(name));
            holder.is_none_or(|uid| uid == pod.uid()) && !taken(v)
        };
        let reach = |v: &PersistentVolume| reaches(node, v);
        if let Some(volume) = matching::find(claim, cluster.volumes.values().filter(free), false, Some(&reach)) {
            plan.bind.push((claim.clone(), volume));
        } else if class(claim, cluster).is_some_and(|class| provisions(class, node)) {
            plan.provision.push(claim.clone());
        } else {
            return None;
        }
    }
    Some(plan)
}

/// Whether a node can use a volume.
fn reaches(node: &NodeInfo, volume: &PersistentVolume) -> bool {
    let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    required.is_none_or(|r| node.node.as_ref().is_some_and(|n| selector_matches(r, n)))
}

/// Whether a class has volumes made, and for this node too.
fn provisions(class: &StorageClass, node: &NodeInfo) -> bool {
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    let allowed = topologies.iter().any(|term| {
        let expressions = term.match_label_expressions.as_deref().unwrap_or_default();
        expressions.iter().all(|e| node.label(&e.key).is_some_and(|value| e.values.iter().any(|v| v == value)))
    });
    class.provisioner != "kubernetes.io/no-provisioner" && (topologies.is_empty() || allowed)
}

/// The merge patch that tells a claim's provisioner which node was chosen.
pub fn selected_node_patch(node: &str) -> serde_json::Value {
    serde_json::json!({ "metadata": { "annotations": { SELECTED_NODE: node } } })
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let names = claim_names(&cycle.pod.pod);
        if names.is_empty() {
            return Filter::Skip;
        }
        let (mut volumes, mut delayed) = (Vec::new(), Vec::new());
        for (name, ephemeral) in names {
            let claim = match problem(cycle, &name, ephemeral) {
                Ok(claim) => claim,
                Err(text) => return Filter::Refuse(Refusal::lasting(text)),
            };
            match state(&claim, cycle.cluster) {
                State::Bound(volume) => volumes.push(volume),
                State::Delayed => delayed.push(claim),
                State::Unbound => return Filter::Refuse(Refusal::lasting("pod has unbound immediate PersistentVolumeClaims")),
            }
        }
        Filter::Nodes(Box::new(move |node| {
            for name in &volumes {
                let Some(volume) = cycle.cluster.volumes.get(name) else {
                    return Err(Refusal::lasting("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
                };
                if !reaches(node, volume) {
                    return Err(Refusal::lasting("node(s) didn't match PersistentVolume's node affinity"));
                }
            }
            if choose(cycle.pod, cycle.cluster, node, &delayed).is_some() { Ok(()) } else { Err(Refusal::lasting(NO_VOLUME)) }
        }))
    }

    fn worth_retrying(&self, event: &ClusterEvent, _: &PodInfo, _: &Cluster) -> bool {
        matches!(event, ClusterEvent::Storage | ClusterEvent::NodeAdded(_) | ClusterEvent::NodeUpdated { .. } | ClusterEvent::PodChanged)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::testing::{cluster, node, pod, refusal};
    use super::*;

    fn claim(name: &str, class: &str, annotations: Value) -> Arc<PersistentVolumeClaim> {
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "default", "uid": name, "annotations": annotations },
            "spec": { "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }))
            .unwrap(),
        )
    }

    fn volume(name: &str, on: &str) -> Arc<PersistentVolume> {
        let term = json!({ "matchExpressions": [{ "key": "host", "operator": "In", "values": [on] }] });
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name }, "status": { "phase": "Available" }, "spec": { "storageClassName": "local",
            "capacity": { "storage": "2Gi" }, "accessModes": ["ReadWriteOnce"], "nodeAffinity": { "required": { "nodeSelectorTerms": [term] } } } }))
            .unwrap(),
        )
    }

    fn two_nodes() -> Cluster {
        let mut cluster = cluster([node("a").label("host", "a"), node("b").label("host", "b")]);
        for (name, provisioner) in [("local", "kubernetes.io/no-provisioner"), ("late", "x.io/p")] {
            let class = json!({ "metadata": { "name": name }, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer" });
            cluster.storage_classes.insert(name.into(), Arc::new(serde_json::from_value(class).unwrap()));
        }
        cluster.volumes.insert("va".into(), volume("va", "a"));
        cluster
    }

    #[test]
    fn local_volumes_are_found_where_they_are_and_given_once() {
        let mut cluster = two_nodes();
        cluster.claims.insert(("default".into(), "c".into()), claim("c", "local", json!({})));
        let pod = pod("p").claim("c").info();
        assert_eq!(refusal(&VolumeBinding, &pod, &cluster, "a"), None);
        assert_eq!(refusal(&VolumeBinding, &pod, &cluster, "b").as_deref(), Some(NO_VOLUME));
        let plan = plan(&pod, &cluster, "a");
        assert_eq!((plan.bind.len(), plan.bind[0].1.metadata.name.as_deref(), plan.provision.len()), (1, Some("va"), 0));
        cluster.reserved.insert("va".into(), "another".into());
        assert_eq!(refusal(&VolumeBinding, &pod, &cluster, "a").as_deref(), Some(NO_VOLUME));
    }

    #[test]
    fn a_claim_under_provision_keeps_its_pod_to_the_node() {
        let mut cluster = two_nodes();
        let pod = pod("p").claim("c").info();
        cluster.claims.insert(("default".into(), "c".into()), claim("c", "late", json!({})));
        assert_eq!([refusal(&VolumeBinding, &pod, &cluster, "a"), refusal(&VolumeBinding, &pod, &cluster, "b")], [None, None]);
        assert_eq!(plan(&pod, &cluster, "b").provision.len(), 1);
        cluster.claims.insert(("default".into(), "c".into()), claim("c", "late", json!({ SELECTED_NODE: "b" })));
        assert_eq!(refusal(&VolumeBinding, &pod, &cluster, "a").as_deref(), Some(NO_VOLUME));
        assert_eq!(refusal(&VolumeBinding, &pod, &cluster, "b"), None);
    }
}

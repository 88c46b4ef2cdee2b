//! Claims must exist, and be bound to volumes that the node can reach, or be bindable once a node is chosen
//! (`pkg/scheduler/framework/plugins/volumebinding/`).
//!
//! Claims of `WaitForFirstConsumer` classes are handed to their provisioner by [`claims_to_provision`]; volumes that must be
//! matched by hand (`kubernetes.io/no-provisioner`) are not chosen here, a pod that needs one says so.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::super::node_selector::selector_matches;
use super::*;

/// See the module.
pub struct VolumeBinding;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Names of a pod's claims, and whether each is made for the pod.
fn claim_names(pod: &Pod) -> Vec<(String, bool)> {
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
    /// Waits for a node to be chosen, with a provisioner.
    Provisionable,
    /// Waits for a node to be chosen, and nobody provisions.
    Manual,
    /// Somebody else must bind it first.
    Unbound,
}

fn state(claim: &PersistentVolumeClaim, cluster: &Cluster) -> State {
    let spec = claim.spec.as_ref();
    let bound = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("pv.kubernetes.io/bind-completed"))
        || claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    if let Some(volume) = spec.and_then(|s| s.volume_name.as_ref()).filter(|v| !v.is_empty()) {
        return if bound { State::Bound(volume.clone()) } else { State::Unbound };
    }
    let class = spec.and_then(|s| s.storage_class_name.as_ref()).and_then(|name| cluster.storage_classes.get(name));
    match class {
        Some(class) if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => {
            if class.provisioner == "kubernetes.io/no-provisioner" { State::Manual } else { State::Provisionable }
        }
        _ => State::Unbound,
    }
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

/// The claims that must get a selected node before the pod is bound, so that their provisioner acts.
pub fn claims_to_provision(pod: &PodInfo, cluster: &Cluster) -> Vec<Arc<PersistentVolumeClaim>> {
    let claims = claim_names(&pod.pod).into_iter().filter_map(|(name, _)| cluster.claims.get(&(pod.namespace().to_owned(), name)));
    claims.filter(|c| matches!(state(c, cluster), State::Provisionable)).cloned().collect()
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
        let mut volumes = Vec::new();
        let mut manual = false;
        for (name, ephemeral) in names {
            let claim = match problem(cycle, &name, ephemeral) {
                Ok(claim) => claim,
                Err(text) => return Filter::Refuse(Refusal::lasting(text)),
            };
            match state(&claim, cycle.cluster) {
                State::Bound(volume) => volumes.push(volume),
                State::Provisionable => {}
                State::Manual => manual = true,
                State::Unbound => return Filter::Refuse(Refusal::lasting("pod has unbound immediate PersistentVolumeClaims")),
            }
        }
        Filter::Nodes(Box::new(move |node| {
            for name in &volumes {
                let Some(volume) = cycle.cluster.volumes.get(name) else {
                    return Err(Refusal::lasting("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
                };
                let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
                if required.is_some_and(|r| !node.node.as_ref().is_some_and(|n| selector_matches(r, n))) {
                    return Err(Refusal::lasting("node(s) didn't match PersistentVolume's node affinity"));
                }
            }
            if manual { Err(Refusal::lasting("node(s) didn't find available persistent volumes to bind")) } else { Ok(()) }
        }))
    }

    fn worth_retrying(&self, event: &ClusterEvent, _: &PodInfo, _: &Cluster) -> bool {
        matches!(event, ClusterEvent::Storage | ClusterEvent::NodeAdded(_) | ClusterEvent::NodeUpdated { .. } | ClusterEvent::PodChanged)
    }
}

//! Changes of the cluster that may let a refused pod in (`pkg/scheduler/framework/events.go`).
//!
//! Pure values.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use super::pod_info::PodInfo;

/// What changed.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// A node is new.
    NodeAdded(Arc<Node>),
    /// A node changed in its labels, taints, allocatable amounts or schedulability.
    NodeUpdated {
        /// Before.
        old: Arc<Node>,
        /// After.
        new: Arc<Node>,
    },
    /// A node is gone, and with it perhaps the emptiest domain.
    NodeRemoved(Arc<Node>),
    /// A pod was placed.
    PodPlaced(Arc<PodInfo>),
    /// A placed pod is gone, has finished, or could not be bound after all.
    PodRemoved(Arc<PodInfo>),
    /// A placed pod's labels changed.
    PodRelabelled(Arc<PodInfo>),
    /// A placed pod now asks for less.
    PodShrunk,
    /// The refused pod itself changed.
    PodChanged,
    /// A claim, volume or storage class came or changed.
    Storage,
    /// A namespace's labels changed.
    Namespace,
}

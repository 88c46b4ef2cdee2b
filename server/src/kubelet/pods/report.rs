//! Events on a container of a pod: the pod with `spec.containers{name}` as its field path (`GenerateContainerRef`).

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Resource;

use super::spec::{self, Kind};
use crate::events::{Kind as EventKind, Recorder};
use crate::kubelet::Kubelet;
use crate::kubelet::images::Report;

/// Records events on one container.
pub struct ContainerReport {
    recorder: Recorder,
    object: ObjectReference,
}

impl ContainerReport {
    /// For the container of this name.
    pub fn new(kubelet: &Kubelet, pod: &Pod, container: &str) -> Self {
        let list = match spec::container(pod, container).map(|(kind, _)| kind) {
            Some(Kind::Init | Kind::Sidecar) => "initContainers",
            Some(Kind::Ephemeral) => "ephemeralContainers",
            _ => "containers",
        };
        let object = ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..pod.object_ref(&()) };
        ContainerReport { recorder: kubelet.recorder.clone(), object }
    }
}

impl Report for ContainerReport {
    fn event(&self, kind: EventKind, reason: &'static str, message: String) {
        self.recorder.event_on(self.object.clone(), kind, reason, message);
    }
}

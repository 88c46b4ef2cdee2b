//! The labels and annotations by which a kubelet finds its own sandboxes and containers again (`pkg/kubelet/kuberuntime/labels.go`).
//!
//! Names are upstream's, so `crictl` and a stock kubelet read them too.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use sha2::{Digest, Sha256};

/// Label: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Label: the node whose kubelet made it, so that several nodes can share one containerd.
pub const NODE: &str = "io.kserver.node";
/// Annotation: hash of the container's spec.
pub const HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was started before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container writes its last words.
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: `File` or `FallbackToLogsOnError`.
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the pod's grace period, for pods whose object is gone.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Selects one pod, or everything that a node's kubelet made; without a node's name, everything there is.
pub fn selector(pod_uid: Option<&str>, node: &str) -> HashMap<String, String> {
    let (key, value) = match pod_uid {
        Some(uid) => (POD_UID, uid),
        None if node.is_empty() => return HashMap::new(),
        None => (NODE, node),
    };
    HashMap::from([(key.to_owned(), value.to_owned())])
}

/// Labels of a sandbox: the pod's own and the three that name it.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity(pod));
    labels
}

/// Labels of a container.
pub fn container_labels(pod: &Pod, container: &str) -> HashMap<String, String> {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.into(), container.into());
    labels
}

fn identity(pod: &Pod) -> HashMap<String, String> {
    let meta = &pod.metadata;
    HashMap::from([
        (POD_NAME.into(), meta.name.clone().unwrap_or_default()),
        (POD_NAMESPACE.into(), meta.namespace.clone().unwrap_or_default()),
        (POD_UID.into(), meta.uid.clone().unwrap_or_default()),
        (NODE.into(), pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default()),
    ])
}

/// Annotations of a container.
pub fn container_annotations(pod: &Pod, container: &Container, restart_count: u32) -> HashMap<String, String> {
    let mut annotations = HashMap::from([
        (HASH.into(), container_hash(container)),
        (RESTART_COUNT.into(), restart_count.to_string()),
        (TERMINATION_PATH.into(), container.termination_message_path.clone().unwrap_or_default()),
        (TERMINATION_POLICY.into(), container.termination_message_policy.clone().unwrap_or_else(|| "File".into())),
    ]);
    if let Some(grace) = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds) {
        annotations.insert(GRACE_PERIOD.into(), grace.to_string());
    }
    annotations
}

/// Changes when a running container has to be replaced. Upstream hashes the fields that may be updated in place: name and image.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{}\n{image}", container.name));
    digest[..4].iter().map(|b| format!("{b:02x}")).collect()
}

//! What is left over from pods that the API does not know any more, found when the kubelet starts; and `kserver down`.
//!
//! Only sandboxes that carry this node's label are touched.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;

use crate::kubelet::runtime::{Result, Runtime, labels};
use crate::kubelet::volumes;
use crate::kubelet::{Kubelet, RUNTIME_READY};

/// What containers get between the stop signal and the kill when the node goes down.
const GRACE: Duration = Duration::from_secs(10);
/// Removals that run at once.
const PARALLEL: usize = 8;

/// Removes pods that are in the runtime or on disk but not in the API.
pub async fn remove_strangers(kubelet: &Kubelet) {
    let living: HashSet<String> = kubelet.pods.list().iter().filter_map(|p| p.metadata.uid.clone()).collect();
    let sandboxes = match kubelet.runtime.list_sandboxes(None).await {
        Ok(sandboxes) => sandboxes,
        Err(error) => return tracing::warn!(%error, "leftover sandboxes not looked for"),
    };
    let is_stranger = |uid: Option<&String>| uid.is_some_and(|uid| !living.contains(uid));
    let ids = sandboxes.iter().filter(|s| is_stranger(s.labels.get(labels::POD_UID))).map(|s| s.id.clone()).collect();
    if let Err(error) = remove(&kubelet.runtime, ids).await {
        tracing::warn!(%error, "leftover sandboxes not removed");
    }
    for entry in std::fs::read_dir(kubelet.config.root_dir.join("pods")).into_iter().flatten().flatten() {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if !living.contains(&uid)
            && let Err(error) = volumes::tear_down(&entry.path()).await
        {
            tracing::warn!(%uid, %error, "leftover volumes not removed");
        }
    }
    for entry in std::fs::read_dir(kubelet.logs_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.rsplit('_').next().is_some_and(|uid| !living.contains(uid)) {
            let _ = tokio::fs::remove_dir_all(entry.path()).await;
        }
    }
    kubelet.cgroups.remove_strangers(&kubelet.config.cgroup_root, &living);
}

/// Stops and removes sandboxes, several at a time.
async fn remove(runtime: &Runtime, ids: Vec<String>) -> Result<()> {
    for some in ids.chunks(PARALLEL) {
        join_all(some.iter().map(|id| async move {
            runtime.stop_sandbox(id).await?;
            runtime.remove_sandbox(id).await
        }))
        .await
        .into_iter()
        .collect::<Result<()>>()?;
    }
    Ok(())
}

/// Stops and removes every sandbox of a node, giving containers a moment to end. Volumes and logs stay.
/// Returns how many sandboxes there were.
pub async fn stop_all(socket: &Path, node: &str) -> Result<usize> {
    let runtime = Runtime::new(socket, node);
    runtime.ready(RUNTIME_READY).await?;
    let containers = runtime.list_containers(None).await?;
    let running = containers.iter().filter(|c| c.state() == k8s_cri::v1::ContainerState::ContainerRunning);
    join_all(running.map(|c| runtime.stop_container(&c.id, GRACE))).await.into_iter().collect::<Result<()>>()?;
    let ids: Vec<String> = runtime.list_sandboxes(None).await?.into_iter().map(|s| s.id).collect();
    let count = ids.len();
    remove(&runtime, ids).await?;
    Ok(count)
}

//! What is left over from pods that the API does not know any more: found when the kubelet starts, and looked for ever after; and
//! `kserver down`.
//!
//! Only sandboxes that carry this node's label are touched, and nothing that has a worker.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_cri::v1::{Container, ContainerState};

use super::{kill, spec};
use crate::kubelet::runtime::{Result, Runtime, labels};
use crate::kubelet::volumes;
use crate::kubelet::{Kubelet, RUNTIME_READY};

/// Time between looks (upstream's housekeeping is more frequent, but does more).
const PERIOD: Duration = Duration::from_secs(60);
/// What containers get between the stop signal and the kill when the node goes down.
const GRACE: Duration = Duration::from_secs(10);
/// The most that a container without a pod gets: nobody waits for it, and the rest of the housekeeping waits behind it.
const LONGEST_GRACE: Duration = Duration::from_secs(60);
/// Removals that run at once.
const PARALLEL: usize = 8;

/// Removes pods that are in the runtime or on disk but not in the API, again and again for as long as it is polled. The pods of the
/// API have to be known by now.
pub async fn run(kubelet: Arc<Kubelet>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        remove_strangers(&kubelet).await;
    }
}

async fn remove_strangers(kubelet: &Kubelet) {
    // Asked about each thing after that thing was found: a pod is known before anything of it is made.
    let lives = |uid: &str| kubelet.workers.get(uid).is_some() || kubelet.pods.list().iter().any(|p| spec::uid(p) == uid);
    let lists = tokio::try_join!(kubelet.runtime.list_sandboxes(None), kubelet.runtime.list_containers(None));
    let (sandboxes, containers) = match lists {
        Ok(lists) => lists,
        Err(error) => return tracing::warn!(%error, "leftover sandboxes not looked for"),
    };
    let strangers = sandboxes.iter().filter(|s| s.labels.get(labels::POD_UID).is_some_and(|uid| !lives(uid)));
    let ids: Vec<String> = strangers.map(|s| s.id.clone()).collect();
    if !ids.is_empty() {
        tracing::info!(count = ids.len(), "removing sandboxes of pods that are gone");
        if let Err(error) = remove(&kubelet.runtime, &ids, &containers).await {
            // Perhaps something still runs on the volumes. Another look follows.
            return tracing::warn!(%error, "leftover sandboxes not removed");
        }
    }
    for entry in std::fs::read_dir(kubelet.config.root_dir.join("pods")).into_iter().flatten().flatten() {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if !lives(&uid)
            && let Err(error) = volumes::tear_down(&entry.path()).await
        {
            tracing::warn!(%uid, %error, "leftover volumes not removed");
        }
    }
    for entry in std::fs::read_dir(kubelet.logs_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.rsplit('_').next().is_some_and(|uid| !lives(uid)) {
            let _ = tokio::fs::remove_dir_all(entry.path()).await;
        }
    }
    kubelet.cgroups.remove_strangers(&kubelet.config.cgroup_root, lives);
    // Pods that came were counted when they were made; those that went are not any more.
    kubelet.weigh_classes();
}

/// What a container was to get when its pod was made.
fn grace_of(container: &Container) -> Duration {
    container.annotations.get(labels::GRACE_PERIOD).and_then(|g| g.parse().ok()).map_or(GRACE, kill::grace).min(LONGEST_GRACE)
}

/// Stops the containers of sandboxes with grace, then stops and removes the sandboxes, several at a time. One that does not go holds
/// no other up; the first error is told.
async fn remove(runtime: &Runtime, ids: &[String], containers: &[Container]) -> Result<()> {
    let mut running: HashMap<&str, Vec<&Container>> = HashMap::new();
    for container in containers.iter().filter(|c| c.state() == ContainerState::ContainerRunning) {
        running.entry(container.pod_sandbox_id.as_str()).or_default().push(container);
    }
    let one = |id: String| {
        let stops = running.get(id.as_str()).into_iter().flatten().map(|c| runtime.stop_container(&c.id, grace_of(c)));
        let stops: Vec<_> = stops.collect();
        async move {
            join_all(stops).await.into_iter().collect::<Result<()>>()?;
            runtime.stop_sandbox(&id).await?;
            runtime.remove_sandbox(&id).await
        }
    };
    let results: Vec<Result<()>> = futures::stream::iter(ids.iter().cloned().map(one)).buffer_unordered(PARALLEL).collect().await;
    results.into_iter().collect()
}

/// Stops and removes every sandbox of a node, giving containers a moment to end. Volumes and logs stay.
/// Returns how many sandboxes there were.
pub async fn stop_all(socket: &Path, node: &str) -> Result<usize> {
    let runtime = Runtime::new(socket, node);
    runtime.ready(RUNTIME_READY).await?;
    let containers = runtime.list_containers(None).await?;
    let running = containers.iter().filter(|c| c.state() == ContainerState::ContainerRunning);
    join_all(running.map(|c| runtime.stop_container(&c.id, GRACE))).await.into_iter().collect::<Result<()>>()?;
    let ids: Vec<String> = runtime.list_sandboxes(None).await?.into_iter().map(|s| s.id).collect();
    let count = ids.len();
    remove(&runtime, &ids, &[]).await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gets_the_grace_that_its_pod_named() {
        let container = |grace: &str| Container { annotations: HashMap::from([(labels::GRACE_PERIOD.into(), grace.into())]), ..Container::default() };
        assert_eq!(grace_of(&container("45")), Duration::from_secs(45));
        assert_eq!(grace_of(&container("soon")), GRACE);
        assert_eq!(grace_of(&Container::default()), GRACE);
    }
}

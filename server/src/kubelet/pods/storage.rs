//! Evicts pods that keep more in their emptyDir volumes than they may (`localStorageEviction` in
//! `pkg/kubelet/eviction/eviction_manager.go`).
//!
//! Measures only. Volumes in memory need no watching: their file system is no larger than their limit.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use shared::quantity::Quantity;

use super::spec;
use crate::kubelet::status::Failure;
use crate::kubelet::{Kubelet, volumes};

/// Time between looks (`monitoringInterval`).
const PERIOD: Duration = Duration::from_secs(10);

/// A volume with a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limited {
    name: String,
    /// As the spec writes it.
    limit: Quantity,
}

/// Measures for as long as it is polled.
pub async fn run(kubelet: Arc<Kubelet>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for mailbox in kubelet.workers.all() {
            let pod = mailbox.pod();
            for volume in limited(&pod) {
                let path = volumes::empty_dir_path(&kubelet.pod_dir(spec::uid(&pod)), &volume.name);
                let used = tokio::task::spawn_blocking(move || size(&path)).await.unwrap_or_default();
                if used > volume.limit.value() {
                    mailbox.evict(exceeded(&volume));
                    break;
                }
            }
        }
    }
}

fn exceeded(volume: &Limited) -> Failure {
    let limit = volume.limit.to_wire().0;
    Failure { reason: "Evicted".into(), message: format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{limit}\". ", volume.name) }
}

fn limited(pod: &Pod) -> Vec<Limited> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes
        .filter_map(|volume| {
            let source = volume.empty_dir.as_ref().filter(|s| s.medium.as_deref() != Some("Memory"))?;
            let limit = source.size_limit.as_ref().map(Quantity::of).filter(|q| !q.is_zero())?;
            Some(Limited { name: volume.name.clone(), limit })
        })
        .collect()
}

/// Bytes on disk below a directory, as `du -x` counts them. What vanishes meanwhile counts nothing.
fn size(dir: &Path) -> i64 {
    let Ok(root) = std::fs::symlink_metadata(dir) else { return 0 };
    let mut blocks = root.blocks();
    let mut linked = std::collections::HashSet::new();
    let mut pending: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            if meta.dev() != root.dev() || (meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino())) {
                continue;
            }
            blocks = blocks.saturating_add(meta.blocks());
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    i64::try_from(blocks.saturating_mul(512)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_found_and_told_as_upstream_does() {
        let pod: Pod = serde_json::from_value(json!({ "spec": { "containers": [], "volumes": [
            { "name": "free", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            { "name": "disk", "emptyDir": { "sizeLimit": "10Mi" } },
            { "name": "config", "configMap": { "name": "c" } },
        ] } }))
        .unwrap();
        let found = limited(&pod);
        assert_eq!(found.iter().map(|v| (v.name.as_str(), v.limit.value())).collect::<Vec<_>>(), [("disk", 10 << 20)]);
        assert_eq!(exceeded(&found[0]).message, "Usage of EmptyDir volume \"disk\" exceeds the limit \"10Mi\". ");
    }

    #[test]
    fn files_are_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let before = size(dir.path());
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/a"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(dir.path().join("sub/a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let grown = size(dir.path()) - before;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
        assert_eq!(size(&dir.path().join("absent")), 0);
    }
}

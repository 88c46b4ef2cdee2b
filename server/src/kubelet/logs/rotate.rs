//! Log rotation: at 10 MiB a file is renamed and the runtime opens a new one; five files are kept
//! (`pkg/kubelet/logs/container_log_manager.go`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::kubelet::Kubelet;

/// Size at which a file is rotated (`containerLogMaxSize`).
const MAX_SIZE: u64 = 10 << 20;
/// Files kept, the one in use among them (`containerLogMaxFiles`).
const MAX_FILES: usize = 5;
/// Time between looks (`containerLogMonitorInterval`).
const PERIOD: Duration = Duration::from_secs(10);

/// Rotates logs for as long as it is polled.
pub async fn run(kubelet: Arc<Kubelet>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for mailbox in kubelet.workers.all() {
            let observed = mailbox.observed().borrow().clone();
            for container in observed.running() {
                let path = Path::new(&container.log_path);
                if !std::fs::metadata(path).is_ok_and(|m| m.len() >= MAX_SIZE) {
                    continue;
                }
                let renamed = match set_aside(path) {
                    Ok(renamed) => renamed,
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "log not rotated");
                        continue;
                    }
                };
                if let Err(error) = kubelet.runtime.reopen_log(&container.id).await {
                    tracing::warn!(path = %path.display(), %error, "log not reopened");
                    // The runtime still writes to the renamed file.
                    let _ = std::fs::rename(renamed, path);
                }
            }
        }
    }
}

/// Renames a log after the time and removes the oldest ones; returns the new path.
fn set_aside(path: &Path) -> std::io::Result<std::path::PathBuf> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let target = path.with_file_name(format!("{name}.{stamp}"));
    std::fs::rename(path, &target)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut old: Vec<_> = std::fs::read_dir(parent)?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&format!("{name}."))))
        .collect();
    // Names sort by time.
    old.sort();
    for surplus in old.iter().take(old.len().saturating_sub(MAX_FILES - 1)) {
        std::fs::remove_file(surplus)?;
    }
    Ok(target)
}

/// Removes a container's log together with what was rotated out of it.
pub fn remove(path: &Path) {
    let (Some(name), Some(parent)) = (path.file_name().and_then(|n| n.to_str()), path.parent()) else { return };
    let rotated = format!("{name}.");
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let found = entry.file_name();
        if found.to_str().is_some_and(|n| n == name || n.starts_with(&rotated)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_files_go() {
        let dir = tempfile::tempdir().unwrap();
        for stamp in 1..=6 {
            std::fs::write(dir.path().join(format!("0.log.2026010{stamp}-000000")), "").unwrap();
        }
        std::fs::write(dir.path().join("10.log"), "").unwrap();
        let log = dir.path().join("0.log");
        std::fs::write(&log, "new").unwrap();
        let renamed = set_aside(&log).unwrap();
        assert_eq!(std::fs::read_to_string(renamed).unwrap(), "new");
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left.len(), MAX_FILES - 1 + 1, "{left:?}");
        assert!(!left.contains(&"0.log.20260101-000000".to_owned()));
    }

    #[test]
    fn a_log_goes_with_its_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["1.log", "1.log.20260101-000000", "11.log", "2.log"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        remove(&dir.path().join("1.log"));
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["11.log", "2.log"]);
    }
}

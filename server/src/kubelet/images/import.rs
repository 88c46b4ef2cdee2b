//! Loads image archives into the node's containerd (`kserver image import FILE.tar`, and the carried pause image).
//!
//! Runs `ctr`, which every containerd package ships: importing over gRPC would mean content store, unpacking and leases by hand.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::super::runtime::Runtime;

/// How long CRI may take to notice an image that containerd has.
const NOTICE: Duration = Duration::from_secs(10);

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// `ctr` is not installed or cannot be run.
    #[error("cannot run ctr (part of containerd): {0}")]
    Run(#[source] std::io::Error),
    /// `ctr` refused the archive.
    #[error("ctr images import: {0}")]
    Refused(String),
    /// The archive could not be read or written.
    #[error("image archive: {0}")]
    Archive(#[source] std::io::Error),
    /// containerd has the image but CRI does not show it.
    #[error("containerd imported {0} but CRI does not list it")]
    Unnoticed(String),
}

/// Imports an OCI or docker archive; returns the names of its images.
pub async fn import(socket: &Path, archive: &Path) -> Result<Vec<String>, ImportError> {
    let output = Command::new("ctr")
        .arg("-a")
        .arg(socket)
        .args(["-n", "k8s.io", "images", "import"])
        .arg(archive)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(ImportError::Run)?;
    if !output.status.success() {
        return Err(ImportError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("unpacking ")?.split_whitespace().next().map(str::to_owned)).collect();
    let runtime = Runtime::new(socket, "");
    for name in &names {
        wait_until_listed(&runtime, name).await?;
    }
    Ok(names)
}

/// CRI learns of images through containerd's events, some milliseconds after `ctr` returns, and offers nothing to wait on.
pub async fn wait_until_listed(runtime: &Runtime, image: &str) -> Result<(), ImportError> {
    let deadline = tokio::time::Instant::now() + NOTICE;
    let mut pause = Duration::from_millis(2);
    while tokio::time::Instant::now() < deadline {
        if matches!(runtime.image_status(image).await, Ok(Some(_))) {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
    Err(ImportError::Unnoticed(image.to_owned()))
}

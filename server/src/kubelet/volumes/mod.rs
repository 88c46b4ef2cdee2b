//! A pod's volumes: set up before its containers, kept up to date while they run, torn down after them (`pkg/kubelet/volumemanager`).
//!
//! Owns `<root>/pods/<uid>/volumes` and `volume-subpaths`. Must never delete through a mount: what is mounted below a pod's
//! directory is unmounted first, and if that fails nothing is removed.

pub mod atomic;
pub mod claim;
pub mod host_path;
pub mod mounts;
mod ownership;
pub mod payload;
pub mod subpath;
pub mod token;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use kube::Client;
use shared::quantity::Quantity;

use super::env::downward::Allocatable;
use super::pods::spec;
use super::refs::PodRefs;

/// Why a volume could not be set up. Prints as the message of `FailedMount`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
pub struct VolumeError {
    /// Name in the spec.
    pub volume: String,
    /// What is wrong.
    pub message: String,
}

/// A volume that is ready to be mounted into containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is on the host.
    pub path: PathBuf,
    /// Whether containers may not write to it, whatever their mounts say.
    pub read_only: bool,
}

/// What setting up volumes depends on.
pub struct Context<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its ConfigMaps and Secrets.
    pub refs: &'a PodRefs,
    /// `<root>/pods/<uid>`
    pub dir: &'a Path,
    /// For tokens and claims.
    pub client: &'a Client,
    /// For downward API files.
    pub allocatable: Allocatable,
}

/// The volumes of one pod, with the tokens in them.
#[derive(Default)]
pub struct PodVolumes {
    mounted: BTreeMap<String, Mounted>,
    tokens: token::Tokens,
}

impl PodVolumes {
    /// The volume of a name, once it is set up.
    pub fn get(&self, name: &str) -> Option<&Mounted> {
        self.mounted.get(name)
    }

    /// Sets up what is not yet and brings the contents of the others up to date. Stops at the first failure.
    pub async fn set_up(&mut self, context: &Context<'_>) -> Result<(), VolumeError> {
        for volume in context.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            let fail = |message: String| VolumeError { volume: volume.name.clone(), message };
            let has_contents = payload::kind(volume).is_some();
            if self.mounted.contains_key(&volume.name) && !has_contents {
                continue;
            }
            let mounted = if has_contents { self.write(context, volume).await } else { attach(context, volume).await }.map_err(fail)?;
            self.mounted.insert(volume.name.clone(), mounted);
        }
        Ok(())
    }

    /// Writes a volume whose contents come from the API.
    async fn write(&mut self, context: &Context<'_>, volume: &Volume) -> Result<Mounted, String> {
        let kind = payload::kind(volume).unwrap_or_default();
        let path = volume_path(context.dir, kind, &volume.name);
        let files = payload::files(context, volume, &mut self.tokens).await?;
        let group = fs_group(context.pod);
        let (target, first) = (path.clone(), !self.mounted.contains_key(&volume.name));
        blocking(move || {
            if first {
                std::fs::create_dir_all(&target).map_err(|e| e.to_string())?;
                // Secrets and tokens never touch the disk.
                if kind != "kubernetes.io~configmap" {
                    mounts::tmpfs(&target, None, 0o755).map_err(|e| format!("mounting tmpfs: {e}"))?;
                }
                std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o777)).map_err(|e| e.to_string())?;
            }
            atomic::write(&target, &files, group).map_err(|e| e.to_string())
        })
        .await?;
        Ok(Mounted { path, read_only: true })
    }

    /// How long the tokens in the volumes are good before they should be renewed; `None` without tokens.
    pub fn renew_in(&self) -> Option<Duration> {
        self.tokens.renew_in()
    }
}

/// Runs file system work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}

fn volume_path(dir: &Path, kind: &str, name: &str) -> PathBuf {
    dir.join("volumes").join(kind).join(name)
}

/// Where an emptyDir volume is, below `<root>/pods/<uid>`.
pub fn empty_dir_path(dir: &Path, name: &str) -> PathBuf {
    volume_path(dir, "kubernetes.io~empty-dir", name)
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Sets up a volume that holds data of its own.
async fn attach(context: &Context<'_>, volume: &Volume) -> Result<Mounted, String> {
    if let Some(source) = &volume.host_path {
        let source = source.clone();
        return blocking(move || host_path::prepare(&source.path, source.type_.as_deref().unwrap_or_default())).await.map(writable);
    }
    if let Some(source) = &volume.empty_dir {
        return empty_dir(context, &volume.name, source).await;
    }
    let claim = volume.persistent_volume_claim.as_ref();
    if let Some(claim) = claim {
        let mut mounted = claim::resolve(context.client, context.pod, &claim.claim_name).await?;
        mounted.read_only |= claim.read_only == Some(true);
        return Ok(mounted);
    }
    if volume.ephemeral.is_some() {
        // Generic ephemeral volumes use a claim that the controller manager makes under this name.
        return claim::resolve(context.client, context.pod, &format!("{}-{}", spec::name(context.pod), volume.name)).await;
    }
    Err(format!("{} volumes are not supported by this kubelet", plugin_name(volume)))
}

fn writable(path: PathBuf) -> Mounted {
    Mounted { path, read_only: false }
}

/// The first source that is set, by its field name in the API.
fn plugin_name(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    fields.as_object().and_then(|o| o.keys().find(|k| *k != "name").cloned()).unwrap_or_else(|| "unknown".into())
}

async fn empty_dir(context: &Context<'_>, name: &str, source: &EmptyDirVolumeSource) -> Result<Mounted, String> {
    let path = empty_dir_path(context.dir, name);
    let limit = source.size_limit.as_ref().map(Quantity::of).filter(|q| !q.is_zero()).map(|q| q.value());
    let memory = match source.medium.as_deref().unwrap_or_default() {
        "" => false,
        "Memory" => true,
        other => return Err(format!("emptyDir medium {other} is not supported by this kubelet")),
    };
    let size = limit.into_iter().chain(memory_limit(context.pod)).min();
    let (target, group) = (path.clone(), fs_group(context.pod));
    blocking(move || {
        std::fs::create_dir_all(&target).map_err(|e| e.to_string())?;
        if memory {
            mounts::tmpfs(&target, size, 0o777).map_err(|e| format!("mounting tmpfs: {e}"))?;
        }
        // After a restart of the kubelet the volume is in use already: only a fresh one gets its owner and mode.
        let fresh = std::fs::read_dir(&target).map_err(|e| e.to_string())?.next().is_none();
        if fresh {
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o777)).map_err(|e| e.to_string())?;
            if let Some(group) = group {
                std::os::unix::fs::chown(&target, None, Some(group)).map_err(|e| e.to_string())?;
                std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o2777)).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    })
    .await?;
    Ok(writable(path))
}

/// The sum of the containers' memory limits, if each has one: a memory-backed volume cannot be larger.
fn memory_limit(pod: &Pod) -> Option<i64> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().map(|c| spec::limit(c, "memory").map(|q| q.value())).sum()
}

/// Unmounts and removes everything below a pod's directory.
pub async fn tear_down(dir: &Path) -> Result<(), String> {
    let dir = dir.to_owned();
    blocking(move || {
        if !dir.exists() {
            return Ok(());
        }
        mounts::unmount_below(&dir).map_err(|e| format!("unmounting below {}: {e}", dir.display()))?;
        std::fs::remove_dir_all(&dir).map_err(|e| format!("removing {}: {e}", dir.display()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_source_is_named() {
        let volume: Volume = serde_json::from_value(serde_json::json!({ "name": "v", "nfs": { "server": "s", "path": "/" } })).unwrap();
        assert_eq!(plugin_name(&volume), "nfs");
    }
}

//! Persistent volume claims: from the claim in a pod to the directory of the volume it is bound to.
//!
//! Reads the API; hostPath and local volumes are what a node without storage drivers can mount.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client};

use super::{Mounted, blocking, fs_group, host_path, ownership};
use crate::kubelet::pods::spec;

/// What the API server said, without the client's wrapping.
pub fn api_error(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The volume behind a claim.
pub async fn resolve(client: &Client, pod: &Pod, claim: &str) -> Result<Mounted, String> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), spec::namespace(pod));
    let found = claims.get(claim).await.map_err(|e| format!("error getting PVC {}/{claim}: {}", spec::namespace(pod), api_error(&e)))?;
    let name = found.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|n| !n.is_empty());
    let bound = found.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let name = name.filter(|_| bound).ok_or_else(|| format!("PVC {}/{claim} is not bound", spec::namespace(pod)))?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get(&name).await.map_err(|e| format!("error getting PV {name}: {}", api_error(&e)))?;
    let source = volume.spec.unwrap_or_default();
    if source.volume_mode.as_deref() == Some("Block") {
        return Err("block volumes are not supported by this kubelet".into());
    }
    let modes = source.access_modes.unwrap_or_default();
    let read_only = !modes.is_empty() && modes.iter().all(|m| m == "ReadOnlyMany");
    let path = if let Some(host) = source.host_path {
        blocking(move || host_path::prepare(&host.path, host.type_.as_deref().unwrap_or("DirectoryOrCreate"))).await?
    } else if let Some(local) = source.local {
        let group = fs_group(pod).filter(|_| !read_only);
        let policy = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|s| s.fs_group_change_policy.as_deref());
        let only_on_mismatch = policy == Some("OnRootMismatch");
        blocking(move || {
            let path = host_path::prepare(&local.path, "Directory")?;
            if let Some(group) = group {
                ownership::give(&path, group, only_on_mismatch).map_err(|e| format!("applying fsGroup {group}: {e}"))?;
            }
            Ok(path)
        })
        .await?
    } else {
        return Err(format!("the plugin of PV {name} is not supported by this kubelet; hostPath and local are"));
    };
    Ok(Mounted { path, read_only })
}

//! What becomes of a volume (`syncVolume`, `reclaimVolume`).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::PostParams;

use super::{BOUND_BY_CONTROLLER, Binder, PROVISIONED_BY, annotation, claim_item, claim_of, name, phase, volume_of};
use crate::controllers::Error;
use crate::controllers::error::found;

impl Binder {
    pub(super) async fn sync_volume(&self, wanted: &str) -> Result<(), Error> {
        let Some(volume) = self.volumes.get("", wanted) else { return Ok(()) };
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        let Some(uid) = reference.and_then(|r| r.uid.clone()).filter(|uid| !uid.is_empty()) else {
            // Nobody's, or reserved for a claim that has not come for it.
            self.put_phase(&volume, "Available", "").await?;
            return Ok(());
        };
        let Some(claim) = self.claim(&volume, &uid).await? else {
            let released = self.release(&volume).await?;
            return self.reclaim(&released).await;
        };
        match volume_of(&claim) {
            // The claim's own sync completes the binding.
            "" => self.queue.add(claim_item(&claim)),
            bound if bound == name(&volume) => drop(self.put_phase(&volume, "Bound", "").await?),
            _ => {
                let spec = volume.spec.clone().unwrap_or_default();
                let made_for_it = annotation(&volume.metadata, PROVISIONED_BY).is_some();
                if made_for_it && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete") {
                    let released = self.release(&volume).await?;
                    return self.reclaim(&released).await;
                }
                self.unbind(&volume).await?;
            }
        }
        Ok(())
    }

    /// The claim that a volume is bound to, by uid. What the cache has not is asked for: a volume is not reclaimed on the cache's word.
    async fn claim(&self, volume: &PersistentVolume, uid: &str) -> Result<Option<PersistentVolumeClaim>, Error> {
        let Some(key) = claim_of(volume) else { return Ok(None) };
        let same = |c: &PersistentVolumeClaim| c.metadata.uid.as_deref() == Some(uid);
        if let Some(claim) = self.claims.get(&key.namespace, &key.name).filter(|c| same(c)) {
            return Ok(Some((*claim).clone()));
        }
        Ok(found(self.claim_api(&key.namespace).get(&key.name).await)?.filter(same))
    }

    async fn release(&self, volume: &PersistentVolume) -> Result<PersistentVolume, Error> {
        // A failure stays to be seen.
        if phase(volume) == "Failed" { Ok(volume.clone()) } else { self.put_phase(volume, "Released", "").await }
    }

    async fn reclaim(&self, volume: &PersistentVolume) -> Result<(), Error> {
        match volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) {
            None | Some("Retain") => Ok(()),
            Some("Recycle") => self.fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!").await,
            // The provisioner that made it watches for released volumes and deletes what it stands for.
            Some("Delete") if annotation(&volume.metadata, PROVISIONED_BY).is_some_and(|p| !p.starts_with("kubernetes.io/")) => Ok(()),
            Some("Delete") => {
                let text = format!("error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched", name(volume));
                self.fail(volume, "VolumeFailedDelete", &text).await
            }
            Some(_) => self.fail(volume, "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy").await,
        }
    }

    /// Takes back a binding whose claim got another volume; a reservation that the user made stays one.
    async fn unbind(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let mut changed = volume.clone();
        let ours = changed.metadata.annotations.as_mut().and_then(|a| a.remove(BOUND_BY_CONTROLLER)).is_some();
        if let Some(spec) = &mut changed.spec {
            if ours {
                spec.claim_ref = None;
            } else if let Some(reference) = &mut spec.claim_ref {
                reference.uid = None;
            }
        }
        let unbound = self.volume_api().replace(name(volume), &PostParams::default(), &changed).await?;
        self.put_phase(&unbound, "Available", "").await?;
        Ok(())
    }
}

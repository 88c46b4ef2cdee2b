//! What becomes of a claim (`syncUnboundClaim`, `syncBoundClaim`, `provisionClaim`).

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use super::matching::{find, satisfies};
use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER, Binder, annotation, claim_class, is_bound_to, name, volume_of};
use crate::controllers::queue::Key;
use crate::controllers::{Error, pods};
use crate::events::Kind;

/// On a claim: the node its first consumer goes to.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume, now and as it was called before.
const PROVISIONER: [&str; 2] = ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
const DEFAULT_CLASS: [&str; 2] = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

impl Binder {
    pub(super) async fn sync_claim(&self, key: &Key) -> Result<(), Error> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(()) };
        if annotation(&claim.metadata, BIND_COMPLETED).is_some() {
            return self.sync_bound(&claim).await;
        }
        match volume_of(&claim) {
            "" => self.sync_unbound(&claim).await,
            wanted => self.sync_choosing(&claim, wanted).await,
        }
    }

    /// A claim that takes any volume that will do.
    async fn sync_unbound(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let class = self.classes.get("", claim_class(claim));
        let waits = class.as_deref().is_some_and(waits_for_consumer);
        if let Some(volume) = find(claim, self.volumes.list().iter(), waits, None) {
            return self.bind(&volume, claim).await;
        }
        if self.take_default_class(claim).await? {
            return Ok(());
        }
        if waits && annotation(&claim.metadata, SELECTED_NODE).is_none() {
            self.tell_waiting(claim);
        } else if !claim_class(claim).is_empty() {
            return self.provision(claim, class.as_deref()).await;
        } else {
            let text = "no persistent volumes available for this claim and no storage class is set";
            self.recorder.event(claim, Kind::Normal, "FailedBinding", text);
        }
        self.put_claim_status(claim, "Pending", None).await?;
        Ok(())
    }

    /// A claim that says nothing of a class gets the default one, even if that came later.
    async fn take_default_class(&self, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
        if claim.spec.as_ref().is_some_and(|s| s.storage_class_name.is_some()) || !claim_class(claim).is_empty() {
            return Ok(false);
        }
        let all = self.classes.list();
        let is_default = |c: &StorageClass| DEFAULT_CLASS.iter().any(|key| annotation(&c.metadata, key) == Some("true"));
        // The newest, and of several made at once the first by name.
        let order = |c: &StorageClass| (c.metadata.creation_timestamp.clone(), std::cmp::Reverse(c.metadata.name.clone()));
        let Some(class) = all.iter().filter(|c| is_default(c)).max_by_key(|c| order(c)) else { return Ok(false) };
        let mut changed = claim.clone();
        changed.spec.get_or_insert_default().storage_class_name = class.metadata.name.clone();
        self.put_claim(&changed).await?;
        Ok(true)
    }

    fn tell_waiting(&self, claim: &PersistentVolumeClaim) {
        let (namespace, wanted) = (claim.metadata.namespace.as_deref().unwrap_or_default(), claim.metadata.name.as_deref().unwrap_or_default());
        let uses = |p: &k8s_openapi::api::core::v1::Pod| {
            let mut volumes = p.spec.iter().flat_map(|s| s.volumes.iter().flatten());
            volumes.any(|v| v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == wanted))
        };
        let waiting = self.pods.list_namespaced(namespace);
        let waiting: Vec<&str> = waiting.iter().filter(|p| pods::node_name(p).is_empty() && uses(p)).map(|p| pods::name(p)).collect();
        let (reason, text) = match waiting.as_slice() {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
            [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            many => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", many.join(","))),
        };
        self.recorder.event(claim, Kind::Normal, reason, text);
    }

    /// Asks the provisioner of the class for a volume.
    async fn provision(&self, claim: &PersistentVolumeClaim, class: Option<&StorageClass>) -> Result<(), Error> {
        let Some(class) = class else {
            let text = format!("storageclass.storage.k8s.io \"{}\" not found", claim_class(claim));
            self.recorder.event(claim, Kind::Warning, "ProvisioningFailed", text);
            return self.put_claim_status(claim, "Pending", None).await.map(drop);
        };
        let provisioner = &class.provisioner;
        if provisioner == "kubernetes.io/no-provisioner" {
            let text = "no persistent volumes available for this claim and the storage class has no provisioner";
            self.recorder.event(claim, Kind::Normal, "FailedBinding", text);
            return self.put_claim_status(claim, "Pending", None).await.map(drop);
        }
        if provisioner.starts_with("kubernetes.io/") {
            let text = format!("Error creating provisioning plugin: no volume plugin matched name: {provisioner}");
            self.recorder.event(claim, Kind::Warning, "ProvisioningFailed", text);
            return self.put_claim_status(claim, "Pending", None).await.map(drop);
        }
        let mut asked = claim.clone();
        for key in PROVISIONER {
            asked.metadata.annotations.get_or_insert_default().insert(key.into(), provisioner.clone());
        }
        if asked != *claim {
            asked = self.put_claim(&asked).await?;
        }
        let text = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.recorder.event(claim, Kind::Normal, "ExternalProvisioning", text);
        self.put_claim_status(&asked, "Pending", None).await?;
        Ok(())
    }

    /// A claim that asks for one volume by name.
    async fn sync_choosing(&self, claim: &PersistentVolumeClaim, wanted: &str) -> Result<(), Error> {
        let Some(volume) = self.volumes.get("", wanted) else {
            return self.put_claim_status(claim, "Pending", None).await.map(drop);
        };
        if volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).is_none() {
            if let Err(why) = satisfies(&volume, claim) {
                let text = format!("Cannot bind to requested volume \"{}\": {why}", name(&volume));
                self.recorder.event(claim, Kind::Warning, "VolumeMismatch", text);
                return self.put_claim_status(claim, "Pending", None).await.map(drop);
            }
            return self.bind(&volume, claim).await;
        }
        if is_bound_to(&volume, claim) {
            return self.bind(&volume, claim).await;
        }
        if annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_some() {
            return Err(Error::Other(format!("invalid binding of claim {} to volume {wanted:?}: volume already claimed", Key::of(claim))));
        }
        let text = format!("volume \"{wanted}\" already bound to a different claim.");
        self.recorder.event(claim, Kind::Warning, "FailedBinding", text);
        self.put_claim_status(claim, "Pending", None).await?;
        Ok(())
    }

    /// A claim that has been bound stays so, or is lost.
    async fn sync_bound(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let (reason, text) = match volume_of(claim) {
            "" => ("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"),
            wanted => match self.volumes.get("", wanted) {
                None => ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
                Some(volume) => {
                    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
                    if reference.is_none_or(|r| r.uid == claim.metadata.uid) {
                        return self.bind(&volume, claim).await;
                    }
                    ("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
                }
            },
        };
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") && self.put_claim_status(claim, "Lost", None).await? {
            self.recorder.event(claim, Kind::Warning, reason, text);
        }
        Ok(())
    }
}

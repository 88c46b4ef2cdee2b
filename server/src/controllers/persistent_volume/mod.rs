//! Binds claims to volumes, and reclaims volumes whose claim is gone (`pkg/controller/volume/persistentvolume/pv_controller.go`).
//!
//! Owns the binding fields, the binding annotations and the phases of both. A binding is four writes (the volume's, its phase, the
//! claim's, its phase); after a crash between any two, the next look at either object goes on. Each write fails if the object has
//! changed since it was read, so that a volume is never given to two claims. Makes no volumes: provisioners do.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::{Api, Client, Resource};

use super::queue::{Key, Queue};
use super::{Context, Error, now, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

mod claim;
pub mod matching;
mod volume;

use matching::{annotation, claim_class, is_bound_to, phase, volume_class};

/// On a volume or claim: its binding was this controller's choice, not the user's.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: it has been bound; if its volume goes now, data is lost.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a volume: who made it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Item {
    Claim(Key),
    Volume(String),
}

fn claim_item(claim: &PersistentVolumeClaim) -> Item {
    Item::Claim(Key::of(claim))
}

fn name(volume: &PersistentVolume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

/// The key of the claim a volume is bound to or reserved for.
fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default()))
}

fn volume_of(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue: Queue<Item> = Queue::new();
    let binder = Arc::new(Binder {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        claims: ctx.informers.get(),
        volumes: ctx.informers.get(),
        classes: ctx.informers.get(),
        pods: ctx.informers.get(),
        queue: queue.clone(),
    });
    let state = binder.clone();
    queue.set_resync(ctx.config.resync, move || {
        let claims = state.claims.list();
        let claims = claims.iter().map(|c| claim_item(c));
        claims.chain(state.volumes.list().iter().map(|v| Item::Volume(name(v).to_owned()))).collect()
    });
    let state = binder.clone();
    ctx.on(&binder.claims, move |change| {
        let claim = change.object();
        if !matches!(change, Change::Deleted(_)) {
            state.queue.add(claim_item(claim));
        }
        // Its volume may have to be reclaimed, or its phase to follow.
        let volume = volume_of(claim);
        if !volume.is_empty() {
            state.queue.add(Item::Volume(volume.to_owned()));
        } else if matches!(change, Change::Deleted(_)) {
            let key = Some(Key::of(&**claim));
            state.volumes.list().iter().filter(|v| claim_of(v) == key).for_each(|v| state.queue.add(Item::Volume(name(v).to_owned())));
        }
    });
    let state = binder.clone();
    ctx.on(&binder.volumes, move |change| {
        let volume = change.object();
        state.queue.add(Item::Volume(name(volume).to_owned()));
        state.wake_claims(volume);
    });
    let state = binder.clone();
    ctx.on(&binder.classes, move |change| {
        let class = change.object().metadata.name.clone().unwrap_or_default();
        let concerned = |c: &PersistentVolumeClaim| volume_of(c).is_empty() && (claim_class(c) == class || claim_class(c).is_empty());
        state.claims.list().iter().filter(|c| concerned(c)).for_each(|c| state.queue.add(claim_item(c)));
    });
    let ready = vec![synced(&binder.claims), synced(&binder.volumes), synced(&binder.classes), synced(&binder.pods)];
    // One at a time: two claims at once would mostly fight for the same volume.
    ctx.work(&queue, 1, ready, move |item| {
        let binder = binder.clone();
        async move {
            match item {
                Item::Claim(key) => binder.sync_claim(&key).await,
                Item::Volume(name) => binder.sync_volume(&name).await,
            }
        }
    });
}

struct Binder {
    client: Client,
    recorder: Recorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    queue: Queue<Item>,
}

impl Binder {
    fn claim_api(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn volume_api(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    /// A volume that has changed concerns the claim it names, claims that name it, and if it is free those that wait for one like it.
    fn wake_claims(&self, volume: &PersistentVolume) {
        let own = claim_of(volume);
        if let Some(key) = &own {
            self.queue.add(Item::Claim(key.clone()));
        }
        let free = own.is_none() && phase(volume) == "Available";
        let concerned = |c: &PersistentVolumeClaim| match volume_of(c) {
            "" => free && claim_class(c) == volume_class(volume),
            wanted => wanted == name(volume),
        };
        self.claims.list().iter().filter(|c| concerned(c)).for_each(|c| self.queue.add(claim_item(c)));
    }

    /// Binds a volume and a claim to each other, the volume first: a claim that names a volume is one whose volume names it.
    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let volume = self.bind_volume(volume, claim).await?;
        let volume = self.put_phase(&volume, "Bound", "").await?;
        let claim = self.bind_claim(claim, &volume).await?;
        self.put_claim_status(&claim, "Bound", Some(&volume)).await?;
        Ok(())
    }

    async fn bind_volume(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<PersistentVolume, Error> {
        let mut changed = volume.clone();
        let same = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).is_some_and(|r| r.uid == claim.metadata.uid) && is_bound_to(volume, claim);
        if !same {
            let mut reference = claim.object_ref(&());
            reference.resource_version = claim.metadata.resource_version.clone();
            changed.spec.get_or_insert_default().claim_ref = Some(reference);
        }
        if !is_bound_to(volume, claim) {
            changed.metadata.annotations.get_or_insert_default().insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        if changed == *volume {
            return Ok(changed);
        }
        Ok(self.volume_api().replace(name(volume), &PostParams::default(), &changed).await?)
    }

    async fn bind_claim(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<PersistentVolumeClaim, Error> {
        let mut changed = claim.clone();
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(BIND_COMPLETED.into(), "yes".into());
        if volume_of(claim) != name(volume) {
            annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
            changed.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
        }
        if changed == *claim {
            return Ok(changed);
        }
        self.put_claim(&changed).await
    }

    async fn put_claim(&self, claim: &PersistentVolumeClaim) -> Result<PersistentVolumeClaim, Error> {
        let (namespace, name) = (claim.metadata.namespace.as_deref().unwrap_or_default(), claim.metadata.name.as_deref().unwrap_or_default());
        Ok(self.claim_api(namespace).replace(name, &PostParams::default(), claim).await?)
    }

    /// Writes the phase of a claim, with what its volume offers, if that says something new. Returns whether the phase is new.
    async fn put_claim_status(&self, claim: &PersistentVolumeClaim, phase: &str, volume: Option<&PersistentVolume>) -> Result<bool, Error> {
        let before = claim.status.clone().unwrap_or_default();
        let mut status = before.clone();
        status.phase = Some(phase.to_owned());
        let spec = volume.and_then(|v| v.spec.as_ref());
        status.access_modes = spec.and_then(|s| s.access_modes.clone());
        // A volume that is being resized tells of it here first: only a claim that is bound anew takes the volume's word.
        if volume.is_none() || before.phase.as_deref() != Some(phase) || before.capacity.is_none() {
            status.capacity = spec.and_then(|s| s.capacity.clone());
        }
        if before.phase.as_deref() != Some(phase) && phase == "Bound" {
            status.current_volume_attributes_class_name = spec.and_then(|s| s.volume_attributes_class_name.clone()).filter(|n| !n.is_empty());
        }
        if status == before {
            return Ok(false);
        }
        let fresh = before.phase != status.phase;
        let changed = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        let (namespace, name) = (claim.metadata.namespace.as_deref().unwrap_or_default(), claim.metadata.name.as_deref().unwrap_or_default());
        self.claim_api(namespace).replace_status(name, &PostParams::default(), &changed).await?;
        Ok(fresh)
    }

    /// Writes the phase of a volume if it is a new one.
    async fn put_phase(&self, volume: &PersistentVolume, phase: &str, message: &str) -> Result<PersistentVolume, Error> {
        if matching::phase(volume) == phase {
            return Ok(volume.clone());
        }
        let mut changed = volume.clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        status.message = (!message.is_empty()).then(|| message.to_owned());
        status.last_phase_transition_time = Some(now());
        Ok(self.volume_api().replace_status(name(volume), &PostParams::default(), &changed).await?)
    }

    /// Marks a volume as failed, and says why, once.
    async fn fail(&self, volume: &PersistentVolume, reason: &str, message: &str) -> Result<(), Error> {
        if phase(volume) != "Failed" {
            self.put_phase(volume, "Failed", message).await?;
            self.recorder.event(volume, Kind::Warning, reason, message);
        }
        Ok(())
    }
}

//! VolumeAttributesClasses go when no claim and no volume has, wants or had them last
//! (`pkg/controller/volume/vacprotection/vac_protection_controller.go`).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Api;

use super::{follow, is_of_interest, work};
use crate::controllers::queue::{Key, Queue};
use crate::controllers::{Context, Error};
use crate::informers::Change;

const FINALIZER: &str = "kubernetes.io/vac-protection";

/// Starts the controller.
pub fn start(ctx: Context) {
    let classes = ctx.informers.get::<VolumeAttributesClass>();
    let (claims, volumes) = (ctx.informers.get::<PersistentVolumeClaim>(), ctx.informers.get::<PersistentVolume>());
    let queue = Queue::new();
    follow(&ctx, &classes, &queue, FINALIZER);
    let (known, into) = (classes.clone(), queue.clone());
    ctx.on(&claims, move |change| {
        let (before, after) = match &change {
            Change::Added(_) => return,
            Change::Updated { old, new } => (claim_classes(old), claim_classes(new)),
            Change::Deleted(gone) => (claim_classes(gone), Vec::new()),
        };
        let freed = before.into_iter().filter(|name| !after.contains(name));
        freed
            .filter(|name| known.get("", name).is_some_and(|c| is_of_interest(&c.metadata, FINALIZER)))
            .for_each(|name| into.add(Key::new("", name)));
    });
    let (known, into) = (classes.clone(), queue.clone());
    ctx.on(&volumes, move |change| {
        let (before, after) = match &change {
            Change::Added(_) => return,
            Change::Updated { old, new } => (volume_class(old), volume_class(new)),
            Change::Deleted(gone) => (volume_class(gone), None),
        };
        if let Some(name) = before.filter(|name| after.as_ref() != Some(name) && known.get("", name).is_some()) {
            into.add(Key::new("", name));
        }
    });
    let api = |ctx: &Context, _: &Key| Api::all(ctx.client.clone());
    work(&ctx, classes, &queue, FINALIZER, api, move |class| {
        let (claims, volumes) = (claims.clone(), volumes.clone());
        async move {
            claims.synced().await;
            volumes.synced().await;
            let name = class.metadata.name.clone().unwrap_or_default();
            let claimed = claims.list().iter().any(|c| claim_classes(c).contains(&name));
            Ok::<bool, Error>(claimed || volumes.list().iter().any(|v| volume_class(v).as_ref() == Some(&name)))
        }
    });
}

/// The classes a claim asks for, has, and is being changed to.
fn claim_classes(claim: &PersistentVolumeClaim) -> Vec<String> {
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    let current = claim.status.as_ref().and_then(|s| s.current_volume_attributes_class_name.clone());
    let target = claim.status.as_ref().and_then(|s| s.modify_volume_status.as_ref()).and_then(|m| m.target_volume_attributes_class_name.clone());
    wanted.into_iter().chain(current).chain(target).filter(|name| !name.is_empty()).collect()
}

fn volume_class(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone()).filter(|name| !name.is_empty())
}

//! Volumes go when they are bound to no claim (`pkg/controller/volume/pvprotection/pv_protection_controller.go`).

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;

use super::{follow, work};
use crate::controllers::Context;
use crate::controllers::queue::{Key, Queue};

const FINALIZER: &str = "kubernetes.io/pv-protection";

/// Starts the controller.
pub fn start(ctx: Context) {
    let volumes = ctx.informers.get::<PersistentVolume>();
    let queue = Queue::new();
    // A volume that is released changes its phase, which is a change of the volume.
    follow(&ctx, &volumes, &queue, FINALIZER);
    let api = |ctx: &Context, _: &Key| Api::all(ctx.client.clone());
    work(&ctx, volumes, &queue, FINALIZER, api, |volume| async move { Ok(volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")) });
}

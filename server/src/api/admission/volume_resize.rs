//! A claim grows only where its class allows it (`plugin/pkg/admission/storage/persistentvolume/resize/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use shared::quantity::Quantity;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, forbidden, is, new_object, old_object};

pub(super) struct PersistentVolumeClaimResize;

fn size(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    requests.and_then(|r| r.get("storage")).map_or_else(Quantity::zero, Quantity::of)
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is(attributes, "", "persistentvolumeclaims", &[Operation::Update])
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let (Some(new), Some(old)) = (new_object::<PersistentVolumeClaim>(attributes), old_object::<PersistentVolumeClaim>(attributes)) else {
            return Ok(());
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
            return Err(forbidden(attributes, "Only bound persistent volume claims can be expanded"));
        }
        let class = new.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()).filter(|c| !c.is_empty());
        let allowed = match class {
            Some(class) => context.reader.get_fresh::<StorageClass>("", class).await?.is_some_and(|c| c.allow_volume_expansion == Some(true)),
            None => false,
        };
        if allowed {
            return Ok(());
        }
        let text = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(forbidden(attributes, text))
    }
}

//! Claims and volumes are not deleted under their users: they get a finalizer that a controller takes off
//! (`plugin/pkg/admission/storage/storageobjectinuseprotection/admission.go`).

use async_trait::async_trait;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, is};

pub(super) struct StorageObjectInUseProtection;

const PROTECTED: &[(&str, &str, &str)] = &[
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

fn finalizer(attributes: &Attributes<'_>) -> Option<&'static str> {
    PROTECTED.iter().find(|(group, plural, _)| is(attributes, group, plural, &[Operation::Create])).map(|(_, _, finalizer)| *finalizer)
}

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        finalizer(attributes).is_some()
    }

    async fn mutate(&self, _: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if let (Some(finalizer), Some(object)) = (finalizer(attributes), attributes.object.as_deref_mut()) {
            let finalizers = object.meta_mut().finalizers.get_or_insert_default();
            if !finalizers.iter().any(|f| f == finalizer) {
                finalizers.push(finalizer.into());
            }
        }
        Ok(())
    }
}

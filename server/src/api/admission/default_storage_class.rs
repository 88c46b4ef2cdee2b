//! A claim that names no class gets the default one (`plugin/pkg/admission/storage/storageclass/setdefault/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, is, new_object, new_object_mut};

pub(super) struct DefaultStorageClass;

const IS_DEFAULT: &[&str] = &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is(attributes, "", "persistentvolumeclaims", &[Operation::Create])
    }

    async fn mutate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(claim) = new_object::<PersistentVolumeClaim>(attributes) else { return Ok(()) };
        let annotated = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BETA_CLASS));
        // An empty class asks for none on purpose.
        if annotated || claim.spec.as_ref().is_some_and(|s| s.storage_class_name.is_some()) {
            return Ok(());
        }
        let mut defaults = context.reader.list::<StorageClass>("")?;
        defaults.retain(|c| c.metadata.annotations.as_ref().is_some_and(|a| IS_DEFAULT.iter().any(|k| a.get(*k).is_some_and(|v| v == "true"))));
        // Of several, the newest; of equally old ones, the first by name.
        defaults.sort_by(|a, b| {
            let created = |c: &StorageClass| c.metadata.creation_timestamp.as_ref().map(|t| t.0);
            created(b).cmp(&created(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
        });
        let name = defaults.first().and_then(|c| c.metadata.name.clone());
        if let (Some(name), Some(claim)) = (name, new_object_mut::<PersistentVolumeClaim>(attributes)) {
            claim.spec.get_or_insert_default().storage_class_name = Some(name);
        }
        Ok(())
    }
}

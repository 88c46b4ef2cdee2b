//! StorageClasses (`pkg/registry/storage/storageclass/strategy.go`, `pkg/apis/storage/v1/defaults.go`).

use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::selector::qualified_name_errors;

use crate::registry::validation::{check, immutable, required_one_of};
use crate::registry::{Column, PrintContext, Strategy, print};

/// Marks the class of claims that name none.
pub const DEFAULT_ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";
const OLD_DEFAULT_ANNOTATION: &str = "storageclass.beta.kubernetes.io/is-default-class";

/// See the module.
pub struct StorageClasses;

impl Strategy for StorageClasses {
    type Object = StorageClass;
    const PLURAL: &'static str = "storageclasses";
    const SINGULAR: &'static str = "storageclass";
    const SHORT_NAMES: &'static [&'static str] = &["sc"];
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Provisioner"),
        Column::new("ReclaimPolicy"),
        Column::new("VolumeBindingMode"),
        Column::new("AllowVolumeExpansion"),
        print::AGE,
    ];

    fn default(object: &mut StorageClass) {
        object.reclaim_policy.get_or_insert_with(|| "Delete".into());
        object.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    }

    fn validate(object: &StorageClass) -> ErrorList {
        let mut errors = Vec::new();
        match object.provisioner.as_str() {
            "" => errors.push(Error::required(&Path::new("provisioner"), "")),
            name => check(&Path::new("provisioner"), name, qualified_name_errors(&name.to_lowercase()), &mut errors),
        }
        if object.parameters.iter().flatten().any(|(key, _)| key.is_empty()) {
            errors.push(Error::invalid(&Path::new("parameters"), "", "field can not be empty."));
        }
        required_one_of(&Path::new("reclaimPolicy"), object.reclaim_policy.as_deref(), &["Delete", "Retain"], &mut errors);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        required_one_of(&Path::new("volumeBindingMode"), object.volume_binding_mode.as_deref(), &modes, &mut errors);
        errors
    }

    fn validate_update(new: &StorageClass, old: &StorageClass) -> ErrorList {
        let mut errors = Self::validate(new);
        if new.parameters != old.parameters {
            errors.push(Error::forbidden(&Path::new("parameters"), "updates to parameters are forbidden."));
        }
        if new.provisioner != old.provisioner {
            errors.push(Error::forbidden(&Path::new("provisioner"), "updates to provisioner are forbidden."));
        }
        if new.reclaim_policy != old.reclaim_policy {
            errors.push(Error::forbidden(&Path::new("reclaimPolicy"), "updates to reclaimPolicy are forbidden."));
        }
        immutable(&Path::new("volumeBindingMode"), &new.volume_binding_mode, &old.volume_binding_mode, &mut errors);
        errors
    }

    fn cells(object: &StorageClass, context: &PrintContext) -> Vec<Value> {
        let name = object.metadata.name.clone().unwrap_or_default();
        vec![
            if is_default(object) { format!("{name} (default)") } else { name }.into(),
            object.provisioner.clone().into(),
            object.reclaim_policy.as_deref().unwrap_or("Delete").into(),
            object.volume_binding_mode.as_deref().unwrap_or("Immediate").into(),
            object.allow_volume_expansion.unwrap_or_default().into(),
            print::age(&object.metadata, context),
        ]
    }
}

/// Whether claims that name no class get this one.
pub fn is_default(object: &StorageClass) -> bool {
    let annotations = object.metadata.annotations.as_ref();
    [DEFAULT_ANNOTATION, OLD_DEFAULT_ANNOTATION].iter().any(|key| annotations.and_then(|a| a.get(*key)).is_some_and(|v| v == "true"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn classes_have_policies_and_keep_their_provisioner() {
        let class = |provisioner: &str| json!({"metadata": {"name": "c"}, "provisioner": provisioner});
        assert!(errors::<StorageClasses>(class("example.com/disk")).is_empty());
        assert_eq!(errors::<StorageClasses>(class("")), ["provisioner: Required value"]);
        assert_eq!(update_errors::<StorageClasses>(class("a"), class("b")), ["provisioner: Forbidden: updates to provisioner are forbidden."]);
    }

    #[test]
    fn the_default_class_is_marked() {
        let class = json!({"metadata": {"name": "c", "annotations": {DEFAULT_ANNOTATION: "true"}}, "provisioner": "p"});
        assert_eq!(
            cells::<StorageClasses>(class),
            [json!("c (default)"), json!("p"), json!("Delete"), json!("Immediate"), json!(false), json!("<unknown>")]
        );
    }
}

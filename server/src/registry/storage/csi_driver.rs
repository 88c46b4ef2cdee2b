//! CSIDrivers (`pkg/registry/storage/csidriver/strategy.go`, `pkg/apis/storage/v1/defaults.go`).

use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::Value;
use shared::field::{ErrorList, Path};

use crate::registry::validation::{immutable, one_of};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct CsiDrivers;

impl Strategy for CsiDrivers {
    type Object = CSIDriver;
    const PLURAL: &'static str = "csidrivers";
    const SINGULAR: &'static str = "csidriver";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("AttachRequired").of("boolean"),
        Column::new("PodInfoOnMount").of("boolean"),
        Column::new("StorageCapacity").of("boolean"),
        Column::new("TokenRequests"),
        Column::new("RequiresRepublish").of("boolean"),
        Column::new("Modes"),
        print::AGE,
    ];

    fn default(object: &mut CSIDriver) {
        let spec = &mut object.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".into()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn validate(object: &CSIDriver) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        one_of(&path.child("fsGroupPolicy"), object.spec.fs_group_policy.as_deref(), &policies, &mut errors);
        for mode in object.spec.volume_lifecycle_modes.iter().flatten() {
            one_of(&path.child("volumeLifecycleModes"), Some(mode), &["Ephemeral", "Persistent"], &mut errors);
        }
        errors
    }

    fn validate_update(new: &CSIDriver, old: &CSIDriver) -> ErrorList {
        let mut errors = Self::validate(new);
        let path = Path::new("spec");
        immutable(&path.child("attachedRequired"), &new.spec.attach_required, &old.spec.attach_required, &mut errors);
        let (modes, before) = (&new.spec.volume_lifecycle_modes, &old.spec.volume_lifecycle_modes);
        immutable(&path.child("volumeLifecycleModes"), modes, before, &mut errors);
        errors
    }

    fn spec_changed(new: &CSIDriver, old: &CSIDriver) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &CSIDriver, context: &PrintContext) -> Vec<Value> {
        let spec = &object.spec;
        let audiences = spec.token_requests.as_ref().map(|t| t.iter().map(|t| t.audience.as_str()).collect::<Vec<_>>().join(","));
        vec![
            print::name(&object.metadata),
            spec.attach_required.unwrap_or(true).into(),
            spec.pod_info_on_mount.unwrap_or_default().into(),
            spec.storage_capacity.unwrap_or_default().into(),
            audiences.as_deref().unwrap_or(print::UNSET).into(),
            spec.requires_republish.unwrap_or_default().into(),
            print::or_none(Some(&spec.volume_lifecycle_modes.clone().unwrap_or_default().join(","))),
            print::age(&object.metadata, context),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn drivers_attach_unless_told_otherwise() {
        let stored = defaulted::<CsiDrivers>(json!({"metadata": {"name": "d"}, "spec": {}}));
        assert_eq!(stored["spec"]["attachRequired"], true);
        assert_eq!(
            cells::<CsiDrivers>(stored),
            [json!("d"), json!(true), json!(false), json!(false), json!("<unset>"), json!(false), json!("Persistent"), json!("<unknown>")]
        );
        assert_eq!(
            update_errors::<CsiDrivers>(json!({"spec": {}}), json!({"spec": {"attachRequired": false}})),
            ["spec.attachedRequired: Invalid value: false: field is immutable"]
        );
    }
}

//! PersistentVolumeClaims (`pkg/registry/core/persistentvolumeclaim/strategy.go`, `ValidatePersistentVolumeClaim`).

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;

use super::persistent_volume::{access_modes, storage};
use super::pod_template::default_claim_spec;
use crate::registry::validation::diff::changes;
use crate::registry::validation::resources::{self, canonicalize};
use crate::registry::validation::{check, dns1123_subdomain, immutable, one_of, selectors};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// The annotation that storage classes were named by before the field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// See the module.
pub struct PersistentVolumeClaims;

impl Strategy for PersistentVolumeClaims {
    type Object = PersistentVolumeClaim;
    const PLURAL: &'static str = "persistentvolumeclaims";
    const SINGULAR: &'static str = "persistentvolumeclaim";
    const SHORT_NAMES: &'static [&'static str] = &["pvc"];
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Status"),
        Column::new("Volume"),
        Column::new("Capacity"),
        Column::new("Access Modes"),
        Column::new("StorageClass"),
        Column::new("VolumeAttributesClass"),
        print::AGE,
        Column::new("VolumeMode").wide(),
    ];

    fn default(object: &mut PersistentVolumeClaim) {
        default_claim_spec(object.spec.get_or_insert_default());
        let status = object.status.get_or_insert_default();
        status.phase.get_or_insert_with(|| "Pending".into());
        canonicalize(&mut status.capacity);
        canonicalize(&mut status.allocated_resources);
    }

    fn prepare_for_create(object: &mut PersistentVolumeClaim) {
        object.status = Some(PersistentVolumeClaimStatus { phase: Some("Pending".into()), ..Default::default() });
    }

    fn validate(object: &PersistentVolumeClaim) -> ErrorList {
        let mut errors = Vec::new();
        let none = PersistentVolumeClaimSpec::default();
        spec(&Path::new("spec"), object.spec.as_ref().unwrap_or(&none), &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> ErrorList {
        let mut errors = Self::validate(new);
        let bound = new.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let status_size =
            old.status.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage")).map_or_else(Quantity::zero, Quantity::of);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            spec_update(new, old, bound, status_size, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &PersistentVolumeClaim, _old: &PersistentVolumeClaim) -> ErrorList {
        let mut errors = Vec::new();
        for (name, wire) in new.status.iter().flat_map(|s| s.capacity.iter().flatten()) {
            resources::quantity(&Path::new("status").child("capacity").key(name), name, wire, &mut errors);
        }
        errors
    }

    fn cells(object: &PersistentVolumeClaim, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let terminating = object.metadata.deletion_timestamp.is_some();
        let phase = if terminating { "Terminating" } else { status.phase.as_deref().unwrap_or_default() };
        let volume = spec.volume_name.clone().unwrap_or_default();
        let bound = !volume.is_empty();
        let annotated = object.metadata.annotations.as_ref().and_then(|a| a.get(BETA_CLASS)).cloned();
        vec![
            print::name(&object.metadata),
            phase.into(),
            volume.into(),
            if bound { storage(status.capacity.as_ref()) } else { String::new() }.into(),
            if bound { access_modes(status.access_modes.as_deref()) } else { String::new() }.into(),
            annotated.or(spec.storage_class_name).unwrap_or_default().into(),
            spec.volume_attributes_class_name.as_deref().unwrap_or(print::UNSET).into(),
            print::age(&object.metadata, context),
            spec.volume_mode.as_deref().unwrap_or(print::UNSET).into(),
        ]
    }
}

/// Rules of a claim's spec, in a claim or in a template of one.
pub fn spec(path: &Path, spec: &PersistentVolumeClaimSpec, errors: &mut ErrorList) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let modes_path = path.child("accessModes");
    if modes.is_empty() {
        errors.push(Error::required(&modes_path, "at least 1 access mode is required"));
    }
    super::persistent_volume::validate_access_modes(&modes_path, modes, errors);
    selectors::label_selector(&path.child("selector"), spec.selector.as_ref(), errors);
    let requested = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
    let storage_path = path.child("resources").key("storage");
    match requested {
        None => errors.push(Error::required(&storage_path, "")),
        Some(wire) => {
            resources::quantity(&storage_path, "storage", wire, errors);
            if Quantity::of(wire).is_zero() {
                errors.push(Error::invalid(&storage_path, &wire.0, "must be greater than zero"));
            }
        }
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        check(&path.child("storageClassName"), class, dns1123_subdomain(class), errors);
    }
    one_of(&path.child("volumeMode"), spec.volume_mode.as_deref(), &["Block", "Filesystem"], errors);
}

/// A claim binds once; after that only its size (upwards) and its attributes class change.
fn spec_update(new: &PersistentVolumeClaimSpec, old: &PersistentVolumeClaimSpec, bound: bool, status_size: Quantity, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let size = |spec: &PersistentVolumeClaimSpec| {
        spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")).map_or_else(Quantity::zero, Quantity::of)
    };
    let mut munged = new.clone();
    if old.volume_name.as_ref().is_none_or(String::is_empty) {
        munged.volume_name.clone_from(&old.volume_name);
    }
    if old.storage_class_name.is_none() {
        munged.storage_class_name = None;
    }
    if bound {
        munged.resources.clone_from(&old.resources);
        munged.volume_attributes_class_name.clone_from(&old.volume_attributes_class_name);
    }
    if munged != *old {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(Error::forbidden(&path, &format!("{detail}\n{}", changes(old, &munged))));
    }
    if size(new) < size(old) && size(new) <= status_size {
        let path = path.child("resources").child("requests").child("storage");
        errors.push(Error::forbidden(&path, "field can not be less than status.capacity"));
    }
    immutable(&Path::new("volumeMode"), &new.volume_mode, &old.volume_mode, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn claim(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "c"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}
        }});
        with(base, patch)
    }

    #[test]
    fn a_claim_is_pending_and_a_filesystem() {
        let stored = serde_json::to_value(created::<PersistentVolumeClaims>(claim(json!({"status": {"phase": "Bound"}})))).unwrap();
        assert_eq!(stored["status"], json!({"phase": "Pending"}));
        assert_eq!(stored["spec"]["volumeMode"], "Filesystem");
        assert_eq!(stored["spec"]["resources"], json!({"requests": {"storage": "1Gi"}}));
    }

    #[test]
    fn a_claim_says_how_much_and_how_it_is_used() {
        let errors = errors::<PersistentVolumeClaims>;
        assert!(errors(claim(json!({}))).is_empty());
        assert_eq!(errors(claim(json!({"spec": {"accessModes": null}}))), ["spec.accessModes: Required value: at least 1 access mode is required"]);
        assert_eq!(
            errors(claim(json!({"spec": {"accessModes": ["Often"]}}))),
            [
                "spec.accessModes: Unsupported value: \"Often\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\""
            ]
        );
        assert_eq!(errors(claim(json!({"spec": {"resources": null}}))), ["spec.resources[storage]: Required value"]);
        assert_eq!(
            errors(claim(json!({"spec": {"resources": {"requests": {"storage": "0"}}}}))),
            ["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"]
        );
    }

    #[test]
    fn a_claim_binds_once_and_then_only_grows() {
        let volume = |name: &str| claim(json!({"spec": {"volumeName": name}}));
        assert!(update_errors::<PersistentVolumeClaims>(claim(json!({})), volume("v")).is_empty());
        let errors = update_errors::<PersistentVolumeClaims>(volume("v"), volume("w"));
        assert!(errors[0].starts_with("spec: Forbidden: spec is immutable after creation except resources.requests"), "{errors:?}");
        assert!(errors[0].ends_with("volumeName: \"v\" → \"w\""));
    }

    #[test]
    fn rows_show_the_bound_volume() {
        let row = cells::<PersistentVolumeClaims>(claim(json!({
            "spec": {"volumeName": "v", "storageClassName": "fast", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": "2Gi"}}
        })));
        assert_eq!(row, ["c", "Bound", "v", "2Gi", "RWO,ROX", "fast", "<unset>", "<unknown>", "Filesystem"]);
        assert_eq!(cells::<PersistentVolumeClaims>(claim(json!({})))[3], "");
    }
}

//! PersistentVolumes (`pkg/registry/core/persistentvolume/strategy.go`, `ValidatePersistentVolume`).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;

use crate::registry::validation::resources::{self, ResourceList, default_list};
use crate::registry::validation::{check, dns1123_subdomain, immutable, one_of, required_one_of, selectors};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct PersistentVolumes;

impl Strategy for PersistentVolumes {
    type Object = PersistentVolume;
    const PLURAL: &'static str = "persistentvolumes";
    const SINGULAR: &'static str = "persistentvolume";
    const SHORT_NAMES: &'static [&'static str] = &["pv"];
    const NAMESPACED: bool = false;
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Capacity"),
        Column::new("Access Modes"),
        Column::new("Reclaim Policy"),
        Column::new("Status"),
        Column::new("Claim"),
        Column::new("StorageClass"),
        Column::new("VolumeAttributesClass"),
        Column::new("Reason"),
        print::AGE,
        Column::new("VolumeMode").wide(),
    ];

    fn default(object: &mut PersistentVolume) {
        let spec = object.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".into());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        default_list(&mut spec.capacity);
        if let Some(path) = &mut spec.host_path {
            path.type_.get_or_insert_default();
        }
        object.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
    }

    fn prepare_for_create(object: &mut PersistentVolume) {
        object.status = Some(Default::default());
        Self::default(object);
    }

    fn validate(object: &PersistentVolume) -> ErrorList {
        let mut errors = Vec::new();
        let none = PersistentVolumeSpec::default();
        spec(&Path::new("spec"), object.spec.as_ref().unwrap_or(&none), &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut PersistentVolume, old: &PersistentVolume) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &PersistentVolume, old: &PersistentVolume) -> ErrorList {
        let mut errors = Self::validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            if source(new) != source(old) {
                let path = Path::new("spec").child("persistentvolumesource");
                errors.push(Error::forbidden(&path, "spec.persistentvolumesource is immutable after creation"));
            }
            immutable(&Path::new("volumeMode"), &new.volume_mode, &old.volume_mode, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(new: &mut PersistentVolume, old: &PersistentVolume) {
        new.spec.clone_from(&old.spec);
    }

    fn cells(object: &PersistentVolume, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let terminating = object.metadata.deletion_timestamp.is_some();
        let claim = spec.claim_ref.as_ref().map_or_else(String::new, |claim| {
            format!("{}/{}", claim.namespace.as_deref().unwrap_or_default(), claim.name.as_deref().unwrap_or_default())
        });
        vec![
            print::name(&object.metadata),
            storage(spec.capacity.as_ref()).into(),
            access_modes(spec.access_modes.as_deref()).into(),
            spec.persistent_volume_reclaim_policy.unwrap_or_default().into(),
            if terminating { "Terminating".into() } else { status.phase.unwrap_or_default().into() },
            claim.into(),
            spec.storage_class_name.unwrap_or_default().into(),
            spec.volume_attributes_class_name.as_deref().unwrap_or(print::UNSET).into(),
            status.reason.unwrap_or_default().into(),
            print::age(&object.metadata, context),
            spec.volume_mode.as_deref().unwrap_or(print::UNSET).into(),
        ]
    }
}

/// The `storage` of a list, `0` when there is none.
pub(super) fn storage(list: Option<&ResourceList>) -> String {
    list.and_then(|l| l.get("storage")).map_or_else(Quantity::zero, Quantity::of).to_string()
}

/// `RWO,ROX,RWX,RWOP`, each at most once and in this order (`GetAccessModesAsString`).
pub(super) fn access_modes(modes: Option<&[String]>) -> String {
    const SHORT: [(&str, &str); 4] = [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |long: &str| modes.is_some_and(|m| m.iter().any(|mode| mode == long));
    SHORT.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// Known modes, and `ReadWriteOncePod` by itself.
pub(super) fn validate_access_modes(path: &Path, modes: &[String], errors: &mut ErrorList) {
    for mode in modes {
        one_of(path, Some(mode), &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"], errors);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.push(Error::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// The fields that say where the data is.
fn source(spec: &PersistentVolumeSpec) -> serde_json::Map<String, Value> {
    const NOT_SOURCE: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let json = serde_json::to_value(spec).unwrap_or_default();
    let mut map = json.as_object().cloned().unwrap_or_default();
    map.retain(|key, _| !NOT_SOURCE.contains(&key.as_str()));
    map
}

fn spec(path: &Path, spec: &PersistentVolumeSpec, errors: &mut ErrorList) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.push(Error::required(&path.child("accessModes"), ""));
    }
    validate_access_modes(&path.child("accessModes"), modes, errors);
    let capacity = path.child("capacity");
    match spec.capacity.as_ref().filter(|c| !c.is_empty()) {
        None => errors.push(Error::required(&capacity, "")),
        Some(list) if list.len() > 1 || !list.contains_key("storage") => {
            errors.push(Error::not_supported(&capacity, list, &["storage"]));
        }
        Some(list) => {
            for (name, wire) in list {
                resources::quantity(&capacity.key(name), name, wire, errors);
                if Quantity::of(wire).is_zero() {
                    errors.push(Error::invalid(&capacity.key(name), &wire.0, "must be greater than zero"));
                }
            }
        }
    }
    one_of(&path.child("persistentVolumeReclaimPolicy"), spec.persistent_volume_reclaim_policy.as_deref(), &["Delete", "Recycle", "Retain"], errors);
    let source = source(spec);
    let mut names = source.keys();
    if names.next().is_none() {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    errors.extend(names.map(|name| Error::forbidden(&path.child(name), "may not specify more than 1 volume type")));
    if let Some(host) = &spec.host_path {
        super::pod_template::path_no_backsteps(&path.child("hostPath").child("path"), &host.path, errors);
        if host.path == "/" && spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
            errors.push(Error::forbidden(&path.child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"));
        }
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        check(&path.child("storageClassName"), class, dns1123_subdomain(class), errors);
    }
    if let Some(affinity) = &spec.node_affinity {
        let path = path.child("nodeAffinity").child("required");
        match &affinity.required {
            None => errors.push(Error::required(&path, "must specify required node constraints")),
            Some(selector) => selectors::node_selector(&path, selector, errors),
        }
    } else if spec.local.is_some() {
        errors.push(Error::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
    }
    required_one_of(&path.child("volumeMode"), spec.volume_mode.as_deref(), &["Block", "Filesystem"], errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn volume(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "v"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}
        }});
        with(base, patch)
    }

    #[test]
    fn a_volume_is_kept_unless_told_otherwise() {
        let stored = defaulted::<PersistentVolumes>(volume(json!({})));
        assert_eq!(stored["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!((&stored["spec"]["volumeMode"], &stored["spec"]["hostPath"]["type"]), (&json!("Filesystem"), &json!("")));
        assert_eq!(stored["status"], json!({"phase": "Pending"}));
    }

    #[test]
    fn a_volume_has_one_source_that_never_changes() {
        assert!(errors::<PersistentVolumes>(volume(json!({}))).is_empty());
        assert_eq!(errors::<PersistentVolumes>(volume(json!({"spec": {"hostPath": null}}))), ["spec: Required value: must specify a volume type"]);
        assert_eq!(
            errors::<PersistentVolumes>(volume(json!({"spec": {"nfs": {"server": "s", "path": "/"}}}))),
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"]
        );
        assert_eq!(
            update_errors::<PersistentVolumes>(volume(json!({})), volume(json!({"spec": {"hostPath": {"path": "/other"}}}))),
            ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
        );
    }

    #[test]
    fn rows_show_who_claimed_it() {
        let row = cells::<PersistentVolumes>(volume(json!({
            "spec": {"claimRef": {"namespace": "n", "name": "c"}, "persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Bound"}
        })));
        assert_eq!(row, ["v", "1Gi", "RWO", "Delete", "Bound", "n/c", "", "<unset>", "", "<unknown>", "<unset>"]);
    }
}

//! Which volume serves a claim (`staging/src/k8s.io/component-helpers/storage/volume/pv_helpers.go`, FindMatchingVolume). Pure.
//!
//! The scheduler asks the same for claims that wait for their first consumer.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shared::quantity::Quantity;
use shared::selector::Selector;

/// What storage classes were named by before there was a field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The class a claim asks for, `""` for none.
pub fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    let field = || claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    annotation(&claim.metadata, BETA_CLASS).or_else(field).unwrap_or_default()
}

/// The class a volume is of, `""` for none.
pub fn volume_class(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    annotation(&volume.metadata, BETA_CLASS).or_else(field).unwrap_or_default()
}

/// Whether a volume names this claim as its own, be it only by name.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return false };
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
}

fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    requests.and_then(|r| r.get("storage")).map_or_else(Quantity::zero, Quantity::of)
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    volume.spec.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage")).map_or_else(Quantity::zero, Quantity::of)
}

fn modes_fit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    claim.spec.iter().flat_map(|s| s.access_modes.iter().flatten()).all(|mode| offered.contains(mode))
}

fn volume_modes_fit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let mode = |mode: Option<&String>| mode.map_or("Filesystem", String::as_str).to_owned();
    mode(volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref())) == mode(claim.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
}

fn attributes_fit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let name = |name: Option<&String>| name.cloned().unwrap_or_default();
    name(volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref()))
        == name(claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref()))
}

/// Whether the volume a claim asks for by name will do (`checkVolumeSatisfyClaim`).
///
/// # Errors
/// Why not, in upstream's words.
pub fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), &'static str> {
    if capacity(volume) < requested(claim) {
        Err("requested PV is too small")
    } else if volume_class(volume) != claim_class(claim) {
        Err("storageClassName does not match")
    } else if !attributes_fit(volume, claim) {
        Err("volumeAttributesClassName does not match")
    } else if !volume_modes_fit(volume, claim) {
        Err("incompatible volumeMode")
    } else if !modes_fit(volume, claim) {
        Err("incompatible accessMode")
    } else {
        Ok(())
    }
}

/// The volume for a claim: the one made for it, or else the one with the fewest other uses and the least room to spare. With
/// `prebound_only` nothing but the first is looked for; `reachable` says which volumes the node in question can use.
pub fn find<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a Arc<PersistentVolume>>,
    prebound_only: bool,
    reachable: Option<&dyn Fn(&PersistentVolume) -> bool>,
) -> Option<Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = selector.map(|s| Selector::from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing()));
    let wanted = requested(claim);
    let mut best: Option<(usize, Quantity, &'a Arc<PersistentVolume>)> = None;
    for volume in volumes {
        let usable = modes_fit(volume, claim) && volume_modes_fit(volume, claim) && volume.metadata.deletion_timestamp.is_none();
        let size = capacity(volume);
        if !usable || size < wanted {
            continue;
        }
        let within_reach = reachable.is_none_or(|f| f(volume));
        if is_bound_to(volume, claim) {
            return within_reach.then(|| volume.clone());
        }
        let spec = volume.spec.as_ref();
        let free = spec.and_then(|s| s.claim_ref.as_ref()).is_none() && phase(volume) == "Available";
        if prebound_only
            || !free
            || !within_reach
            || volume_class(volume) != claim_class(claim)
            || !attributes_fit(volume, claim)
            || selector.as_ref().is_some_and(|s| !s.matches(&volume.metadata.labels))
        {
            continue;
        }
        let modes = spec.and_then(|s| s.access_modes.as_ref()).map_or(0, Vec::len);
        if best.as_ref().is_none_or(|(n, least, _)| (modes, &size) < (*n, least)) {
            best = Some((modes, size, volume));
        }
    }
    best.map(|(_, _, volume)| volume.clone())
}

/// The phase of a volume, `""` before it has one.
pub fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, spec: Value) -> Arc<PersistentVolume> {
        let mut full = json!({ "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow" });
        full.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
        let labels = json!({ "name": name });
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "spec": full, "status": { "phase": "Available" } }))
                .unwrap(),
        )
    }

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut full = json!({ "resources": { "requests": { "storage": "5Gi" } }, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow" });
        full.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
        serde_json::from_value(json!({ "metadata": { "name": "c", "namespace": "ns", "uid": "u" }, "spec": full })).unwrap()
    }

    #[test]
    fn the_smallest_volume_that_will_do_is_chosen_and_one_made_for_the_claim_before_it() {
        let reserved = json!({ "claimRef": { "name": "c", "namespace": "ns" } });
        let taken = json!({ "claimRef": { "name": "c", "namespace": "ns", "uid": "earlier" } });
        let many = json!({ "accessModes": ["ReadWriteOnce", "ReadOnlyMany"] });
        let none = json!({});
        for (volumes, spec, expected) in [
            (vec![volume("a", "9Gi", none.clone()), volume("b", "6Gi", none.clone()), volume("c", "1Gi", none.clone())], json!({}), Some("b")),
            (vec![volume("a", "5Gi", many.clone()), volume("b", "8Gi", none.clone())], json!({}), Some("b")),
            (vec![volume("a", "5Gi", none.clone()), volume("b", "8Gi", many)], json!({ "accessModes": ["ReadOnlyMany"] }), Some("b")),
            (vec![volume("a", "5Gi", none.clone()), volume("b", "8Gi", reserved)], json!({}), Some("b")),
            (vec![volume("a", "5Gi", taken)], json!({}), None),
            (vec![volume("a", "5Gi", none.clone())], json!({ "storageClassName": "" }), None),
            (vec![volume("a", "5Gi", none.clone())], json!({ "volumeMode": "Block" }), None),
            (vec![volume("a", "5Gi", none.clone())], json!({ "volumeAttributesClassName": "gold" }), None),
            (vec![volume("a", "5Gi", none.clone()), volume("b", "9Gi", none)], json!({ "selector": { "matchLabels": { "name": "b" } } }), Some("b")),
        ] {
            let found = find(&claim(spec.clone()), volumes.iter(), false, None);
            assert_eq!(found.and_then(|v| v.metadata.name.clone()).as_deref(), expected, "{spec}");
        }
    }

    #[test]
    fn what_a_node_cannot_reach_and_what_is_not_made_for_the_claim_may_be_left_out() {
        let volumes = [volume("a", "5Gi", json!({})), volume("b", "6Gi", json!({}))];
        let not_a = |v: &PersistentVolume| v.metadata.name.as_deref() != Some("a");
        let found = find(&claim(json!({})), volumes.iter(), false, Some(&not_a));
        assert_eq!(found.unwrap().metadata.name.as_deref(), Some("b"));
        assert!(find(&claim(json!({})), volumes.iter(), true, None).is_none());
    }

    #[test]
    fn a_volume_asked_for_by_name_must_do() {
        for (spec, expected) in [
            (json!({}), Ok(())),
            (json!({ "resources": { "requests": { "storage": "11Gi" } } }), Err("requested PV is too small")),
            (json!({ "storageClassName": "fast" }), Err("storageClassName does not match")),
            (json!({ "volumeMode": "Block" }), Err("incompatible volumeMode")),
            (json!({ "accessModes": ["ReadWriteMany"] }), Err("incompatible accessMode")),
        ] {
            assert_eq!(satisfies(&volume("v", "10Gi", json!({})), &claim(spec)), expected);
        }
    }
}

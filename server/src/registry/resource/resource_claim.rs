//! ResourceClaims (`pkg/registry/resource/resourceclaim/strategy.go`, `pkg/apis/resource/validation/validation.go`).

use std::collections::HashSet;

use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimStatus};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use super::devices;
use crate::registry::object::reset_for_status;
use crate::registry::validation::immutable;
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// Most consumers of a claim.
const MOST_CONSUMERS: usize = 256;

/// See the module.
pub struct ResourceClaims;

impl Strategy for ResourceClaims {
    type Object = ResourceClaim;
    const PLURAL: &'static str = "resourceclaims";
    const SINGULAR: &'static str = "resourceclaim";
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("State"), print::AGE];

    fn default(object: &mut ResourceClaim) {
        devices::default_claim(object.spec.devices.as_mut());
    }

    fn prepare_for_create(object: &mut ResourceClaim) {
        object.status = Some(ResourceClaimStatus::default());
    }

    fn validate(object: &ResourceClaim) -> ErrorList {
        let mut errors = Vec::new();
        if let Some(claim) = &object.spec.devices {
            devices::claim(&Path::new("spec").child("devices"), claim, &mut errors);
        }
        errors
    }

    fn prepare_for_update(new: &mut ResourceClaim, old: &ResourceClaim) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &ResourceClaim, old: &ResourceClaim) -> ErrorList {
        let mut errors = Self::validate(new);
        immutable(&Path::new("spec"), &new.spec, &old.spec, &mut errors);
        errors
    }

    fn prepare_for_status_update(new: &mut ResourceClaim, old: &ResourceClaim) {
        new.spec.clone_from(&old.spec);
        reset_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate_status_update(new: &ResourceClaim, old: &ResourceClaim) -> ErrorList {
        let mut errors = Vec::new();
        let (none, path) = (ResourceClaimStatus::default(), Path::new("status"));
        let (status, before) = (new.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none));
        consumers(&path.child("reservedFor"), status, &mut errors);
        if new.metadata.deletion_timestamp.is_some() {
            let more = status.reserved_for.iter().flatten().any(|c| !before.reserved_for.iter().flatten().any(|b| b.uid == c.uid));
            if more {
                errors.push(Error::forbidden(&path.child("reservedFor"), "new reservations may not be added when `deletionTimestamp` is set"));
            }
        }
        // An allocation is made and given back as a whole.
        if before.allocation.is_some() && status.allocation.is_some() {
            immutable(&path.child("allocation"), &status.allocation, &before.allocation, &mut errors);
        }
        errors
    }

    fn cells(object: &ResourceClaim, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), state(object).into(), print::age(&object.metadata, context)]
    }
}

fn consumers(path: &Path, status: &ResourceClaimStatus, errors: &mut ErrorList) {
    let consumers = status.reserved_for.as_deref().unwrap_or_default();
    if !consumers.is_empty() && status.allocation.is_none() {
        errors.push(Error::forbidden(path, "may not be specified when `allocated` is not set"));
    }
    devices::at_most(path, consumers, MOST_CONSUMERS, errors);
    let mut uids = HashSet::new();
    for (index, consumer) in consumers.iter().enumerate() {
        let path = path.index(index);
        for (field, value) in [("resource", &consumer.resource), ("name", &consumer.name), ("uid", &consumer.uid)] {
            if value.is_empty() {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        if !uids.insert(&consumer.uid) {
            errors.push(Error::duplicate(&path.child("uid"), &consumer.uid));
        }
    }
}

/// `pending`, `allocated,reserved`, `deleted,allocated`, …
fn state(object: &ResourceClaim) -> String {
    let deleted = object.metadata.deletion_timestamp.is_some();
    let mut states = if deleted { vec!["deleted"] } else { Vec::new() };
    match object.status.as_ref().filter(|s| s.allocation.is_some()) {
        None if deleted => {}
        None => states.push("pending"),
        Some(status) => {
            states.push("allocated");
            if status.reserved_for.as_ref().is_some_and(|r| !r.is_empty()) {
                states.push("reserved");
            }
        }
    }
    states.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn claim(request: Value) -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}})
    }

    #[test]
    fn a_request_is_for_one_device_unless_it_says_otherwise() {
        let request = json!({"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}});
        let defaulted = defaulted::<ResourceClaims>(claim(request.clone()));
        assert_eq!(
            defaulted["spec"]["devices"]["requests"][0]["exactly"],
            json!({"deviceClassName": "gpu.example.com", "allocationMode": "ExactCount", "count": 1})
        );
        assert!(errors::<ResourceClaims>(claim(request)).is_empty());
    }

    #[test]
    fn requests_are_exact_or_alternatives_and_named_once() {
        let path = "spec.devices.requests[0]";
        let of = |request: Value| errors::<ResourceClaims>(claim(request));
        assert_eq!(of(json!({"name": "a"})), [format!("{path}: Required value: exactly one of `exactly` or `firstAvailable` is required")]);
        assert_eq!(of(json!({"name": "a", "exactly": {"deviceClassName": ""}})), [format!("{path}.exactly.deviceClassName: Required value")]);
        let all = json!({"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "All", "count": 2}});
        assert_eq!(of(all), [format!("{path}.exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'")]);
        let twice = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "c"}}, {"name": "a", "exactly": {"deviceClassName": "c"}},
        ], "constraints": [{"requests": ["b"], "matchAttribute": "d.example.com/x"}]}}});
        let errors = errors::<ResourceClaims>(twice);
        assert_eq!(errors[0], "spec.devices.requests[1].name: Duplicate value: \"a\"");
        assert!(errors[1].starts_with("spec.devices.constraints[0].requests[0]: Invalid value: \"b\": must be the name of a request"), "{errors:?}");
    }

    #[test]
    fn the_spec_stays_and_only_what_is_allocated_is_reserved() {
        let of = |class: &str| claim(json!({"name": "a", "exactly": {"deviceClassName": class}}));
        assert!(update_errors::<ResourceClaims>(of("a"), of("b"))[0].ends_with("field is immutable"));
        let with_status = |status: Value| object::<ResourceClaims>(with(of("a"), json!({"status": status})));
        let consumer = json!({"resource": "pods", "name": "p", "uid": "u"});
        let (none, reserved) = (with_status(json!({})), with_status(json!({"reservedFor": [consumer]})));
        let errors: Vec<_> = ResourceClaims::validate_status_update(&reserved, &none).iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]);
        let good = with_status(json!({"allocation": {}, "reservedFor": [consumer]}));
        assert!(ResourceClaims::validate_status_update(&good, &none).is_empty());
        assert_eq!((state(&none), state(&good)), ("pending".to_owned(), "allocated,reserved".to_owned()));
    }
}

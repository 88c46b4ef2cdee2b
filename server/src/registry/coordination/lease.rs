//! Leases (`pkg/registry/coordination/lease/strategy.go`).

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::not_negative;
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct Leases;

impl Strategy for Leases {
    type Object = Lease;
    const PLURAL: &'static str = "leases";
    const SINGULAR: &'static str = "lease";
    const CREATE_ON_UPDATE: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Holder"), print::AGE];

    fn validate(object: &Lease) -> ErrorList {
        let mut errors = Vec::new();
        let Some(spec) = &object.spec else { return errors };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            errors.push(Error::invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
        }
        not_negative(&path.child("leaseTransitions"), spec.lease_transitions.map(i64::from), &mut errors);
        errors
    }

    fn cells(object: &Lease, context: &PrintContext) -> Vec<Value> {
        let holder = object.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
        vec![print::name(&object.metadata), holder.into(), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn durations_are_positive_and_rows_name_the_holder() {
        assert_eq!(
            errors::<Leases>(json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}})),
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"
            ]
        );
        assert_eq!(cells::<Leases>(json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "h"}})), ["l", "h", "<unknown>"]);
    }
}

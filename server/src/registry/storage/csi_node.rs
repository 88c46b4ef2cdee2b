//! CSINodes (`pkg/registry/storage/csinode/strategy.go`).

use k8s_openapi::api::storage::v1::CSINode;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::not_negative;
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct CsiNodes;

impl Strategy for CsiNodes {
    type Object = CSINode;
    const PLURAL: &'static str = "csinodes";
    const SINGULAR: &'static str = "csinode";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Drivers").of("integer"), print::AGE];

    fn validate(object: &CSINode) -> ErrorList {
        let mut errors = Vec::new();
        let drivers = &object.spec.drivers;
        for (index, driver) in drivers.iter().enumerate() {
            let path = Path::new("spec").child("drivers").index(index);
            for (field, value) in [("name", &driver.name), ("nodeID", &driver.node_id)] {
                if value.is_empty() {
                    errors.push(Error::required(&path.child(field), ""));
                }
            }
            if drivers[..index].iter().any(|d| d.name == driver.name) {
                errors.push(Error::duplicate(&path.child("name"), &driver.name));
            }
            let count = driver.allocatable.as_ref().and_then(|a| a.count);
            not_negative(&path.child("allocatable").child("count"), count.map(i64::from), &mut errors);
        }
        errors
    }

    fn cells(object: &CSINode, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), object.spec.drivers.len().into(), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn drivers_are_listed_once() {
        let driver = json!({"name": "d", "nodeID": "n"});
        assert_eq!(errors::<CsiNodes>(json!({"spec": {"drivers": [driver, driver]}})), ["spec.drivers[1].name: Duplicate value: \"d\""]);
        assert_eq!(cells::<CsiNodes>(json!({"metadata": {"name": "n"}, "spec": {"drivers": [driver]}}))[1], 1);
    }
}

//! VolumeAttributesClasses (`pkg/registry/storage/volumeattributesclass/strategy.go`).

use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct VolumeAttributesClasses;

impl Strategy for VolumeAttributesClasses {
    type Object = VolumeAttributesClass;
    const PLURAL: &'static str = "volumeattributesclasses";
    const SINGULAR: &'static str = "volumeattributesclass";
    const SHORT_NAMES: &'static [&'static str] = &["vac"];
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("DriverName"), print::AGE];

    fn validate(object: &VolumeAttributesClass) -> ErrorList {
        let mut errors = Vec::new();
        if object.driver_name.is_empty() {
            errors.push(Error::required(&Path::new("driverName"), ""));
        }
        if object.parameters.as_ref().is_none_or(|p| p.is_empty()) {
            errors.push(Error::required(&Path::new("parameters"), "must contain at least one key/value pair"));
        }
        errors
    }

    fn validate_update(new: &VolumeAttributesClass, old: &VolumeAttributesClass) -> ErrorList {
        let mut errors = Vec::new();
        if new.driver_name != old.driver_name {
            errors.push(Error::forbidden(&Path::new("driverName"), "updates to driverName are forbidden."));
        }
        if new.parameters != old.parameters {
            errors.push(Error::forbidden(&Path::new("parameters"), "updates to parameters are forbidden."));
        }
        errors
    }

    fn cells(object: &VolumeAttributesClass, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), object.driver_name.clone().into(), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn a_class_names_a_driver_for_good() {
        let of = |driver: &str| json!({"metadata": {"name": "v"}, "driverName": driver, "parameters": {"iops": "1"}});
        assert!(errors::<VolumeAttributesClasses>(of("d")).is_empty());
        assert_eq!(
            errors::<VolumeAttributesClasses>(json!({})),
            ["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"]
        );
        assert_eq!(update_errors::<VolumeAttributesClasses>(of("d"), of("e")), ["driverName: Forbidden: updates to driverName are forbidden."]);
        assert_eq!(cells::<VolumeAttributesClasses>(of("d"))[..2], ["v", "d"]);
    }
}

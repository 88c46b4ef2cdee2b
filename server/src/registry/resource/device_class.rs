//! DeviceClasses (`pkg/registry/resource/deviceclass/strategy.go`).

use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::Value;
use shared::field::{ErrorList, Path};

use super::devices;
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct DeviceClasses;

impl Strategy for DeviceClasses {
    type Object = DeviceClass;
    const PLURAL: &'static str = "deviceclasses";
    const SINGULAR: &'static str = "deviceclass";
    const NAMESPACED: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), print::AGE];

    fn validate(object: &DeviceClass) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        devices::selectors(&path.child("selectors"), object.spec.selectors.as_ref(), &mut errors);
        let configurations = object.spec.config.as_deref().unwrap_or_default();
        devices::at_most(&path.child("config"), configurations, 32, &mut errors);
        for (index, config) in configurations.iter().enumerate() {
            devices::configuration(&path.child("config").index(index), config.opaque.as_ref(), &mut errors);
        }
        errors
    }

    fn spec_changed(new: &DeviceClass, old: &DeviceClass) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &DeviceClass, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn selectors_and_configurations_are_of_the_one_sort_that_there_is() {
        let of = |spec: Value| json!({"metadata": {"name": "c"}, "spec": spec});
        let good = json!({"selectors": [{"cel": {"expression": "true"}}], "config": [{"opaque": {"driver": "d.example.com", "parameters": {}}}]});
        assert!(errors::<DeviceClasses>(of(good)).is_empty());
        assert_eq!(errors::<DeviceClasses>(of(json!({"selectors": [{}]}))), ["spec.selectors[0].cel: Required value"]);
        assert_eq!(errors::<DeviceClasses>(of(json!({"config": [{}]}))), ["spec.config[0].opaque: Required value"]);
    }
}

//! ResourceSlices (`pkg/registry/resource/resourceslice/strategy.go`, `pkg/apis/resource/validation/validation.go`).

use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use shared::field::{ErrorList, Path};

use super::slice_rules;
use crate::registry::validation::immutable;
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct ResourceSlices;

impl Strategy for ResourceSlices {
    type Object = ResourceSlice;
    const PLURAL: &'static str = "resourceslices";
    const SINGULAR: &'static str = "resourceslice";
    const NAMESPACED: bool = false;
    const GENERATION: bool = true;
    const FIELDS: &'static [&'static str] = &["spec.nodeName", "spec.driver"];
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Node"), Column::new("Driver"), Column::new("Pool"), print::AGE];

    fn default(object: &mut ResourceSlice) {
        let taints = object.spec.devices.iter_mut().flatten().filter_map(|d| d.taints.as_mut()).flatten();
        for taint in taints {
            taint.time_added.get_or_insert_with(|| Time(k8s_openapi::jiff::Timestamp::now()));
        }
    }

    fn validate(object: &ResourceSlice) -> ErrorList {
        let mut errors = Vec::new();
        slice_rules::spec(&Path::new("spec"), &object.spec, &mut errors);
        errors
    }

    fn validate_update(new: &ResourceSlice, old: &ResourceSlice) -> ErrorList {
        let mut errors = Self::validate(new);
        let path = Path::new("spec");
        immutable(&path.child("pool").child("name"), &new.spec.pool.name, &old.spec.pool.name, &mut errors);
        immutable(&path.child("driver"), &new.spec.driver, &old.spec.driver, &mut errors);
        immutable(&path.child("nodeName"), &new.spec.node_name, &old.spec.node_name, &mut errors);
        errors
    }

    fn spec_changed(new: &ResourceSlice, old: &ResourceSlice) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &ResourceSlice, context: &PrintContext) -> Vec<Value> {
        let spec = &object.spec;
        vec![
            print::name(&object.metadata),
            spec.node_name.as_deref().unwrap_or(print::UNSET).into(),
            spec.driver.clone().into(),
            spec.pool.name.clone().into(),
            print::age(&object.metadata, context),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn slice(spec: Value) -> Value {
        let base = json!({"driver": "d.example.com", "pool": {"name": "p", "generation": 0, "resourceSliceCount": 1}, "nodeName": "n"});
        json!({"metadata": {"name": "s"}, "spec": with(base, spec)})
    }

    #[test]
    fn a_slice_is_of_one_node_or_says_of_which() {
        assert!(errors::<ResourceSlices>(slice(json!({"devices": [{"name": "gpu-0", "attributes": {"model": {"string": "x"}}}]}))).is_empty());
        let choice = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        assert_eq!(errors::<ResourceSlices>(slice(json!({"nodeName": null}))), [format!("spec: Required value: {choice}")]);
        let both = errors::<ResourceSlices>(slice(json!({"allNodes": true})));
        assert!(both[0].ends_with(&format!("{choice}, but multiple fields are set")), "{both:?}");
        assert_eq!(cells::<ResourceSlices>(slice(json!({})))[..4], ["s", "n", "d.example.com", "p"]);
    }

    #[test]
    fn devices_are_named_once_and_attributes_have_one_value() {
        let of = |devices: Value| errors::<ResourceSlices>(slice(json!({"devices": devices})));
        assert_eq!(of(json!([{"name": "a"}, {"name": "a"}])), ["spec.devices[1].name: Duplicate value: \"a\""]);
        let none = of(json!([{"name": "a", "attributes": {"x": {}}}]));
        assert_eq!(none, ["spec.devices[0].attributes[x]: Required value: exactly one value must be specified"]);
        let update = update_errors::<ResourceSlices>(slice(json!({})), slice(json!({"driver": "e.example.com"})));
        assert_eq!(update, ["spec.driver: Invalid value: \"e.example.com\": field is immutable"]);
    }
}

//! LimitRanges (`pkg/registry/core/limitrange/strategy.go`, `SetDefaults_LimitRangeItem`, `ValidateLimitRange`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;

use crate::registry::validation::resources::{self, ResourceList};
use crate::registry::{PrintContext, Strategy, print};

/// See the module.
pub struct LimitRanges;

impl Strategy for LimitRanges {
    type Object = LimitRange;
    const PLURAL: &'static str = "limitranges";
    const SINGULAR: &'static str = "limitrange";
    const SHORT_NAMES: &'static [&'static str] = &["limits"];
    const CREATE_ON_UPDATE: bool = true;

    fn default(object: &mut LimitRange) {
        for item in object.spec.iter_mut().flat_map(|s| s.limits.iter_mut()) {
            for list in [&mut item.default, &mut item.default_request, &mut item.max, &mut item.min, &mut item.max_limit_request_ratio] {
                resources::default_list(list);
            }
            if item.type_ == "Container" {
                default_container(item);
            }
        }
    }

    fn validate(object: &LimitRange) -> ErrorList {
        let mut errors = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, item) in object.spec.iter().flat_map(|s| s.limits.iter()).enumerate() {
            let path = Path::new("spec").child("limits").index(index);
            if !seen.insert(&item.type_) {
                errors.push(Error::duplicate(&path.child("type"), &item.type_));
            }
            if !["Container", "Pod", "PersistentVolumeClaim"].contains(&item.type_.as_str()) && !item.type_.contains('/') {
                errors.push(Error::invalid(&path.child("type"), &item.type_, "must be a standard limit type or fully qualified"));
            }
            limits(&path, item, &mut errors);
        }
        errors
    }

    fn cells(object: &LimitRange, _: &PrintContext) -> Vec<Value> {
        print::default_cells(&object.metadata)
    }
}

/// A missing limit becomes the maximum, a missing request the limit or else the minimum.
fn default_container(item: &mut LimitRangeItem) {
    fn fill(target: &mut ResourceList, source: &Option<ResourceList>) {
        for (name, wire) in source.iter().flatten() {
            target.entry(name.clone()).or_insert_with(|| wire.clone());
        }
    }
    fill(item.default.get_or_insert_default(), &item.max);
    fill(item.default_request.get_or_insert_default(), &item.default);
    fill(item.default_request.get_or_insert_default(), &item.min);
    // Upstream's empty maps are not encoded.
    item.default.take_if(|l| l.is_empty());
    item.default_request.take_if(|l| l.is_empty());
}

fn limits(path: &Path, item: &LimitRangeItem, errors: &mut ErrorList) {
    let lists = [("max", &item.max), ("min", &item.min), ("default", &item.default), ("defaultRequest", &item.default_request)];
    for (field, list) in lists {
        let pod_default = item.type_ == "Pod" && field.starts_with("default") && list.is_some();
        if pod_default {
            errors.push(Error::forbidden(&path.child(field), "may not be specified when `type` is 'Pod'"));
        }
        resources::list(&path.child(field), list.as_ref(), errors);
    }
    if item.type_ == "PersistentVolumeClaim" {
        let has = |list: &Option<ResourceList>| list.as_ref().is_some_and(|l| l.contains_key("storage"));
        if !has(&item.min) && !has(&item.max) {
            errors.push(Error::required(&path.child("limits"), "either minimum or maximum storage value is required, but neither was provided"));
        }
    }
    order(path, item, errors);
}

/// One amount that may not be above another, both by their names in the message.
struct Ordered<'a> {
    low: (&'static str, &'a Option<ResourceList>),
    high: (&'static str, &'a Option<ResourceList>),
    /// The field that is blamed, and whether the lower amount is shown.
    blamed: (&'static str, bool),
}

fn order(path: &Path, item: &LimitRangeItem, errors: &mut ErrorList) {
    let (min, max) = (("min", &item.min), ("max", &item.max));
    let (default, limit) = (("default", &item.default), ("default limit", &item.default));
    let request = ("default request", &item.default_request);
    let rules = [
        Ordered { low: min, high: max, blamed: ("min", true) },
        Ordered { low: min, high: request, blamed: ("defaultRequest", false) },
        Ordered { low: request, high: max, blamed: ("defaultRequest", true) },
        Ordered { low: request, high: limit, blamed: ("defaultRequest", true) },
        Ordered { low: min, high: default, blamed: ("default", true) },
        Ordered { low: default, high: max, blamed: ("default", false) },
    ];
    for Ordered { low, high, blamed } in rules {
        for (resource, wire) in low.1.iter().flatten() {
            let Some(bound) = high.1.as_ref().and_then(|h| h.get(resource)) else { continue };
            let (a, b) = (Quantity::of(wire), Quantity::of(bound));
            if a > b {
                let detail = format!("{} value {a} is greater than {} value {b}", low.0, high.0);
                let shown = if blamed.1 { &wire.0 } else { &bound.0 };
                errors.push(Error::invalid(&path.child(blamed.0).key(resource), shown, &detail));
            }
        }
    }
    let one = Quantity::from_units(1, shared::quantity::Format::DecimalSI);
    for (resource, wire) in item.max_limit_request_ratio.iter().flatten().filter(|(_, w)| Quantity::of(w) < one) {
        let detail = format!("ratio {} is less than 1", wire.0);
        errors.push(Error::invalid(&path.child("maxLimitRequestRatio").key(resource), &wire.0, &detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn defaults_of_containers_come_from_max_and_min() {
        let of = |item: serde_json::Value| defaulted::<LimitRanges>(json!({"metadata": {}, "spec": {"limits": [item]}}))["spec"]["limits"][0].clone();
        assert_eq!(
            of(json!({"type": "Container", "max": {"cpu": "2000m"}, "min": {"cpu": "1", "memory": "1Mi"}})),
            json!({
                "type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Mi"},
                "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}
            })
        );
        assert_eq!(of(json!({"type": "Pod", "max": {"cpu": "2"}})), json!({"type": "Pod", "max": {"cpu": "2"}}));
    }

    #[test]
    fn bounds_agree() {
        let of = |item: serde_json::Value| errors::<LimitRanges>(json!({"spec": {"limits": [item]}}));
        assert!(of(json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}})).is_empty());
        assert_eq!(
            of(json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}})),
            ["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"]
        );
        assert_eq!(
            of(json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "500m"}})),
            [
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"
            ]
        );
        assert_eq!(
            of(json!({"type": "Pod", "default": {"cpu": "1"}})),
            ["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"]
        );
    }
}

//! Rules and canonical form of resource amounts (`pkg/apis/core/validation/validation.go`, `pkg/apis/core/helper/helpers.go`,
//! `pkg/apis/core/v1/defaults.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;
use shared::selector::qualified_name_errors;

use super::{NOT_NEGATIVE, check};

/// Amounts by resource name, as upstream's `ResourceList`.
pub type ResourceList = BTreeMap<String, Wire>;

/// Names without a prefix that a container may ask for.
const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Rewrites the amounts in canonical notation, as decoding and encoding does upstream.
pub fn canonicalize(list: &mut Option<ResourceList>) {
    list.iter_mut().flat_map(|l| l.values_mut()).for_each(Quantity::canonicalize);
}

/// [`canonicalize`], after rounding up to thousandths as upstream's `SetDefaults_ResourceList` does.
pub fn default_list(list: &mut Option<ResourceList>) {
    for wire in list.iter_mut().flat_map(|l| l.values_mut()) {
        if let Ok(quantity) = wire.0.parse::<Quantity>() {
            let rounded = Quantity::from_millis(quantity.millis());
            // Amounts beyond what thousandths can count are whole anyway.
            let fits = quantity.millis().unsigned_abs() < i64::MAX.unsigned_abs();
            wire.0 = if fits && rounded != quantity { rounded.to_string() } else { quantity.to_string() };
        }
    }
}

/// Both lists of a container's resources.
pub fn canonicalize_requirements(resources: Option<&mut ResourceRequirements>) {
    if let Some(resources) = resources {
        default_list(&mut resources.limits);
        default_list(&mut resources.requests);
    }
}

/// An amount of a resource: a quantity, not negative, whole where the resource is counted in whole units.
pub fn quantity(path: &Path, resource: &str, wire: &Wire, errors: &mut ErrorList) {
    let Ok(quantity) = wire.0.parse::<Quantity>() else {
        let detail = shared::quantity::ParseQuantityError.to_string();
        errors.push(Error::invalid(path, &wire.0, &detail));
        return;
    };
    if quantity.signum() < 0 {
        errors.push(Error::invalid(path, &wire.0, NOT_NEGATIVE));
    }
    if is_integer_resource(resource) && quantity.millis() % 1000 != 0 {
        errors.push(Error::invalid(path, &wire.0, "must be an integer"));
    }
}

/// Upstream's `IsIntegerResourceName`: object counts and extended resources.
fn is_integer_resource(name: &str) -> bool {
    const COUNTS: [&str; 9] = [
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    COUNTS.contains(&name) || is_extended(name)
}

/// Upstream's `IsExtendedResourceName`: a resource outside `kubernetes.io`, or a request for one.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name_errors(&format!("requests.{name}")).is_empty()
}

/// Upstream's `IsNativeResource`: no prefix, or one in `kubernetes.io`.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Upstream's `IsHugePageResourceName`.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Upstream's `IsOvercommitAllowed`: whether requests may differ from limits.
fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Upstream's `IsStandardResourceName`: a name that needs no prefix.
pub fn is_standard(name: &str) -> bool {
    const NAMES: [&str; 19] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "storage",
        "requests.storage",
        "services.nodeports",
    ];
    NAMES.contains(&name) || name == "services.loadbalancers" || is_huge_page(name.strip_prefix("requests.").unwrap_or(name))
}

/// A resource name that a container may use.
fn container_resource_name(path: &Path, name: &str, errors: &mut ErrorList) {
    resource_name(path, name, errors);
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !is_huge_page(name) {
            errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// A resource name of any use: well formed, and standard when it has no prefix.
pub fn resource_name(path: &Path, name: &str, errors: &mut ErrorList) {
    check(path, name, qualified_name_errors(name), errors);
    if !name.contains('/') && !is_standard(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// Names and amounts of a list, for uses that allow any resource.
pub fn list(path: &Path, list: Option<&ResourceList>, errors: &mut ErrorList) {
    for (name, wire) in list.into_iter().flatten() {
        let path = path.key(name);
        resource_name(&path, name, errors);
        quantity(&path, name, wire, errors);
    }
}

/// A container's limits and requests.
pub fn requirements(path: &Path, resources: &ResourceRequirements, errors: &mut ErrorList) {
    let none = BTreeMap::new();
    let limits = resources.limits.as_ref().unwrap_or(&none);
    let requests = resources.requests.as_ref().unwrap_or(&none);
    for (name, wire) in limits {
        let path = path.child("limits").key(name);
        container_resource_name(&path, name, errors);
        quantity(&path, name, wire, errors);
    }
    for (name, wire) in requests {
        let entry = path.child("requests").key(name);
        container_resource_name(&entry, name, errors);
        quantity(&entry, name, wire, errors);
        request_within_limit(path, name, wire, limits.get(name), errors);
    }
    let has = |name: &str| limits.contains_key(name) || requests.contains_key(name);
    if limits.keys().chain(requests.keys()).any(|n| is_huge_page(n)) && !has("cpu") && !has("memory") {
        errors.push(Error::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn request_within_limit(path: &Path, name: &str, request: &Wire, limit: Option<&Wire>, errors: &mut ErrorList) {
    let requests = path.child("requests");
    let Some(limit) = limit else {
        if !is_overcommit_allowed(name) {
            errors.push(Error::required(&path.child("limits"), "Limit must be set for non overcommitable resources"));
        }
        return;
    };
    let (amount, bound) = (Quantity::of(request), Quantity::of(limit));
    if amount != bound && !is_overcommit_allowed(name) {
        errors.push(Error::invalid(&requests, &request.0, &format!("must be equal to {name} limit of {bound}")));
    } else if amount > bound {
        errors.push(Error::invalid(&requests, &request.0, &format!("must be less than or equal to {name} limit of {bound}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(limits: serde_json::Value, requests: serde_json::Value) -> Vec<String> {
        let resources = serde_json::from_value(serde_json::json!({"limits": limits, "requests": requests})).unwrap();
        let mut errors = Vec::new();
        requirements(&Path::new("r"), &resources, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn requests_stay_within_limits() {
        use serde_json::json;
        assert!(errors(json!({"cpu": "1"}), json!({"cpu": "1000m"})).is_empty());
        assert_eq!(
            errors(json!({"cpu": "1"}), json!({"cpu": "2"})),
            ["r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"]
        );
        assert_eq!(
            errors(json!({"example.com/gpu": "2"}), json!({"example.com/gpu": "1"})),
            ["r.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 2"]
        );
        assert_eq!(errors(json!({}), json!({"cpu": "-1"})), ["r.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]);
        assert_eq!(
            errors(json!({"gpu": "1"}), json!({})),
            [
                "r.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "r.limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers"
            ]
        );
        assert_eq!(
            errors(json!({}), json!({"example.com/gpu": "1"})),
            ["r.limits: Required value: Limit must be set for non overcommitable resources"]
        );
        assert_eq!(
            errors(json!({"example.com/gpu": "500m"}), json!({"example.com/gpu": "500m"})).first().map(String::as_str),
            Some("r.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer")
        );
    }

    #[test]
    fn amounts_become_canonical_and_round_up_to_thousandths() {
        let mut list: Option<ResourceList> =
            serde_json::from_value(serde_json::json!({"cpu": "0.0001", "memory": "1024Mi", "x": 2, "y": "0.5"})).unwrap();
        default_list(&mut list);
        assert_eq!(serde_json::to_value(&list).unwrap(), serde_json::json!({"cpu": "1m", "memory": "1Gi", "x": "2", "y": "500m"}));
    }
}

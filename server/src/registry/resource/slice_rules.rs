//! Rules of a ResourceSlice's spec: the pool, the nodes, the devices (`pkg/apis/resource/validation/validation.go`).

use std::collections::HashSet;

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, ResourceSliceSpec};
use shared::field::{Error, ErrorList, Path};

use super::devices::{at_most, driver};
use crate::registry::validation::{check, dns1123_label, dns1123_subdomain, not_negative, required_one_of, resources, selectors};

/// Most devices of a slice, and of one with taints or shared counters.
const MOST_DEVICES: usize = 128;
const MOST_INTRICATE_DEVICES: usize = 64;
/// Most attributes and capacities of a device.
const MOST_ATTRIBUTES: usize = 32;
/// Most taints of a device.
const MOST_TAINTS: usize = 16;
/// Most counter sets of a slice.
const MOST_COUNTER_SETS: usize = 8;
/// Longest text or version of an attribute, in bytes.
const ATTRIBUTE_LENGTH: usize = 64;
/// Longest pool name, in bytes.
const POOL_LENGTH: usize = 253;

/// Rules of the whole spec.
pub(super) fn spec(path: &Path, spec: &ResourceSliceSpec, errors: &mut ErrorList) {
    driver(&path.child("driver"), &spec.driver, errors);
    pool_name(&path.child("pool").child("name"), &spec.pool.name, errors);
    if spec.pool.resource_slice_count <= 0 {
        let at = path.child("pool").child("resourceSliceCount");
        errors.push(Error::invalid(&at, spec.pool.resource_slice_count, "must be greater than zero"));
    }
    not_negative(&path.child("pool").child("generation"), Some(spec.pool.generation), errors);
    nodes(path, spec, errors);
    if let Some(selector) = &spec.node_selector {
        selectors::node_selector(&path.child("nodeSelector"), selector, errors);
        if selector.node_selector_terms.len() != 1 {
            // Which devices are where must be said in one term.
            let at = path.child("nodeSelector").child("nodeSelectorTerms");
            errors.push(Error::invalid(&at, &selector.node_selector_terms, "must have exactly one node selector term"));
        }
    }
    let devices = spec.devices.as_deref().unwrap_or_default();
    let counters = spec.shared_counters.as_deref().unwrap_or_default();
    if !devices.is_empty() && !counters.is_empty() {
        errors.push(Error::invalid(path, (), "only one of `devices` or `sharedCounters` is allowed"));
    }
    let intricate = devices.iter().any(|d| d.taints.is_some() || d.consumes_counters.is_some());
    at_most(&path.child("devices"), devices, if intricate { MOST_INTRICATE_DEVICES } else { MOST_DEVICES }, errors);
    at_most(&path.child("sharedCounters"), counters, MOST_COUNTER_SETS, errors);
    let mut names = HashSet::new();
    for (index, one) in devices.iter().enumerate() {
        let path = path.child("devices").index(index);
        device(&path, one, errors);
        if !names.insert(&one.name) {
            errors.push(Error::duplicate(&path.child("name"), &one.name));
        }
    }
    let mut names = HashSet::new();
    for (index, set) in counters.iter().enumerate() {
        let path = path.child("sharedCounters").index(index);
        label(&path.child("name"), &set.name, errors);
        if !names.insert(&set.name) {
            errors.push(Error::duplicate(&path.child("name"), &set.name));
        }
        if set.counters.is_empty() {
            errors.push(Error::required(&path.child("counters"), ""));
        }
    }
}

fn label(path: &Path, name: &str, errors: &mut ErrorList) {
    match name {
        "" => errors.push(Error::required(path, "")),
        name => check(path, name, dns1123_label(name), errors),
    }
}

/// Subdomains with slashes between them.
fn pool_name(path: &Path, name: &str, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    if name.len() > POOL_LENGTH {
        errors.push(Error::too_long(path, POOL_LENGTH));
    }
    for part in name.split('/') {
        check(path, part, dns1123_subdomain(part), errors);
    }
}

/// The nodes of a slice are said in one of four ways.
fn nodes(path: &Path, spec: &ResourceSliceSpec, errors: &mut ErrorList) {
    const CHOICE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let ways = [
        spec.node_name.as_ref().is_some_and(|n| !n.is_empty()),
        spec.node_selector.is_some(),
        spec.all_nodes == Some(true),
        spec.per_device_node_selection == Some(true),
    ];
    match ways.iter().filter(|way| **way).count() {
        0 => errors.push(Error::required(path, CHOICE)),
        1 => {}
        _ => errors.push(Error::invalid(path, (), &format!("{CHOICE}, but multiple fields are set"))),
    }
    if let Some(name) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        check(&path.child("nodeName"), name, dns1123_subdomain(name), errors);
    }
}

fn device(path: &Path, device: &Device, errors: &mut ErrorList) {
    label(&path.child("name"), &device.name, errors);
    let (attributes, capacity) = (device.attributes.iter().flatten(), device.capacity.iter().flatten());
    let count = device.attributes.as_ref().map_or(0, |a| a.len()) + device.capacity.as_ref().map_or(0, |c| c.len());
    if count > MOST_ATTRIBUTES {
        let text = format!("the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}");
        errors.push(Error::invalid(path, count, &text));
    }
    for (name, value) in attributes {
        attribute(&path.child("attributes").key(name), value, errors);
    }
    for (name, capacity) in capacity {
        resources::quantity(&path.child("capacity").key(name).child("value"), name, &capacity.value, errors);
    }
    let taints = device.taints.as_deref().unwrap_or_default();
    at_most(&path.child("taints"), taints, MOST_TAINTS, errors);
    for (index, taint) in taints.iter().enumerate() {
        let path = path.child("taints").index(index);
        if taint.key.is_empty() {
            errors.push(Error::required(&path.child("key"), ""));
        }
        required_one_of(&path.child("effect"), Some(taint.effect.as_str()), &["NoExecute", "NoSchedule", "None"], errors);
    }
}

fn attribute(path: &Path, value: &DeviceAttribute, errors: &mut ErrorList) {
    let count = [value.bool.is_some(), value.int.is_some(), value.string.is_some(), value.version.is_some()].iter().filter(|set| **set).count();
    match count {
        0 => errors.push(Error::required(path, "exactly one value must be specified")),
        1 => {}
        _ => errors.push(Error::invalid(path, value, "exactly one value must be specified")),
    }
    for (field, text) in [("string", &value.string), ("version", &value.version)] {
        if text.as_ref().is_some_and(|t| t.len() > ATTRIBUTE_LENGTH) {
            errors.push(Error::too_long(&path.child(field), ATTRIBUTE_LENGTH));
        }
    }
}

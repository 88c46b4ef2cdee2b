//! What the kinds of the group share: defaults and rules of device requests
//! (`pkg/apis/resource/v1/defaults.go`, `pkg/apis/resource/validation/validation.go`).
//!
//! Owns the rules about single values. CEL expressions are checked for their length only: nothing here evaluates them.

use std::collections::HashSet;

use k8s_openapi::api::resource::v1::{DeviceClaim, DeviceRequest, DeviceSelector, DeviceToleration, OpaqueDeviceConfiguration};
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{check, dns1123_label, dns1123_subdomain};

/// Longest CEL expression, in bytes.
const EXPRESSION_LENGTH: usize = 10 * 1024;
/// Longest driver name, in bytes.
const DRIVER_LENGTH: usize = 63;
/// Most requests, constraints, selectors and configurations of a claim.
const MOST: usize = 32;
/// Most alternatives of a request.
const MOST_ALTERNATIVES: usize = 8;
const MODES: [&str; 2] = ["All", "ExactCount"];

/// One device, by default.
fn default_mode(mode: &mut Option<String>, count: &mut Option<i64>, tolerations: &mut Option<Vec<DeviceToleration>>) {
    let mode = mode.get_or_insert_with(|| "ExactCount".into());
    if mode == "ExactCount" && count.is_none_or(|c| c == 0) {
        *count = Some(1);
    }
    for toleration in tolerations.iter_mut().flatten() {
        toleration.operator.get_or_insert_with(|| "Equal".into());
    }
}

/// Defaults of a claim.
pub(super) fn default_claim(claim: Option<&mut DeviceClaim>) {
    for request in claim.and_then(|c| c.requests.as_mut()).into_iter().flatten() {
        if let Some(exactly) = &mut request.exactly {
            default_mode(&mut exactly.allocation_mode, &mut exactly.count, &mut exactly.tolerations);
        }
        for sub in request.first_available.iter_mut().flatten() {
            default_mode(&mut sub.allocation_mode, &mut sub.count, &mut sub.tolerations);
        }
    }
}

/// At most so many.
pub(super) fn at_most<T>(path: &Path, items: &[T], most: usize, errors: &mut ErrorList) {
    if items.len() > most {
        errors.push(Error::too_many(path, items.len(), most));
    }
}

/// The name of a driver.
pub(super) fn driver(path: &Path, name: &str, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    if name.len() > DRIVER_LENGTH {
        errors.push(Error::too_long(path, DRIVER_LENGTH));
    }
    check(path, name, dns1123_subdomain(&name.to_lowercase()), errors);
}

/// Rules of selectors.
pub(super) fn selectors(path: &Path, selectors: Option<&Vec<DeviceSelector>>, errors: &mut ErrorList) {
    let selectors = selectors.map(Vec::as_slice).unwrap_or_default();
    at_most(path, selectors, MOST, errors);
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index).child("cel");
        match &selector.cel {
            None => errors.push(Error::required(&path, "")),
            Some(cel) if cel.expression.is_empty() => errors.push(Error::required(&path.child("expression"), "")),
            Some(cel) if cel.expression.len() > EXPRESSION_LENGTH => {
                errors.push(Error::too_long(&path.child("expression"), EXPRESSION_LENGTH));
            }
            Some(_) => {}
        }
    }
}

/// Rules of a configuration, which there is but one sort of.
pub(super) fn configuration(path: &Path, opaque: Option<&OpaqueDeviceConfiguration>, errors: &mut ErrorList) {
    let path = path.child("opaque");
    let Some(opaque) = opaque else { return errors.push(Error::required(&path, "")) };
    driver(&path.child("driver"), &opaque.driver, errors);
    match &opaque.parameters.0 {
        serde_json::Value::Null => errors.push(Error::required(&path.child("parameters"), "")),
        serde_json::Value::Object(_) => {}
        other => errors.push(Error::invalid(&path.child("parameters"), other, "parameters must be a valid JSON object")),
    }
}

/// How many devices, and of which class.
struct Devices<'a> {
    class: &'a str,
    selectors: Option<&'a Vec<DeviceSelector>>,
    mode: Option<&'a str>,
    count: Option<i64>,
}

impl Devices<'_> {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        let class = path.child("deviceClassName");
        match self.class {
            "" => errors.push(Error::required(&class, "")),
            name => check(&class, name, dns1123_subdomain(name), errors),
        }
        selectors(&path.child("selectors"), self.selectors, errors);
        let count = self.count.unwrap_or(0);
        match self.mode.unwrap_or_default() {
            "All" if count != 0 => {
                errors.push(Error::invalid(&path.child("count"), count, "must not be specified when allocationMode is 'All'"));
            }
            "ExactCount" if count <= 0 => errors.push(Error::invalid(&path.child("count"), count, "must be greater than zero")),
            "All" | "ExactCount" => {}
            other => errors.push(Error::not_supported(&path.child("allocationMode"), other, &MODES)),
        }
    }
}

fn request_name(path: &Path, name: &str, errors: &mut ErrorList) {
    match name {
        "" => errors.push(Error::required(path, "")),
        name => check(path, name, dns1123_label(name), errors),
    }
}

fn request(path: &Path, request: &DeviceRequest, errors: &mut ErrorList) {
    request_name(&path.child("name"), &request.name, errors);
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => errors.push(Error::required(path, "exactly one of `exactly` or `firstAvailable` is required")),
        (Some(_), false) => {
            let text = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(Error::invalid(path, (), text));
        }
        _ => {}
    }
    if let Some(exactly) = &request.exactly {
        let devices = Devices {
            class: &exactly.device_class_name,
            selectors: exactly.selectors.as_ref(),
            mode: exactly.allocation_mode.as_deref(),
            count: exactly.count,
        };
        devices.validate(&path.child("exactly"), errors);
    }
    let path = path.child("firstAvailable");
    at_most(&path, alternatives, MOST_ALTERNATIVES, errors);
    let mut names = HashSet::new();
    for (index, sub) in alternatives.iter().enumerate() {
        let path = path.index(index);
        request_name(&path.child("name"), &sub.name, errors);
        if !names.insert(&sub.name) {
            errors.push(Error::duplicate(&path.child("name"), &sub.name));
        }
        let devices =
            Devices { class: &sub.device_class_name, selectors: sub.selectors.as_ref(), mode: sub.allocation_mode.as_deref(), count: sub.count };
        devices.validate(&path, errors);
    }
}

/// Rules of a claim.
pub(super) fn claim(path: &Path, claim: &DeviceClaim, errors: &mut ErrorList) {
    let requests = claim.requests.as_deref().unwrap_or_default();
    let at = path.child("requests");
    at_most(&at, requests, MOST, errors);
    let mut names: HashSet<String> = HashSet::new();
    for (index, one) in requests.iter().enumerate() {
        request(&at.index(index), one, errors);
        if !names.insert(one.name.clone()) {
            errors.push(Error::duplicate(&at.index(index).child("name"), &one.name));
        }
        names.extend(one.first_available.iter().flatten().map(|sub| format!("{}/{}", one.name, sub.name)));
    }
    let known = |path: &Path, listed: Option<&Vec<String>>, errors: &mut ErrorList| {
        let listed = listed.map(Vec::as_slice).unwrap_or_default();
        at_most(path, listed, MOST, errors);
        for (index, name) in listed.iter().enumerate() {
            if !names.contains(name) {
                let text = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
                errors.push(Error::invalid(&path.index(index), name, text));
            }
        }
    };
    let constraints = claim.constraints.as_deref().unwrap_or_default();
    let at = path.child("constraints");
    at_most(&at, constraints, MOST, errors);
    for (index, constraint) in constraints.iter().enumerate() {
        let at = at.index(index);
        known(&at.child("requests"), constraint.requests.as_ref(), errors);
        match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (None, None) => errors.push(Error::required(&at, "exactly one of `matchAttribute` or `distinctAttribute` is required")),
            (Some(_), Some(_)) => {
                let text = "exactly one of `matchAttribute` or `distinctAttribute` is required, but multiple fields are set";
                errors.push(Error::invalid(&at, (), text));
            }
            (Some(name), None) => qualified(&at.child("matchAttribute"), name, errors),
            (None, Some(name)) => qualified(&at.child("distinctAttribute"), name, errors),
        }
    }
    let configurations = claim.config.as_deref().unwrap_or_default();
    let at = path.child("config");
    at_most(&at, configurations, MOST, errors);
    for (index, config) in configurations.iter().enumerate() {
        let at = at.index(index);
        known(&at.child("requests"), config.requests.as_ref(), errors);
        configuration(&at, config.opaque.as_ref(), errors);
    }
}

/// An attribute's name with its domain.
fn qualified(path: &Path, name: &str, errors: &mut ErrorList) {
    match name.split_once('/') {
        None | Some(("" | _, "")) => {
            errors.push(Error::invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash"))
        }
        Some((domain, _)) => check(path, name, dns1123_subdomain(domain), errors),
    }
}

//! Rules that workloads with a selector and a pod template share (`pkg/apis/apps/validation/validation.go`).

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use shared::field::{Error, ErrorList, Path};
use shared::selector::Selector;

use super::core::pod_template;
use super::validation::{not_negative, percent, selectors};

/// The message for a template whose pods the workload would not own.
pub const SELECTOR_MISMATCH: &str = "`selector` does not match template `labels`";

/// A selector that selects the template's pods, and the template itself.
///
/// An empty selector counts as a missing one: both are the same once decoded, and a missing one is what people forget.
pub fn selector_and_template(path: &Path, selector: &LabelSelector, template: &PodTemplateSpec, errors: &mut ErrorList) {
    let selector_path = path.child("selector");
    let template_path = path.child("template");
    let missing = selectors::is_empty(selector);
    if missing {
        errors.push(Error::required(&selector_path, ""));
    } else {
        selectors::label_selector(&selector_path, Some(selector), errors);
    }
    match Selector::from_label_selector(Some(selector)) {
        Err(_) => errors.push(Error::invalid(&selector_path, selector, "invalid label selector")),
        Ok(parsed) => {
            let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
            if missing || !parsed.matches(&labels) {
                errors.push(Error::invalid(&template_path.child("metadata").child("labels"), &labels, SELECTOR_MISMATCH));
            }
        }
    }
    pod_template::validate_template(&template_path, template, errors);
}

/// Pods of a workload that runs for ever restart always and have no deadline. `kind` is named in the message.
pub fn runs_for_ever(path: &Path, template: &PodTemplateSpec, kind: &str, errors: &mut ErrorList) {
    let path = path.child("template").child("spec");
    let Some(spec) = &template.spec else { return };
    // Values that no pod may have are reported with the template.
    if let Some(policy) = spec.restart_policy.as_deref().filter(|p| *p != "Always") {
        errors.push(Error::not_supported(&path.child("restartPolicy"), policy, &["Always"]));
    }
    if spec.active_deadline_seconds.is_some() {
        errors.push(Error::forbidden(&path.child("activeDeadlineSeconds"), &format!("activeDeadlineSeconds in {kind} is not Supported")));
    }
}

/// The number of a number or percentage, as it stands.
pub fn int_or_percent(value: Option<&IntOrString>) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => percent(text).unwrap_or_default(),
    }
}

/// Numbers of a status: none negative, and of the pairs none above the number it counts among.
pub fn counts(path: &Path, numbers: &[(&str, Option<i32>)], bounds: &[(&str, &str)], errors: &mut ErrorList) {
    let of = |field: &str| numbers.iter().find(|(name, _)| *name == field).and_then(|(_, n)| *n).unwrap_or_default();
    for (field, number) in numbers {
        not_negative(&path.child(field), number.map(i64::from), errors);
    }
    for (field, bound) in bounds {
        if of(field) > of(bound) {
            // Upstream writes the path of `replicas` in full, and others by themselves.
            let bound = if *bound == "replicas" { "status.replicas" } else { bound };
            errors.push(Error::invalid(&path.child(field), of(field), &format!("cannot be greater than {bound}")));
        }
    }
}

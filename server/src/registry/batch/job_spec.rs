//! The spec of Jobs, by itself and in CronJobs: rules of `ValidateJobSpec` and what an update may change.

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicy};
use shared::field::{Error, ErrorList, Path};

use crate::registry::core::pod_template;
use crate::registry::validation::{IMMUTABLE, immutable, not_negative, one_of, selectors};

const MAX_INDEXED: i32 = 100_000;

/// Rules of a spec.
pub fn validate(path: &Path, spec: &JobSpec, errors: &mut ErrorList) {
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        not_negative(&path.child(field), value, errors);
    }
    completion_mode(path, spec, errors);
    one_of(&path.child("podReplacementPolicy"), spec.pod_replacement_policy.as_deref(), &["Failed", "TerminatingOrFailed"], errors);
    let template = path.child("template");
    pod_template::validate_template(&template, &spec.template, errors);
    let pod = spec.template.spec.as_ref();
    let policy = pod.and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    let restart = template.child("spec").child("restartPolicy");
    if policy == "Always" {
        errors.push(Error::required(&restart, "valid values: \"OnFailure\", \"Never\""));
    }
    if let Some(failure) = &spec.pod_failure_policy {
        failure_policy(&path.child("podFailurePolicy"), failure, spec, errors);
        if policy == "OnFailure" {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(Error::invalid(&restart, policy, detail));
        }
    }
    success_policy(&path.child("successPolicy"), spec, errors);
    selectors::label_selector(&path.child("selector"), spec.selector.as_ref(), errors);
}

fn completion_mode(path: &Path, spec: &JobSpec, errors: &mut ErrorList) {
    let mode = spec.completion_mode.as_deref();
    one_of(&path.child("completionMode"), mode, &["Indexed", "NonIndexed"], errors);
    if mode == Some("Indexed") {
        if spec.completions.is_none() {
            errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
        }
        if let Some(parallelism) = spec.parallelism.filter(|p| *p > MAX_INDEXED) {
            let detail = format!("must be less than or equal to {MAX_INDEXED} when completion mode is Indexed");
            errors.push(Error::invalid(&path.child("parallelism"), parallelism, &detail));
        }
    } else {
        for (field, set) in [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)] {
            if let Some(value) = set {
                errors.push(Error::invalid(&path.child(field), value, "requires indexed completion mode"));
            }
        }
    }
    if mode == Some("Indexed") && spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.push(Error::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
}

fn failure_policy(path: &Path, policy: &PodFailurePolicy, spec: &JobSpec, errors: &mut ErrorList) {
    let rules = path.child("rules");
    if policy.rules.len() > 20 {
        errors.push(Error::too_many(&rules, policy.rules.len(), 20));
    }
    let containers: Vec<&str> =
        spec.template.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten())).map(|c| c.name.as_str()).collect();
    for (index, rule) in policy.rules.iter().enumerate() {
        let path = rules.index(index);
        one_of(&path.child("action"), Some(&rule.action), &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
        match (&rule.on_exit_codes, conditions) {
            (Some(_), [_, ..]) => {
                errors.push(Error::invalid(&path, rule, "specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (None, []) => errors.push(Error::invalid(&path, rule, "specifying one of OnExitCodes and OnPodConditions is required")),
            _ => {}
        }
        if let Some(codes) = &rule.on_exit_codes {
            let path = path.child("onExitCodes");
            one_of(&path.child("operator"), Some(&codes.operator), &["In", "NotIn"], errors);
            if let Some(name) = codes.container_name.as_deref().filter(|n| !containers.contains(n)) {
                errors.push(Error::invalid(
                    &path.child("containerName"),
                    name,
                    "must be one of the container or initContainer names in the pod template",
                ));
            }
            if codes.values.is_empty() {
                errors.push(Error::invalid(&path.child("values"), &codes.values, "at least one value is required"));
            }
            for (index, _) in codes.values.iter().enumerate().filter(|(_, v)| **v == 0 && codes.operator == "In") {
                errors.push(Error::invalid(&path.child("values").index(index), 0, "must not be 0 for the In operator"));
            }
        }
    }
}

fn success_policy(path: &Path, spec: &JobSpec, errors: &mut ErrorList) {
    let Some(policy) = &spec.success_policy else { return };
    if spec.completion_mode.as_deref() != Some("Indexed") {
        errors.push(Error::invalid(path, policy, "requires indexed completion mode"));
    }
    if policy.rules.is_empty() {
        errors.push(Error::required(&path.child("rules"), "at least one rules must be specified when the successPolicy is specified"));
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
            errors.push(Error::required(&path, "at least one of succeededCount or succeededIndexes must be specified"));
        }
        not_negative(&path.child("succeededCount"), rule.succeeded_count.map(i64::from), errors);
    }
}

/// What an update may not change. A suspended Job that never started may still get another template's scheduling.
pub fn validate_update(path: &Path, new: &JobSpec, old: &JobSpec, never_started: bool, errors: &mut ErrorList) {
    if !is_elastic(new, old) {
        immutable(&path.child("completions"), &new.completions, &old.completions, errors);
    }
    immutable(&path.child("selector"), &new.selector, &old.selector, errors);
    let mut template = new.template.clone();
    if never_started && old.suspend == Some(true) {
        scheduling_of(&mut template, &old.template);
    }
    if template != old.template {
        errors.push(Error::invalid(&path.child("template"), &new.template, IMMUTABLE));
    }
    immutable(&path.child("completionMode"), &new.completion_mode, &old.completion_mode, errors);
    immutable(&path.child("podFailurePolicy"), &new.pod_failure_policy, &old.pod_failure_policy, errors);
    immutable(&path.child("backoffLimitPerIndex"), &new.backoff_limit_per_index, &old.backoff_limit_per_index, errors);
    immutable(&path.child("managedBy"), &new.managed_by, &old.managed_by, errors);
    immutable(&path.child("successPolicy"), &new.success_policy, &old.success_policy, errors);
}

/// An indexed Job may be resized when parallelism and completions change together.
fn is_elastic(new: &JobSpec, old: &JobSpec) -> bool {
    let indexed = new.completion_mode.as_deref() == Some("Indexed");
    indexed && old.completions.is_some() && new.completions == new.parallelism && old.completions == old.parallelism
}

/// Copies the old scheduling directives over the new ones.
fn scheduling_of(new: &mut k8s_openapi::api::core::v1::PodTemplateSpec, old: &k8s_openapi::api::core::v1::PodTemplateSpec) {
    let meta = new.metadata.get_or_insert_default();
    let before = old.metadata.clone().unwrap_or_default();
    meta.annotations = before.annotations;
    meta.labels = before.labels;
    if old.metadata.is_none() {
        new.metadata = None;
    }
    if let (Some(new), Some(old)) = (&mut new.spec, &old.spec) {
        new.node_selector.clone_from(&old.node_selector);
        new.tolerations.clone_from(&old.tolerations);
        new.scheduling_gates.clone_from(&old.scheduling_gates);
        let affinity = old.affinity.as_ref().and_then(|a| a.node_affinity.clone());
        if let Some(new) = &mut new.affinity {
            new.node_affinity = affinity;
        }
        if old.affinity.is_none() && new.affinity == Some(Default::default()) {
            new.affinity = None;
        }
    }
}

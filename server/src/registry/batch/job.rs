//! Jobs (`pkg/registry/batch/job/strategy.go`, `pkg/apis/batch/v1/defaults.go`).

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::selector::Selector;

use super::job_spec;
use crate::registry::core::pod_template;
use crate::registry::workload::counts;
use crate::registry::{Column, FieldSource, PrintContext, STATUS, Strategy, Subresource, print};

/// Labels that a Job's pods carry, with the older names of both.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// See [`CONTROLLER_UID`].
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

/// See the module.
pub struct Jobs;

impl Strategy for Jobs {
    type Object = Job;
    const PLURAL: &'static str = "jobs";
    const SINGULAR: &'static str = "job";
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const FIELDS: &'static [&'static str] = &["status.successful"];
    const FIELD_SOURCES: &'static [FieldSource] = &[FieldSource { field: "status.successful", paths: &["status.succeeded"], absent: "0" }];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Status"),
        Column::new("Completions"),
        Column::new("Duration"),
        print::AGE,
        print::CONTAINERS,
        print::IMAGES,
        print::SELECTOR,
    ];

    fn default(object: &mut Job) {
        let spec = object.spec.get_or_insert_default();
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        spec.parallelism.get_or_insert(1);
        spec.backoff_limit.get_or_insert(if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 });
        spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
        spec.suspend.get_or_insert(false);
        spec.manual_selector.get_or_insert(false);
        let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        spec.pod_replacement_policy.get_or_insert_with(|| replacement.into());
        default_failure_policy(spec);
        pod_template::default_template(&mut spec.template);
        let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).filter(|l| !l.is_empty());
        if object.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) && labels.is_some() {
            object.metadata.labels = labels;
        }
    }

    fn prepare_for_create(object: &mut Job) {
        generate_selector(object);
        object.status = Some(JobStatus::default());
    }

    fn validate(object: &Job) -> ErrorList {
        let mut errors = Vec::new();
        generated_selector(object, &mut errors);
        let none = JobSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        match &spec.selector {
            None => errors.push(Error::required(&path.child("selector"), "")),
            Some(selector) => {
                let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
                if Selector::from_label_selector(Some(selector)).is_ok_and(|s| !s.matches(&labels)) {
                    let path = path.child("template").child("metadata").child("labels");
                    errors.push(Error::invalid(&path, &labels, crate::registry::workload::SELECTOR_MISMATCH));
                }
            }
        }
        job_spec::validate(&path, spec, &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut Job, old: &Job) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &Job, old: &Job) -> ErrorList {
        let mut errors = Self::validate(new);
        if let (Some(new), Some(before)) = (&new.spec, &old.spec) {
            let never_started = old.status.as_ref().is_none_or(|s| s.start_time.is_none());
            job_spec::validate_update(&Path::new("spec"), new, before, never_started, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(new: &mut Job, old: &Job) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &Job, _old: &Job) -> ErrorList {
        let mut errors = Vec::new();
        let Some(status) = &new.status else { return errors };
        let numbers = [
            ("active", status.active),
            ("succeeded", status.succeeded),
            ("failed", status.failed),
            ("ready", status.ready),
            ("terminating", status.terminating),
        ];
        counts(&Path::new("status"), &numbers, &[], &mut errors);
        if let (Some(start), Some(end)) = (&status.start_time, &status.completion_time)
            && end.0 < start.0
        {
            let path = Path::new("status").child("completionTime");
            errors.push(Error::invalid(&path, end, "completionTime cannot be set before startTime"));
        }
        errors
    }

    fn spec_changed(new: &Job, old: &Job) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &Job, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let succeeded = status.succeeded.unwrap_or_default();
        let completions = match (spec.completions, spec.parallelism.unwrap_or_default()) {
            (Some(completions), _) => format!("{succeeded}/{completions}"),
            (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            _ => format!("{succeeded}/1"),
        };
        let duration = status.start_time.as_ref().map(|start| {
            let end = status.completion_time.as_ref().map_or(context.now, |t| t.0);
            shared::age::human_duration(end.as_second() - start.0.as_second())
        });
        let [containers, images] = print::template(&spec.template);
        vec![
            print::name(&object.metadata),
            state(object).into(),
            completions.into(),
            duration.unwrap_or_default().into(),
            print::age(&object.metadata, context),
            containers,
            images,
            print::selector(spec.selector.as_ref()),
        ]
    }
}

/// `Complete`, `Failed`, `Terminating`, `Suspended`, `FailureTarget` or `Running`.
fn state(object: &Job) -> &'static str {
    let has = |kind: &str| {
        let conditions = object.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().find(|c| c.type_ == kind).is_some_and(|c| c.status == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if object.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    }
}

/// Conditions that a failure policy names without a status are `True`.
pub(super) fn default_failure_policy(spec: &mut JobSpec) {
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|p| p.rules.iter_mut());
    for condition in rules.flat_map(|r| r.on_pod_conditions.iter_mut().flatten()) {
        condition.status.get_or_insert_with(|| "True".into());
    }
}

/// The labels that name a Job's pods, and their values.
fn expected_labels(object: &Job) -> [(&'static str, String); 4] {
    let name = object.metadata.name.clone().unwrap_or_default();
    let uid = object.metadata.uid.clone().unwrap_or_default();
    [(OLD_JOB_NAME, name.clone()), (JOB_NAME, name), (OLD_CONTROLLER_UID, uid.clone()), (CONTROLLER_UID, uid)]
}

fn is_manual(object: &Job) -> bool {
    object.spec.as_ref().is_some_and(|s| s.manual_selector == Some(true))
}

/// Labels the template with the Job's name and uid, and selects by the uid. Values that are there already stay, for validation to judge.
fn generate_selector(object: &mut Job) {
    if is_manual(object) {
        return;
    }
    let expected = expected_labels(object);
    let uid = expected[3].1.clone();
    let spec = object.spec.get_or_insert_default();
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in expected {
        labels.entry(key.into()).or_insert(value);
    }
    let all = labels.clone();
    spec.selector.get_or_insert_default().match_labels.get_or_insert_default().entry(CONTROLLER_UID.into()).or_insert(uid);
    // Upstream's template and Job share one map of labels when the Job brought none of its own.
    let own = object.metadata.labels.get_or_insert_default();
    if own.iter().all(|(key, value)| all.get(key) == Some(value)) {
        *own = all;
    }
}

/// A generated selector and its labels are those of this Job.
fn generated_selector(object: &Job, errors: &mut ErrorList) {
    if is_manual(object) {
        return;
    }
    let Some(spec) = &object.spec else { return };
    let Some(selector) = &spec.selector else { return };
    if object.metadata.uid.as_ref().is_none_or(String::is_empty) {
        errors.push(Error::required(&Path::new("metadata").child("uid"), ""));
    }
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    for (key, expected) in expected_labels(object) {
        match labels.get(key) {
            None => errors.push(Error::required(&path.key(key), &format!("must be '{expected}'"))),
            Some(actual) if *actual != expected => {
                errors.push(Error::invalid(&path.key(key), &labels, &format!("must be '{expected}'")));
            }
            Some(_) => {}
        }
    }
    let expected: std::collections::BTreeMap<String, String> = expected_labels(object).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let parsed = Selector::from_label_selector(Some(selector));
    if parsed.is_ok_and(|s| !s.matches(&expected)) {
        errors.push(Error::invalid(&Path::new("spec").child("selector"), selector, "`selector` not auto-generated"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn job(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "j", "uid": "u-1"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}
        }});
        with(base, patch)
    }

    #[test]
    fn defaults_depend_on_what_is_left_out() {
        let of = |patch: Value| with(defaulted::<Jobs>(job(patch))["spec"].clone(), json!({"template": null}));
        assert_eq!(
            of(json!({})),
            json!({
                "completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
                "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed"
            })
        );
        assert_eq!(of(json!({"spec": {"parallelism": 3}})).get("completions"), None);
        assert_eq!(of(json!({"spec": {"completions": 3}}))["parallelism"], 1);
        let policy = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]});
        let with_policy = of(json!({"spec": {"podFailurePolicy": policy}}));
        assert_eq!(with_policy["podReplacementPolicy"], "Failed");
        assert_eq!(with_policy["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
    }

    #[test]
    fn a_new_job_selects_its_own_pods() {
        let stored = serde_json::to_value(created::<Jobs>(job(json!({})))).unwrap();
        assert_eq!(stored["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}));
        let labels = json!({
            "batch.kubernetes.io/controller-uid": "u-1", "batch.kubernetes.io/job-name": "j", "controller-uid": "u-1", "job-name": "j"
        });
        assert_eq!((&stored["spec"]["template"]["metadata"]["labels"], &stored["metadata"]["labels"]), (&labels, &labels));
        assert_eq!(errors::<Jobs>(job(json!({}))), Vec::<String>::new());
    }

    #[test]
    fn selectors_of_ones_own_are_refused_unless_manual() {
        let own = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}});
        assert!(errors::<Jobs>(job(own.clone()))[0].ends_with("`selector` not auto-generated"));
        assert!(errors::<Jobs>(job(with(own, json!({"spec": {"manualSelector": true}})))).is_empty());
        let wrong = json!({"spec": {"template": {"metadata": {"labels": {"job-name": "other"}}}}});
        assert!(errors::<Jobs>(job(wrong))[0].ends_with("must be 'j'"));
    }

    #[test]
    fn pods_of_a_job_end() {
        assert_eq!(
            errors::<Jobs>(job(json!({"spec": {"template": {"spec": {"restartPolicy": null}}}}))),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
        assert_eq!(
            errors::<Jobs>(job(json!({"spec": {"completionMode": "Indexed", "parallelism": 2}}))),
            ["spec.completions: Required value: when completion mode is Indexed"]
        );
        assert_eq!(
            errors::<Jobs>(job(json!({"spec": {"backoffLimit": -1}}))),
            ["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"]
        );
    }

    #[test]
    fn the_template_and_the_completions_never_change() {
        let update = |patch: Value| {
            update_errors::<Jobs>(serde_json::to_value(created::<Jobs>(job(json!({})))).unwrap(), {
                with(serde_json::to_value(created::<Jobs>(job(json!({})))).unwrap(), patch)
            })
        };
        assert!(update(json!({"spec": {"parallelism": 2, "suspend": true}})).is_empty());
        assert_eq!(update(json!({"spec": {"completions": 2}})), ["spec.completions: Invalid value: 2: field is immutable"]);
        let changed = update(json!({"spec": {"template": {"spec": {"nodeName": "n"}}}}));
        assert!(changed[0].starts_with("spec.template: Invalid value: {") && changed[0].ends_with("field is immutable"), "{changed:?}");
    }

    #[test]
    fn rows_show_state_and_duration() {
        let of = |patch: Value| cells::<Jobs>(job(patch))[1..4].to_vec();
        assert_eq!(of(json!({"spec": {"completions": 3}, "status": {"succeeded": 1}})), ["Running", "1/3", ""]);
        let done = json!({
            "startTime": "2024-06-01T11:00:00Z", "completionTime": "2024-06-01T11:00:42Z", "succeeded": 1,
            "conditions": [{"type": "Complete", "status": "True"}]
        });
        assert_eq!(of(json!({"spec": {"completions": 1}, "status": done})), ["Complete", "1/1", "42s"]);
        assert_eq!(of(json!({"spec": {"parallelism": 4}, "status": {"startTime": "2024-06-01T11:59:00Z"}})), ["Running", "0/1 of 4", "60s"]);
        assert_eq!(of(json!({"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}))[0], "Suspended");
    }
}

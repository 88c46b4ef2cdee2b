//! CronJobs (`pkg/registry/batch/cronjob/strategy.go`, `ValidateCronJobSpec`).

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use k8s_openapi::jiff::tz::TimeZone;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use super::schedule::Schedule;
use super::{job, job_spec};
use crate::registry::core::pod_template;
use crate::registry::validation::{meta, not_negative, required_one_of};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// Room for the suffix of its Jobs' names.
const MAX_NAME: usize = 52;

/// See the module.
pub struct CronJobs;

impl Strategy for CronJobs {
    type Object = CronJob;
    const PLURAL: &'static str = "cronjobs";
    const SINGULAR: &'static str = "cronjob";
    const SHORT_NAMES: &'static [&'static str] = &["cj"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Schedule"),
        Column::new("Timezone"),
        Column::new("Suspend").of("boolean"),
        Column::new("Active").of("integer"),
        Column::new("Last Schedule"),
        print::AGE,
        print::CONTAINERS,
        print::IMAGES,
        print::SELECTOR,
    ];

    fn default(object: &mut CronJob) {
        let spec = &mut object.spec;
        if spec.concurrency_policy.as_ref().is_none_or(String::is_empty) {
            spec.concurrency_policy = Some("Allow".into());
        }
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        let job = spec.job_template.spec.get_or_insert_default();
        job::default_failure_policy(job);
        pod_template::default_template(&mut job.template);
    }

    fn prepare_for_create(object: &mut CronJob) {
        object.status = Some(Default::default());
    }

    fn validate(object: &CronJob) -> ErrorList {
        let mut errors = Vec::new();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if name.len() > MAX_NAME {
            let detail = format!("must be no more than {MAX_NAME} characters");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, &detail));
        }
        spec(&Path::new("spec"), &object.spec, &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut CronJob, old: &CronJob) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut CronJob, old: &CronJob) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(new: &CronJob, old: &CronJob) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &CronJob, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone();
        let status = object.status.clone().unwrap_or_default();
        let job = spec.job_template.spec.unwrap_or_default();
        let last = status.last_schedule_time.as_ref().map(|time| context.age(Some(time)));
        let [containers, images] = print::template(&job.template);
        vec![
            print::name(&object.metadata),
            spec.schedule.into(),
            print::or_none(spec.time_zone.as_deref()),
            print::optional_bool(spec.suspend),
            status.active.iter().flatten().count().into(),
            print::or_none(last.as_deref()),
            print::age(&object.metadata, context),
            containers,
            images,
            print::selector(job.selector.as_ref()),
        ]
    }
}

fn spec(path: &Path, spec: &CronJobSpec, errors: &mut ErrorList) {
    let schedule = path.child("schedule");
    if spec.schedule.is_empty() {
        errors.push(Error::required(&schedule, ""));
    } else if spec.schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(Error::invalid(&schedule, &spec.schedule, detail));
    } else if let Err(detail) = Schedule::parse(&spec.schedule) {
        errors.push(Error::invalid(&schedule, &spec.schedule, &detail));
    }
    time_zone(&path.child("timeZone"), spec.time_zone.as_deref(), errors);
    not_negative(&path.child("startingDeadlineSeconds"), spec.starting_deadline_seconds, errors);
    let policies = ["Allow", "Forbid", "Replace"];
    required_one_of(&path.child("concurrencyPolicy"), spec.concurrency_policy.as_deref(), &policies, errors);
    not_negative(&path.child("successfulJobsHistoryLimit"), spec.successful_jobs_history_limit.map(i64::from), errors);
    not_negative(&path.child("failedJobsHistoryLimit"), spec.failed_jobs_history_limit.map(i64::from), errors);
    let template = path.child("jobTemplate");
    meta::template(&template, spec.job_template.metadata.as_ref(), errors);
    let job = spec.job_template.spec.clone().unwrap_or_default();
    let path = template.child("spec");
    if job.selector.is_some() {
        errors.push(Error::invalid(&path.child("selector"), &job.selector, "`selector` will be auto-generated"));
    }
    if job.manual_selector == Some(true) {
        errors.push(Error::not_supported(&path.child("manualSelector"), true, &["nil", "false"]));
    }
    job_spec::validate(&path, &job, errors);
}

fn time_zone(path: &Path, zone: Option<&str>, errors: &mut ErrorList) {
    let Some(zone) = zone else { return };
    if zone.is_empty() {
        errors.push(Error::invalid(path, zone, "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        errors.push(Error::invalid(path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"));
    } else if TimeZone::get(zone).is_err() {
        errors.push(Error::invalid(path, zone, &format!("unknown time zone {zone}")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn cron(patch: Value) -> Value {
        let base = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]}}
        }}}});
        with(base, patch)
    }

    #[test]
    fn history_and_concurrency_have_defaults() {
        let spec = defaulted::<CronJobs>(cron(json!({})))["spec"].clone();
        assert_eq!(
            with(spec.clone(), json!({"jobTemplate": null})),
            json!({
                "schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
                "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1
            })
        );
        assert_eq!(spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    }

    #[test]
    fn schedules_and_zones_are_checked() {
        assert!(errors::<CronJobs>(cron(json!({"spec": {"timeZone": "Europe/Paris"}}))).is_empty());
        for (patch, expected) in [
            (json!({"schedule": "off"}), "spec.schedule: Invalid value: \"off\": expected exactly 5 fields, found 1: [off]"),
            (json!({"timeZone": "Mars/Base"}), "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"),
            (
                json!({"schedule": "TZ=UTC 0 * * * *"}),
                "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            (
                json!({"concurrencyPolicy": "Maybe"}),
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
        ] {
            assert_eq!(errors::<CronJobs>(cron(json!({"spec": patch}))), [expected]);
        }
        let long = "c".repeat(53);
        assert!(errors::<CronJobs>(cron(json!({"metadata": {"name": long}})))[0].ends_with("must be no more than 52 characters"));
    }

    #[test]
    fn rows_show_when_it_ran_last() {
        let row = cells::<CronJobs>(cron(json!({
            "spec": {"suspend": false}, "status": {"lastScheduleTime": "2024-06-01T11:55:00Z", "active": [{"name": "x"}]}
        })));
        assert_eq!(row[1..6], [json!("*/5 * * * *"), json!("<none>"), json!("False"), json!(1), json!("5m")]);
        assert_eq!(cells::<CronJobs>(cron(json!({})))[3..6], [json!("<unset>"), json!(0), json!("<none>")]);
    }
}

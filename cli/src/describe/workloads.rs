//! Deployments, replica sets, daemon sets, stateful sets, jobs and cron jobs.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Writer;
use super::format::{controller, int_or_string, labels, quantity, rfc1123, selector};

fn name(w: &mut Writer, meta: &ObjectMeta) {
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
}

fn created(w: &mut Writer, meta: &ObjectMeta) {
    w.field(0, "CreationTimestamp", meta.creation_timestamp.as_ref().map_or_else(String::new, rfc1123));
}

fn marks(w: &mut Writer, meta: &ObjectMeta) {
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
}

fn owner(w: &mut Writer, meta: &ObjectMeta) {
    let owner = controller(meta);
    if !owner.is_empty() {
        w.field(0, "Controlled By", owner);
    }
}

/// `1 Running / 0 Waiting / 0 Succeeded / 0 Failed`
fn pods_status(w: &mut Writer, pods: &[Pod]) {
    let count = |phase: &str| pods.iter().filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase)).count();
    w.field(
        0,
        "Pods Status",
        format!("{} Running / {} Waiting / {} Succeeded / {} Failed", count("Running"), count("Pending"), count("Succeeded"), count("Failed")),
    );
}

fn conditions<'a>(w: &mut Writer, conditions: impl Iterator<Item = (&'a str, &'a str, &'a str)>) {
    let mut conditions = conditions.peekable();
    if conditions.peek().is_none() {
        return;
    }
    w.write(0, "Conditions:\n  Type\tStatus\tReason\n");
    w.write(1, "----\t------\t------\n");
    conditions.for_each(|(kind, status, reason)| w.write(1, &format!("{kind} \t{status}\t{reason}\n")));
}

pub(super) fn deployment(w: &mut Writer, deployment: &Deployment, sets: &[ReplicaSet]) {
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    name(w, &deployment.metadata);
    created(w, &deployment.metadata);
    marks(w, &deployment.metadata);
    w.field(0, "Selector", selector(Some(&spec.selector)));
    w.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            spec.replicas.unwrap_or(1),
            status.updated_replicas.unwrap_or(0),
            status.replicas.unwrap_or(0),
            status.available_replicas.unwrap_or(0),
            status.unavailable_replicas.unwrap_or(0)
        ),
    );
    let strategy = spec.strategy.clone().unwrap_or_default();
    w.field(0, "StrategyType", strategy.type_.as_deref().unwrap_or_default());
    w.field(0, "MinReadySeconds", spec.min_ready_seconds.unwrap_or(0));
    if let Some(rolling) = &strategy.rolling_update {
        let text = |v: &Option<k8s_openapi::apimachinery::pkg::util::intstr::IntOrString>| v.as_ref().map_or_else(String::new, int_or_string);
        w.field(0, "RollingUpdateStrategy", format!("{} max unavailable, {} max surge", text(&rolling.max_unavailable), text(&rolling.max_surge)));
    }
    w.pod_template(&spec.template);
    conditions(w, status.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap_or_default())));
    let newest = newest_set(deployment, sets);
    let text = |set: &ReplicaSet| {
        let created = set.status.as_ref().map_or(0, |s| s.replicas);
        format!(
            "{} ({created}/{} replicas created)",
            set.metadata.name.as_deref().unwrap_or_default(),
            set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
        )
    };
    let mut old: Vec<&ReplicaSet> = sets.iter().filter(|s| newest.is_none_or(|n| n.metadata.uid != s.metadata.uid)).collect();
    old.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let old: Vec<String> = old.into_iter().map(text).collect();
    w.field(0, "OldReplicaSets", if old.is_empty() { "<none>".into() } else { old.join(", ") });
    w.field(0, "NewReplicaSet", newest.map_or_else(|| "<none>".into(), text));
}

/// The set made from the deployment's present template: the one of its revision.
fn newest_set<'a>(deployment: &Deployment, sets: &'a [ReplicaSet]) -> Option<&'a ReplicaSet> {
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let revision = |meta: &ObjectMeta| meta.annotations.as_ref().and_then(|a| a.get(REVISION).cloned());
    let wanted = revision(&deployment.metadata)?;
    sets.iter().find(|s| revision(&s.metadata).as_ref() == Some(&wanted))
}

pub(super) fn replica_set(w: &mut Writer, set: &ReplicaSet, pods: &[Pod]) {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    name(w, &set.metadata);
    w.field(0, "Selector", selector(Some(&spec.selector)));
    marks(w, &set.metadata);
    owner(w, &set.metadata);
    w.field(0, "Replicas", format!("{} current / {} desired", status.replicas, spec.replicas.unwrap_or(1)));
    pods_status(w, pods);
    w.pod_template(&spec.template.unwrap_or_default());
    conditions(w, status.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap_or_default())));
}

pub(super) fn replication_controller(w: &mut Writer, rc: &ReplicationController, pods: &[Pod]) {
    let spec = rc.spec.clone().unwrap_or_default();
    let status = rc.status.clone().unwrap_or_default();
    name(w, &rc.metadata);
    w.field(0, "Selector", labels(spec.selector.as_ref()));
    marks(w, &rc.metadata);
    w.field(0, "Replicas", format!("{} current / {} desired", status.replicas, spec.replicas.unwrap_or(1)));
    pods_status(w, pods);
    w.pod_template(&spec.template.unwrap_or_default());
    conditions(w, status.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap_or_default())));
}

pub(super) fn daemon_set(w: &mut Writer, set: &DaemonSet, pods: &[Pod]) {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    name(w, &set.metadata);
    w.field(0, "Selector", selector(Some(&spec.selector)));
    let nodes = spec.template.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    w.field(0, "Node-Selector", labels(nodes));
    marks(w, &set.metadata);
    for (what, count) in [
        ("Desired Number of Nodes Scheduled", status.desired_number_scheduled),
        ("Current Number of Nodes Scheduled", status.current_number_scheduled),
        ("Number of Nodes Scheduled with Up-to-date Pods", status.updated_number_scheduled.unwrap_or(0)),
        ("Number of Nodes Scheduled with Available Pods", status.number_available.unwrap_or(0)),
        ("Number of Nodes Misscheduled", status.number_misscheduled),
    ] {
        w.write(0, &format!("{what}: {count}\n"));
    }
    pods_status(w, pods);
    w.pod_template(&spec.template);
}

pub(super) fn stateful_set(w: &mut Writer, set: &StatefulSet, pods: &[Pod]) {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    name(w, &set.metadata);
    created(w, &set.metadata);
    w.field(0, "Selector", selector(Some(&spec.selector)));
    marks(w, &set.metadata);
    w.field(0, "Replicas", format!("{} desired | {} total", spec.replicas.unwrap_or(1), status.replicas));
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    w.field(0, "Update Strategy", strategy.type_.as_deref().unwrap_or_default());
    if let Some(rolling) = &strategy.rolling_update {
        if let Some(partition) = rolling.partition {
            w.field(1, "Partition", partition);
        }
        if let Some(max) = &rolling.max_unavailable {
            w.field(1, "MaxUnavailable", int_or_string(max));
        }
    }
    pods_status(w, pods);
    w.pod_template(&spec.template);
    let claims = spec.volume_claim_templates.unwrap_or_default();
    if claims.is_empty() {
        return w.field(0, "Volume Claims", "<none>");
    }
    w.write(0, "Volume Claims:\n");
    for claim in claims {
        let inner = claim.spec.clone().unwrap_or_default();
        w.field(1, "Name", claim.metadata.name.as_deref().unwrap_or_default());
        w.field(1, "StorageClass", inner.storage_class_name.as_deref().unwrap_or_default());
        w.labels("  Labels", claim.metadata.labels.as_ref());
        w.annotations("  Annotations", claim.metadata.annotations.as_ref());
        let capacity = inner.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
        w.field(1, "Capacity", capacity.map_or_else(|| "<default>".into(), quantity));
        let modes = inner.access_modes.as_ref().map(|m| m.join(" ")).unwrap_or_default();
        w.field(1, "Access Modes", format!("[{modes}]"));
    }
}

pub(super) fn job(w: &mut Writer, job: &Job) {
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    name(w, &job.metadata);
    w.field(0, "Selector", selector(spec.selector.as_ref()));
    marks(w, &job.metadata);
    owner(w, &job.metadata);
    amounts(w, &spec);
    if let Some(mode) = &spec.completion_mode {
        w.field(0, "Completion Mode", mode);
    }
    if let Some(suspend) = spec.suspend {
        w.field(0, "Suspend", suspend);
    }
    if let Some(limit) = spec.backoff_limit {
        w.field(0, "Backoff Limit", limit);
    }
    if let Some(seconds) = spec.ttl_seconds_after_finished {
        w.field(0, "TTL Seconds After Finished", seconds);
    }
    if let Some(start) = &status.start_time {
        w.field(0, "Start Time", rfc1123(start));
    }
    if let Some(end) = &status.completion_time {
        w.field(0, "Completed At", rfc1123(end));
        if let Some(start) = &status.start_time {
            w.field(0, "Duration", shared::age::human_duration(end.0.as_second() - start.0.as_second()));
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        w.field(0, "Active Deadline Seconds", format!("{seconds}s"));
    }
    let ready = status.ready.map_or_else(String::new, |r| format!(" ({r} Ready)"));
    let (active, succeeded, failed) = (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
    w.field(0, "Pods Statuses", format!("{active} Active{ready} / {succeeded} Succeeded / {failed} Failed"));
    if spec.completion_mode.as_deref() == Some("Indexed") {
        w.field(0, "Completed Indexes", super::format::or_none(status.completed_indexes.as_deref().unwrap_or_default()));
    }
    w.pod_template(&spec.template);
}

fn amounts(w: &mut Writer, spec: &JobSpec) {
    if let Some(parallelism) = spec.parallelism {
        w.field(0, "Parallelism", parallelism);
    }
    w.field(0, "Completions", spec.completions.map_or_else(|| "<unset>".into(), |c| c.to_string()));
}

pub(super) fn cron_job(w: &mut Writer, cron: &CronJob) {
    let spec = cron.spec.clone();
    let status = cron.status.clone().unwrap_or_default();
    name(w, &cron.metadata);
    marks(w, &cron.metadata);
    w.field(0, "Schedule", &spec.schedule);
    w.field(0, "Concurrency Policy", spec.concurrency_policy.as_deref().unwrap_or_default());
    w.field(0, "Suspend", spec.suspend.map_or("<unset>", super::format::capital));
    if let Some(zone) = spec.time_zone.as_deref() {
        w.field(0, "Time Zone", zone);
    }
    let number = |n: Option<i32>| n.map_or_else(|| "<unset>".into(), |n| n.to_string());
    w.field(0, "Successful Job History Limit", number(spec.successful_jobs_history_limit));
    w.field(0, "Failed Job History Limit", number(spec.failed_jobs_history_limit));
    w.field(0, "Starting Deadline Seconds", spec.starting_deadline_seconds.map_or_else(|| "<unset>".into(), |s| format!("{s}s")));
    let job = spec.job_template.spec.clone().unwrap_or_default();
    w.field(0, "Selector", selector(job.selector.as_ref()));
    w.field(0, "Parallelism", number(job.parallelism));
    w.field(0, "Completions", number(job.completions));
    if let Some(seconds) = job.active_deadline_seconds {
        w.field(0, "Active Deadline Seconds", format!("{seconds}s"));
    }
    w.pod_template(&job.template);
    w.field(0, "Last Schedule Time", status.last_schedule_time.as_ref().map_or_else(|| "<unset>".into(), rfc1123));
    let active: Vec<&str> = status.active.iter().flatten().filter_map(|r| r.name.as_deref()).collect();
    w.field(0, "Active Jobs", if active.is_empty() { "<none>".into() } else { active.join(", ") });
}

//! Creates Jobs on a schedule (`pkg/controller/cronjob/cronjob_controllerv2.go`).
//!
//! Owns Jobs whose controller is the CronJob. A Job's name comes from its scheduled time, so no time is served twice.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Resource};

use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, Error, control, now, synced};
use crate::events::{Kind, Recorder};
use crate::informers::Informer;

mod schedule;

use schedule::Schedule;

const WORKERS: usize = 5;
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are a reason to complain.
const MANY_MISSED: usize = 100;

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue: Queue<Key> = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        crons: ctx.informers.get(),
        jobs: ctx.informers.get(),
        queue: queue.clone(),
    });
    ctx.enqueue_all(&controller.crons, &queue);
    let (owners, into) = (controller.crons.clone(), queue.clone());
    ctx.on(&controller.jobs, move |change| control::owners_concerned(&owners, &change).into_iter().for_each(|key| into.add(key)));
    let ready = vec![synced(&controller.crons), synced(&controller.jobs)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

/// How a finished job ended.
fn finished(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True").map(|c| c.type_.as_str())
}

/// Whether a job is on the list of active ones.
fn is_listed(cron: &CronJob, job: &Job) -> bool {
    let active = cron.status.as_ref().and_then(|s| s.active.as_deref()).unwrap_or_default();
    active.iter().any(|r| r.uid == job.metadata.uid)
}

/// The last time that should have been served, and how many were missed before it.
fn most_recent(schedule: &Schedule, zone: &TimeZone, earliest: Timestamp, now: Timestamp) -> Option<(Timestamp, usize)> {
    let first = schedule.next(earliest, zone).filter(|t| *t <= now)?;
    let Some(second) = schedule.next(first, zone).filter(|t| *t <= now) else { return Some((first, 0)) };
    // Jump close to now by the usual distance, then go step by step.
    let distance = (second.as_second() - first.as_second()).max(1);
    let skipped = (now.as_second() - first.as_second()) / distance;
    let (mut last, mut steps) = (first, 0);
    let near = Timestamp::from_second(now.as_second() - 3 * distance).unwrap_or(first);
    if near > first
        && let Some(t) = schedule.next(near, zone).filter(|t| *t <= now)
    {
        last = t;
    }
    while let Some(t) = schedule.next(last, zone).filter(|t| *t <= now) {
        last = t;
        steps += 1;
        if steps > 100_000 {
            break;
        }
    }
    Some((last, usize::try_from(skipped).unwrap_or_default()))
}

struct Controller {
    client: kube::Client,
    recorder: Recorder,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    queue: Queue<Key>,
}

impl Controller {
    fn jobs_of(&self, cron: &CronJob) -> Vec<Arc<Job>> {
        self.jobs.controlled(cron.metadata.namespace.as_deref().unwrap_or_default(), cron.metadata.uid.as_deref().unwrap_or_default())
    }

    fn job_api(&self, key: &Key) -> Api<Job> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(cached) = self.crons.get(&key.namespace, &key.name) else { return Ok(()) };
        let mut cron = (*cached).clone();
        let children = self.jobs_of(&cron);
        if children.iter().any(|job| finished(job).is_none() && !is_listed(&cron, job)) {
            // Mostly the cache does not show yet what this controller wrote itself.
            let live = found(Api::<CronJob>::namespaced(self.client.clone(), &key.namespace).get(&key.name).await)?;
            let Some(live) = live.filter(|c| c.metadata.uid == cached.metadata.uid) else { return Ok(()) };
            cron = live;
        }
        let before = cron.status.clone().unwrap_or_default();
        let mut status = before.clone();
        self.follow(&cron, &children, &mut status).await?;
        let result = self.serve(key, &cron, &children, &mut status).await;
        if status != before {
            let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
            cron.status = Some(status);
            api.replace_status(&key.name, &PostParams::default(), &cron).await?;
        }
        self.clean_up(key, &cron, &children).await?;
        result
    }

    /// Brings the list of active jobs up to date.
    async fn follow(&self, cron: &CronJob, children: &[Arc<Job>], status: &mut CronJobStatus) -> Result<(), Error> {
        let mut active = status.active.clone().unwrap_or_default();
        for job in children {
            let (name, uid) = (job.metadata.name.clone().unwrap_or_default(), job.metadata.uid.as_ref());
            let listed = active.iter().position(|r| r.uid.as_ref() == uid);
            match (finished(job), listed) {
                (None, None) => {
                    // A status write may have been lost after the job was made.
                    let text = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.recorder.event(cron, Kind::Warning, "UnexpectedJob", text);
                    if job.metadata.deletion_timestamp.is_none() {
                        active.push(reference(job));
                    }
                }
                (Some(condition), Some(at)) => {
                    active.remove(at);
                    self.recorder.event(cron, Kind::Normal, "SawCompletedJob", format!("Saw completed job: {name}, condition: {condition}"));
                }
                _ => {}
            }
            if finished(job) == Some("Complete") {
                let at = job.status.as_ref().and_then(|s| s.completion_time.clone());
                if at > status.last_successful_time {
                    status.last_successful_time = at;
                }
            }
        }
        let mut kept = Vec::new();
        for reference in active {
            if children.iter().any(|j| j.metadata.uid == reference.uid) {
                kept.push(reference);
                continue;
            }
            // Not by the cache alone: it may not show the job yet.
            let name = reference.name.clone().unwrap_or_default();
            let key = Key::of(cron);
            match found(self.job_api(&key).get(&name).await)?.filter(|j| j.metadata.uid == reference.uid) {
                Some(_) => kept.push(reference),
                None => self.recorder.event(cron, Kind::Normal, "MissingJob", format!("Active job went missing: {name}")),
            }
        }
        status.active = (!kept.is_empty()).then_some(kept);
        Ok(())
    }

    /// Makes the job whose time has come, and comes back for the next.
    async fn serve(&self, key: &Key, cron: &CronJob, children: &[Arc<Job>], status: &mut CronJobStatus) -> Result<(), Error> {
        let spec = cron.spec.clone();
        if cron.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
            return Ok(());
        }
        let zone = match spec.time_zone.as_deref().map(TimeZone::get) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(error)) => {
                let text = format!("invalid timeZone: {:?}: {error}", spec.time_zone.unwrap_or_default());
                self.recorder.event(cron, Kind::Warning, "UnknownTimeZone", text);
                return Ok(());
            }
        };
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let text = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.recorder.event(cron, Kind::Warning, "UnparseableSchedule", text);
                return Ok(());
            }
        };
        let now = now();
        if let Some(next) = schedule.next(now.0, &zone) {
            let wait = Duration::try_from(next.duration_since(now.0)).unwrap_or_default();
            self.queue.add_after(key.clone(), wait + Duration::from_millis(100));
        }
        let Some(at) = self.due(cron, &schedule, &zone, status, &now) else { return Ok(()) };
        self.launch(key, cron, children, status, at, &zone).await
    }

    /// The time to serve now, if any.
    fn due(&self, cron: &CronJob, schedule: &Schedule, zone: &TimeZone, status: &CronJobStatus, now: &Time) -> Option<Timestamp> {
        let created = cron.metadata.creation_timestamp.as_ref()?.0;
        let mut earliest = status.last_schedule_time.as_ref().map_or(created, |t| t.0);
        let deadline = cron.spec.starting_deadline_seconds;
        if let Some(limit) = deadline.and_then(|d| Timestamp::from_second(now.0.as_second().saturating_sub(d)).ok()) {
            earliest = earliest.max(limit);
        }
        let (at, missed) = most_recent(schedule, zone, earliest, now.0)?;
        if missed > MANY_MISSED {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.recorder.event(cron, Kind::Warning, "TooManyMissedTimes", format!("{text}. {missed} missed start times"));
        }
        if deadline.is_some_and(|d| at.as_second().saturating_add(d) < now.0.as_second()) {
            let text = k8s_openapi::jiff::fmt::rfc2822::to_string(&at.to_zoned(zone.clone())).unwrap_or_default();
            self.recorder.event(cron, Kind::Warning, "MissSchedule", format!("Missed scheduled time to start a job: {text}"));
            return None;
        }
        (status.last_schedule_time.as_ref().map(|t| t.0) != Some(at)).then_some(at)
    }

    async fn launch(
        &self,
        key: &Key,
        cron: &CronJob,
        children: &[Arc<Job>],
        status: &mut CronJobStatus,
        at: Timestamp,
        zone: &TimeZone,
    ) -> Result<(), Error> {
        let job = job_for(cron, at, zone);
        let name = job.metadata.name.clone().unwrap_or_default();
        let active = status.active.clone().unwrap_or_default();
        if active.iter().any(|r| r.name.as_ref() == Some(&name)) {
            status.last_schedule_time = Some(Time(at));
            return Ok(());
        }
        match cron.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.event(cron, Kind::Normal, "JobAlreadyActive", text);
                return Ok(());
            }
            Some("Replace") => {
                for job in children.iter().filter(|j| active.iter().any(|r| r.uid == j.metadata.uid)) {
                    self.delete(key, cron, job).await?;
                    if let Some(active) = &mut status.active {
                        active.retain(|r| r.uid != job.metadata.uid);
                    }
                }
                status.active = status.active.take().filter(|a| !a.is_empty());
            }
            _ => {}
        }
        let made = match self.job_api(key).create(&PostParams::default(), &job).await.map_err(Error::from) {
            Ok(made) => {
                self.recorder.event(cron, Kind::Normal, "SuccessfulCreate", format!("Created job {name}"));
                made
            }
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) if error.is_already_exists() => {
                // Made before the last crash, or a stranger's.
                let there = self.job_api(key).get(&name).await?;
                let ours = control::controller_of(&there.metadata).is_some_and(|o| Some(&o.uid) == cron.metadata.uid.as_ref());
                if !ours {
                    self.recorder.event(cron, Kind::Warning, "FailedCreate", format!("Error creating job: {error}"));
                    return Err(error);
                }
                there
            }
            Err(error) => {
                self.recorder.event(cron, Kind::Warning, "FailedCreate", format!("Error creating job: {error}"));
                return Err(error);
            }
        };
        if finished(&made).is_none() {
            status.active.get_or_insert_default().push(reference(&made));
        }
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }

    async fn delete(&self, key: &Key, cron: &CronJob, job: &Job) -> Result<(), Error> {
        let name = job.metadata.name.clone().unwrap_or_default();
        let same = Preconditions { uid: job.metadata.uid.clone(), resource_version: None };
        match found(self.job_api(key).delete(&name, &DeleteParams::background().preconditions(same)).await) {
            Ok(_) => {
                self.recorder.event(cron, Kind::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) => {
                self.recorder.event(cron, Kind::Warning, "FailedDelete", format!("Deleted job: {error}"));
                Err(error)
            }
        }
    }

    /// Removes finished jobs beyond the limits, oldest first.
    async fn clean_up(&self, key: &Key, cron: &CronJob, children: &[Arc<Job>]) -> Result<(), Error> {
        let spec = cron.spec.clone();
        let limits = [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
        for (condition, limit) in limits {
            let Some(limit) = limit else { continue };
            let mut ended: Vec<_> = children.iter().filter(|j| finished(j) == Some(condition) && j.metadata.deletion_timestamp.is_none()).collect();
            ended.sort_by_key(|j| (j.status.as_ref().and_then(|s| s.start_time.clone()), j.metadata.name.clone()));
            let excess = ended.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
            for job in ended.into_iter().take(excess) {
                self.delete(key, cron, job).await?;
            }
        }
        Ok(())
    }
}

fn reference(job: &Job) -> ObjectReference {
    let mut reference = job.object_ref(&());
    reference.resource_version = job.metadata.resource_version.clone();
    reference
}

/// The job of a time.
fn job_for(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let text = if *zone == TimeZone::UTC { at.to_string() } else { local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() };
    annotations.insert(SCHEDULED.into(), text);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.metadata.name.as_deref().unwrap_or_default(), at.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![control::controller_ref(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_recent_missed_time_is_served_and_the_others_counted() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (schedule, earliest, now, expected) in [
            ("0 * * * *", "2024-01-01T00:30:00Z", "2024-01-01T00:59:00Z", None),
            ("0 * * * *", "2024-01-01T00:30:00Z", "2024-01-01T01:10:00Z", Some(("2024-01-01T01:00:00Z", 0))),
            ("0 * * * *", "2024-01-01T00:30:00Z", "2024-01-01T05:10:00Z", Some(("2024-01-01T05:00:00Z", 4))),
            ("* * * * *", "2024-01-01T00:00:00Z", "2024-01-02T00:00:30Z", Some(("2024-01-02T00:00:00Z", 1439))),
            ("0 9 * * mon-fri", "2024-01-04T10:00:00Z", "2024-01-08T09:00:00Z", Some(("2024-01-08T09:00:00Z", 1))),
        ] {
            let schedule = Schedule::parse(schedule).unwrap();
            let found = most_recent(&schedule, &TimeZone::UTC, at(earliest), at(now));
            assert_eq!(found, expected.map(|(t, n)| (at(t), n)), "{earliest} {now}");
        }
    }

    #[test]
    fn a_job_is_named_after_its_minute_and_tells_its_time() {
        let mut cron = CronJob::default();
        cron.metadata.name = Some("backup".into());
        let at: Timestamp = "2024-06-01T16:00:00Z".parse().unwrap();
        let job = job_for(&cron, at, &TimeZone::get("Asia/Shanghai").unwrap());
        assert_eq!(job.metadata.name.as_deref(), Some("backup-28620960"));
        assert_eq!(job.metadata.annotations.unwrap()[SCHEDULED], "2024-06-02T00:00:00+08:00");
        assert_eq!(job_for(&cron, at, &TimeZone::UTC).metadata.annotations.unwrap()[SCHEDULED], "2024-06-01T16:00:00Z");
    }
}

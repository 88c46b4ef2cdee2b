//! Deletes finished Jobs when their `ttlSecondsAfterFinished` is over (`pkg/controller/ttlafterfinished`).

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, elapsed, now, pods, synced};

/// Starts the controller.
pub fn start(ctx: Context) {
    let jobs = ctx.informers.get::<Job>();
    let queue: Queue<Key> = Queue::new();
    let all = jobs.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().filter(|j| time_left(j).is_some()).map(|j| Key::of(&**j)).collect());
    let into = queue.clone();
    ctx.on(&jobs, move |change| {
        let job = change.object();
        if time_left(job).is_some() && !matches!(change, crate::informers::Change::Deleted(_)) {
            into.add(Key::of(&**job));
        }
    });
    let (client, again) = (ctx.client.clone(), queue.clone());
    ctx.work(&queue, 5, vec![synced(&jobs)], move |key| {
        let (client, jobs, again) = (client.clone(), jobs.clone(), again.clone());
        async move {
            let Some(left) = jobs.get(&key.namespace, &key.name).and_then(|j| time_left(&j)) else { return Ok(()) };
            if !left.is_zero() {
                again.add_after(key, left);
                return Ok(());
            }
            // The time to live may have been raised in this moment: what counts is what the server has.
            let api: Api<Job> = Api::namespaced(client, &key.namespace);
            let Some(live) = found(api.get(&key.name).await)?.filter(|j| time_left(j).is_some_and(|l| l.is_zero())) else { return Ok(()) };
            let same = Preconditions { uid: live.metadata.uid, resource_version: live.metadata.resource_version };
            found(api.delete(&key.name, &DeleteParams::foreground().preconditions(same)).await)?;
            Ok(())
        }
    });
}

/// How long a finished job that is to go has left.
fn time_left(job: &Job) -> Option<Duration> {
    let ttl = pods::seconds(job.spec.as_ref()?.ttl_seconds_after_finished?);
    let status = job.status.as_ref()?;
    let finished = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let at = finished.last_transition_time.as_ref()?;
    Some(ttl.saturating_sub(elapsed(at, &now())))
}

//! Scales what a HorizontalPodAutoscaler targets by what its pods use, within its bounds (`pkg/controller/podautoscaler`).
//!
//! Owns the autoscalers' status and the scale of their targets. Sizes come from `replicas`, their pace from `behavior`.

mod behavior;
mod metrics;
mod replicas;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::behavior::History;
use self::metrics::{Measured, Unmeasured, measure};
use super::error::found;
use super::queue::{Key, Queue};
use super::scale::Scales;
use super::{Context, Error, now, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

const WORKERS: usize = 5;
/// How often each target is looked at.
const PERIOD: Duration = Duration::from_secs(15);

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue: Queue<Key> = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        autoscalers: ctx.informers.get(),
        pods: ctx.informers.get(),
        histories: Mutex::default(),
        scales: Scales::new(ctx.client.clone()),
        queue: queue.clone(),
    });
    let into = queue.clone();
    ctx.on(&controller.autoscalers, move |change| {
        let own_status = matches!(&change, Change::Updated { old, new } if old.spec == new.spec);
        if !own_status && !matches!(change, Change::Deleted(_)) {
            into.add(Key::of(&**change.object()));
        }
    });
    let ready = vec![synced(&controller.autoscalers), synced(&controller.pods)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

struct Controller {
    client: Client,
    recorder: Recorder,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    /// What was recommended and done of late, by autoscaler. A restart forgets it, as upstream's does.
    histories: Mutex<HashMap<Key, History>>,
    scales: Scales,
    queue: Queue<Key>,
}

/// What is to be done about a size.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody is to touch it.
    Disabled,
    /// It must be this, because of that.
    Rescale(i32, &'static str),
    /// Only metrics could tell.
    Unknown,
}

fn judge(current: i32, least: i32, most: i32) -> Verdict {
    match current {
        0 if least != 0 => Verdict::Disabled,
        n if n > most => Verdict::Rescale(most, "Current number of replicas above Spec.MaxReplicas"),
        n if n < least => Verdict::Rescale(least, "Current number of replicas below Spec.MinReplicas"),
        _ => Verdict::Unknown,
    }
}

fn set_condition(status: &mut HorizontalPodAutoscalerStatus, type_: &str, state: &str, reason: &str, message: &str, now: &Time) {
    let conditions = status.conditions.get_or_insert_default();
    let since = conditions.iter().find(|c| c.type_ == type_ && c.status == state).and_then(|c| c.last_transition_time.clone());
    let new = HorizontalPodAutoscalerCondition {
        type_: type_.into(),
        status: state.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: since.or_else(|| Some(now.clone())),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(autoscaler) = self.autoscalers.get(&key.namespace, &key.name) else {
            self.histories.lock().remove(key);
            return Ok(());
        };
        if autoscaler.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        self.queue.add_after(key.clone(), PERIOD);
        let now = now();
        let mut status = autoscaler.status.clone().unwrap_or_default();
        status.observed_generation = autoscaler.metadata.generation;
        match self.target(key, &autoscaler).await {
            Ok((api, scale)) => self.follow(key, &autoscaler, &mut status, &api, scale, &now).await,
            Err(error) => {
                self.recorder.event(&*autoscaler, Kind::Warning, "FailedGetScale", error.to_string());
                let text = format!("the HPA controller was unable to get the target's current scale: {error}");
                set_condition(&mut status, "AbleToScale", "False", "FailedGetScale", &text, &now);
            }
        }
        if autoscaler.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = HorizontalPodAutoscaler { status: Some(status), ..(*autoscaler).clone() };
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), &key.namespace);
        found(api.replace_status(&key.name, &PostParams::default(), &changed).await)?;
        Ok(())
    }

    async fn target(&self, key: &Key, autoscaler: &HorizontalPodAutoscaler) -> Result<(Api<DynamicObject>, DynamicObject), Error> {
        let target = &autoscaler.spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or("v1");
        let Some((resource, _)) = self.scales.resource(version, &target.kind).await? else {
            return Err(Error::Other(format!("no matches for kind \"{}\" in version \"{version}\"", target.kind)));
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let scale = api.get_subresource("scale", &target.name).await?;
        Ok((api, scale))
    }

    async fn follow(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
        api: &Api<DynamicObject>,
        scale: DynamicObject,
        now: &Time,
    ) {
        let replicas = |pointer: &str| {
            let number = scale.data.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
            i32::try_from(number).unwrap_or(i32::MAX)
        };
        let (current, there) = (replicas("/spec/replicas"), replicas("/status/replicas"));
        let text = "the HPA controller was able to get the target's current scale";
        set_condition(status, "AbleToScale", "True", "SucceededGetScale", text, now);
        status.current_replicas = Some(there);
        let spec = &autoscaler.spec;
        let bounds = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        match judge(current, bounds.0, bounds.1) {
            Verdict::Disabled => {
                status.desired_replicas = 0;
                let text = "scaling is disabled since the replica count of the target is zero";
                set_condition(status, "ScalingActive", "False", "ScalingDisabled", text, now);
            }
            Verdict::Rescale(size, why) => self.rescale(autoscaler, status, api, scale, (size, why), now).await,
            Verdict::Unknown => {
                let selector = scale.data.pointer("/status/selector").and_then(Value::as_str).unwrap_or_default().to_owned();
                let Some((recommended, name)) = self.recommend(key, autoscaler, status, &selector, current, now).await else {
                    status.desired_replicas = current;
                    return;
                };
                let seconds = now.0.as_second();
                let allowed = {
                    let mut histories = self.histories.lock();
                    let history = histories.entry(key.clone()).or_default();
                    history.allow(spec.behavior.as_ref(), bounds, current, recommended, seconds)
                };
                if allowed.stabilized {
                    let text = "recent recommendations were higher than current one, applying the highest recent recommendation";
                    set_condition(status, "AbleToScale", "True", "ScaleDownStabilized", text, now);
                } else {
                    set_condition(status, "AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size", now);
                }
                let within = ("DesiredWithinRange", "the desired count is within the acceptable range");
                let (reason, text) = allowed.limited.unwrap_or(within);
                let state = if allowed.limited.is_some() { "True" } else { "False" };
                set_condition(status, "ScalingLimited", state, reason, text, now);
                status.desired_replicas = allowed.replicas;
                if allowed.replicas != current {
                    let why = if allowed.replicas > current { format!("{name} above target") } else { "All metrics below target".to_owned() };
                    self.rescale(autoscaler, status, api, scale, (allowed.replicas, &why), now).await;
                    if let Some(history) = self.histories.lock().get_mut(key) {
                        history.changed(allowed.replicas - current, seconds);
                    }
                }
            }
        }
    }

    /// The largest size that a metric asks for, and that metric; nothing when it cannot be told.
    async fn recommend(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
        selector: &str,
        current: i32,
        now: &Time,
    ) -> Option<(i32, String)> {
        let specs = autoscaler.spec.metrics.as_deref().unwrap_or_default();
        let mut measured: Vec<Measured> = Vec::new();
        let mut failed: Vec<Unmeasured> = Vec::new();
        for spec in specs {
            match measure(&self.client, &self.pods, (&key.namespace, selector), current, spec).await {
                Ok(found) => measured.push(found),
                Err(why) => failed.push(why),
            }
        }
        for (reason, text) in &failed {
            self.recorder.event(autoscaler, Kind::Warning, reason, text.clone());
        }
        let largest = measured.iter().max_by_key(|m| m.replicas).map(|m| (m.replicas, m.description.clone()));
        status.current_metrics = Some(measured.into_iter().map(|m| m.status).collect());
        // With a metric missing, shrinking might be wrong.
        let usable = largest.filter(|(size, _)| failed.is_empty() || *size > current);
        match (usable, failed.first()) {
            (Some((size, name)), _) => {
                let text = format!("the HPA was able to successfully calculate a replica count from {name}");
                set_condition(status, "ScalingActive", "True", "ValidMetricFound", &text, now);
                Some((size, name))
            }
            (None, Some((reason, text))) => {
                let (bad, total) = (failed.len(), specs.len());
                let summary = format!("invalid metrics ({bad} invalid out of {total}), first error is: {text}");
                self.recorder.event(autoscaler, Kind::Warning, "FailedComputeMetricsReplicas", summary);
                let text = format!("the HPA was unable to compute the replica count: {text}");
                set_condition(status, "ScalingActive", "False", reason, &text, now);
                None
            }
            (None, None) => None,
        }
    }

    async fn rescale(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        status: &mut HorizontalPodAutoscalerStatus,
        api: &Api<DynamicObject>,
        mut scale: DynamicObject,
        (size, why): (i32, &str),
        now: &Time,
    ) {
        status.desired_replicas = size;
        scale.data["spec"]["replicas"] = json!(size);
        match api.replace_subresource("scale", &autoscaler.spec.scale_target_ref.name, &PostParams::default(), &scale).await {
            Ok(_) => {
                status.last_scale_time = Some(now.clone());
                self.recorder.event(autoscaler, Kind::Normal, "SuccessfulRescale", format!("New size: {size}; reason: {why}"));
                let text = format!("the HPA controller was able to update the target scale to {size}");
                set_condition(status, "AbleToScale", "True", "SucceededRescale", &text, now);
            }
            Err(error) => {
                let error = super::error::message(&error);
                let text = format!("New size: {size}; reason: {why}; error: {error}");
                self.recorder.event(autoscaler, Kind::Warning, "FailedRescale", text);
                let text = format!("the HPA controller was unable to update the target scale: {error}");
                set_condition(status, "AbleToScale", "False", "FailedUpdateScale", &text, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_kept_within_its_bounds() {
        for (current, least, most, expected) in [
            (3, 1, 5, Verdict::Unknown),
            (0, 1, 5, Verdict::Disabled),
            (0, 0, 5, Verdict::Unknown),
            (9, 1, 5, Verdict::Rescale(5, "Current number of replicas above Spec.MaxReplicas")),
            (1, 2, 5, Verdict::Rescale(2, "Current number of replicas below Spec.MinReplicas")),
        ] {
            assert_eq!(judge(current, least, most), expected);
        }
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let at = |s| Time(k8s_openapi::jiff::Timestamp::from_second(s).unwrap());
        let mut status = HorizontalPodAutoscalerStatus::default();
        for (state, second) in [("False", 1), ("False", 2), ("True", 3)] {
            set_condition(&mut status, "ScalingActive", state, "r", "m", &at(second));
        }
        let conditions = status.conditions.unwrap();
        assert_eq!((conditions.len(), conditions[0].last_transition_time.clone()), (1, Some(at(3))));
    }
}

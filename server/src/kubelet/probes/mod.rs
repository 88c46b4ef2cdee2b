//! Startup, readiness and liveness probes of running containers (`pkg/kubelet/prober`).
//!
//! Owns one task a probe, which sleeps for its period, and what they found. The pod worker reads that and acts on it.

pub mod check;
mod place;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::check::{Outcome, Target};
use super::images::Report;
use super::pods::plan::Health;
use crate::events::Kind as EventKind;
use crate::tasks::Tasks;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds the other two back until the container has started.
    Startup,
    /// Decides whether the pod gets traffic.
    Readiness,
    /// Restarts the container.
    Liveness,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Startup => "startup",
            Kind::Readiness => "readiness",
            Kind::Liveness => "liveness",
        }
    }
    fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// Counts equal results until they are enough to believe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Streak {
    success: bool,
    length: i32,
}

impl Streak {
    /// Adds a result; the verdict, once a threshold is reached.
    fn add(&mut self, success: bool, probe: &Probe) -> Option<bool> {
        if self.success != success || self.length == 0 {
            *self = Streak { success, length: 0 };
        }
        self.length = self.length.saturating_add(1);
        let needed = if success { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        (self.length >= needed).then_some(success)
    }
}

struct Watched {
    tasks: Tasks,
    /// Those of `tasks` whose verdict restarts the container.
    restarting: Tasks,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// The probes of one pod's containers.
pub struct Probes {
    health: Arc<Mutex<HashMap<String, Health>>>,
    changed: Arc<Notify>,
    watched: HashMap<String, Watched>,
    tasks: Tasks,
}

/// A container to be probed.
pub struct Subject {
    /// Where probes go.
    pub target: Target,
    /// Unix seconds at which it started, for `initialDelaySeconds`.
    pub started_at: i64,
    /// What was known before this kubelet started.
    pub before: Option<Health>,
    /// Where `Unhealthy` events go.
    pub report: Arc<dyn Report>,
}

impl Probes {
    /// Nothing is probed; `changed` is notified whenever a verdict changes.
    pub fn new(tasks: &Tasks, changed: Arc<Notify>) -> Self {
        Probes { health: Arc::default(), changed, watched: HashMap::new(), tasks: tasks.child() }
    }

    /// What is known, by container id.
    pub fn health(&self) -> HashMap<String, Health> {
        self.health.lock().clone()
    }

    /// Whether a container is probed already.
    pub fn knows(&self, container_id: &str) -> bool {
        self.watched.contains_key(container_id)
    }

    /// Starts the probes of a running container.
    pub fn add(&mut self, subject: Subject) {
        let container = subject.target.container.clone();
        let (startup, readiness, liveness) = (&container.startup_probe, &container.readiness_probe, &container.liveness_probe);
        let fresh = Health { started: startup.is_none(), ready: readiness.is_none(), failed: None };
        let health = subject.before.clone().unwrap_or(fresh);
        let started = health.started;
        let id = subject.target.container_id.clone();
        self.health.lock().insert(id.clone(), health);
        let tasks = self.tasks.child();
        let restarting = tasks.child();
        let gate = watch::Sender::new(started);
        let shared = Arc::new(Shared { health: self.health.clone(), changed: self.changed.clone(), subject, gate });
        for (kind, probe) in [(Kind::Startup, startup), (Kind::Readiness, readiness), (Kind::Liveness, liveness)] {
            if let Some(probe) = probe.clone()
                && !(kind == Kind::Startup && started)
            {
                let group = if kind == Kind::Readiness { &tasks } else { &restarting };
                group.spawn(format!("probe/{}/{}", kind.word(), container.name), shared.clone().run(kind, probe));
            }
        }
        self.watched.insert(id, Watched { tasks, restarting });
    }

    /// Ends the probes of every container that does not run any more.
    pub fn retain(&mut self, running: impl Fn(&str) -> bool) {
        self.watched.retain(|id, _| running(id));
        self.health.lock().retain(|id, _| running(id));
    }

    /// Ends liveness and startup probes: the pod is being stopped. Readiness goes on being probed (`StopLivenessAndStartup`).
    pub fn stop_restarts(&self) {
        self.watched.values().for_each(|w| w.restarting.cancel());
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

struct Shared {
    health: Arc<Mutex<HashMap<String, Health>>>,
    changed: Arc<Notify>,
    subject: Subject,
    /// Opens once the container has started.
    gate: watch::Sender<bool>,
}

impl Shared {
    async fn run(self: Arc<Self>, kind: Kind, probe: Probe) {
        let seconds = |value: Option<i32>, default: u64| Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default));
        let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
        let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
        if kind != Kind::Startup {
            let mut gate = self.gate.subscribe();
            if gate.wait_for(|open| *open).await.is_err() {
                return;
            }
        }
        let delay = i64::from(probe.initial_delay_seconds.unwrap_or(0));
        let now = k8s_openapi::jiff::Timestamp::now().as_second();
        let left = u64::try_from(self.subject.started_at.saturating_add(delay) - now).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(left)).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut streak = Streak::default();
        loop {
            ticks.tick().await;
            let outcome = check::probe(&self.subject.target, &probe, timeout).await;
            let success = match outcome {
                Outcome::Success => true,
                Outcome::Failure(text) => {
                    let message = format!("{} probe failed: {text}", kind.title());
                    self.subject.report.event(EventKind::Warning, "Unhealthy", message);
                    false
                }
                Outcome::Error(text) => {
                    let message = format!("{} probe errored and resulted in unknown state: {text}", kind.title());
                    self.subject.report.event(EventKind::Warning, "Unhealthy", message);
                    // Nothing was learnt about the container.
                    continue;
                }
            };
            if let Some(verdict) = streak.add(success, &probe)
                && self.conclude(kind, &probe, verdict)
            {
                return;
            }
        }
    }

    /// Takes a verdict down; true if the probe has no more to say about this container.
    fn conclude(&self, kind: Kind, probe: &Probe, verdict: bool) -> bool {
        let mut all = self.health.lock();
        let Some(health) = all.get_mut(&self.subject.target.container_id) else { return true };
        let before = health.clone();
        match (kind, verdict) {
            (Kind::Startup, true) => health.started = true,
            (Kind::Readiness, ready) => health.ready = ready,
            (Kind::Liveness, true) => {}
            (Kind::Startup | Kind::Liveness, false) => {
                health.failed = Some((kind.word(), probe.termination_grace_period_seconds));
            }
        }
        let changed = *health != before;
        let done = health.failed.is_some() || (kind == Kind::Startup && verdict);
        drop(all);
        if kind == Kind::Startup && verdict {
            self.gate.send_replace(true);
        }
        if changed {
            self.changed.notify_one();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_as_many_equal_results_as_its_threshold() {
        let probe = Probe { failure_threshold: Some(3), success_threshold: Some(2), ..Default::default() };
        let mut streak = Streak::default();
        let verdicts: Vec<Option<bool>> = [false, false, true, true, false, false, false, false].iter().map(|s| streak.add(*s, &probe)).collect();
        let expected = [None, None, None, Some(true), None, None, Some(false), Some(false)];
        assert_eq!(verdicts, expected);
    }
}

//! The pod's state machine: from its spec and what the runtime says to what has to be done next
//! (`computePodActions` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`).
//!
//! Pure. The worker carries a plan out, looks again and asks for the next one; termination is the worker's own phase.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff::Backoff;
use super::spec::{self, Kind};
use crate::kubelet::images::go_duration;
use crate::kubelet::runtime::labels::container_hash;
use crate::kubelet::runtime::observe::{self, Observed, State};

/// What probes have found out about a running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe succeeds, or there is none.
    pub ready: bool,
    /// A liveness or startup probe has failed for good: which, and its own grace period in seconds.
    pub failed: Option<(&'static str, Option<i64>)>,
}

/// Why a container does not run yet: `state.waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// For instance `CrashLoopBackOff`.
    pub reason: String,
    /// For the user.
    pub message: String,
}

/// A container to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The runtime's id.
    pub id: String,
    /// Name in the spec.
    pub name: String,
    /// Text of the `Killing` event.
    pub message: String,
    /// Grace period in seconds that goes before the pod's.
    pub grace: Option<i64>,
}

/// A container to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What it is for.
    pub kind: Kind,
    /// Name in the spec.
    pub name: String,
    /// How often it was started before.
    pub restart_count: u32,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Replace what is left of the old sandbox, if any, by a new one with this attempt; nothing else is planned then.
    pub create_sandbox: Option<u32>,
    /// Stop these.
    pub kill: Vec<Kill>,
    /// Start these, in this order.
    pub start: Vec<Start>,
    /// These wait for their backoff.
    pub backing_off: Vec<(String, Waiting)>,
    /// When to look again though nothing happens.
    pub wake_in: Option<Duration>,
    /// Every container is done: the pod has succeeded or failed and its sandbox can go.
    pub finished: bool,
}

/// What the plan depends on.
pub struct Input<'a> {
    /// The pod as the API has it.
    pub pod: &'a Pod,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// By container id; a running container without an entry has no probes and counts as started.
    pub health: &'a HashMap<String, Health>,
    /// Crash backoff by container name.
    pub backoff: &'a HashMap<String, Backoff>,
    /// Unix nanoseconds.
    pub now: i64,
}

/// Decides what to do next.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let observed = input.observed;
    let ready = observed.sandboxes.iter().filter(|s| s.ready).count();
    let usable = observed.sandbox().is_some_and(|s| s.ready && (spec::host_network(input.pod) || !s.ips.is_empty())) && ready == 1;
    if !usable {
        if nothing_left_to_run(input) {
            plan.finished = true;
        } else {
            plan.create_sandbox = Some(observed.sandboxes.iter().map(|s| s.attempt + 1).max().unwrap_or(0));
        }
        return plan;
    }
    for (kind, container) in spec::containers(input.pod).iter().filter(|(kind, _)| *kind == Kind::Ephemeral) {
        if observed.container(&container.name).is_none() {
            plan.start.push(Start { kind: *kind, name: container.name.clone(), restart_count: 0 });
        }
    }
    if initialize(input, &mut plan) {
        let kept = run_main(input, &mut plan);
        plan.finished = !kept;
    }
    plan
}

/// Whether a pod without a usable sandbox has no reason to get another one.
fn nothing_left_to_run(input: &Input<'_>) -> bool {
    let all = spec::containers(input.pod);
    let ran = input.observed.containers.iter().any(|c| all.iter().any(|(k, s)| *k != Kind::Ephemeral && s.name == c.name));
    if !ran {
        return false;
    }
    // A pod that must never restart does not start over either, whichever of its containers had begun.
    let has_own_policy = all.iter().any(|(_, c)| c.restart_policy.is_some());
    if spec::restart_policy(input.pod) == "Never" && !has_own_policy {
        return true;
    }
    all.iter().filter(|(kind, _)| *kind == Kind::Main).all(|(kind, container)| match input.observed.container(&container.name) {
        None => false,
        Some(c) if c.state == State::Exited => !spec::should_restart(input.pod, *kind, container, c.exit_code),
        Some(_) => spec::restart_policy(input.pod) == "Never",
    })
}

/// Plans the init containers; true when the main ones may run.
fn initialize(input: &Input<'_>, plan: &mut Plan) -> bool {
    let spec = spec::spec(input.pod);
    // Once a main container exists in this sandbox, finished init containers may have been cleaned away.
    let initialized = spec.containers.iter().any(|c| input.observed.current(&c.name).is_some());
    for container in spec.init_containers.iter().flatten() {
        let kind = spec::init_kind(container);
        let current = input.observed.current(&container.name);
        let done = match (kind, current.map(|c| (c.state, c.exit_code))) {
            (Kind::Init, _) if initialized => true,
            (Kind::Init, Some((State::Exited, 0))) => true,
            (Kind::Init, Some((State::Running, _))) => false,
            (Kind::Init, Some((State::Exited, code))) if !spec::should_restart(input.pod, kind, container, code) => {
                plan.finished = true;
                false
            }
            (Kind::Sidecar, Some((State::Running, _))) => keep_running(input, kind, container, plan) && is_started(input, container),
            _ => {
                start(input, kind, container, plan);
                false
            }
        };
        if !done && !initialized {
            return false;
        }
    }
    true
}

fn is_started(input: &Input<'_>, container: &Container) -> bool {
    let current = input.observed.current(&container.name);
    current.is_some_and(|c| input.health.get(&c.id).is_none_or(|h| h.started))
}

/// Plans the main containers; true while one of them runs or will run.
fn run_main(input: &Input<'_>, plan: &mut Plan) -> bool {
    let mut kept = false;
    for container in &spec::spec(input.pod).containers {
        kept |= match input.observed.container(&container.name) {
            Some(c) if c.state == State::Running && input.observed.current(&container.name).is_some() => {
                keep_running(input, Kind::Main, container, plan);
                true
            }
            Some(c) if c.state == State::Exited && !spec::should_restart(input.pod, Kind::Main, container, c.exit_code) => false,
            _ => {
                start(input, Kind::Main, container, plan);
                true
            }
        };
    }
    kept
}

/// Plans to kill a running container that has to go; true if it may stay.
fn keep_running(input: &Input<'_>, kind: Kind, container: &Container, plan: &mut Plan) -> bool {
    let Some(running) = input.observed.current(&container.name) else { return false };
    let name = &container.name;
    let (mut message, grace) = if !running.hash.is_empty() && running.hash != container_hash(container) {
        (format!("Container {name} definition changed"), None)
    } else {
        match input.health.get(&running.id).and_then(|h| h.failed) {
            Some((probe, grace)) => (format!("Container {name} failed {probe} probe"), grace),
            None => return true,
        }
    };
    if spec::should_restart(input.pod, kind, container, 137) {
        message.push_str(", will be restarted");
    }
    plan.kill.push(Kill { id: running.id.clone(), name: name.clone(), message, grace });
    false
}

/// Plans to start a container now or, if it keeps failing, when its backoff is over.
fn start(input: &Input<'_>, kind: Kind, container: &Container, plan: &mut Plan) {
    let name = &container.name;
    let previous = input.observed.container(name);
    if let Some(left) = previous.filter(|c| matches!(c.state, State::Created | State::Unknown | State::Running)) {
        let message = format!("Container {name} is in unknown state, try killing it before restart");
        plan.kill.push(Kill { id: left.id.clone(), name: name.clone(), message, grace: None });
    }
    if let Some((waiting, left)) = previous.and_then(|c| in_backoff(input, container, c)) {
        plan.backing_off.push((name.clone(), waiting));
        plan.wake_in = Some(plan.wake_in.map_or(left, |w| w.min(left)));
        return;
    }
    // One that was made and never started, because kserver ended in between, is made again; that is no restart.
    let restart_count = previous.map_or(0, |c| c.restart_count + u32::from(c.state != State::Created));
    plan.start.push(Start { kind, name: name.clone(), restart_count });
}

fn in_backoff(input: &Input<'_>, container: &Container, previous: &observe::Container) -> Option<(Waiting, Duration)> {
    if previous.state != State::Exited {
        return None;
    }
    let backoff = input.backoff.get(&container.name)?;
    let left = backoff.remaining(previous.finished_at, input.now)?;
    let message = format!("back-off {} restarting failed container={} pod={}", go_duration(backoff.delay()), container.name, spec::title(input.pod));
    Some((Waiting { reason: "CrashLoopBackOff".into(), message }, left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::runtime::observe::Sandbox;
    use serde_json::{Value, json};

    fn pod(policy: &str, init: Value, containers: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "restartPolicy": policy, "initContainers": init, "containers": containers },
        }))
        .unwrap()
    }

    fn sandbox(ready: bool) -> Sandbox {
        Sandbox { id: "s".into(), attempt: 0, ready, created_at: 1, ips: if ready { vec!["10.0.0.1".parse().unwrap()] } else { vec![] } }
    }

    fn made(name: &str, state: State, exit_code: i32) -> observe::Container {
        observe::Container {
            id: format!("{name}-id"),
            name: name.into(),
            sandbox_id: "s".into(),
            restart_count: 0,
            state,
            created_at: 1,
            started_at: 1,
            finished_at: 1,
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            hash: String::new(),
            log_path: String::new(),
        }
    }

    /// One line a plan: `sandbox=0 kill=a start=b finished`.
    fn decide(pod: &Pod, sandboxes: Vec<Sandbox>, containers: Vec<observe::Container>, health: &HashMap<String, Health>) -> String {
        let observed = Observed { sandboxes, containers };
        let plan = plan(&Input { pod, observed: &observed, health, backoff: &HashMap::new(), now: 10 });
        let mut words = Vec::new();
        words.extend(plan.create_sandbox.map(|a| format!("sandbox={a}")));
        words.extend(plan.kill.iter().map(|k| format!("kill={}", k.name)));
        words.extend(plan.start.iter().map(|s| format!("start={}:{}", s.name, s.restart_count)));
        words.extend(plan.finished.then(|| "finished".to_owned()));
        words.join(" ")
    }

    #[test]
    fn a_pod_goes_from_nothing_through_init_to_running_and_done() {
        use State::{Created, Exited, Running, Unknown};
        let ab = json!([{ "name": "a" }, { "name": "b" }]);
        let i = json!([{ "name": "i" }, { "name": "j" }]);
        let side = json!([{ "name": "side", "restartPolicy": "Always" }, { "name": "i" }]);
        let none = json!([]);
        type Row<'a> = (&'a str, &'a Value, Option<bool>, Vec<(&'a str, State, i32)>, &'a str);
        let rows: Vec<Row<'_>> = vec![
            ("Always", &none, None, vec![], "sandbox=0"),
            ("Always", &none, Some(true), vec![], "start=a:0 start=b:0"),
            ("Always", &i, Some(true), vec![], "start=i:0"),
            ("Always", &i, Some(true), vec![("i", Running, 0)], ""),
            ("Always", &i, Some(true), vec![("i", Exited, 0)], "start=j:0"),
            ("Always", &i, Some(true), vec![("i", Exited, 1)], "start=i:1"),
            ("Never", &i, Some(true), vec![("i", Exited, 1)], "finished"),
            ("Always", &i, Some(true), vec![("i", Exited, 0), ("j", Exited, 0)], "start=a:0 start=b:0"),
            ("Always", &i, Some(true), vec![("a", Running, 0), ("b", Running, 0)], ""),
            ("Always", &none, Some(true), vec![("a", Running, 0), ("b", Exited, 0)], "start=b:1"),
            ("OnFailure", &none, Some(true), vec![("a", Exited, 0), ("b", Exited, 1)], "start=b:1"),
            ("OnFailure", &none, Some(true), vec![("a", Exited, 0), ("b", Exited, 0)], "finished"),
            ("Never", &none, Some(true), vec![("a", Exited, 0), ("b", Running, 1)], ""),
            ("Never", &none, Some(true), vec![("a", Exited, 0), ("b", Exited, 1)], "finished"),
            ("Always", &none, Some(true), vec![("a", Created, 0), ("b", Running, 0)], "kill=a start=a:0"),
            ("Always", &none, Some(true), vec![("a", Unknown, 0), ("b", Running, 0)], "kill=a start=a:1"),
            // The sandbox died.
            ("Always", &none, Some(false), vec![("a", Exited, 137), ("b", Exited, 137)], "sandbox=1"),
            ("OnFailure", &none, Some(false), vec![("a", Exited, 0), ("b", Exited, 0)], "finished"),
            ("Never", &none, Some(false), vec![("a", Exited, 137)], "finished"),
            ("Never", &none, Some(false), vec![], "sandbox=1"),
            // Sidecars.
            ("Always", &side, Some(true), vec![], "start=side:0"),
            ("Always", &side, Some(true), vec![("side", Running, 0)], "start=i:0"),
            ("Always", &side, Some(true), vec![("side", Exited, 0), ("i", Running, 0)], "start=side:1"),
            ("Always", &side, Some(true), vec![("side", Exited, 0), ("a", Running, 0), ("b", Running, 0)], "start=side:1"),
            ("Never", &side, Some(true), vec![("side", Running, 0), ("a", Exited, 0), ("b", Exited, 0)], "finished"),
        ];
        for (policy, init, ready, containers, expected) in rows {
            let pod = pod(policy, init.clone(), ab.clone());
            let made: Vec<_> = containers.iter().map(|(n, s, c)| made(n, *s, *c)).collect();
            let got = decide(&pod, ready.map(sandbox).into_iter().collect(), made, &HashMap::new());
            assert_eq!(got, expected, "{policy} {init} sandbox {ready:?} {containers:?}");
        }
    }

    #[test]
    fn a_sidecar_that_has_not_started_holds_the_rest_back() {
        let pod = pod("Always", json!([{ "name": "side", "restartPolicy": "Always" }]), json!([{ "name": "a" }]));
        let mut health = HashMap::from([("side-id".to_owned(), Health { started: false, ready: false, failed: None })]);
        let containers = || vec![made("side", State::Running, 0)];
        assert_eq!(decide(&pod, vec![sandbox(true)], containers(), &health), "");
        health.get_mut("side-id").unwrap().started = true;
        assert_eq!(decide(&pod, vec![sandbox(true)], containers(), &health), "start=a:0");
    }

    #[test]
    fn a_failed_liveness_probe_kills_and_a_changed_image_too() {
        let pod = pod("Always", json!([]), json!([{ "name": "a", "image": "x:1" }]));
        let health = HashMap::from([("a-id".to_owned(), Health { started: true, ready: true, failed: Some(("liveness", Some(3))) })]);
        let observed = Observed { sandboxes: vec![sandbox(true)], containers: vec![made("a", State::Running, 0)] };
        let plan = super::plan(&Input { pod: &pod, observed: &observed, health: &health, backoff: &HashMap::new(), now: 10 });
        assert_eq!(plan.kill[0].message, "Container a failed liveness probe, will be restarted");
        assert_eq!(plan.kill[0].grace, Some(3));
        let mut changed = made("a", State::Running, 0);
        changed.hash = "other".into();
        assert_eq!(decide(&pod, vec![sandbox(true)], vec![changed], &HashMap::new()), "kill=a");
    }

    #[test]
    fn a_crashing_container_waits_for_its_backoff() {
        let pod = pod("Always", json!([]), json!([{ "name": "a" }]));
        let mut backoff = Backoff::default();
        backoff.next(1, 1);
        let backoff = HashMap::from([("a".to_owned(), backoff)]);
        let observed = Observed { sandboxes: vec![sandbox(true)], containers: vec![made("a", State::Exited, 1)] };
        let plan = super::plan(&Input { pod: &pod, observed: &observed, health: &HashMap::new(), backoff: &backoff, now: 4_000_000_001 });
        assert_eq!(plan.wake_in, Some(Duration::from_secs(6)));
        assert_eq!(plan.backing_off[0].1.message, "back-off 10s restarting failed container=a pod=p_n(u)");
        assert!(plan.start.is_empty() && !plan.finished);
    }
}

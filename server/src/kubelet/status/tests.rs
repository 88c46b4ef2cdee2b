use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::kubelet::runtime::observe::{Container, Sandbox, State};

fn pod(policy: &str, extra: Value) -> Pod {
    let mut spec = json!({ "restartPolicy": policy, "containers": [{ "name": "a", "image": "x:1" }, { "name": "b", "image": "x:1" }] });
    spec.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 3 }, "spec": spec })).unwrap()
}

fn container(name: &str, state: State, exit_code: i32, restart_count: u32) -> Container {
    Container {
        id: format!("{name}{restart_count}"),
        name: name.into(),
        sandbox_id: "s".into(),
        restart_count,
        state,
        created_at: i64::from(restart_count) + 1,
        started_at: 1_000_000_000,
        finished_at: if state == State::Exited { 2_000_000_000 } else { 0 },
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "docker.io/library/x:1".into(),
        image_id: "sha256:1".into(),
        hash: String::new(),
        log_path: String::new(),
    }
}

struct Case {
    pod: Pod,
    observed: Observed,
    health: HashMap<String, Health>,
    waiting: HashMap<String, Waiting>,
    terminal: bool,
}

impl Case {
    fn new(pod: Pod, containers: Vec<Container>) -> Self {
        let sandbox = Sandbox { id: "s".into(), attempt: 0, ready: true, created_at: 1, ips: vec!["10.1.2.3".parse().unwrap()] };
        let observed = Observed { sandboxes: vec![sandbox], containers };
        Case { pod, observed, health: HashMap::new(), waiting: HashMap::new(), terminal: false }
    }
    fn status(&self) -> PodStatus {
        let ips = ["192.0.2.1".parse().unwrap()];
        compute(&Input {
            pod: &self.pod,
            observed: &self.observed,
            health: &self.health,
            waiting: &self.waiting,
            failure: None,
            applied: &HashMap::new(),
            resize: None,
            terminal: self.terminal,
            node_ips: &ips,
            now: Time(Timestamp::from_second(100).unwrap()),
        })
    }
}

fn condition(status: &PodStatus, kind: &str) -> (String, String, String) {
    let c = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
    (c.status.clone(), c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default())
}

#[test]
fn the_phase_follows_the_containers_and_the_restart_policy() {
    use State::{Exited, Running};
    let none = json!({});
    let init = json!({ "initContainers": [{ "name": "i" }] });
    type Row<'a> = (&'a str, &'a Value, bool, Vec<(&'a str, State, i32)>, &'a str);
    let rows: Vec<Row<'_>> = vec![
        ("Always", &none, false, vec![], "Pending"),
        ("Always", &none, false, vec![("a", Running, 0)], "Pending"),
        ("Always", &none, false, vec![("a", Running, 0), ("b", Running, 0)], "Running"),
        ("Always", &none, false, vec![("a", Exited, 0), ("b", Exited, 1)], "Running"),
        ("OnFailure", &none, false, vec![("a", Exited, 0), ("b", Exited, 1)], "Running"),
        ("OnFailure", &none, false, vec![("a", Exited, 0), ("b", Exited, 0)], "Succeeded"),
        ("Never", &none, false, vec![("a", Exited, 0), ("b", Exited, 1)], "Failed"),
        ("Never", &none, false, vec![("a", Exited, 0), ("b", Exited, 0)], "Succeeded"),
        ("Never", &none, false, vec![("a", Exited, 0), ("b", Running, 0)], "Running"),
        ("Always", &init, false, vec![("i", Running, 0)], "Pending"),
        ("Always", &init, false, vec![("i", Exited, 1)], "Pending"),
        ("Never", &init, false, vec![("i", Exited, 1)], "Failed"),
        ("Always", &init, false, vec![("i", Exited, 0), ("a", Running, 0), ("b", Running, 0)], "Running"),
        ("Always", &none, true, vec![("a", Exited, 0), ("b", Exited, 143)], "Failed"),
        ("Always", &none, true, vec![("a", Exited, 0), ("b", Exited, 0)], "Succeeded"),
        ("Always", &none, true, vec![("a", Exited, 0), ("b", Running, 0)], "Running"),
    ];
    for (policy, extra, terminal, containers, expected) in rows {
        let made = containers.iter().map(|(n, s, c)| container(n, *s, *c, 0)).collect();
        let mut case = Case::new(pod(policy, extra.clone()), made);
        case.terminal = terminal;
        assert_eq!(case.status().phase.as_deref(), Some(expected), "{policy} {extra} terminal {terminal} {containers:?}");
    }
}

#[test]
fn a_new_pod_says_what_its_containers_wait_for() {
    let case = Case::new(pod("Always", json!({ "initContainers": [{ "name": "i" }] })), vec![]);
    let status = case.status();
    let reason = |s: &ContainerStatus| s.state.clone().unwrap().waiting.unwrap().reason.unwrap();
    assert_eq!(reason(&status.container_statuses.as_ref().unwrap()[0]), "PodInitializing");
    assert_eq!(
        condition(&status, "Initialized"),
        ("False".into(), "ContainersNotInitialized".into(), "containers with incomplete status: [i]".into())
    );
    assert_eq!(condition(&status, "Ready").2, "containers with unready status: [a b]");
    assert_eq!(status.pod_ip.as_deref(), Some("10.1.2.3"));
    let plain = Case::new(pod("Always", json!({})), vec![]).status();
    assert_eq!(reason(&plain.container_statuses.as_ref().unwrap()[0]), "ContainerCreating");
    assert_eq!(condition(&plain, "Initialized").0, "True");
}

#[test]
fn a_crashing_container_shows_its_backoff_and_its_last_end() {
    let mut case = Case::new(pod("Always", json!({})), vec![container("a", State::Exited, 7, 2), container("b", State::Running, 0, 0)]);
    case.waiting.insert("a".into(), Waiting { reason: "CrashLoopBackOff".into(), message: "back-off".into() });
    let status = case.status();
    let a = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(a.state.clone().unwrap().waiting.unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    let last = a.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (7, Some("Error")));
    assert_eq!((a.restart_count, a.ready, a.container_id.as_deref()), (2, false, Some("containerd://a2")));
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn probes_and_readiness_gates_decide_about_ready() {
    let both = vec![container("a", State::Running, 0, 0), container("b", State::Running, 0, 0)];
    let mut case = Case::new(pod("Always", json!({})), both.clone());
    assert_eq!(condition(&case.status(), "Ready").0, "True");
    case.health.insert("a0".into(), Health { started: true, ready: false, failed: None });
    assert_eq!(condition(&case.status(), "Ready"), ("False".into(), "ContainersNotReady".into(), "containers with unready status: [a]".into()));
    let gated = Case::new(pod("Always", json!({ "readinessGates": [{ "conditionType": "x/y" }] })), both);
    let ready = condition(&gated.status(), "Ready");
    assert_eq!(ready.1, "ReadinessGatesNotReady");
    assert_eq!(ready.2, "corresponding condition of pod readiness gate \"x/y\" does not exist.");
    assert_eq!(condition(&gated.status(), "ContainersReady").0, "True");
}

#[test]
fn a_patch_holds_only_what_changed_and_replaces_addresses() {
    let case = Case::new(pod("Always", json!({})), vec![]);
    let first = case.status();
    assert!(patch::patch("u", &first, &first).is_none());
    let mut second = first.clone();
    second.pod_ips = Some(vec![PodIP { ip: "10.9.9.9".into() }]);
    second.phase = Some("Running".into());
    let change = patch::patch("u", &first, &second).unwrap();
    assert_eq!(
        change,
        json!({ "metadata": { "uid": "u" }, "status": { "phase": "Running", "podIPs": [{ "ip": "10.9.9.9" }, { "$patch": "replace" }] } })
    );
    // A condition that is true again loses its reason, and the others are not sent.
    let mut ready = first.clone();
    let list = ready.conditions.as_mut().unwrap();
    let condition = list.iter_mut().find(|c| c.type_ == "Ready").unwrap();
    (condition.status, condition.reason, condition.message) = ("True".into(), None, None);
    let change = patch::patch("u", &first, &ready).unwrap();
    let sent = change["status"]["conditions"].as_array().unwrap();
    assert_eq!(sent.len(), 1);
    assert!(sent[0]["reason"].is_null() && sent[0].as_object().unwrap().contains_key("message"));
    // A condition of somebody else is neither sent nor removed.
    let mut foreign = first.clone();
    foreign.conditions.as_mut().unwrap().push(k8s_openapi::api::core::v1::PodCondition {
        type_: "x/y".into(),
        status: "True".into(),
        ..Default::default()
    });
    assert!(patch::patch("u", &foreign, &first).is_none());
    // One of ours that is over is removed.
    let mut resizing = first.clone();
    resizing.conditions.as_mut().unwrap().push(k8s_openapi::api::core::v1::PodCondition {
        type_: "PodResizePending".into(),
        status: "True".into(),
        ..Default::default()
    });
    let change = patch::patch("u", &resizing, &first).unwrap();
    assert_eq!(change["status"]["conditions"], json!([{ "$patch": "delete", "type": "PodResizePending" }]));
}

#[test]
fn what_ran_when_the_runtime_was_wiped_counts_as_lost() {
    let mut case = Case::new(pod("Never", json!({})), vec![]);
    case.observed.sandboxes.clear();
    let running: ContainerStatus = serde_json::from_value(json!({
        "name": "a", "image": "x", "imageID": "i", "ready": true, "restartCount": 4, "containerID": "containerd://old", "state": { "running": {} },
    }))
    .unwrap();
    crate::kubelet::runtime::observe::remember(&mut case.observed, &[running]);
    case.terminal = true;
    let status = case.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    for container in status.container_statuses.unwrap() {
        let ended = container.state.unwrap().terminated.unwrap();
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    }
}

#[test]
fn a_final_phase_waits_for_the_last_container_and_is_kept() {
    use State::{Exited, Running};
    let failure = Failure { reason: "DeadlineExceeded".into(), message: "too long".into() };
    let compute = |before: Option<&str>, second: State, failure: Option<&Failure>| {
        let mut pod = pod("Always", json!({}));
        pod.status = before.map(|phase| PodStatus { phase: Some(phase.into()), reason: Some("Old".into()), ..PodStatus::default() });
        let case = Case::new(pod, vec![container("a", Exited, 0, 0), container("b", second, 0, 0)]);
        let status = super::compute(&Input {
            pod: &case.pod,
            observed: &case.observed,
            health: &case.health,
            waiting: &case.waiting,
            failure,
            applied: &HashMap::new(),
            resize: None,
            terminal: failure.is_some(),
            node_ips: &["192.0.2.1".parse().unwrap()],
            now: Time(Timestamp::from_second(100).unwrap()),
        });
        let ready = condition(&status, "Ready");
        assert!(failure.is_none() || ready.1 == "PodFailed", "{ready:?}");
        (status.phase.unwrap(), status.reason.unwrap_or_default())
    };
    let is = |phase: &str, reason: &str| (phase.to_owned(), reason.to_owned());
    assert_eq!(compute(Some("Running"), Running, Some(&failure)), is("Running", "Old"));
    assert_eq!(compute(Some("Running"), Exited, Some(&failure)), is("Failed", "DeadlineExceeded"));
    assert_eq!(compute(None, Exited, Some(&failure)), is("Failed", "DeadlineExceeded"));
    assert_eq!(compute(Some("Failed"), Running, None), is("Failed", "Old"), "a controller has failed it");
    assert_eq!(compute(Some("Running"), Running, None), is("Running", "Old"));
    assert_eq!(compute(Some("Pending"), Running, None), is("Running", ""));
}

#[test]
fn containers_that_never_had_their_turn_are_not_lost() {
    let mut case = Case::new(pod("Never", json!({ "initContainers": [{ "name": "i" }] })), vec![container("i", State::Exited, 1, 0)]);
    case.observed.sandboxes.clear();
    case.terminal = true;
    let status = case.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    for container in status.container_statuses.unwrap() {
        assert_eq!(container.state.unwrap().waiting.unwrap().reason.as_deref(), Some("PodInitializing"));
    }
}

#[test]
fn a_resize_is_reported_when_it_is_done_and_not_before() {
    let mut pod = pod("Always", json!({}));
    let resources = |cpu: &str| serde_json::from_value(json!({ "limits": { "cpu": cpu } })).unwrap();
    pod.spec.as_mut().unwrap().containers[0].resources = Some(resources("2"));
    let case = Case::new(pod, vec![container("a", State::Running, 0, 0), container("b", State::Running, 0, 0)]);
    let resize = Resize { kind: "PodResizePending", reason: "Infeasible", message: "too large".into() };
    let status = compute(&Input {
        pod: &case.pod,
        observed: &case.observed,
        health: &case.health,
        waiting: &case.waiting,
        failure: None,
        applied: &HashMap::from([("a0".to_owned(), resources("1"))]),
        resize: Some(&resize),
        terminal: false,
        node_ips: &["192.0.2.1".parse().unwrap()],
        now: Time(Timestamp::from_second(100).unwrap()),
    });
    assert_eq!(status.container_statuses.as_ref().unwrap()[0].resources, Some(resources("1")));
    assert_eq!(condition(&status, "PodResizePending"), ("True".into(), "Infeasible".into(), "too large".into()));
}

//! The whole scheduler against an API server in memory.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use serde_json::{Value, json};

use super::{Config, Verdicts, run};
use crate::controllers::fake_api::{Failure, FakeApi};
use crate::informers::Informers;
use crate::tasks::Tasks;

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts a scheduler of its own informers; it stops with what is returned.
async fn start(api: &FakeApi, identity: Option<&str>, verdicts: &Verdicts) -> Tasks {
    let tasks = Tasks::new();
    let informers = Informers::new(api.client(), tasks.clone());
    let config = Config { identity: identity.map(str::to_owned), seed: 1, verdicts: verdicts.clone(), ..Config::default() };
    run(config, api.client(), &informers, &tasks).await.unwrap();
    tasks
}

fn add_node(api: &FakeApi, name: &str, cpu: &str) {
    let status = json!({ "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "110" } });
    api.insert(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "status": status }));
}

fn add_pod(api: &FakeApi, name: &str, cpu: &str, more: Value) {
    let container = json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } });
    let mut spec = json!({ "schedulerName": "default-scheduler", "containers": [container] });
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    api.insert(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec }));
}

/// Waits until something holds; checked whenever anything is written.
async fn until(api: &FakeApi, what: &str, holds: impl Fn() -> bool) {
    let mut written = api.written();
    let wait = async {
        loop {
            written.borrow_and_update();
            if holds() {
                return;
            }
            written.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(DEADLINE, wait).await.is_err() {
        let pods: Vec<Pod> = api.all("pods");
        panic!("not in time: {what}: {pods:#?}");
    }
}

fn node_of(api: &FakeApi, pod: &str) -> Option<String> {
    api.get("pods", "default", pod)?["spec"]["nodeName"].as_str().map(str::to_owned)
}

fn condition(api: &FakeApi, pod: &str, kind: &str) -> Value {
    let pod = api.get("pods", "default", pod).unwrap_or_default();
    pod["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

fn events(api: &FakeApi, pod: &str, reason: &str) -> Vec<String> {
    let all: Vec<Event> = api.all("events");
    let about = all.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(pod) && e.reason.as_deref() == Some(reason));
    about.filter_map(|e| e.message).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_pods_are_bound_and_told() {
    let api = FakeApi::new();
    for name in ["a", "b", "c"] {
        add_node(&api, name, "4");
    }
    for i in 0..30 {
        add_pod(&api, &format!("p{i}"), "100m", json!({}));
    }
    add_pod(&api, "foreign", "1", json!({ "schedulerName": "other" }));
    let _tasks = start(&api, None, &Verdicts::default()).await;
    until(&api, "all bound", || (0..30).all(|i| node_of(&api, &format!("p{i}")).is_some())).await;
    add_pod(&api, "late", "100m", json!({}));
    until(&api, "a later one too, with its event", || !events(&api, "late", "Scheduled").is_empty()).await;
    let node = node_of(&api, "late").unwrap();
    assert_eq!(events(&api, "late", "Scheduled"), [format!("Successfully assigned default/late to {node}")]);
    assert_eq!(node_of(&api, "foreign"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_room_says_why_and_is_bound_when_there_is() {
    let (api, verdicts) = (FakeApi::new(), Verdicts::default());
    add_node(&api, "small", "1");
    add_pod(&api, "big", "2", json!({}));
    let _tasks = start(&api, None, &verdicts).await;
    until(&api, "refused", || condition(&api, "big", "PodScheduled")["status"] == "False" && !events(&api, "big", "FailedScheduling").is_empty())
        .await;
    let text = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let told = condition(&api, "big", "PodScheduled");
    assert_eq!((told["reason"].as_str(), told["message"].as_str()), (Some("Unschedulable"), Some(text)));
    assert_eq!(events(&api, "big", "FailedScheduling"), [text]);
    let uid = api.get("pods", "default", "big").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(verdicts.get(&uid).unwrap().verdicts["small"].0, "NodeResourcesFit");
    add_node(&api, "large", "4");
    until(&api, "bound", || node_of(&api, "big").as_deref() == Some("large")).await;
    until(&api, "told", || !events(&api, "big", "Scheduled").is_empty()).await;
    assert!(verdicts.get(&uid).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_and_unanswered_bindings_end_in_one_binding() {
    for how in [Failure::Before, Failure::After] {
        let api = FakeApi::new();
        add_node(&api, "n", "1");
        add_pod(&api, "p", "1", json!({}));
        api.fail_writes(how, |number| number == 0);
        let _tasks = start(&api, None, &Verdicts::default()).await;
        until(&api, "bound after all", || node_of(&api, "p").as_deref() == Some("n")).await;
        // The room is counted once: a second pod finds none until the first is gone.
        add_pod(&api, "q", "1", json!({}));
        until(&api, "full", || condition(&api, "q", "PodScheduled")["status"] == "False").await;
        api.remove("pods", "default", "p");
        until(&api, "free again", || node_of(&api, "q").as_deref() == Some("n")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_higher_priority_makes_room_once() {
    let api = FakeApi::new();
    add_node(&api, "n", "2");
    for name in ["low-a", "low-b"] {
        add_pod(&api, name, "1", json!({ "nodeName": "n", "priority": 1 }));
    }
    add_pod(&api, "high", "1", json!({ "priority": 10 }));
    let _tasks = start(&api, None, &Verdicts::default()).await;
    until(&api, "nominated", || api.get("pods", "default", "high").unwrap()["status"]["nominatedNodeName"] == "n").await;
    let leaving = || {
        let pods: Vec<Pod> = api.all("pods");
        pods.into_iter().filter(|p| p.metadata.deletion_timestamp.is_some()).filter_map(|p| p.metadata.name).collect::<Vec<_>>()
    };
    until(&api, "a victim is leaving", || !leaving().is_empty()).await;
    // Whatever happens meanwhile, no second victim is chosen.
    add_node(&api, "useless", "500m");
    add_pod(&api, "probe", "100m", json!({ "nodeSelector": { "never": "true" } }));
    until(&api, "the probe was looked at", || condition(&api, "probe", "PodScheduled")["status"] == "False").await;
    let victims = leaving();
    assert_eq!(victims.len(), 1, "{victims:?}");
    assert_eq!(condition(&api, &victims[0], "DisruptionTarget")["reason"], "PreemptionByScheduler");
    until(&api, "told", || !events(&api, &victims[0], "Preempted").is_empty()).await;
    api.remove("pods", "default", &victims[0]);
    until(&api, "bound", || node_of(&api, "high").as_deref() == Some("n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_bound_when_its_claims_have_their_volumes() {
    let api = FakeApi::new();
    add_node(&api, "n", "2");
    api.insert(&json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "local" },
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer" }));
    let sizes = |kind: &str| json!({ kind: { "storage": "1Gi" } });
    api.insert(&json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "v" }, "status": { "phase": "Available" },
        "spec": { "storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": sizes("x")["x"], "local": { "path": "/d" } } }));
    api.insert(&json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "c" },
        "spec": { "storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": sizes("requests") } }));
    add_pod(&api, "p", "1", json!({ "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "c" } }] }));
    let _tasks = start(&api, None, &Verdicts::default()).await;
    until(&api, "promised", || api.get("persistentvolumes", "", "v").unwrap()["spec"]["claimRef"]["name"] == "c").await;
    // Another pod goes its way meanwhile.
    add_pod(&api, "q", "1", json!({}));
    until(&api, "the other is bound", || node_of(&api, "q").is_some()).await;
    assert_eq!(node_of(&api, "p"), None);
    // As the binder does.
    api.modify("persistentvolumeclaims", "default", "c", |c| {
        c["spec"]["volumeName"] = json!("v");
        c["metadata"]["annotations"] = json!({ "pv.kubernetes.io/bind-completed": "yes" });
    });
    until(&api, "bound", || node_of(&api, "p").as_deref() == Some("n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gated_pod_waits_for_its_gates() {
    let api = FakeApi::new();
    add_node(&api, "n", "2");
    add_pod(&api, "p", "1", json!({ "schedulingGates": [{ "name": "g" }] }));
    let _tasks = start(&api, None, &Verdicts::default()).await;
    until(&api, "told", || condition(&api, "p", "PodScheduled")["reason"] == "SchedulingGated").await;
    assert_eq!(node_of(&api, "p"), None);
    api.modify("pods", "default", "p", |pod| pod["spec"]["schedulingGates"] = json!([]));
    until(&api, "bound", || node_of(&api, "p").is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_scheduler_leads_and_another_follows_when_it_stops() {
    let api = FakeApi::new();
    add_node(&api, "n", "4");
    let holder = || api.get("coordination.k8s.io/leases", "kube-system", "kube-scheduler").unwrap_or_default()["spec"]["holderIdentity"].clone();
    let first = start(&api, Some("one"), &Verdicts::default()).await;
    until(&api, "the first leads", || holder() == "one").await;
    let _second = start(&api, Some("two"), &Verdicts::default()).await;
    add_pod(&api, "p", "1", json!({}));
    until(&api, "bound", || node_of(&api, "p").is_some()).await;
    assert_eq!(holder(), "one");
    first.shutdown(Duration::from_secs(5)).await;
    until(&api, "the second leads", || holder() == "two").await;
    add_pod(&api, "q", "1", json!({}));
    until(&api, "bound by the second", || node_of(&api, "q").is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_goes_on_at_once() {
    let api = FakeApi::new();
    add_node(&api, "n", "4");
    // As a killed process leaves it.
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let spec = json!({ "holderIdentity": "me", "leaseDurationSeconds": 15, "acquireTime": now, "renewTime": now, "leaseTransitions": 1 });
    api.insert(&json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "kube-scheduler", "namespace": "kube-system" }, "spec": spec }));
    add_pod(&api, "p", "1", json!({}));
    let begun = std::time::Instant::now();
    let _tasks = start(&api, Some("me"), &Verdicts::default()).await;
    until(&api, "bound", || node_of(&api, "p").is_some()).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let nodes: Vec<Node> = api.all("nodes");
    assert_eq!(nodes.len(), 1);
}

/// Prints how fast pods are bound; fails only when something is badly wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pods_are_bound_in_a_moment() {
    let api = FakeApi::new();
    for i in 0..20 {
        add_node(&api, &format!("n{i}"), "16");
    }
    for i in 0..1000 {
        add_pod(&api, &format!("p{i}"), "10m", json!({}));
    }
    let begun = std::time::Instant::now();
    let _tasks = start(&api, None, &Verdicts::default()).await;
    let all = || {
        let pods: Vec<Pod> = api.all("pods");
        pods.iter().all(|p| p.spec.as_ref().is_some_and(|s| s.node_name.is_some()))
    };
    // Looking at all pods after each write would take longer than binding them.
    until(&api, "the last is bound", || node_of(&api, "p999").is_some()).await;
    until(&api, "all are bound", all).await;
    println!("{:.0} bindings/s", 1000.0 / begun.elapsed().as_secs_f64());
}

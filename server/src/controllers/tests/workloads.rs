//! Deployments, ReplicaSets and ReplicationControllers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::controllers::deployment::revision::{REVISION, REVISION_HISTORY};
use crate::controllers::fake_api::Failure;

fn is_complete(api: &FakeApi, name: &str, replicas: i64) -> bool {
    let Some(d) = api.get("apps/deployments", "default", name) else { return false };
    let status = &d["status"];
    status["observedGeneration"] == d["metadata"]["generation"]
        && status["updatedReplicas"].as_i64().unwrap_or_default() == replicas
        && status["replicas"].as_i64().unwrap_or_default() == replicas
        && status["availableReplicas"].as_i64().unwrap_or_default() == replicas
        && api.all::<Value>("pods").len() as i64 == replicas
}

fn reason(d: &Deployment, type_: &str) -> String {
    let conditions = d.status.as_ref().unwrap().conditions.clone().unwrap_or_default();
    conditions.into_iter().find(|c| c.type_ == type_).map(|c| c.reason.unwrap()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_deployment_gets_its_pods_and_says_so() {
    let world = World::new();
    world.api.insert(&deployment("web", 3, "nginx:1"));
    world.until("complete", |api| is_complete(api, "web", 3)).await;
    world.settle().await;
    let (d, sets) = (world.deployment("web"), world.sets());
    assert_eq!((reason(&d, "Progressing").as_str(), reason(&d, "Available").as_str()), ("NewReplicaSetAvailable", "MinimumReplicasAvailable"));
    assert_eq!(d.metadata.annotations.as_ref().unwrap()[REVISION], "1");
    assert_eq!(sets.len(), 1);
    let hash = &sets[0].metadata.labels.as_ref().unwrap()["pod-template-hash"];
    assert_eq!(sets[0].metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
    assert!(world.pods().iter().all(|p| &p.metadata.labels.as_ref().unwrap()["pod-template-hash"] == hash));
    let events: Vec<Value> = world.api.all("events");
    let said = |text: &str| events.iter().any(|e| e["message"].as_str().unwrap().contains(text));
    assert!(said(&format!("Scaled up replica set web-{hash} from 0 to 3")) && said("Created pod: web-"));
    // At rest nothing is written.
    let before = world.api.writes();
    world.settle().await;
    assert_eq!(world.api.writes(), before);
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_keeps_within_its_limits_and_a_rollback_reuses_the_old_set() {
    let world = World::new();
    world.api.insert(&deployment("web", 6, "nginx:1"));
    world.until("complete", |api| is_complete(api, "web", 6)).await;
    let most = Arc::new(AtomicUsize::new(0));
    let fewest = Arc::new(AtomicUsize::new(usize::MAX));
    let (api, high, low) = (world.api.clone(), most.clone(), fewest.clone());
    world.tasks.spawn("observer", async move {
        let mut written = api.written();
        while written.changed().await.is_ok() {
            let pods: Vec<Pod> = api.all("pods");
            let active: Vec<_> = pods.iter().filter(|p| pods::is_active(p)).collect();
            high.fetch_max(active.len(), Ordering::SeqCst);
            low.fetch_min(active.iter().filter(|p| pods::is_ready(p)).count(), Ordering::SeqCst);
        }
    });
    world.api.modify("apps/deployments", "default", "web", |d| {
        d["spec"]["template"] = template("web", "nginx:2");
        d["metadata"]["generation"] = json!(2);
        d["metadata"]["annotations"]["kubernetes.io/change-cause"] = json!("newer");
    });
    world.until("rolled out", |api| is_complete(api, "web", 6) && images(&api.all("pods")).iter().all(|i| i == "nginx:2")).await;
    assert!(most.load(Ordering::SeqCst) <= 7, "{most:?}");
    assert!(fewest.load(Ordering::SeqCst) >= 5, "{fewest:?}");
    assert_eq!(world.deployment("web").metadata.annotations.unwrap()[REVISION], "2");
    assert_eq!(world.sets().len(), 2);
    world.api.modify("apps/deployments", "default", "web", |d| {
        d["spec"]["template"] = template("web", "nginx:1");
        d["metadata"]["generation"] = json!(3);
    });
    world.until("rolled back", |api| is_complete(api, "web", 6) && images(&api.all("pods")).iter().all(|i| i == "nginx:1")).await;
    world.settle().await;
    let sets = world.sets();
    assert_eq!(sets.len(), 2);
    let current = sets.iter().find(|s| s.spec.as_ref().unwrap().replicas == Some(6)).unwrap().metadata.annotations.clone().unwrap();
    assert_eq!((current[REVISION].as_str(), current[REVISION_HISTORY].as_str()), ("3", "1"));
    let other = sets.iter().find(|s| s.spec.as_ref().unwrap().replicas == Some(0)).unwrap().metadata.annotations.clone().unwrap();
    assert_eq!(other["kubernetes.io/change-cause"], "newer");
}

#[tokio::test(start_paused = true)]
async fn old_sets_beyond_the_history_limit_go() {
    let world = World::new();
    world.api.insert(&deployment("web", 1, "nginx:1"));
    for generation in 2..7 {
        world.until("complete", |api| is_complete(api, "web", 1)).await;
        world.api.modify("apps/deployments", "default", "web", |d| {
            d["spec"]["template"] = template("web", &format!("nginx:{generation}"));
            d["metadata"]["generation"] = json!(generation);
        });
        world.until("rolled out", |api| images(&api.all("pods")) == [format!("nginx:{generation}")]).await;
    }
    world.until("cleaned up", |api| api.all::<Value>("apps/replicasets").len() == 3).await;
    world.settle().await;
    assert_eq!(world.sets().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn recreate_ends_every_old_pod_before_the_first_new_one() {
    let world = World::new();
    let mut d = deployment("web", 3, "nginx:1");
    d["spec"]["strategy"] = json!({ "type": "Recreate" });
    world.api.insert(&d);
    world.until("complete", |api| is_complete(api, "web", 3)).await;
    let mixed = Arc::new(AtomicUsize::new(0));
    let (api, count) = (world.api.clone(), mixed.clone());
    world.tasks.spawn("observer", async move {
        let mut written = api.written();
        while written.changed().await.is_ok() {
            let images = images(&api.all("pods"));
            if images.iter().any(|i| i == "nginx:1") && images.iter().any(|i| i == "nginx:2") {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    world.api.modify("apps/deployments", "default", "web", |d| {
        d["spec"]["template"] = template("web", "nginx:2");
        d["metadata"]["generation"] = json!(2);
    });
    world.until("rolled out", |api| is_complete(api, "web", 3) && images(&api.all("pods")).iter().all(|i| i == "nginx:2")).await;
    assert_eq!(mixed.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let world = World::new();
    world.api.insert(&deployment("web", 2, "nginx:1"));
    world.until("complete", |api| is_complete(api, "web", 2)).await;
    world.api.modify("apps/deployments", "default", "web", |d| {
        d["spec"]["template"] = template("web", "nginx:2");
        d["spec"]["paused"] = json!(true);
        d["spec"]["replicas"] = json!(4);
        d["metadata"]["generation"] = json!(2);
    });
    world.until("scaled", |api| api.all::<Value>("pods").len() == 4).await;
    world.settle().await;
    assert!(images(&world.pods()).iter().all(|i| i == "nginx:1"));
    assert_eq!(reason(&world.deployment("web"), "Progressing"), "DeploymentPaused");
    world.api.modify("apps/deployments", "default", "web", |d| {
        d["spec"]["paused"] = json!(false);
        d["metadata"]["generation"] = json!(3);
    });
    world.until("rolled out", |api| is_complete(api, "web", 4) && images(&api.all("pods")).iter().all(|i| i == "nginx:2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_stands_still_is_called_out_at_its_deadline() {
    let world = World::new();
    let mut d = deployment("web", 2, "nginx:1");
    d["spec"]["progressDeadlineSeconds"] = json!(60);
    d["spec"]["template"]["metadata"]["annotations"] = json!({ "test/frozen": "yes" });
    world.api.insert(&d);
    world
        .until("timed out", |api| {
            let d = api.get("apps/deployments", "default", "web").unwrap_or_default();
            d["status"]["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["reason"] == "ProgressDeadlineExceeded"))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_lagging_watch_never_leads_to_more_pods_than_replicas() {
    let world = World::new();
    world.api.insert(&json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "rs", "namespace": "default" },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "rs" } }, "template": template("rs", "nginx") },
    }));
    world.until("all there", |api| api.all::<Value>("pods").len() == 3).await;
    world.settle().await;
    let most = Arc::new(AtomicUsize::new(0));
    let (api, high) = (world.api.clone(), most.clone());
    world.tasks.spawn("observer", async move {
        let mut written = api.written();
        while written.changed().await.is_ok() {
            high.fetch_max(api.all::<Value>("pods").len(), Ordering::SeqCst);
        }
    });
    world.api.hold_watches("pods");
    for replicas in [6, 7, 7, 7, 7] {
        // Each change of the set makes the controller look again, at pods that are out of date.
        world.api.modify("apps/replicasets", "default", "rs", |s| {
            s["spec"]["replicas"] = json!(replicas);
            s["metadata"]["labels"] = json!({ "touched": format!("{}", super::super::control::generate_name("t")) });
        });
        world.settle().await;
    }
    assert_eq!(world.pods().len(), 6, "three were made, and nothing more before they were seen");
    world.api.release_watches();
    world.until("all there", |api| api.all::<Value>("pods").len() == 7).await;
    world.settle().await;
    assert_eq!((world.pods().len(), most.load(Ordering::SeqCst)), (7, 7));
}

/// What the end state is made of, whatever happened on the way.
fn end_state(world: &World) -> (Vec<String>, Vec<i32>, Value) {
    let mut sizes: Vec<i32> = world.sets().iter().map(|s| s.spec.as_ref().unwrap().replicas.unwrap()).collect();
    sizes.sort();
    let status = serde_json::to_value(world.deployment("web").status).unwrap();
    (images(&world.pods()), sizes, json!([status["replicas"], status["availableReplicas"], status["updatedReplicas"]]))
}

async fn rollout_with(trouble: impl Fn(&mut World) -> Option<usize>) -> bool {
    let mut world = World::with(only(&["deployment-controller", "replicaset-controller"]));
    world.api.insert(&deployment("web", 3, "nginx:1"));
    world.until("complete", |api| is_complete(api, "web", 3)).await;
    world.settle().await;
    let crash_at = trouble(&mut world);
    world.api.modify("apps/deployments", "default", "web", |d| {
        d["spec"]["template"] = template("web", "nginx:2");
        d["metadata"]["generation"] = json!(2);
    });
    let mut crashed = crash_at.is_none();
    if let Some(at) = crash_at {
        let mut written = world.api.written();
        while tokio::time::timeout(Duration::from_secs(5), written.changed()).await.is_ok() {
            if world.api.writes() >= at {
                world.api.stop_failing();
                world.crash();
                crashed = true;
                break;
            }
        }
        world.api.stop_failing();
    }
    world.until("rolled out", |api| is_complete(api, "web", 3) && images(&api.all("pods")).iter().all(|i| i == "nginx:2")).await;
    world.settle().await;
    assert_eq!(end_state(&world), (vec!["nginx:2".to_owned(); 3], vec![0, 3], json!([3, 3, 3])));
    crashed
}

#[tokio::test(start_paused = true)]
async fn a_rollout_ends_the_same_whichever_write_fails() {
    for how in [Failure::Before, Failure::After] {
        for nth in 1..40 {
            rollout_with(|world| {
                world.api.fail_writes(how, move |n| n == nth);
                None
            })
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollout_ends_the_same_when_every_third_write_gets_no_answer() {
    rollout_with(|world| {
        world.api.fail_writes(Failure::After, |n| n % 3 == 0);
        None
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_rollout_ends_the_same_after_a_crash_between_any_two_writes() {
    for at in 1..40 {
        // Nothing of the old process gets through after its last write.
        let crashed = rollout_with(|world| {
            world.api.fail_writes(Failure::Before, move |n| n >= at);
            Some(at)
        })
        .await;
        if !crashed {
            assert!(at > 5, "the rollout takes at least some writes");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn matching_orphans_are_adopted_and_strangers_released() {
    let world = World::new();
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "orphan", "labels": { "app": "rc" } },
        "spec": { "containers": [{ "name": "c", "image": "x" }] } }));
    world.api.insert(&json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "rc", "namespace": "default" },
        "spec": { "replicas": 2, "selector": { "app": "rc" }, "template": template("rc", "nginx") },
    }));
    world
        .until("adopted", |api| {
            api.get("pods", "default", "orphan").is_some_and(|p| p["metadata"]["ownerReferences"][0]["kind"] == "ReplicationController")
        })
        .await;
    world.until("one more", |api| api.all::<Value>("pods").len() == 2).await;
    world.api.modify("pods", "default", "orphan", |p| p["metadata"]["labels"] = json!({ "app": "other" }));
    world
        .until("released", |api| {
            api.get("pods", "default", "orphan").is_some_and(|p| p["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty))
        })
        .await;
    world.until("replaced", |api| api.all::<Value>("pods").len() == 3).await;
    world.settle().await;
    let rc = world.api.get("replicationcontrollers", "default", "rc").unwrap();
    assert_eq!((rc["status"]["replicas"].clone(), rc["status"]["availableReplicas"].clone()), (json!(2), json!(2)));
}

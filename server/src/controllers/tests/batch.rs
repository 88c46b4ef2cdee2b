//! Jobs, CronJobs, DaemonSets, StatefulSets and budgets.

use serde_json::{Value, json};

use super::*;
use crate::controllers::fake_api::Failure;

fn job(name: &str, spec: Value, outcome: &str) -> Value {
    let mut full = spec;
    full["selector"] = json!({ "matchLabels": { "job-name": name } });
    full["template"] = template(name, "x");
    full["template"]["metadata"] = json!({ "labels": { "job-name": name }, "annotations": { "test/outcome": outcome } });
    full["template"]["spec"]["restartPolicy"] = json!("Never");
    json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name, "namespace": "default" }, "spec": full })
}

fn status(api: &FakeApi, resource: &str, name: &str) -> Value {
    api.get(resource, "default", name).unwrap_or_default()["status"].clone()
}

fn ended(api: &FakeApi, name: &str) -> Option<String> {
    let status = status(api, "batch/jobs", name);
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions
        .iter()
        .find(|c| c["type"] == "Complete" || c["type"] == "Failed")
        .map(|c| format!("{} {}", c["type"].as_str().unwrap(), c["reason"].as_str().unwrap()))
}

fn finalizers(api: &FakeApi) -> usize {
    api.all::<Pod>("pods").iter().filter(|p| p.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty())).count()
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_until_enough_pods_have_succeeded() {
    let world = World::new();
    world.api.insert(&job("sum", json!({ "parallelism": 2, "completions": 5, "backoffLimit": 6 }), "Succeeded"));
    world.until("complete", |api| ended(api, "sum").as_deref() == Some("Complete CompletionsReached")).await;
    world.settle().await;
    let status = status(&world.api, "batch/jobs", "sum");
    assert_eq!((&status["succeeded"], &status["failed"], &status["active"]), (&json!(5), &Value::Null, &Value::Null));
    assert!(status["completionTime"].is_string() && status["startTime"].is_string());
    assert_eq!((world.pods().len(), finalizers(&world.api)), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_serves_every_index_once() {
    let world = World::new();
    world.api.insert(&job("idx", json!({ "parallelism": 3, "completions": 6, "backoffLimit": 6, "completionMode": "Indexed" }), "Succeeded"));
    world.until("complete", |api| ended(api, "idx").as_deref() == Some("Complete CompletionsReached")).await;
    let status = status(&world.api, "batch/jobs", "idx");
    assert_eq!((&status["succeeded"], &status["completedIndexes"]), (&json!(6), &json!("0-5")));
    let mut hosts: Vec<_> = world.pods().iter().map(|p| p.spec.as_ref().unwrap().hostname.clone().unwrap()).collect();
    hosts.sort();
    assert_eq!(hosts, (0..6).map(|i| format!("idx-{i}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_failing_job_is_tried_again_with_growing_pauses_and_given_up() {
    let world = World::new();
    let start = tokio::time::Instant::now();
    world.api.insert(&job("bad", json!({ "parallelism": 1, "completions": 1, "backoffLimit": 3 }), "Failed"));
    world.until("failed", |api| ended(api, "bad").is_some()).await;
    // 10 + 20 + 40 seconds between four tries.
    assert!((65..80).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(ended(&world.api, "bad").unwrap(), "Failed BackoffLimitExceeded");
    world.settle().await;
    assert_eq!(status(&world.api, "batch/jobs", "bad")["failed"], 4);
    assert_eq!((world.pods().len(), finalizers(&world.api)), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn each_index_may_fail_so_often() {
    let world = World::new();
    let spec = json!({ "parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1 });
    world.api.insert(&job("per", spec, "Failed"));
    world.until("failed", |api| ended(api, "per").is_some()).await;
    assert_eq!(ended(&world.api, "per").unwrap(), "Failed FailedIndexes");
    let status = status(&world.api, "batch/jobs", "per");
    assert_eq!((&status["failedIndexes"], world.pods().len()), (&json!("0,1"), 4));
}

#[tokio::test(start_paused = true)]
async fn a_job_past_its_deadline_is_stopped_and_a_finished_one_goes_when_its_time_is_up() {
    let world = World::new();
    world.api.insert(&job(
        "slow",
        json!({ "parallelism": 2, "completions": 2, "backoffLimit": 6, "activeDeadlineSeconds": 30, "ttlSecondsAfterFinished": 60 }),
        "Running",
    ));
    world.until("failed", |api| ended(api, "slow").as_deref() == Some("Failed DeadlineExceeded")).await;
    world.until("stopped", |api| api.all::<Value>("pods").is_empty()).await;
    let at = tokio::time::Instant::now();
    world.until("gone", |api| api.all::<Value>("batch/jobs").is_empty()).await;
    assert!((55..70).contains(&at.elapsed().as_secs()), "{:?}", at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_has_no_pods_until_it_is_resumed() {
    let world = World::new();
    world.api.insert(&job("later", json!({ "parallelism": 1, "completions": 1, "backoffLimit": 6, "suspend": true }), "Succeeded"));
    world.settle().await;
    assert!(world.pods().is_empty());
    assert_eq!(status(&world.api, "batch/jobs", "later")["conditions"][0]["type"], "Suspended");
    world.api.modify("batch/jobs", "default", "later", |j| j["spec"]["suspend"] = json!(false));
    world.until("complete", |api| ended(api, "later").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn pods_the_controller_takes_away_itself_are_no_failures() {
    let world = World::new();
    world.api.insert(&job("shrink", json!({ "parallelism": 3, "completions": 9, "backoffLimit": 0 }), "Running"));
    world.until("three", |api| status(api, "batch/jobs", "shrink")["active"] == 3).await;
    world.settle().await;
    world.api.modify("batch/jobs", "default", "shrink", |j| j["spec"]["parallelism"] = json!(1));
    world.until("one", |api| api.all::<Value>("pods").len() == 1).await;
    world.api.modify("batch/jobs", "default", "shrink", |j| j["spec"]["suspend"] = json!(true));
    world.until("none", |api| api.all::<Value>("pods").is_empty()).await;
    world.settle().await;
    assert_eq!((ended(&world.api, "shrink"), &status(&world.api, "batch/jobs", "shrink")["failed"]), (None, &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn orphaned_pods_of_a_job_are_held_no_longer() {
    let world = World::new();
    world.api.insert(&job("left", json!({ "parallelism": 2, "completions": 2, "backoffLimit": 6 }), "Running"));
    world.until("two", |api| status(api, "batch/jobs", "left")["active"] == 2).await;
    let jobs: kube::Api<k8s_openapi::api::batch::v1::Job> = kube::Api::namespaced(world.api.client(), "default");
    jobs.delete("left", &kube::api::DeleteParams::orphan()).await.unwrap();
    world.until("gone", |api| api.get("batch/jobs", "default", "left").is_none()).await;
    world.until("free", |api| finalizers(api) == 0).await;
    world.settle().await;
    assert_eq!(world.pods().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_job_counts_every_pod_once_whichever_write_fails_and_whenever_it_crashes() {
    for how in [Failure::Before, Failure::After] {
        for nth in 1..16 {
            let mut world = World::with(only(&["job-controller"]));
            world.api.fail_writes(how, move |n| n == nth);
            world.api.insert(&job("sum", json!({ "parallelism": 2, "completions": 3, "backoffLimit": 6 }), "Succeeded"));
            let mut written = world.api.written();
            while world.api.writes() < nth && ended(&world.api, "sum").is_none() {
                written.changed().await.unwrap();
            }
            if nth % 2 == 0 {
                world.crash();
            }
            world.until("complete", |api| ended(api, "sum").is_some()).await;
            world.settle().await;
            let status = status(&world.api, "batch/jobs", "sum");
            let pods = world.pods().len();
            assert_eq!((&status["succeeded"], finalizers(&world.api)), (&json!(pods), 0), "{how:?} {nth}");
            assert_eq!(pods, 3, "{how:?} {nth}: {:#?}", world.api.history());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_makes_a_job_each_minute_and_keeps_a_few() {
    let world = World::new();
    let template = job("any", json!({ "parallelism": 1, "completions": 1, "backoffLimit": 0 }), "Succeeded")["spec"].clone();
    let mut template = template;
    template["selector"] = Value::Null;
    world.api.insert(&json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "tick" },
        "spec": { "schedule": "* * * * *", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1, "jobTemplate": { "spec": template } } }));
    let ticks = |api: &FakeApi| api.all::<Value>("events").iter().filter(|e| e["message"].as_str().unwrap().starts_with("Created job tick-")).count();
    world.until("one job", |api| ticks(api) == 1).await;
    // Without a selector, which the API server would make, the job has no pods to find; it is ended by hand.
    let first = world.api.all::<Value>("batch/jobs").remove(0);
    world.api.modify("batch/jobs", "default", first["metadata"]["name"].as_str().unwrap(), |j| {
        j["status"]["conditions"] = json!([{ "type": "Complete", "status": "True" }]);
        j["status"]["completionTime"] = json!(crate::controllers::now());
    });
    let start = tokio::time::Instant::now();
    world.until("another", |api| ticks(api) == 2).await;
    assert!(start.elapsed().as_secs() <= 61);
    world.until("noted", |api| status(api, "batch/cronjobs", "tick")["active"].as_array().is_some_and(|a| a.len() == 1)).await;
    assert!(status(&world.api, "batch/cronjobs", "tick")["lastSuccessfulTime"].is_string());
    // The second one still runs, so there is no third. The list of active jobs lags behind the jobs, which surprises nobody.
    tokio::time::sleep_until(start + Duration::from_secs(300)).await;
    assert!(world.api.all::<Value>("events").iter().all(|e| e["reason"] != "UnexpectedJob"));
    assert_eq!(ticks(&world.api), 2);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_runs_on_every_node_it_matches_and_follows_changes() {
    let world = World::new();
    for name in ["n2", "n3"] {
        world.api.insert(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": { "disk": "ssd" } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }));
    }
    let mut template = template("log", "x:1");
    template["spec"]["nodeSelector"] = json!({ "disk": "ssd" });
    world.api.insert(&json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "log", "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": "log" } }, "template": template, "revisionHistoryLimit": 10,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } } } }));
    bind(&world);
    let on = |api: &FakeApi| -> Vec<String> {
        let mut nodes: Vec<String> = api.all::<Pod>("pods").iter().filter(|p| pods::is_ready(p)).map(|p| pods::node_name(p).to_owned()).collect();
        nodes.sort();
        nodes
    };
    world.until("both", |api| on(api) == ["n2", "n3"]).await;
    world.until("said", |api| status(api, "apps/daemonsets", "log")["numberAvailable"] == 2).await;
    world.api.modify("nodes", "", "n1", |n| n["metadata"]["labels"] = json!({ "disk": "ssd" }));
    world.until("the new one", |api| on(api) == ["n1", "n2", "n3"]).await;
    world.api.modify("nodes", "", "n2", |n| n["metadata"]["labels"] = json!({}));
    world.until("the lost one", |api| on(api) == ["n1", "n3"]).await;
    world.api.modify("apps/daemonsets", "default", "log", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x:2");
        d["metadata"]["generation"] = json!(2);
    });
    world.until("rolled", |api| on(api) == ["n1", "n3"] && images(&api.all("pods")).iter().all(|i| i == "x:2")).await;
    world.settle().await;
    let status = status(&world.api, "apps/daemonsets", "log");
    assert_eq!(
        (&status["updatedNumberScheduled"], &status["desiredNumberScheduled"], &status["observedGeneration"]),
        (&json!(2), &json!(2), &json!(2))
    );
    assert_eq!(world.api.all::<Value>("apps/controllerrevisions").len(), 2);
}

/// Binds pods that are pinned to a node, as the scheduler does.
fn bind(world: &World) {
    let (api, informers) = (world.api.clone(), Informers::new(world.api.client(), world.tasks.clone()));
    world.tasks.spawn("scheduler", async move {
        let mut changes = informers.get::<Pod>().subscribe();
        while let Some(change) = changes.recv().await {
            let pod = change.object();
            let wanted = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
            let terms = wanted.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()).map(|r| &r.node_selector_terms[0]);
            if let Some(node) = terms.and_then(|t| t.match_fields.as_ref()).and_then(|f| f[0].values.as_ref()).map(|v| v[0].clone()) {
                api.modify("pods", "default", pods::name(pod), |p| p["spec"]["nodeName"] = json!(node));
            }
        }
    });
}

fn stateful(replicas: i32, image: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "db", "namespace": "default" },
        "spec": { "serviceName": "db", "replicas": replicas, "selector": { "matchLabels": { "app": "db" } }, "template": template("db", image),
            "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } }] } })
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_grows_in_order_shrinks_in_reverse_and_rolls_from_the_top() {
    let world = World::new();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (api, seen) = (world.api.clone(), order.clone());
    world.tasks.spawn("observer", async move {
        let mut written = api.written();
        let mut before: Vec<String> = Vec::new();
        while written.changed().await.is_ok() {
            let now: Vec<String> = api.all::<Pod>("pods").iter().map(|p| pods::name(p).to_owned()).collect();
            seen.lock().extend(now.iter().filter(|n| !before.contains(n)).map(|n| format!("+{n}")));
            seen.lock().extend(before.iter().filter(|n| !now.contains(n)).map(|n| format!("-{n}")));
            before = now;
        }
    });
    world.api.insert(&stateful(3, "x:1"));
    world.until("three", |api| status(api, "apps/statefulsets", "db")["availableReplicas"] == 3).await;
    world.settle().await;
    assert_eq!(std::mem::take(&mut *order.lock()), ["+db-0", "+db-1", "+db-2"]);
    let claims: Vec<String> =
        world.api.all::<Value>("persistentvolumeclaims").iter().map(|c| c["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(claims, ["data-db-0", "data-db-1", "data-db-2"]);
    world.api.modify("apps/statefulsets", "default", "db", |s| {
        s["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x:2");
        s["metadata"]["generation"] = json!(2);
    });
    world
        .until("rolled", |api| {
            let status = status(api, "apps/statefulsets", "db");
            status["currentRevision"] == status["updateRevision"]
                && status["updatedReplicas"] == 3
                && images(&api.all("pods")).iter().all(|i| i == "x:2")
        })
        .await;
    world.settle().await;
    assert_eq!(std::mem::take(&mut *order.lock()), ["-db-2", "+db-2", "-db-1", "+db-1", "-db-0", "+db-0"]);
    world.api.modify("apps/statefulsets", "default", "db", |s| s["spec"]["replicas"] = json!(1));
    world.until("one", |api| api.all::<Value>("pods").len() == 1).await;
    world.settle().await;
    assert_eq!(std::mem::take(&mut *order.lock()), ["-db-2", "-db-1"]);
    assert_eq!(world.api.all::<Value>("persistentvolumeclaims").len(), 3, "claims are kept");
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_takes_no_pod_that_has_not_its_name() {
    let world = World::new();
    world.api.insert(
        &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "stranger", "labels": { "app": "db" } }, "spec": { "containers": [] } }),
    );
    world.api.insert(&stateful(1, "x:1"));
    world.until("one", |api| status(api, "apps/statefulsets", "db")["availableReplicas"] == 1).await;
    world.settle().await;
    assert_eq!(world.api.get("pods", "default", "stranger").unwrap()["metadata"]["ownerReferences"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn in_parallel_a_finished_pod_holds_up_no_other_and_a_rollout_keeps_to_its_limit() {
    let world = World::new();
    let mut set = stateful(3, "x:1");
    set["spec"]["podManagementPolicy"] = json!("Parallel");
    world.api.insert(&set);
    world.until("three", |api| status(api, "apps/statefulsets", "db")["availableReplicas"] == 3).await;
    world.settle().await;
    // The first has failed and takes its time to go; the last is gone for good and must come back meanwhile.
    world.api.modify("pods", "default", "db-0", |p| {
        p["metadata"]["finalizers"] = json!(["test/hold"]);
        p["status"]["phase"] = json!("Failed");
    });
    world.api.remove("pods", "default", "db-2");
    world.until("back", |api| api.get("pods", "default", "db-2").is_some_and(|p| p["status"]["phase"] == "Running")).await;
    world.api.remove("pods", "default", "db-0");
    world.until("all", |api| status(api, "apps/statefulsets", "db")["availableReplicas"] == 3).await;
    world.settle().await;
    let (api, fewest) = (world.api.clone(), Arc::new(std::sync::atomic::AtomicUsize::new(3)));
    let seen = fewest.clone();
    world.tasks.spawn("observer", async move {
        let mut written = api.written();
        while written.changed().await.is_ok() {
            let ready = api.all::<Pod>("pods").iter().filter(|p| pods::is_ready(p) && !pods::is_terminating(p)).count();
            seen.fetch_min(ready, std::sync::atomic::Ordering::SeqCst);
        }
    });
    world.api.modify("apps/statefulsets", "default", "db", |s| s["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x:2"));
    world.until("rolled", |api| images(&api.all("pods")) == ["x:2", "x:2", "x:2"]).await;
    assert_eq!(fewest.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn claims_that_go_with_their_set_belong_to_it_from_the_start() {
    let world = World::with(only(&["statefulset-controller"]));
    let mut set = stateful(1, "x:1");
    set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({ "whenDeleted": "Delete", "whenScaled": "Retain" });
    set["spec"]["template"]["metadata"]["annotations"] = json!({ "test/frozen": "yes" });
    world.api.insert(&set);
    world.until("claimed", |api| !api.all::<Value>("persistentvolumeclaims").is_empty()).await;
    let owners = world.api.all::<Value>("persistentvolumeclaims")[0]["metadata"]["ownerReferences"].clone();
    assert_eq!((&owners[0]["kind"], &owners[0]["name"]), (&json!("StatefulSet"), &json!("db")));
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_ends_the_same_whichever_write_fails() {
    for how in [Failure::Before, Failure::After] {
        for nth in 1..20 {
            let world = World::with(only(&["statefulset-controller"]));
            world.api.fail_writes(how, move |n| n == nth);
            world.api.insert(&stateful(2, "x:1"));
            world.until("two", |api| status(api, "apps/statefulsets", "db")["availableReplicas"] == 2).await;
            world.api.modify("apps/statefulsets", "default", "db", |s| s["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x:2"));
            world
                .until("rolled", |api| images(&api.all("pods")) == ["x:2", "x:2"] && status(api, "apps/statefulsets", "db")["updatedReplicas"] == 2)
                .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_allows_what_the_deployment_can_spare() {
    let world = World::new();
    world.api.insert(&json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "b" },
        "spec": { "maxUnavailable": "50%", "selector": { "matchLabels": { "app": "web" } } } }));
    world.api.insert(&deployment("web", 4, "x"));
    let allowed = |api: &FakeApi, expected: i64, allowed: i64| {
        let status = status(api, "policy/poddisruptionbudgets", "b");
        status["expectedPods"] == expected && status["disruptionsAllowed"] == allowed
    };
    world.until("two of four", |api| allowed(api, 4, 2)).await;
    let name = pods::name(&world.pods()[0]).to_owned();
    world.api.modify("pods", "default", &name, |p| p["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]));
    world.until("one of four", |api| allowed(api, 4, 1)).await;
}

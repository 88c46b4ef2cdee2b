//! Services, quotas, leadership.

use serde_json::{Value, json};

use super::*;
use crate::controllers::leader::Election;

#[tokio::test(start_paused = true)]
async fn endpoints_follow_the_readiness_of_pods() {
    let world = World::new();
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "labels": { "team": "a" } },
        "spec": { "selector": { "app": "web" }, "clusterIP": "10.96.0.5", "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } }));
    world.until("placeholder", |api| api.all::<Value>("discovery.k8s.io/endpointslices").len() == 1).await;
    world.api.insert(&deployment("web", 2, "nginx:1"));
    let ready = |api: &FakeApi| -> Vec<bool> {
        let slices: Vec<Value> = api.all("discovery.k8s.io/endpointslices");
        slices.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default()).map(|e| e["conditions"]["ready"] == true).collect()
    };
    world.until("both ready", |api| ready(api) == [true, true]).await;
    let slice = &world.api.all::<Value>("discovery.k8s.io/endpointslices")[0];
    assert_eq!(slice["ports"], json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]));
    assert_eq!((&slice["metadata"]["labels"]["kubernetes.io/service-name"], &slice["metadata"]["labels"]["team"]), (&json!("web"), &json!("a")));
    assert_eq!(slice["endpoints"][0]["nodeName"], "n1");
    world
        .until("endpoints too", |api| {
            api.get("endpoints", "default", "web").is_some_and(|e| e["subsets"][0]["addresses"].as_array().is_some_and(|a| !a.is_empty()))
        })
        .await;
    let name = pods::name(&world.pods()[0]).to_owned();
    world.api.modify("pods", "default", &name, |p| p["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]));
    world.until("one not ready", |api| ready(api).iter().filter(|r| **r).count() == 1).await;
    world.settle().await;
    assert_eq!(world.api.all::<Value>("discovery.k8s.io/endpointslices").len(), 1);
    world.api.remove("services", "default", "web");
    world
        .until("all gone", |api| api.all::<Value>("discovery.k8s.io/endpointslices").is_empty() && api.get("endpoints", "default", "web").is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_users_make_stay_and_leftovers_of_the_controller_go() {
    let mut world = World::new();
    let endpoints = |name: &str, labels: Value| {
        json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": name, "labels": labels },
            "subsets": [{ "addresses": [{ "ip": "10.0.0.24" }], "ports": [{ "port": 80 }] }] })
    };
    world.api.insert(&endpoints("mine", json!({ "test": "yes" })));
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "plain" }, "spec": { "ports": [{ "port": 80 }] } }));
    world.api.insert(&endpoints("plain", json!({})));
    world.settle().await;
    world.api.modify("endpoints", "default", "mine", |e| e["metadata"]["labels"]["test"] = json!("updated"));
    world.settle().await;
    assert!(world.api.get("endpoints", "default", "mine").is_some() && world.api.get("endpoints", "default", "plain").is_some());
    world.api.remove("services", "default", "plain");
    world.until("gone with their Service", |api| api.get("endpoints", "default", "plain").is_none()).await;
    world.api.insert(&endpoints("left", json!({ "endpoints.kubernetes.io/managed-by": "endpoint-controller" })));
    world.crash();
    world.until("collected at the start", |api| api.get("endpoints", "default", "left").is_none()).await;
    assert!(world.api.get("endpoints", "default", "mine").is_some());
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_a_service_without_a_selector_are_mirrored() {
    let world = World::new();
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "ext" }, "spec": { "ports": [{ "port": 80 }] } }));
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "ext" },
        "subsets": [{ "addresses": [{ "ip": "10.1.2.3" }], "ports": [{ "name": "http", "port": 80 }] }] }));
    let mirrored = |api: &FakeApi| -> Vec<String> {
        let slices: Vec<Value> = api.all("discovery.k8s.io/endpointslices");
        slices
            .iter()
            .flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default())
            .map(|e| e["addresses"][0].as_str().unwrap().to_owned())
            .collect()
    };
    world.until("mirrored", |api| mirrored(api) == ["10.1.2.3"]).await;
    let labels = &world.api.all::<Value>("discovery.k8s.io/endpointslices")[0]["metadata"]["labels"];
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslicemirroring-controller.k8s.io");
    assert_eq!(labels["kubernetes.io/service-name"], "ext");
    world.settle().await;
    world.api.modify("endpoints", "default", "ext", |e| e["subsets"][0]["addresses"] = json!([{ "ip": "10.2.3.4" }]));
    world.until("followed", |api| mirrored(api) == ["10.2.3.4"]).await;
    world.settle().await;
    world.api.remove("endpoints", "default", "ext");
    world.until("gone", |api| api.all::<Value>("discovery.k8s.io/endpointslices").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_gives_back_what_is_deleted() {
    let world = World::new();
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" },
        "spec": { "hard": { "pods": "10", "requests.cpu": "4", "count/deployments.apps": "3", "configmaps": "5" } } }));
    let pod = |name: &str| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "x", "resources": { "requests": { "cpu": "500m" } } }] } })
    };
    let used = |api: &FakeApi| api.get("resourcequotas", "default", "q").unwrap_or_default()["status"]["used"].clone();
    world.until("counted", |api| used(api) == json!({ "pods": "0", "requests.cpu": "0", "count/deployments.apps": "0", "configmaps": "1" })).await;
    for name in ["a", "b", "c"] {
        world.api.insert(&pod(name));
    }
    world.api.insert(&deployment("web", 0, "x"));
    world.settle().await;
    // The API server charges creations; the count is its business until something goes.
    world.api.remove("pods", "default", "a");
    world.until("recounted", |api| used(api)["pods"] == "2" && used(api)["requests.cpu"] == "1").await;
    world.api.modify("pods", "default", "b", |p| p["status"]["phase"] = json!("Succeeded"));
    world.until("a finished pod is free", |api| used(api)["pods"] == "1").await;
    assert_eq!(used(&world.api)["count/deployments.apps"], "1");
    // One that outlives its grace stops to count with no further sign.
    world.api.modify("pods", "default", "c", |p| {
        p["metadata"]["annotations"] = json!({ "test/frozen": "yes" });
        p["metadata"]["deletionTimestamp"] = json!(crate::controllers::now());
        p["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    });
    world.until("its time is up", |api| used(api)["pods"] == "0").await;
    world.api.modify("resourcequotas", "default", "q", |q| q["spec"]["hard"] = json!({ "pods": "20" }));
    world.until("new limits", |api| used(api) == json!({ "pods": "0" })).await;
    assert_eq!(world.api.get("resourcequotas", "default", "q").unwrap()["status"]["hard"], json!({ "pods": "20" }));
}

#[tokio::test(start_paused = true)]
async fn a_quota_written_to_meanwhile_is_counted_again() {
    let world = World::new();
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "spec": { "hard": { "pods": "10" } } }));
    world.until("counted", |api| api.get("resourcequotas", "default", "q").is_some_and(|q| q["status"]["used"]["pods"] == "0")).await;
    // As admission does: the pod and its charge in one transaction, while the controllers' view of pods lags.
    world.api.hold_watches("pods");
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": [] } }));
    world.api.modify("resourcequotas", "default", "q", |q| q["status"]["used"]["pods"] = json!("1"));
    world.api.modify("resourcequotas", "default", "q", |q| q["spec"]["hard"]["pods"] = json!("11"));
    world.until("new limit", |api| api.get("resourcequotas", "default", "q").is_some_and(|q| q["status"]["hard"]["pods"] == "11")).await;
    world.settle().await;
    assert_eq!(world.api.get("resourcequotas", "default", "q").unwrap()["status"]["used"]["pods"], "1");
    world.api.release_watches();
}

#[tokio::test(start_paused = true)]
async fn only_one_of_two_holds_the_lease_and_the_other_takes_over() {
    let api = FakeApi::new();
    let election = |identity: &str| Election::new(api.client(), "kube-system", "kube-controller-manager", identity);
    let start = tokio::time::Instant::now();
    let first = election("a").acquire().await;
    assert_eq!(start.elapsed().as_secs(), 0);
    // Killed and started again: the same identity goes on at once.
    let first_again = election("a").acquire().await;
    assert_eq!(start.elapsed().as_secs(), 0);
    drop(first_again);
    let guarded = first.fence().guard(api.client());
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(guarded, "default");
    let map = |name: &str| serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    maps.create(&kube::api::PostParams::default(), &map("early")).await.unwrap();
    // Nobody renews it.
    drop(election("b").acquire().await);
    assert!((15..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(maps.create(&kube::api::PostParams::default(), &map("late")).await.is_err());
    assert!(api.get("configmaps", "default", "late").is_none());
    assert!(maps.get("early").await.is_ok());
    first.lost().await;
    let lease = api.get("coordination.k8s.io/leases", "kube-system", "kube-controller-manager").unwrap();
    assert_eq!((&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]), (&json!("b"), &json!(1)));
    // Given back, it is free at once.
    election("b").acquire().await.release().await;
    let before = tokio::time::Instant::now();
    drop(election("c").acquire().await);
    assert_eq!(before.elapsed().as_secs(), 0);
}

//! Nodes that come, fall silent and go.

use serde_json::{Value, json};

use super::*;

fn node(name: &str, ready: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "spec": { "taints": [{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }] },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] } })
}

/// Renews the leases of nodes for as long as the world stands.
fn renew(world: &World, names: &'static [&'static str]) {
    let api = world.api.clone();
    let lease =
        |name: &str| json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name, "namespace": "kube-node-lease" } });
    names.iter().for_each(|name| drop(api.insert(&lease(name))));
    world.tasks.spawn("leases", async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(10));
        let mut n = 0;
        loop {
            ticks.tick().await;
            n += 1;
            for name in names {
                api.modify("coordination.k8s.io/leases", "kube-node-lease", name, |l| {
                    l["spec"]["renewTime"] = json!(format!("2030-01-01T{:02}:{:02}:{:02}.000000Z", n / 3600, n / 60 % 60, n % 60));
                });
            }
        }
    });
}

fn taints(api: &FakeApi, name: &str) -> Vec<String> {
    let node = api.get("nodes", "", name).unwrap_or_default();
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().map(|t| format!("{}:{}", t["key"].as_str().unwrap().rsplit('/').next().unwrap(), t["effect"].as_str().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_becomes_unknown_and_loses_its_pods_and_the_others_stay() {
    let world = World::new();
    renew(&world, &["n1", "n2"]);
    world.api.insert(&node("n2", "True"));
    world.api.insert(&node("n3", "True"));
    world.until("taints of registration gone", |api| taints(api, "n2").is_empty() && taints(api, "n3").is_empty()).await;
    for (name, tolerations) in [
        ("patient", json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }])),
        ("stoic", json!([{ "operator": "Exists" }])),
        ("touchy", json!([])),
    ] {
        world.api.insert(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "nodeName": "n3", "tolerations": tolerations, "containers": [{ "name": "c", "image": "x" }] } }));
    }
    world.until("running", |api| api.all::<Pod>("pods").iter().all(pods::is_ready)).await;
    let start = tokio::time::Instant::now();
    world.until("unknown", |api| taints(api, "n3") == ["unreachable:NoSchedule", "unreachable:NoExecute"]).await;
    assert!((30..60).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    world.until("the touchy one goes", |api| api.get("pods", "default", "touchy").is_none()).await;
    assert!(start.elapsed().as_secs() < 70);
    world.until("not ready", |api| api.all::<Pod>("pods").iter().all(|p| !pods::is_ready(p))).await;
    world.until("the patient one goes", |api| api.get("pods", "default", "patient").is_none()).await;
    assert!((340..380).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(world.api.get("pods", "default", "stoic").is_some());
    assert_eq!((taints(&world.api, "n1"), taints(&world.api, "n2")), (vec![], vec![]));
    // It comes back.
    world.api.modify("nodes", "", "n3", |n| {
        n["status"]["conditions"] = json!([{ "type": "Ready", "status": "True", "lastHeartbeatTime": "2031-01-01T00:00:00Z" }])
    });
    world.until("taints gone", |api| taints(api, "n3").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_toleration_runs_from_when_the_pod_met_the_taint() {
    let world = World::with(only(&["taint-eviction-controller"]));
    let patient = |name: &str| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": { "nodeName": "n1", "containers": [],
            "tolerations": [{ "key": "maintenance", "operator": "Exists", "tolerationSeconds": 100 }] } })
    };
    world.api.insert(&patient("early"));
    let start = tokio::time::Instant::now();
    // As `kubectl taint` does, without a time.
    world.api.modify("nodes", "", "n1", |n| n["spec"]["taints"] = json!([{ "key": "maintenance", "effect": "NoExecute" }]));
    world.until("the early one goes", |api| api.get("pods", "default", "early").is_none()).await;
    assert!((99..105).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    // A taint from long ago is no older for a pod than the pod itself.
    let long_ago = "2020-01-01T00:00:00Z";
    world.api.modify("nodes", "", "n1", |n| n["spec"]["taints"] = json!([{ "key": "maintenance", "effect": "NoExecute", "timeAdded": long_ago }]));
    let start = tokio::time::Instant::now();
    world.api.insert(&patient("late"));
    world.until("the late one goes", |api| api.get("pods", "default", "late").is_none()).await;
    assert!((98..105).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn when_every_node_falls_silent_nothing_is_evicted() {
    let world = World::new();
    world.api.insert(
        &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "x" }] } }),
    );
    world.until("unknown", |api| taints(api, "n1") == ["unreachable:NoSchedule"]).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(1000);
    tokio::time::sleep_until(end).await;
    assert_eq!(taints(&world.api, "n1"), ["unreachable:NoSchedule"]);
    assert!(world.api.get("pods", "default", "p").is_some());
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_gone_are_collected() {
    let world = World::new();
    renew(&world, &["n1"]);
    world.api.insert(&node("n2", "True"));
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
        "spec": { "nodeName": "n2", "containers": [{ "name": "c", "image": "x" }] } }));
    world.until("running", |api| api.all::<Pod>("pods").iter().all(pods::is_ready)).await;
    world.api.remove("nodes", "", "n2");
    world.until("collected", |api| api.get("pods", "default", "p").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn every_node_gets_a_range_of_its_own() {
    let world = World::with(Config { cluster_cidrs: vec!["10.244.0.0/16".into()], ..config() });
    for n in 2..6 {
        world.api.insert(&node(&format!("n{n}"), "True"));
    }
    let ranges = |api: &FakeApi| -> std::collections::BTreeSet<String> {
        api.all::<Value>("nodes").iter().filter_map(|n| n["spec"]["podCIDR"].as_str().map(str::to_owned)).collect()
    };
    world.until("five ranges", |api| ranges(api).len() == 5).await;
    assert_eq!(ranges(&world.api).iter().next().unwrap(), "10.244.0.0/24");
}

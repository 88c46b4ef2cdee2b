//! Deletions and what follows from them.

use serde_json::{Value, json};

use super::*;

async fn running(world: &World) -> Value {
    world.api.insert(&deployment("web", 2, "nginx:1"));
    world.until("running", |api| api.get("apps/deployments", "default", "web").is_some_and(|d| d["status"]["availableReplicas"] == 2)).await;
    world.settle().await;
    world.api.get("apps/deployments", "default", "web").unwrap()
}

async fn delete(world: &World, policy: kube::api::DeleteParams) {
    let api: kube::Api<Deployment> = kube::Api::namespaced(world.api.client(), "default");
    api.delete("web", &policy).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn in_the_background_dependents_follow_their_owner() {
    let world = World::new();
    running(&world).await;
    delete(&world, kube::api::DeleteParams::background()).await;
    assert!(world.api.get("apps/deployments", "default", "web").is_none());
    world.until("all gone", |api| api.all::<Value>("apps/replicasets").is_empty() && api.all::<Value>("pods").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn in_the_foreground_the_owner_goes_last() {
    let world = World::new();
    running(&world).await;
    let out_of_order = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (api, flag) = (world.api.clone(), out_of_order.clone());
    world.tasks.spawn("observer", async move {
        let mut written = api.written();
        while written.changed().await.is_ok() {
            let (owner, sets, pods) = (api.get("apps/deployments", "default", "web"), api.all::<Value>("apps/replicasets"), api.all::<Value>("pods"));
            if owner.is_none() && !sets.is_empty() || sets.is_empty() && !pods.is_empty() {
                flag.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    delete(&world, kube::api::DeleteParams::foreground()).await;
    world.until("all gone", |api| api.get("apps/deployments", "default", "web").is_none()).await;
    assert!(world.sets().is_empty() && world.pods().is_empty());
    assert!(!out_of_order.load(std::sync::atomic::Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_and_belong_to_nobody() {
    let world = World::new();
    running(&world).await;
    delete(&world, kube::api::DeleteParams::orphan()).await;
    world.until("owner gone", |api| api.get("apps/deployments", "default", "web").is_none()).await;
    world.settle().await;
    assert_eq!((world.sets().len(), world.pods().len()), (1, 2));
    assert!(world.sets()[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty));
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_owner_never_was_goes_and_one_with_another_owner_stays() {
    let world = World::new();
    let owner = running(&world).await;
    let reference =
        |kind: &str, api_version: &str, name: &str, uid: &Value| json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": uid });
    let absent = reference("Deployment", "apps/v1", "web", &json!("00000000-0000-4000-8000-ffffffffffff"));
    let present = reference("Deployment", "apps/v1", "web", &owner["metadata"]["uid"]);
    let map = |name: &str, owners: Value| {
        world.api.insert(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": owners } }));
    };
    map("lost", json!([absent]));
    map("shared", json!([absent, present]));
    world.until("the lost one is gone", |api| api.get("configmaps", "default", "lost").is_none()).await;
    world
        .until("the dead reference is gone", |api| {
            api.get("configmaps", "default", "shared").is_some_and(|m| m["metadata"]["ownerReferences"].as_array().is_some_and(|o| o.len() == 1))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_emptied_before_it_goes_and_finalizers_hold_it() {
    let world = World::new();
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "team" } }));
    world
        .until("furnished", |api| {
            api.get("serviceaccounts", "team", "default").is_some() && api.get("configmaps", "team", "kube-root-ca.crt").is_some()
        })
        .await;
    let mut d = deployment("web", 2, "nginx:1");
    d["metadata"]["namespace"] = json!("team");
    world.api.insert(&d);
    world
        .api
        .insert(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "kept", "namespace": "team", "finalizers": ["x.io/hold"] } }));
    world.until("running", |api| api.all::<Value>("pods").len() == 2).await;
    let api: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(world.api.client());
    api.delete("team", &kube::api::DeleteParams::default()).await.unwrap();
    world
        .until("held", |api| {
            let conditions = api.get("namespaces", "", "team").unwrap_or_default()["status"]["conditions"].clone();
            conditions.as_array().is_some_and(|c| {
                c.iter().any(|c| c["message"] == "Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances")
            })
        })
        .await;
    world.api.modify("secrets", "team", "kept", |s| s["metadata"]["finalizers"] = Value::Null);
    world.api.remove("secrets", "team", "kept");
    world.until("gone", |api| api.get("namespaces", "", "team").is_none()).await;
    let left = |resource: &str| world.api.all::<Value>(resource).iter().filter(|o| o["metadata"]["namespace"] == "team").count();
    assert_eq!([left("pods"), left("apps/deployments"), left("apps/replicasets"), left("serviceaccounts"), left("configmaps")], [0; 5]);
}

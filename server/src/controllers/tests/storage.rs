//! Claims, volumes and what protects them.

use serde_json::{Value, json};

use super::*;

fn volume(name: &str, spec: Value) -> Value {
    let mut full = json!({ "capacity": { "storage": "5Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": { "path": "/data" } });
    full.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
    json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name }, "spec": full })
}

fn claim(name: &str, spec: Value) -> Value {
    let mut full = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } }, "storageClassName": "manual" });
    full.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
    json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name }, "spec": full })
}

fn phase(api: &FakeApi, resource: &str, name: &str) -> String {
    let namespace = if resource == "persistentvolumes" { "" } else { "default" };
    let object = api.get(resource, namespace, name).unwrap_or_default();
    object["status"]["phase"].as_str().unwrap_or("none").to_owned()
}

fn reasons(api: &FakeApi, name: &str) -> Vec<String> {
    let events: Vec<Value> = api.all("events");
    let about = events.iter().filter(|e| e["involvedObject"]["name"] == name);
    about.map(|e| e["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

fn claims(world: &World) -> kube::Api<k8s_openapi::api::core::v1::PersistentVolumeClaim> {
    kube::Api::namespaced(world.api.client(), "default")
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_volume_and_its_end_releases_it() {
    let world = World::new();
    world.api.insert(&claim("c", json!({})));
    world.api.insert(&volume("v", json!({})));
    world.until("bound", |api| phase(api, "persistentvolumeclaims", "c") == "Bound" && phase(api, "persistentvolumes", "v") == "Bound").await;
    let bound = world.api.get("persistentvolumeclaims", "default", "c").unwrap();
    assert_eq!((&bound["spec"]["volumeName"], &bound["status"]["capacity"]["storage"]), (&json!("v"), &json!("5Gi")));
    assert_eq!(bound["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"], "yes");
    let reference = &world.api.get("persistentvolumes", "", "v").unwrap()["spec"]["claimRef"];
    assert_eq!((&reference["name"], &reference["uid"]), (&json!("c"), &bound["metadata"]["uid"]));
    claims(&world).delete("c", &kube::api::DeleteParams::default()).await.unwrap();
    world
        .until("gone and released", |api| {
            api.get("persistentvolumeclaims", "default", "c").is_none() && phase(api, "persistentvolumes", "v") == "Released"
        })
        .await;
    // A released volume is nobody else's until somebody says so.
    world.api.insert(&claim("d", json!({})));
    world.settle().await;
    assert_eq!(phase(&world.api, "persistentvolumeclaims", "d"), "Pending");
    world.api.modify("persistentvolumes", "", "v", |v| v["spec"]["claimRef"] = Value::Null);
    world.until("bound again", |api| phase(api, "persistentvolumeclaims", "d") == "Bound").await;
    assert!(reasons(&world.api, "d").contains(&"ProvisioningFailed".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_claim_a_pod_uses_stays_until_the_pod_is_gone_and_a_bound_volume_until_it_is_released() {
    let world = World::new();
    world.api.insert(&volume("v", json!({})));
    world.api.insert(&claim("c", json!({})));
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "nodeName": "n1", "containers": [],
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "c" } }] } }));
    world.until("bound", |api| phase(api, "persistentvolumeclaims", "c") == "Bound").await;
    world.settle().await;
    claims(&world).delete("c", &kube::api::DeleteParams::default()).await.unwrap();
    let volumes: kube::Api<k8s_openapi::api::core::v1::PersistentVolume> = kube::Api::all(world.api.client());
    volumes.delete("v", &kube::api::DeleteParams::default()).await.unwrap();
    world.settle().await;
    assert!(world.api.get("persistentvolumeclaims", "default", "c").is_some() && world.api.get("persistentvolumes", "", "v").is_some());
    world.api.remove("pods", "default", "p");
    world
        .until("both gone", |api| api.get("persistentvolumeclaims", "default", "c").is_none() && api.get("persistentvolumes", "", "v").is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn claims_say_what_they_wait_for() {
    let world = World::new();
    for (name, provisioner, mode) in [
        ("late", "x.io/p", "WaitForFirstConsumer"),
        ("dynamic", "x.io/p", "Immediate"),
        ("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
    ] {
        world.api.insert(&json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": name },
            "provisioner": provisioner, "volumeBindingMode": mode }));
    }
    world.api.insert(&volume("small", json!({ "capacity": { "storage": "1Mi" } })));
    for (name, spec) in [
        ("classless", json!({ "storageClassName": "" })),
        ("first", json!({ "storageClassName": "late" })),
        ("external", json!({ "storageClassName": "dynamic" })),
        ("mismatch", json!({ "volumeName": "small" })),
    ] {
        world.api.insert(&claim(name, spec));
    }
    for (name, reason) in
        [("classless", "FailedBinding"), ("first", "WaitForFirstConsumer"), ("external", "ExternalProvisioning"), ("mismatch", "VolumeMismatch")]
    {
        world.until(reason, |api| reasons(api, name).iter().any(|r| r == reason)).await;
        world.until("pending", |api| phase(api, "persistentvolumeclaims", name) == "Pending").await;
    }
    let asked = world.api.get("persistentvolumeclaims", "default", "external").unwrap();
    assert_eq!(asked["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"], "x.io/p");
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_volume_is_gone_is_lost_and_one_without_a_class_gets_the_default() {
    let world = World::new();
    world.api.insert(&volume("v", json!({})));
    world.api.insert(&claim("c", json!({})));
    world.until("bound", |api| phase(api, "persistentvolumeclaims", "c") == "Bound").await;
    world.api.remove("persistentvolumes", "", "v");
    world.until("lost", |api| phase(api, "persistentvolumeclaims", "c") == "Lost").await;
    world.until("told", |api| reasons(api, "c").iter().any(|r| r == "ClaimLost")).await;
    world.api.insert(&claim("plain", json!({ "storageClassName": null })));
    world.settle().await;
    world.api.insert(&json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x.io/p",
        "metadata": { "name": "std", "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } } }));
    world.until("default", |api| api.get("persistentvolumeclaims", "default", "plain").unwrap()["spec"]["storageClassName"] == "std").await;
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_volume_has_a_claim_that_goes_with_its_pod() {
    let world = World::new();
    world.api.insert(&volume("v", json!({})));
    let template = json!({ "spec": claim("any", json!({}))["spec"] });
    world.api.insert(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "nodeName": "n1", "containers": [],
        "volumes": [{ "name": "scratch", "ephemeral": { "volumeClaimTemplate": template } }] } }));
    world.until("bound", |api| phase(api, "persistentvolumeclaims", "p-scratch") == "Bound").await;
    world.api.remove("pods", "default", "p");
    world.until("gone", |api| api.get("persistentvolumeclaims", "default", "p-scratch").is_none()).await;
}

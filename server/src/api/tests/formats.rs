//! Protobuf over the wire, kinds in other versions, and what is read only.

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::server::{Answer, TestServer};
use crate::api::protobuf;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What the conformance suite and the components of a cluster ask for.
const PROTOBUF: (&str, &str) = ("accept", "application/vnd.kubernetes.protobuf, */*");

/// A protobuf answer, read back.
fn read(answer: &Answer) -> Value {
    assert_eq!(answer.headers["content-type"], protobuf::MEDIA_TYPE, "{:?}", answer.body);
    serde_json::from_slice(&protobuf::to_json(&answer.body).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_prefers_protobuf_gets_it_for_objects_errors_and_watches() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let body = protobuf::from_json(map.to_string().as_bytes()).unwrap().unwrap();
    let created = client.send("POST", MAPS, &[PROTOBUF, ("content-type", protobuf::MEDIA_TYPE)], body).await;
    assert_eq!((created.status.as_u16(), &read(&created)["data"]), (201, &json!({"k": "v"})));
    let got = read(&client.send("GET", &format!("{MAPS}/a"), &[PROTOBUF], "").await);
    assert_eq!(got, client.get(&format!("{MAPS}/a")).await.json());
    let missing = client.send("GET", &format!("{MAPS}/b"), &[PROTOBUF], "").await;
    assert_eq!((missing.status.as_u16(), read(&missing)["reason"].as_str()), (404, Some("NotFound")));

    let list = client.send("GET", MAPS, &[PROTOBUF], "").await;
    assert_eq!(list.headers["content-type"], protobuf::MEDIA_TYPE);
    assert!(list.body.starts_with(b"k8s\0"));
    let partial = ("accept", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json");
    let metadata = read(&client.send("GET", &format!("{MAPS}/a"), &[partial], "").await);
    assert_eq!((metadata["kind"].as_str(), metadata["metadata"]["name"].as_str()), (Some("PartialObjectMetadata"), Some("a")));
    let table = ("accept", "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(client.send("GET", MAPS, &[table], "").await.json()["kind"], "Table");

    let stream = ("accept", "application/vnd.kubernetes.protobuf;stream=watch");
    let watch = client.open("GET", &format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1"), &[stream], "").await;
    assert_eq!(watch.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let body = watch.into_body().collect().await.unwrap().to_bytes();
    let length = u32::from_be_bytes(body[..4].try_into().unwrap()) as usize;
    let event = protobuf::watch_frame(json!({"type": "ADDED", "object": got}).to_string().as_bytes()).unwrap();
    assert_eq!(body[..4 + length], event, "the first frame is the object's");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_is_written_in_one_version_and_read_in_the_other() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let (old, new) = ["v1", "v2"].map(|v| format!("/apis/autoscaling/{v}/namespaces/default/horizontalpodautoscalers")).into();
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let spec = json!({"scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50});
    let created = client.json("POST", &old, json!({"metadata": {"name": "a"}, "spec": spec})).await;
    assert_eq!((created.status.as_u16(), created.json()["apiVersion"].as_str()), (201, Some("autoscaling/v1")), "{}", created.text());
    let stored = client.get(&format!("{new}/a")).await.json();
    assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 70, "maxReplicas": 6}});
    let patched = client.send("PATCH", &format!("{old}/a"), &[("content-type", "application/strategic-merge-patch+json")], patch.to_string()).await;
    assert_eq!(patched.json()["spec"]["targetCPUUtilizationPercentage"], 70, "{}", patched.text());
    let metrics = json!([{"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]);
    let merged = json!({"spec": {"metrics": metrics}});
    client.send("PATCH", &format!("{new}/a"), &[("content-type", "application/merge-patch+json")], merged.to_string()).await;
    let shown = client.get(&format!("{old}/a")).await.json();
    let annotation = shown["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap();
    assert!(annotation.contains("\"targetAverageValue\":\"10\""), "{annotation}");
    let status = client.get(&format!("{old}/a/status")).await;
    assert_eq!((status.status.as_u16(), status.json()["apiVersion"].as_str()), (200, Some("autoscaling/v1")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn component_statuses_are_read_with_a_warning() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let list = client.get("/api/v1/componentstatuses").await;
    assert_eq!(list.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    let names: Vec<_> = list.json()["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["controller-manager", "scheduler", "etcd-0"]);
    let etcd = client.get("/api/v1/componentstatuses/etcd-0").await;
    assert_eq!(etcd.json()["conditions"], json!([{"type": "Healthy", "status": "True", "message": "ok"}]));
    assert_eq!(client.get("/api/v1/componentstatuses/nothing").await.status, 404);
    assert_eq!(client.json("POST", "/api/v1/componentstatuses", json!({"metadata": {"name": "x"}})).await.status, 405);
    let endpoints = client.get("/api/v1/namespaces/default/endpoints").await;
    let warning = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(endpoints.headers["warning"], warning);
    let api = client.get("/api").await;
    assert!(api.text().ends_with("}\n"));
    let address = api.json()["serverAddressByClientCIDRs"][0]["serverAddress"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.0.0.1:"), "{address}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_applies_a_scale_owns_the_replicas() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(client.json("POST", &format!("{path}?fieldManager=creator"), deployment).await.status, 201);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 4}});
    let apply = |query: &'static str, body: Value| {
        let client = &client;
        async move {
            let path = format!("{path}/d/scale?fieldManager=scaler{query}");
            client.send("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], body.to_string()).await
        }
    };
    let refused = apply("", scale.clone()).await;
    assert_eq!((refused.status.as_u16(), refused.json()["reason"].as_str()), (409, Some("Conflict")), "{}", refused.text());
    let applied = apply("&force=true", scale).await;
    assert_eq!((applied.status.as_u16(), applied.json()["spec"]["replicas"].as_i64()), (200, Some(4)), "{}", applied.text());
    let stored = client.get(&format!("{path}/d")).await.json();
    let entries = stored["metadata"]["managedFields"].as_array().unwrap();
    let scaler = entries.iter().find(|e| e["manager"] == "scaler").unwrap();
    assert_eq!((scaler["operation"].as_str(), scaler["subresource"].as_str()), (Some("Apply"), Some("scale")));
    assert_eq!((&scaler["apiVersion"], &scaler["fieldsV1"]), (&json!("apps/v1"), &json!({"f:spec": {"f:replicas": {}}})));
    let other = apply("", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d"}})).await;
    assert_eq!(other.status, 400, "{}", other.text());
    server.stop().await;
}

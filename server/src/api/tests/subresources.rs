//! Subresources with rules of their own.

use serde_json::{Value, json};

use super::server::{Https, TestServer};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}})
}

async fn with_pod(client: &Https, name: &str) {
    client.json("POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let created = client.json("POST", PODS, pod(name)).await;
    assert_eq!(created.status, 201, "{}", created.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_once() {
    let server = TestServer::start().await;
    let client = server.https(true);
    with_pod(&client, "p").await;
    let to = |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let bound = client.json("POST", &format!("{PODS}/p/binding"), to("n1")).await;
    assert_eq!((bound.status.as_u16(), bound.json()["status"].as_str()), (201, Some("Success")), "{}", bound.text());
    let pod = client.get(&format!("{PODS}/p")).await.json();
    assert_eq!(pod["spec"]["nodeName"], "n1");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "True"));
    let again = client.json("POST", &format!("{PODS}/p/binding"), to("n2")).await;
    let message = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"";
    assert_eq!((again.status.as_u16(), again.json()["message"].as_str()), (409, Some(message)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scale_is_read_put_and_patched() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(client.json("POST", path, deployment).await.status, 201);
    let scale_path = format!("{path}/d/scale");
    let scale = client.get(&scale_path).await.json();
    assert_eq!((scale["kind"].as_str(), scale["apiVersion"].as_str()), (Some("Scale"), Some("autoscaling/v1")));
    assert_eq!((scale["spec"]["replicas"].as_i64(), scale["status"]["selector"].as_str()), (Some(2), Some("app=x")));
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = 3.into();
    assert_eq!(client.json("PUT", &scale_path, wanted.clone()).await.json()["spec"]["replicas"], 3);
    assert_eq!(client.json("PUT", &scale_path, wanted).await.status, 409, "its resourceVersion is old by now");
    let patch = |body: Value| {
        let (client, path) = (&client, &scale_path);
        async move { client.send("PATCH", path, &[("content-type", "application/merge-patch+json")], body.to_string()).await }
    };
    assert_eq!(patch(json!({"spec": {"replicas": 7}})).await.json()["spec"]["replicas"], 7);
    assert_eq!(patch(json!({"spec": {"replicas": -1}})).await.status, 422);
    let after = client.get(&format!("{path}/d")).await.json();
    assert_eq!((after["spec"]["replicas"].as_i64(), after["metadata"]["generation"].as_i64()), (Some(7), Some(3)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_takes_what_the_budget_has_and_then_waits() {
    let server = TestServer::start().await;
    let client = server.https(true);
    for name in ["p", "q"] {
        with_pod(&client, name).await;
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let patched =
            client.send("PATCH", &format!("{PODS}/{name}/status"), &[("content-type", "application/merge-patch+json")], status.to_string()).await;
        assert_eq!(patched.status, 200, "{}", patched.text());
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    let created = client.json("POST", budgets, budget).await.json();
    let generation = created["metadata"]["generation"].as_i64().unwrap_or(0);
    let status =
        json!({"status": {"disruptionsAllowed": 1, "observedGeneration": generation, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    client.send("PATCH", &format!("{budgets}/b/status"), &[("content-type", "application/merge-patch+json")], status.to_string()).await;
    let evict = |name: &'static str| {
        let client = &client;
        async move {
            client
                .json("POST", &format!("{PODS}/{name}/eviction"), json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name}}))
                .await
        }
    };
    let first = evict("p").await;
    assert_eq!(first.status, 201, "{}", first.text());
    let second = evict("q").await;
    assert_eq!(second.status, 429);
    assert_eq!(second.json()["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let left = client.get(&format!("{budgets}/b")).await.json();
    assert_eq!((left["status"]["disruptionsAllowed"].as_i64(), left["status"]["disruptedPods"].as_object().unwrap().len()), (Some(0), 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_issued_for_an_account_and_good_for_its_bearer() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    client.json("POST", accounts, json!({"metadata": {"name": "bot"}})).await;
    let answer = client.json("POST", &format!("{accounts}/bot/token"), json!({"spec": {"audiences": [], "expirationSeconds": 600}})).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let token = answer.json()["status"]["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let nobody = server.https_as(true, None);
    let whoami = nobody.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &[("authorization", &bearer)], "{}").await.json();
    assert_eq!(whoami["status"]["userInfo"]["username"], "system:serviceaccount:default:bot");
    let review = client.json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await.json();
    assert_eq!(review["status"]["authenticated"], true);
    server.stop().await;
}

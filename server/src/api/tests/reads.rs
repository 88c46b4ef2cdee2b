//! get and list in every shape.

use serde_json::json;

use super::server::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_read_listed_and_deleted_over_both_http_versions() {
    let server = TestServer::start().await;
    for http2 in [true, false] {
        let client = server.https(http2);
        let created = client.json("POST", MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let got = client.get(&format!("{MAPS}/a")).await;
        assert_eq!(got.json(), created.json());
        let list = client.get(MAPS).await.json();
        assert_eq!((list["kind"].as_str(), list["items"].as_array().unwrap().len()), (Some("ConfigMapList"), 1));
        assert!(list["items"][0].get("kind").is_none(), "a typed list's items have no kind");
        assert_eq!(list["items"][0]["metadata"]["uid"], created.json()["metadata"]["uid"]);
        let head = client.send("HEAD", &format!("{MAPS}/a"), &[], "").await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        let deleted = client.send("DELETE", &format!("{MAPS}/a"), &[], "").await.json();
        assert_eq!((deleted["kind"].as_str(), deleted["status"].as_str()), (Some("Status"), Some("Success")));
        assert_eq!(deleted["details"]["uid"], created.json()["metadata"]["uid"]);
        let gone = client.get(&format!("{MAPS}/a")).await;
        assert_eq!((gone.status.as_u16(), gone.json()["message"].as_str()), (404, Some("configmaps \"a\" not found")));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_in_pages_tables_metadata_and_yaml() {
    let server = TestServer::start().await;
    let client = server.https(true);
    for n in 0..5 {
        let labels = json!({"parity": if n % 2 == 0 { "even" } else { "odd" }});
        let created = client.json("POST", MAPS, json!({"metadata": {"name": format!("m{n}"), "labels": labels}, "data": {"n": "x".repeat(n)}})).await;
        assert_eq!(created.status, 201);
    }
    let first = client.get(&format!("{MAPS}?limit=2")).await.json();
    let token = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!((first["items"].as_array().unwrap().len(), first["metadata"]["remainingItemCount"].as_i64()), (2, Some(3)));
    let rest = client.get(&format!("{MAPS}?limit=10&continue={token}")).await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 3);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(client.get(&format!("{MAPS}?continue=forged")).await.status, 400);

    let odd = client.get(&format!("{MAPS}?labelSelector=parity%20in%20(odd)")).await.json();
    assert_eq!(odd["items"].as_array().unwrap().len(), 2);
    let named = client.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm3")).await.json();
    assert_eq!(named["items"][0]["metadata"]["name"], "m3");

    let table = client.send("GET", MAPS, &[("accept", TABLE)], "").await.json();
    assert_eq!((table["kind"].as_str(), table["columnDefinitions"][0]["name"].as_str()), (Some("Table"), Some("Name")));
    assert_eq!((table["rows"].as_array().unwrap().len(), table["rows"][1]["cells"][0].as_str()), (5, Some("m1")));
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let bare = client.send("GET", &format!("{MAPS}?includeObject=None"), &[("accept", TABLE)], "").await.json();
    assert!(bare["rows"][0].get("object").is_none());
    let one = client.send("GET", &format!("{MAPS}/m1?includeObject=Object"), &[("accept", TABLE)], "").await.json();
    assert_eq!(one["rows"][0]["object"]["data"]["n"], "x");

    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let metadata = client.send("GET", MAPS, &[("accept", accept)], "").await.json();
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert!(metadata["items"][0].get("data").is_none());

    let yaml = client.send("GET", &format!("{MAPS}/m1"), &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.text().contains("\n  n: x\n"), "{}", yaml.text());
    let pretty = client.get(&format!("{MAPS}/m1?pretty=true")).await;
    assert!(pretty.text().starts_with("{\n  \"apiVersion\": \"v1\",\n"), "{}", pretty.text());
    let protobuf = client.send("GET", MAPS, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
    assert_eq!((protobuf.status.as_u16(), &protobuf.body[..4]), (200, b"k8s\0".as_slice()));
    assert_eq!(client.send("GET", MAPS, &[("accept", "text/html")], "").await.status, 406);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_of_itself_is_complete() {
    let server = TestServer::start().await;
    let client = server.https(true);
    assert_eq!(client.get("/version").await.json()["minor"], "36");
    assert_eq!(client.get("/readyz").await.text(), "ok");
    assert!(client.get("/livez?verbose").await.text().ends_with("[+]etcd ok\nlivez check passed\n"));
    assert_eq!(client.get("/readyz/informer-sync").await.text(), "ok");
    assert_eq!(client.get("/readyz/nonsense").await.status, 404);
    let paths = client.get("/").await.json();
    assert!(paths["paths"].as_array().unwrap().iter().any(|p| p == "/apis/apps/v1"));
    let apps = client.get("/apis/apps/v1").await.json();
    let scale = apps["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!((scale["kind"].as_str(), scale["group"].as_str()), (Some("Scale"), Some("autoscaling")));
    let metrics = client.get("/metrics").await;
    assert!(metrics.text().contains("apiserver_request_total{code=\"200\""), "{}", metrics.text());
    let keys = client.get("/openid/v1/jwks").await.json();
    assert_eq!(keys["keys"][0]["kty"], "EC");
    let openapi = client.get("/openapi/v3").await.json();
    let url = openapi["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = client.get(&url).await.json();
    assert!(document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"].is_object());
    assert_eq!(client.json("POST", "/version", json!({})).await.status, 405);
    assert_eq!(client.get("/nonsense").await.status, 404);
    assert_eq!(client.get("/api/v1/namespaces/default/nonsense").await.json()["message"], "the server could not find the requested resource");
    server.stop().await;
}

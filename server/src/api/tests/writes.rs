//! create, update, patch, delete and their options.

use serde_json::{Value, json};

use super::server::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_patch_and_update_changes_what_it_should() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let one = format!("{MAPS}/a");
    let created = client.json("POST", MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.json();
    let patch = |media: &'static str, body: Value| {
        let (client, one) = (&client, &one);
        async move { client.send("PATCH", one, &[("content-type", media)], body.to_string()).await }
    };
    let merged = patch("application/merge-patch+json", json!({"data": {"k": null, "l": "w"}})).await;
    assert_eq!(merged.json()["data"], json!({"l": "w"}));
    let json_patched = patch("application/json-patch+json", json!([{"op": "add", "path": "/data/m", "value": "x"}])).await;
    assert_eq!(json_patched.json()["data"], json!({"l": "w", "m": "x"}));
    let strategic = patch("application/strategic-merge-patch+json", json!({"data": {"m": null}})).await;
    assert_eq!(strategic.json()["data"], json!({"l": "w"}));
    assert_eq!(patch("text/plain", json!({})).await.status, 415);
    assert_eq!(patch("application/json-patch+json", json!([{"op": "test", "path": "/data/l", "value": "no"}])).await.status, 422);

    let stale = json!({"metadata": {"name": "a", "resourceVersion": created["metadata"]["resourceVersion"]}, "data": {}});
    let conflict = client.json("PUT", &one, stale).await;
    assert_eq!((conflict.status.as_u16(), conflict.json()["reason"].as_str()), (409, Some("Conflict")));
    let other = client.json("PUT", &one, json!({"metadata": {"name": "b"}})).await;
    assert_eq!(other.status, 400, "{}", other.text());
    let updated = client.json("PUT", &one, json!({"metadata": {"name": "a"}, "data": {"z": "1"}})).await;
    assert_eq!((updated.status.as_u16(), &updated.json()["data"]), (200, &json!({"z": "1"})));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_a_write_are_honoured_or_refused() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let dry = client.json("POST", &format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "dry"}})).await;
    assert_eq!(dry.status, 201);
    assert_eq!(client.get(&format!("{MAPS}/dry")).await.status, 404);
    assert_eq!(client.json("POST", &format!("{MAPS}?dryRun=Some"), json!({"metadata": {"name": "dry"}})).await.status, 422);

    let unknown = json!({"metadata": {"name": "w"}, "spec": 1});
    let strict = client.json("POST", &format!("{MAPS}?fieldValidation=Strict"), unknown.clone()).await;
    assert!(strict.status == 400 && strict.text().contains("unknown field \\\"spec\\\""), "{}", strict.text());
    let warned = client.json("POST", MAPS, unknown).await;
    assert_eq!((warned.status.as_u16(), &warned.headers["warning"]), (201, &"299 - \"unknown field \\\"spec\\\"\"".parse().unwrap()));

    let wrong_kind = client.json("POST", MAPS, json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}})).await;
    assert_eq!(wrong_kind.status, 400);
    let yaml = client.send("POST", MAPS, &[("content-type", "application/yaml")], "metadata: {name: y}\ndata: {a: b}\n").await;
    assert_eq!((yaml.status.as_u16(), yaml.json()["data"]["a"].as_str()), (201, Some("b")));
    assert_eq!(client.send("POST", MAPS, &[("content-type", "text/xml")], "<x/>").await.status, 415);
    let generated = client.json("POST", MAPS, json!({"metadata": {"generateName": "g-"}})).await.json();
    assert!(generated["metadata"]["name"].as_str().unwrap().len() == 7);

    let precondition = client.json("DELETE", &format!("{MAPS}/y"), json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(precondition.status, 409);
    let all = client.send("DELETE", MAPS, &[], "").await.json();
    assert_eq!((all["kind"].as_str(), all["items"].as_array().unwrap().len()), (Some("ConfigMapList"), 3));
    assert_eq!(client.get(MAPS).await.json()["items"], json!([]));
    assert_eq!(client.json("POST", &format!("{MAPS}/x"), json!({})).await.status, 405);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_three_mebibytes_are_413_on_every_verb() {
    let server = TestServer::start().await;
    let large = vec![b' '; 3 * 1024 * 1024 + 1];
    for http2 in [true, false] {
        let client = server.https(http2);
        for (method, path) in [("POST", MAPS.to_owned()), ("PUT", format!("{MAPS}/a")), ("DELETE", format!("{MAPS}/a")), ("DELETE", MAPS.to_owned())]
        {
            let answer = client.send(method, &path, &[("content-type", "application/json")], large.clone()).await;
            assert_eq!((answer.status.as_u16(), answer.json()["reason"].as_str()), (413, Some("RequestEntityTooLarge")), "{method} {path}");
        }
        let patch = client.send("PATCH", &format!("{MAPS}/a"), &[("content-type", "application/merge-patch+json")], large.clone()).await;
        assert_eq!(patch.status, 413);
    }
    server.stop().await;
}

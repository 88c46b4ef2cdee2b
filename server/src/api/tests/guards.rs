//! Who gets in, and what is kept of it.

use serde_json::json;

use super::server::TestServer;
use crate::pki;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_credentials_but_to_health() {
    let server = TestServer::start().await;
    for http2 in [true, false] {
        let nobody = server.https_as(http2, None);
        assert_eq!(nobody.get("/livez").await.text(), "ok");
        for path in
            ["/api/v1/namespaces/default/secrets", "/api", "/metrics", "/openapi/v3", "/api/v1/nodes/n/proxy/x", "/apis/apps/v1/deployments?watch=1"]
        {
            let answer = nobody.get(path).await;
            assert_eq!((answer.status.as_u16(), answer.json()["kind"].as_str()), (401, Some("Status")), "{path}");
        }
        for token in ["Bearer x.y.z", "Bearer ", "Basic YTpi"] {
            let answer = nobody.send("GET", "/api/v1/pods", &[("authorization", token)], "").await;
            assert_eq!(answer.status, 401, "{token}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_is_told_what_is_missing() {
    let server = TestServer::start().await;
    let pair = server.pki.cluster.issue(&pki::Subject::client("x", &["team"]), jiff::Timestamp::now()).unwrap();
    let x = server.https_as(true, Some(&pair));
    let answer = x.get("/api/v1/namespaces/default/pods").await;
    assert_eq!(answer.status, 403);
    let message = "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!(answer.json()["message"], message);
    let scale = x.get("/apis/apps/v1/namespaces/a/deployments/d/scale").await.json();
    let message =
        "deployments.apps \"d\" is forbidden: User \"x\" cannot get resource \"deployments/scale\" in API group \"apps\" in the namespace \"a\"";
    assert_eq!(scale["message"], message);
    let whoami = x.json("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await.json();
    assert_eq!(whoami["status"]["userInfo"]["groups"], json!(["team", "system:authenticated"]));
    let may = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let may = x.json("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", may).await;
    assert_eq!((may.status.as_u16(), &may.json()["status"]["allowed"]), (201, &json!(false)));
    let as_admin = x.send("GET", "/api/v1/nodes", &[("impersonate-user", "admin"), ("impersonate-group", "system:masters")], "").await;
    assert_eq!(as_admin.status, 403);
    let master = server.https(true);
    let as_x = master.send("GET", "/api/v1/nodes", &[("impersonate-user", "x")], "").await;
    assert_eq!(as_x.json()["message"], "nodes is forbidden: User \"x\" cannot list resource \"nodes\" in API group \"\" at the cluster scope");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_who_did_what_and_never_what_was_in_it() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "marker"}});
    assert_eq!(client.json("POST", "/api/v1/namespaces/default/secrets", secret).await.status, 201);
    client.send("GET", "/api/v1/namespaces/default/secrets/s", &[("impersonate-user", "eve")], "").await;
    let path = server.dir.path().join("audit.log");
    let dir = server.stop().await;
    let log = std::fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let created = lines.iter().find(|l| l["verb"] == "create").unwrap();
    assert_eq!((created["user"]["username"].as_str(), created["responseStatus"]["code"].as_u64()), (Some("master"), Some(201)));
    let read = lines.iter().find(|l| l["verb"] == "get").unwrap();
    assert_eq!((read["impersonatedUser"]["username"].as_str(), read["responseStatus"]["code"].as_u64()), (Some("eve"), Some(403)));
    assert!(!log.contains("marker"));
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_keep_others_out() {
    let server = TestServer::start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(tokio::net::TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(server.https(true).get("/readyz").await.text(), "ok");
    server.stop().await;
}

//! Watches over the wire.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::server::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A watch's lines, one by one.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(body: Incoming) -> Self {
        Lines { body, buffer: Vec::new() }
    }
    /// The next event; `None` when the watch is over.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(30), self.body.frame()).await.expect("an event within 30 s")?;
            self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
    }
    async fn kind_and_name(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        (event["type"].as_str().unwrap().to_owned(), event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_happens_and_ends_in_its_time() {
    let server = TestServer::start().await;
    for http2 in [true, false] {
        let client = server.https(http2);
        let revision = client.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let path = format!("{MAPS}?watch=1&resourceVersion={revision}&timeoutSeconds=2");
        let response = client.open("GET", &path, &[], "").await;
        assert_eq!(response.headers()["content-type"], "application/json");
        let mut lines = Lines::new(response.into_body());
        client.json("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
        client.json("PUT", &format!("{MAPS}/a"), json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
        client.send("DELETE", &format!("{MAPS}/a"), &[], "").await;
        for expected in ["ADDED", "MODIFIED", "DELETED"] {
            assert_eq!(lines.kind_and_name().await, (expected.to_owned(), "a".to_owned()));
        }
        assert_eq!(lines.next().await, None, "two seconds are over");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = TestServer::start().await;
    let client = server.https(true);
    client.json("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    let path = format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut lines = Lines::new(client.open("GET", &path, &[], "").await.into_body());
    assert_eq!(lines.kind_and_name().await, ("ADDED".into(), "a".into()));
    let mark = lines.next().await.unwrap();
    assert_eq!((mark["type"].as_str(), mark["object"]["kind"].as_str()), (Some("BOOKMARK"), Some("ConfigMap")));
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_table_has_its_columns_once() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut lines = Lines::new(client.open("GET", &format!("{MAPS}?watch=1"), &accept, "").await.into_body());
    client.json("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    let first = lines.next().await.unwrap();
    assert_eq!((first["object"]["kind"].as_str(), first["object"]["rows"][0]["cells"][0].as_str()), (Some("Table"), Some("a")));
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    client.send("DELETE", &format!("{MAPS}/a"), &[], "").await;
    let second = lines.next().await.unwrap();
    assert_eq!((second["type"].as_str(), &second["object"]["columnDefinitions"]), (Some("DELETED"), &Value::Null));
    let yaml = client.open("GET", &format!("{MAPS}?watch=1"), &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.status(), 406);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_its_watches_itself() {
    let server = TestServer::start().await;
    let client = server.https(true);
    let mut lines = Lines::new(client.open("GET", &format!("{MAPS}?watch=1"), &[], "").await.into_body());
    assert_eq!(server.chain.server().metrics.open_streams(), 1);
    server.stop().await;
    assert_eq!(lines.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_of_the_future_is_told_so_and_a_bad_one_is_a_bad_request() {
    let server = TestServer::start().await;
    let client = server.https(true);
    assert_eq!(client.get(&format!("{MAPS}?watch=1&resourceVersion=x")).await.status, 400);
    let future = client.get(&format!("{MAPS}?resourceVersion=999999999")).await;
    assert_eq!(future.status, 504);
    assert!(future.text().contains("Too large resource version"), "{}", future.text());
    server.stop().await;
}

//! The writers: objects that come, change sides and go, and one counter that many increment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Client, Done, Item, NAMESPACE, Record};

/// An object of the load from its JSON.
pub fn item(object: &Value) -> Item {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    Item {
        revision: text("/metadata/resourceVersion").parse().expect("objects have a revision"),
        uid: text("/metadata/uid"),
        side: text("/metadata/labels/side"),
        count: text("/data/count").parse().unwrap_or(-1),
        last: text("/metadata/annotations/end") == "true",
    }
}

fn object(name: &str, side: &str, count: i64, revision: &str) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"side": side}}, "data": {"count": count.to_string()}
    });
    if !revision.is_empty() {
        object["metadata"]["resourceVersion"] = revision.into();
    }
    object
}

/// Creates, changes and deletes objects of its own, one after the other. After an answer that never came it looks what there is.
pub async fn objects(mut client: Client, worker: usize, record: Arc<Record>) {
    let mut round = 0;
    while !record.stopped() {
        let name = format!("w{worker}-{}", round % 5);
        let path = format!("{NAMESPACE}/{name}");
        round += 1;
        let Ok((status, found)) = client.call("GET", &path, &Value::Null).await else { continue };
        let mut revision = String::new();
        if status == 200 {
            revision = found["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        }
        for count in 0..4 {
            let body = object(&name, if (round + count) % 2 == 0 { "a" } else { "b" }, count as i64, &revision);
            let sent = if revision.is_empty() { client.call("POST", NAMESPACE, &body) } else { client.call("PUT", &path, &body) };
            match sent.await {
                Ok((200 | 201, written)) => {
                    revision = written["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                    record.answered(Done::Wrote(name.clone(), item(&written)));
                }
                // Somebody restarted in between, or an earlier attempt went through after all.
                Ok(_) | Err(_) => break,
            }
        }
        if round % 3 == 0
            && let Ok((200, deleted)) = client.call("DELETE", &path, &Value::Null).await
        {
            record.answered(Done::Deleted { uid: deleted["details"]["uid"].as_str().unwrap_or_default().to_owned() });
        }
    }
}

/// Increments the counter that all share: read, add one, write on condition that nobody else has.
pub async fn counter(mut client: Client, record: Arc<Record>) {
    let path = format!("{NAMESPACE}/counter");
    while !record.stopped() {
        let Ok((200, mut current)) = client.call("GET", &path, &Value::Null).await else { continue };
        current["data"]["count"] = (item(&current).count + 1).to_string().into();
        match client.call("PUT", &path, &current).await {
            Ok((200, written)) => {
                record.increments.fetch_add(1, Ordering::Relaxed);
                record.answered(Done::Wrote("counter".into(), item(&written)));
            }
            Ok((409, _)) => {}
            Ok(_) | Err(_) => drop(record.unknown.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The last writes: each watcher sees one of them and knows that it is the end.
pub async fn farewell(client: &mut Client) {
    for (name, side) in [("end-a", "a"), ("end-b", "b")] {
        while !matches!(client.call("POST", NAMESPACE, &object(name, side, 0, "")).await, Ok((201 | 409, _))) {}
    }
    let path = format!("{NAMESPACE}/counter");
    loop {
        let Ok((200, mut counter)) = client.call("GET", &path, &Value::Null).await else { continue };
        counter["metadata"]["annotations"] = json!({"end": "true"});
        if matches!(client.call("PUT", &path, &counter).await, Ok((200, _))) {
            return;
        }
    }
}

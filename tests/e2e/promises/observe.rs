//! The readers: watchers that go on from where they were, and lists read in pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::BodyExt;
use serde_json::Value;

use super::load::item;
use super::{Client, Item, NAMESPACE, Record};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub name: String,
    pub item: Item,
}

/// A list and what a watch told from there on, over all reconnections.
#[derive(Debug, Default)]
pub struct Segment {
    pub revision: i64,
    pub objects: BTreeMap<String, Item>,
    pub events: Vec<Event>,
    /// How far the watch came, by its events and bookmarks.
    pub reached: i64,
}

/// All that one watcher saw; a new segment begins only where the server said that its revision is gone.
#[derive(Debug, Default)]
pub struct Log {
    pub query: &'static str,
    pub segments: Vec<Segment>,
    pub reconnections: usize,
}

/// Watches until the last write has been seen.
pub async fn watch(mut client: Client, query: &'static str) -> Log {
    let mut log = Log { query, ..Log::default() };
    let mut resume = false;
    loop {
        if !resume {
            let Ok((200, list)) = client.call("GET", &format!("{NAMESPACE}?{query}"), &Value::Null).await else { continue };
            let objects = list["items"].as_array().into_iter().flatten().map(|o| (name(o), item(o))).collect();
            let revision = list["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).expect("lists have a revision");
            let segment = Segment { revision, objects, events: Vec::new(), reached: revision };
            let ended = segment.objects.iter().any(|(name, item)| is_last(query, name, item));
            log.segments.push(segment);
            if ended {
                return log;
            }
            resume = true;
        }
        let segment = log.segments.last_mut().expect("one was just begun");
        match follow(&mut client, query, segment).await {
            Followed::End => return log,
            Followed::Broken => log.reconnections += 1,
            Followed::Gone => resume = false,
        }
    }
}

enum Followed {
    /// The last write has been seen.
    End,
    Broken,
    /// 410: the history does not reach back.
    Gone,
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

async fn follow(client: &mut Client, query: &str, segment: &mut Segment) -> Followed {
    let path = format!("{NAMESPACE}?watch=true&allowWatchBookmarks=true&resourceVersion={}&{query}", segment.reached);
    let Ok(response) = client.open("GET", &path, &Value::Null).await else { return Followed::Broken };
    match response.status().as_u16() {
        200 => {}
        410 => return Followed::Gone,
        _ => return Followed::Broken,
    }
    let mut body = response.into_body();
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("an event is a line of JSON");
            let object = &event["object"];
            match event["type"].as_str().unwrap_or_default() {
                "ERROR" if object["code"] == 410 => return Followed::Gone,
                "ERROR" => return Followed::Broken,
                "BOOKMARK" => segment.reached = item(object).revision,
                kind => {
                    segment.reached = item(object).revision;
                    let event = Event { kind: kind.to_owned(), name: name(object), item: item(object) };
                    let last = is_last(query, &event.name, &event.item);
                    segment.events.push(event);
                    if last {
                        return Followed::End;
                    }
                }
            }
        }
    }
    // The connection may be as dead as the stream.
    client.connection = None;
    Followed::Broken
}

/// Whether a watcher with this query gets no further event.
fn is_last(query: &str, name: &str, item: &Item) -> bool {
    match query {
        "labelSelector=side%3Da" => name == "end-a",
        _ => item.last,
    }
}

/// Reads lists in small pages until told to stop.
pub async fn pages(mut client: Client, record: Arc<Record>) {
    while !record.stopped() {
        let (mut listed, mut token) = (Vec::new(), String::new());
        loop {
            let path = format!("{NAMESPACE}?limit=4&continue={token}");
            let Ok((200, page)) = client.call("GET", &path, &Value::Null).await else { break };
            let revision = page["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).expect("lists have a revision");
            listed.extend(page["items"].as_array().into_iter().flatten().map(|o| (name(o), item(o).revision)));
            token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                record.lists.lock().push((revision, listed));
                break;
            }
        }
    }
}

//! What watchers see.

use shared::selector::{FieldSelector, Selector};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_every_change_after_its_revision_once() {
    let world = World::start().await;
    let first = world.create("configmaps", config_map("a", &[])).await.unwrap().entry.revision;
    let mut stream = world.store.watch(kind("configmaps"), &watch_from(first)).await.unwrap();
    world.create("configmaps", config_map("b", &[])).await.unwrap();
    world.update("configmaps", "a", |c| Ok(with_data(&c.object, "k", "v"))).await.unwrap();
    let gone = world.delete("configmaps", "b", DeleteOptions::default()).await.unwrap();
    let events = take(&mut stream, 3).await;
    assert_eq!(brief(&events), ["ADDED b", "MODIFIED a", "DELETED b"]);
    let last = json(events[2].entry().unwrap());
    assert_eq!(last["metadata"]["resourceVersion"], gone.entry.revision.to_string());
    let mut again = world.store.watch(kind("configmaps"), &watch_from(first)).await.unwrap();
    assert_eq!(brief(&take(&mut again, 3).await), ["ADDED b", "MODIFIED a", "DELETED b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_the_wire_format() {
    let world = World::start().await;
    let mut stream = world.store.watch(kind("configmaps"), &watch_from(world.store.cache().revision())).await.unwrap();
    world.create("configmaps", config_map("a", &[("k", "v")])).await.unwrap();
    let event = take(&mut stream, 1).await.remove(0);
    let mut pieces = Vec::new();
    event.frame(kind("configmaps"), &mut pieces);
    WatchEvent::Bookmark { revision: 7, initial_end: true }.frame(kind("configmaps"), &mut pieces);
    let text = String::from_utf8(pieces.concat()).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&lines[0]["type"], &lines[0]["object"]["data"]["k"]), (&"ADDED".into(), &"v".into()));
    assert_eq!(lines[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((&lines[1]["object"]["kind"], &lines[1]["object"]["metadata"]["resourceVersion"]), (&"ConfigMap".into(), &"7".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_and_entering_a_selector_is_shown_as_deletion_and_addition() {
    let world = World::start().await;
    let from = world.create("pods", pod("p", "")).await.unwrap().entry.revision;
    let on = |fields: &str| WatchOptions { fields: FieldSelector::parse(fields).unwrap(), ..watch_from(from) };
    let mut unbound = world.store.watch(kind("pods"), &on("spec.nodeName=")).await.unwrap();
    let mut n1 = world.store.watch(kind("pods"), &on("spec.nodeName=n1")).await.unwrap();
    let bind = |c: &Current| {
        let mut object = c.object.clone();
        object.downcast_mut::<Pod>().unwrap().spec.as_mut().unwrap().node_name = Some("n1".into());
        Ok(object)
    };
    let bound = world.update("pods", "p", bind).await.unwrap().entry;
    let left = take(&mut unbound, 1).await;
    assert_eq!(brief(&left), ["DELETED p"]);
    let state = json(left[0].entry().unwrap());
    assert_eq!((state["spec"].get("nodeName"), &state["metadata"]["resourceVersion"]), (None, &bound.revision.to_string().into()));
    assert_eq!(brief(&take(&mut n1, 1).await), ["ADDED p"]);
    world.delete("pods", "p", DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() }).await.unwrap();
    assert_eq!(brief(&take(&mut n1, 1).await), ["DELETED p"]);
    let labels = WatchOptions { labels: Selector::parse("app=x").unwrap(), ..watch_from(from) };
    let mut stream = world.store.watch(kind("configmaps"), &labels).await.unwrap();
    world.create("configmaps", labelled("a", &[("app", "y")])).await.unwrap();
    for app in ["x", "z"] {
        let relabel = |c: &Current| {
            let mut object = c.object.clone();
            object.meta_mut().labels = Some([("app".to_owned(), app.to_owned())].into());
            Ok(object)
        };
        world.update("configmaps", "a", relabel).await.unwrap();
    }
    assert_eq!(brief(&take(&mut stream, 2).await), ["ADDED a", "DELETED a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initial_events_end_with_a_bookmark() {
    let world = World::start().await;
    for name in ["a", "b"] {
        world.create("configmaps", config_map(name, &[])).await.unwrap();
    }
    let options = WatchOptions {
        namespace: "ns".into(),
        send_initial_events: Some(true),
        resource_version_match: "NotOlderThan".into(),
        allow_bookmarks: true,
        timeout: Duration::from_secs(60),
        ..WatchOptions::default()
    };
    let mut stream = world.store.watch(kind("configmaps"), &options).await.unwrap();
    assert_eq!(brief(&take(&mut stream, 3).await), ["ADDED a", "ADDED b", "BOOKMARK true"]);
    world.create("configmaps", config_map("c", &[])).await.unwrap();
    assert_eq!(brief(&take(&mut stream, 1).await), ["ADDED c"]);
    let plain = WatchOptions { timeout: Duration::from_secs(60), ..WatchOptions::default() };
    let mut stream = world.store.watch(kind("configmaps"), &plain).await.unwrap();
    assert_eq!(brief(&take(&mut stream, 3).await), ["ADDED a", "ADDED b", "ADDED c"]);
    let bad = WatchOptions { resource_version_match: String::new(), ..options };
    assert!(world.store.watch(kind("configmaps"), &bad).await.err().unwrap().to_string().contains("sendInitialEvents requires"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_in_time_after_a_last_bookmark() {
    let world = World::start().await;
    let entry = world.create("configmaps", config_map("a", &[])).await.unwrap().entry;
    // Something else moves on: the bookmark says so although this kind is quiet.
    world.create("pods", pod("p", "")).await.unwrap();
    let options = WatchOptions { allow_bookmarks: true, timeout: Duration::from_millis(2200), ..watch_from(entry.revision) };
    let mut stream = world.store.watch(kind("configmaps"), &options).await.unwrap();
    let events = take(&mut stream, 5).await;
    let [WatchEvent::Bookmark { revision, initial_end: false }] = events.as_slice() else { panic!("{:?}", brief(&events)) };
    assert!(*revision > entry.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_a_forgotten_revision_expires() {
    let world = World::start().await;
    let first = world.create("configmaps", config_map("a", &[])).await.unwrap().entry.revision;
    world.create("configmaps", config_map("b", &[])).await.unwrap();
    let tasks = Tasks::new();
    let other = store_on(&world.etcd, &tasks).await;
    let error = other.watch(kind("configmaps"), &watch_from(first)).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (410, "Expired"));
    assert!(error.to_string().starts_with(&format!("too old resource version: {first} (")), "{error}");
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_cut_and_costs_nobody_anything() {
    let world = World::start().await;
    let from = world.create("configmaps", config_map("a", &[])).await.unwrap().entry.revision;
    let mut slow = world.store.watch(kind("configmaps"), &watch_from(from)).await.unwrap();
    let big = "x".repeat(1 << 20);
    for i in 0..40 {
        world.update("configmaps", "a", |c| Ok(with_data(&c.object, "k", &format!("{i}{big}")))).await.unwrap();
    }
    world.get("configmaps", "ns", "a").await.unwrap();
    assert_eq!(brief(&take(&mut slow, 1).await), ["ERROR 410 Expired"]);
    let mut fresh = world.store.watch(kind("configmaps"), &watch_from(world.store.cache().revision())).await.unwrap();
    world.update("configmaps", "a", |c| Ok(with_data(&c.object, "k", "v"))).await.unwrap();
    assert_eq!(brief(&take(&mut fresh, 1).await), ["MODIFIED a"]);
}

//! Etcd dies, compacts under a watch, loses its memory.

use super::*;
use crate::storage::testing::eventually;
use crate::storage::{Expect, Outcome, Storage, StorageError, Write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_etcd_being_killed_and_loses_nothing() {
    let mut world = World::start().await;
    let from = world.create("configmaps", config_map("start", &[])).await.unwrap().entry.revision;
    let mut stream = world.store.watch(kind("configmaps"), &watch_from(from)).await.unwrap();
    let mut revisions = Vec::new();
    for round in 0..3 {
        let store = world.store.clone();
        let writer = tokio::spawn(async move {
            let mut written = Vec::new();
            for i in 0..60 {
                // Calls that cannot be answered wait for etcd to come back, up to their deadline.
                match create(&store, "configmaps", config_map(&format!("r{round}-{i}"), &[])).await {
                    Ok(w) => written.push((w.entry.name.to_string(), w.entry.revision)),
                    Err(error) => assert!(matches!(error.code(), 503 | 504), "{error}"),
                }
            }
            written
        });
        eventually("some are written", || world.store.cache().count(kind("configmaps")) > 5 + round * 20).await;
        world.etcd.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.etcd.restart();
        revisions.extend(writer.await.unwrap());
    }
    let stored = world.list("configmaps", |o| o.namespace = "ns".into()).await.unwrap();
    let events = take(&mut stream, stored.items.len() - 1).await;
    let seen: Vec<(String, i64)> = events.iter().map(|e| (e.entry().unwrap().name.to_string(), e.entry().unwrap().revision)).collect();
    let mut expected: Vec<(String, i64)> = stored.items.iter().filter(|e| e.revision > from).map(|e| (e.name.to_string(), e.revision)).collect();
    expected.sort_by_key(|(_, r)| *r);
    assert_eq!(seen, expected, "every stored object once, in order");
    for written in revisions {
        assert!(seen.contains(&written), "{written:?} was answered with success");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_answered_in_time_when_etcd_is_down_and_reads_from_the_cache_go_on() {
    let mut etcd = Etcd::start().await;
    let tasks = Tasks::new();
    let storage = Storage::connect(&crate::storage::Config { deadline: Duration::from_secs(2), ..etcd.config() }, &tasks).await.unwrap();
    let cache = Cache::start(&REGISTRY, storage.clone(), &tasks);
    cache.loaded().await;
    let ranges = Ranges { service_network: [10, 96, 0, 0].into(), service_prefix: 24, node_ports: (30000, 32767) };
    let store = Store::new(&REGISTRY, storage, cache, Config { ranges, event_ttl: Duration::from_secs(3600) });
    create(&store, "configmaps", config_map("a", &[])).await.unwrap();
    store.get(kind("configmaps"), "ns", "a", "").await.unwrap();
    etcd.kill();
    let began = std::time::Instant::now();
    let error = create(&store, "configmaps", config_map("b", &[])).await.unwrap_err();
    assert!(matches!(error.code(), 503 | 504), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    // By now it is known that nobody is there: nothing was sent, and the client may be told so.
    assert_eq!(create(&store, "configmaps", config_map("b2", &[])).await.unwrap_err().code(), 503);
    assert!(store.get(kind("configmaps"), "ns", "a", "0").await.is_ok());
    assert!(matches!(store.get(kind("configmaps"), "ns", "a", "").await.unwrap_err().code(), 503 | 504));
    etcd.restart();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while create(&store, "configmaps", config_map("c", &[])).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "etcd is back");
    }
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_under_a_watch_is_not_noticed() {
    let world = World::start().await;
    let from = world.create("configmaps", config_map("a", &[("n", "0")])).await.unwrap().entry.revision;
    let mut stream = world.store.watch(kind("configmaps"), &watch_from(from)).await.unwrap();
    // Etcd lets a new watch catch up first, every 100 ms; a compaction in that moment does end it.
    eventually("the cache has seen the first object", || world.store.cache().revision() >= from).await;
    for i in 1..=200 {
        let entry = world.update("configmaps", "a", |c| Ok(with_data(&c.object, "n", &i.to_string()))).await.unwrap().entry;
        if i % 10 == 0 {
            world.store.storage().compact(entry.revision).await.unwrap();
        }
    }
    let events = take(&mut stream, 200).await;
    if let Some(WatchEvent::Error(error)) = events.last() {
        panic!("after {} events: {error}", events.len());
    }
    let numbers: Vec<String> = events.iter().map(|e| json(e.entry().unwrap())["data"]["n"].as_str().unwrap().to_owned()).collect();
    assert_eq!(numbers, (1..=200).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_was_cut_off_past_a_compaction_loads_anew_and_ends_its_watches() {
    let mut world = World::start().await;
    let from = world.create("configmaps", config_map("a", &[])).await.unwrap().entry.revision;
    let mut stream = world.store.watch(kind("configmaps"), &watch_from(from)).await.unwrap();
    // The cache is cut off while etcd is gone; before it finds its way back, another client writes and compacts.
    world.etcd.kill();
    world.etcd.restart();
    let tasks = Tasks::new();
    let other = world.etcd.storage(&tasks).await;
    let write =
        |key: &str, value: Option<&'static [u8]>, expect| Write { key: key.into(), expect, value: value.map(bytes::Bytes::from_static), lease: 0 };
    let b = br#"{"metadata":{"name":"b","namespace":"ns"}}"#;
    let Outcome::Committed { revision } = other.commit(&[write("/registry/configmaps/ns/b", Some(b), Expect::Absent)]).await.unwrap() else {
        panic!("b is new")
    };
    other.commit(&[write("/registry/configmaps/ns/a", None, Expect::Any)]).await.unwrap();
    other.commit(&[write("/registry/kserver/x", Some(b"x"), Expect::Any)]).await.unwrap();
    other.compact(revision + 1).await.unwrap();
    let listed = world.list("configmaps", |_| {}).await.unwrap();
    assert_eq!(listed.items.iter().map(|e| &*e.name).collect::<Vec<_>>(), ["b"]);
    // Either the cache was quick enough to see both events, or the watcher is told to list again.
    let events = brief(&take(&mut stream, 2).await);
    assert!(events == ["ADDED b", "DELETED a"] || events == ["ERROR 410 Expired"], "{events:?}");
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_went_back_in_time_is_noticed() {
    let mut world = World::start().await;
    for i in 0..20 {
        world.create("configmaps", config_map(&format!("c{i}"), &[])).await.unwrap();
    }
    let from = world.list("configmaps", |_| {}).await.unwrap().revision;
    let mut stream = world.store.watch(kind("configmaps"), &watch_from(from)).await.unwrap();
    world.etcd.kill();
    world.etcd.wipe();
    world.etcd.restart();
    let store = world.store.clone();
    eventually("the cache has loaded the empty etcd", move || store.cache().count(kind("configmaps")) == 0).await;
    assert_eq!(brief(&take(&mut stream, 1).await), ["ERROR 410 Expired"]);
    world.create("configmaps", config_map("new", &[])).await.unwrap();
    assert_eq!(world.list("configmaps", |_| {}).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_limited_and_conflicts_say_what_is_stored() {
    let world = World::start().await;
    let storage = world.store.storage();
    let put = |key: String, expect| Write { key, expect, value: Some(bytes::Bytes::from_static(b"{}")), lease: 0 };
    let many: Vec<Write> = (0..129).map(|i| put(format!("/registry/kserver/{i}"), Expect::Absent)).collect();
    assert!(matches!(storage.commit(&many).await, Err(StorageError::TooLarge(_))));
    let huge = Write { value: Some(vec![b'x'; 2 << 20].into()), ..put("/registry/kserver/huge".into(), Expect::Any) };
    assert!(matches!(storage.commit(&[huge]).await, Err(StorageError::TooLarge(_))));
    let Outcome::Committed { revision } = storage.commit(&many[..2]).await.unwrap() else { panic!("both are new") };
    let again = storage.commit(&[put("/registry/kserver/new".into(), Expect::Absent), many[0].clone()]).await.unwrap();
    let Outcome::Conflict { current, .. } = again else { panic!("the second exists") };
    assert!(current[0].is_none());
    assert_eq!(current[1].as_ref().unwrap().revision, revision);
    assert!(storage.get("/registry/kserver/new").await.unwrap().is_none(), "all or nothing");
    let error = world.create("configmaps", config_map("big", &[("k", &"x".repeat(2 << 20))])).await.unwrap_err();
    assert_eq!(error.code(), 413, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_shared_and_one_server_compacts() {
    let world = World::start().await;
    let storage = world.store.storage();
    let hour = Duration::from_secs(3600);
    assert_eq!(storage.lease(hour).await.unwrap(), storage.lease(hour).await.unwrap());
    let first = storage.lease(hour).await.unwrap();
    storage.forget_lease(first);
    assert_ne!(storage.lease(hour).await.unwrap(), first);
    let gone = Write { lease: 12345, ..Write { key: "/registry/kserver/l".into(), expect: Expect::Any, value: Some("x".into()), lease: 0 } };
    assert!(matches!(storage.commit(&[gone]).await, Err(StorageError::LeaseGone)));
    let one = crate::storage::compaction_step(storage, 0).await.unwrap();
    let other = crate::storage::compaction_step(storage, 0).await.unwrap();
    assert_eq!(one, other, "the second server learns where the first is");
    let next = crate::storage::compaction_step(storage, one).await.unwrap();
    assert!(next > one);
    let old = storage.range(b"/registry/", b"/registry0", one - 1, 1).await;
    assert!(matches!(old, Err(StorageError::Compacted)), "{old:?}");
    assert_eq!(crate::storage::compaction_step(storage, one).await.unwrap(), next, "the slower of two does not compact");
}

//! Nothing is lost and nothing is doubled, whoever is at it at the same time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn count(object: &Object) -> u64 {
    object.downcast_ref::<ConfigMap>().unwrap().data.as_ref().unwrap()["n"].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_writers_of_one_counter_lose_no_update() {
    const WRITERS: usize = 50;
    const EACH: usize = 10;
    let world = World::start().await;
    let tasks = Tasks::new();
    let other = store_on(&world.etcd, &tasks).await;
    world.create("configmaps", config_map("n", &[("n", "0")])).await.unwrap();
    let conflicts = Arc::new(AtomicUsize::new(0));
    let writers = (0..WRITERS).map(|i| {
        let store = if i % 2 == 0 { world.store.clone() } else { other.clone() };
        let conflicts = conflicts.clone();
        tokio::spawn(async move {
            for round in 0..EACH {
                if round % 2 == 0 {
                    // As a patch: the server retries.
                    update(&store, "configmaps", "n", "", |c| Ok(with_data(&c.object, "n", &(count(&c.object) + 1).to_string()))).await.unwrap();
                    continue;
                }
                // As a PUT with a resourceVersion: the client retries.
                loop {
                    let read = store.get(kind("configmaps"), "ns", "n", "").await.unwrap();
                    let object = Object::new(serde_json::from_slice::<ConfigMap>(&read.bytes).unwrap());
                    let next = with_data(&object, "n", &(count(&object) + 1).to_string());
                    match update(&store, "configmaps", "n", "", |_| Ok(next.clone())).await {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error.code(), 409, "{error}"),
                    }
                    conflicts.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let value = world.get("configmaps", "ns", "n").await.unwrap();
    assert_eq!(value["data"]["n"], (WRITERS * EACH).to_string());
    assert!(conflicts.load(Ordering::Relaxed) > 0, "the writers did compete");
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_allocations_never_give_an_address_twice() {
    let world = World::start().await;
    let tasks = Tasks::new();
    let other = store_on(&world.etcd, &tasks).await;
    let creations = (0..14).map(|i| {
        let store = if i % 2 == 0 { world.store.clone() } else { other.clone() };
        tokio::spawn(async move { create(&store, "services", service(&format!("s{i}"), None, None)).await })
    });
    let mut addresses = std::collections::BTreeSet::new();
    for creation in creations.collect::<Vec<_>>() {
        let entry = creation.await.unwrap().unwrap().entry;
        assert!(addresses.insert(json(&entry)["spec"]["clusterIP"].to_string()));
    }
    assert_eq!(addresses.len(), 14);
    let error = world.create("services", service("one-more", None, None)).await.unwrap_err();
    assert!(error.to_string().contains("range is full"), "{error}");
    tasks.cancel();
}

/// What a client that lists, watches and reconnects at random makes of it.
async fn follow(store: Store, seed: u64, done: Arc<AtomicBool>, sink: tokio::sync::mpsc::UnboundedSender<(String, i64)>) -> BTreeMap<String, i64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let listed = store.list(kind("configmaps"), &ListOptions { namespace: "ns".into(), ..ListOptions::default() }).await.unwrap();
    let mut state: BTreeMap<String, i64> = listed.items.iter().map(|e| (e.name.to_string(), e.revision)).collect();
    let mut revision = listed.revision;
    loop {
        let mut stream = store.watch(kind("configmaps"), &WatchOptions { allow_bookmarks: true, ..watch_from(revision) }).await.unwrap();
        let stay = rng.random_range(1..40);
        let mut seen = 0;
        while seen < stay {
            let mut events = Vec::new();
            let next = tokio::time::timeout(Duration::from_millis(300), stream.next(&mut events)).await;
            if next.is_err() && done.load(Ordering::Acquire) {
                return state;
            }
            for event in events {
                // A connection may break anywhere, also in the middle of what arrived together.
                if seen >= stay {
                    break;
                }
                seen += 1;
                let Some(entry) = event.entry() else { continue };
                assert!(entry.revision > revision, "{} comes after {revision} once", entry.revision);
                revision = entry.revision;
                sink.send((event.kind().to_owned(), revision)).unwrap();
                match event {
                    WatchEvent::Added(e) => assert_eq!(state.insert(e.name.to_string(), e.revision), None),
                    WatchEvent::Modified(e) => assert!(state.insert(e.name.to_string(), e.revision).is_some()),
                    WatchEvent::Deleted(e) => assert!(state.remove(&*e.name).is_some()),
                    _ => unreachable!(),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_watchers_that_reconnect_at_random_see_every_operation_once() {
    const OPERATIONS: usize = 5000;
    let world = World::start().await;
    let done = Arc::new(AtomicBool::new(false));
    let mut watchers = Vec::new();
    for seed in 0..20 {
        let (sink, received) = tokio::sync::mpsc::unbounded_channel();
        watchers.push((tokio::spawn(follow(world.store.clone(), seed, done.clone(), sink)), received));
    }
    let written = operate(&world.store, OPERATIONS).await;
    let expected: BTreeMap<String, i64> =
        world.list("configmaps", |o| o.namespace = "ns".into()).await.unwrap().items.iter().map(|e| (e.name.to_string(), e.revision)).collect();
    done.store(true, Ordering::Release);
    for (watcher, mut received) in watchers {
        assert_eq!(watcher.await.unwrap(), expected);
        let mut log = Vec::new();
        while let Ok(event) = received.try_recv() {
            log.push(event);
        }
        // A watcher may have listed after the first operations; from there on its log is complete.
        let from = log.first().map_or(i64::MAX, |(_, r)| *r);
        let tail: Vec<(String, i64)> = written.iter().filter(|(_, r)| *r >= from).cloned().collect();
        assert!(tail.len() > OPERATIONS / 2, "the watcher saw most of it: {}", tail.len());
        assert_eq!(log, tail);
    }
}

/// Random operations by four writers on forty names; what happened, in the order of revisions.
async fn operate(store: &Store, operations: usize) -> Vec<(String, i64)> {
    let writers = (0..4).map(|w| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(100 + w);
            let mut done = Vec::new();
            for i in 0..operations / 4 {
                // Names are the writer's own, so that it knows what each operation comes to.
                let name = format!("w{w}-{}", rng.random_range(0..10));
                match create(&store, "configmaps", config_map(&name, &[("i", &i.to_string())])).await {
                    Ok(written) => done.push(("ADDED".to_owned(), written.entry.revision)),
                    Err(_) if rng.random_bool(0.7) => {
                        let written = update(&store, "configmaps", &name, "", |c| Ok(with_data(&c.object, "i", &i.to_string()))).await.unwrap();
                        done.push(("MODIFIED".to_owned(), written.entry.revision));
                    }
                    Err(_) => {
                        let deleted = store.delete(kind("configmaps"), "ns", &name, &DeleteOptions::default(), &USER, &AdmitAll).await.unwrap();
                        done.push(("DELETED".to_owned(), deleted.entry.revision));
                    }
                }
            }
            done
        })
    });
    let mut all = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        all.extend(writer.await.unwrap());
    }
    all.sort_by_key(|(_, r)| *r);
    all
}

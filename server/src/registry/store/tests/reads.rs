//! Gets, lists and pages.

use shared::selector::{FieldSelector, Selector};

use super::*;

fn names(listed: &Listed) -> Vec<&str> {
    listed.items.iter().map(|e| &*e.name).collect()
}

async fn fill(world: &World, count: usize) {
    for i in 0..count {
        world.create("configmaps", config_map(&format!("c{i:03}"), &[])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_sees_every_write_that_was_answered_before_by_any_server() {
    let world = World::start().await;
    let tasks = Tasks::new();
    let other = store_on(&world.etcd, &tasks).await;
    for i in 0..100 {
        let name = format!("c{i}");
        world.create("configmaps", config_map(&name, &[])).await.unwrap();
        other.get(kind("configmaps"), "ns", &name, "").await.unwrap();
        let listed = other.list(kind("configmaps"), &ListOptions::default()).await.unwrap();
        assert_eq!(listed.items.len(), i + 1);
    }
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_answered_when_others_write_outside_our_prefix() {
    let world = World::start().await;
    world.create("configmaps", config_map("a", &[])).await.unwrap();
    let foreign = crate::storage::Write {
        key: "/elsewhere".into(),
        expect: crate::storage::Expect::Any,
        value: Some(bytes::Bytes::from_static(b"x")),
        lease: 0,
    };
    world.store.storage().commit(&[foreign]).await.unwrap();
    assert!(world.get("configmaps", "ns", "a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resource_versions_are_checked() {
    let world = World::start().await;
    let revision = world.create("configmaps", config_map("a", &[])).await.unwrap().entry.revision;
    let get = async |version: &str| world.store.get(kind("configmaps"), "ns", "a", version).await;
    assert!(get(&revision.to_string()).await.is_ok());
    assert!(get("0").await.is_ok());
    let error = get("abc").await.unwrap_err();
    assert_eq!(error.code(), 400);
    let error = get(&(revision + 1000).to_string()).await.unwrap_err();
    assert_eq!(error.code(), 504);
    assert!(error.to_string().contains(&format!("Too large resource version: {}, current: ", revision + 1000)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_belong_to_page_ones_revision_whatever_happens_between_them() {
    let world = World::start().await;
    fill(&world, 25).await;
    let first = world.list("configmaps", |o| (o.limit, o.namespace) = (10, "ns".into())).await.unwrap();
    assert_eq!((first.items.len(), first.remaining), (10, Some(15)));
    world.delete("configmaps", "c015", DeleteOptions::default()).await.unwrap();
    world.create("configmaps", config_map("c0155", &[])).await.unwrap();
    world.update("configmaps", "c020", |c| Ok(with_data(&c.object, "k", "new"))).await.unwrap();
    let mut all: Vec<String> = names(&first).iter().map(|n| (*n).to_owned()).collect();
    let mut token = first.continue_token.clone();
    while let Some(next) = token {
        let page = world.list("configmaps", |o| (o.limit, o.namespace, o.continue_token) = (10, "ns".into(), next)).await.unwrap();
        assert_eq!(page.revision, first.revision);
        assert!(page.items.iter().all(|e| e.revision <= first.revision), "no page shows what came later");
        all.extend(page.items.iter().map(|e| e.name.to_string()));
        token = page.continue_token;
    }
    assert_eq!(all, (0..25).map(|i| format!("c{i:03}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_come_from_etcd_where_the_cache_has_forgotten_and_expire_with_its_history() {
    let world = World::start().await;
    fill(&world, 25).await;
    let first = world.list("configmaps", |o| o.limit = 10).await.unwrap();
    world.delete("configmaps", "c015", DeleteOptions::default()).await.unwrap();
    // Another server, started later, has no history at all.
    let tasks = Tasks::new();
    let other = store_on(&world.etcd, &tasks).await;
    let page = |token: &str| ListOptions { limit: 10, continue_token: token.into(), ..ListOptions::default() };
    let token = first.continue_token.unwrap();
    let second = other.list(kind("configmaps"), &page(&token)).await.unwrap();
    assert_eq!((second.revision, second.items.len(), second.remaining), (first.revision, 10, Some(5)));
    assert!(names(&second).contains(&"c015"));
    let now = world.store.storage().revision().await.unwrap();
    world.store.storage().compact(now).await.unwrap();
    let error = other.list(kind("configmaps"), &page(&token)).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (410, "Expired"));
    let fresh = error.0.metadata.continue_.clone().unwrap();
    let rest = other.list(kind("configmaps"), &ListOptions { continue_token: fresh, ..ListOptions::default() }).await.unwrap();
    assert_eq!(rest.items.len(), 14, "c010 to c024 without c015");
    let exact = ListOptions { resource_version: first.revision.to_string(), resource_version_match: "Exact".into(), ..ListOptions::default() };
    assert_eq!(other.list(kind("configmaps"), &exact).await.unwrap_err().to_string(), "The resourceVersion for the provided list is too old.");
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_ordered_as_etcds_keys_and_selected() {
    let world = World::start().await;
    for namespace in ["a", "a-b", "b"] {
        let object = labelled("x", &[("in", namespace)]);
        world.store.create(kind("configmaps"), namespace, object, &WriteOptions::new(&USER), &AdmitAll).await.unwrap();
    }
    let all = world.list("configmaps", |_| {}).await.unwrap();
    assert_eq!(all.items.iter().map(|e| &*e.namespace).collect::<Vec<_>>(), ["a-b", "a", "b"]);
    let one = world.list("configmaps", |o| o.namespace = "a".into()).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let labels = world.list("configmaps", |o| o.labels = Selector::parse("in in (a,b)").unwrap()).await.unwrap();
    assert_eq!(labels.items.len(), 2);
    for (name, node) in [("p1", "n1"), ("p2", "n2"), ("p3", "")] {
        world.create("pods", pod(name, node)).await.unwrap();
    }
    let select = |fields: &str| {
        let fields = FieldSelector::parse(fields).unwrap();
        let world = &world;
        async move { world.list("pods", |o| (o.fields, o.namespace) = (fields, "ns".into())).await }
    };
    assert_eq!(names(&select("spec.nodeName=n1").await.unwrap()), ["p1"]);
    assert_eq!(names(&select("spec.nodeName=").await.unwrap()), ["p3"]);
    assert_eq!(names(&select("metadata.name=p2,spec.nodeName!=n1").await.unwrap()), ["p2"]);
    assert_eq!(select("spec.foo=1").await.unwrap_err().to_string(), "field label not supported: spec.foo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_lists_show_the_past() {
    let world = World::start().await;
    fill(&world, 3).await;
    let then = world.list("configmaps", |_| {}).await.unwrap().revision;
    let gone = world.delete("configmaps", "c001", DeleteOptions::default()).await.unwrap().entry.revision;
    let exact = world.list("configmaps", |o| {
        (o.resource_version, o.resource_version_match) = (then.to_string(), "Exact".into());
    });
    let exact = exact.await.unwrap();
    assert_eq!((exact.revision, names(&exact)), (then, vec!["c000", "c001", "c002"]));
    let newer = world.list("configmaps", |o| (o.resource_version, o.resource_version_match) = (gone.to_string(), "NotOlderThan".into()));
    assert_eq!(newer.await.unwrap().items.len(), 2);
    let error = world.list("configmaps", |o| o.resource_version_match = "Exact".into()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_cannot_be_read_fails_the_list_and_is_named() {
    let world = World::start().await;
    fill(&world, 2).await;
    let put = |value: &'static [u8]| crate::storage::Write {
        key: "/registry/configmaps/ns/c001".into(),
        expect: crate::storage::Expect::Any,
        value: Some(bytes::Bytes::from_static(value)),
        lease: 0,
    };
    let mut stream = world.store.watch(kind("configmaps"), &watch_from(world.list("configmaps", |_| {}).await.unwrap().revision)).await.unwrap();
    world.store.storage().commit(&[put(b"k8s\0garbage")]).await.unwrap();
    let error = world.list("configmaps", |_| {}).await.unwrap_err();
    assert_eq!(error.code(), 500);
    assert!(error.to_string().contains("/registry/configmaps/ns/c001"), "{error}");
    assert_eq!(world.get("configmaps", "ns", "c001").await.unwrap_err().code(), 500);
    assert!(world.get("configmaps", "ns", "c000").await.is_ok());
    assert_eq!(brief(&take(&mut stream, 1).await), ["ERROR 410 Expired"], "nobody is told that it was deleted");
    assert_eq!(world.store.watch(kind("configmaps"), &watch_from(1)).await.err().unwrap().code(), 500);
    world.store.storage().commit(&[put(br#"{"metadata":{"name":"c001","namespace":"ns"}}"#)]).await.unwrap();
    assert_eq!(world.list("configmaps", |_| {}).await.unwrap().items.len(), 2);
}

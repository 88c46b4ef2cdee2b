//! Watchers, reflectors and a controller.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event as StoredEvent;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event as Told, EventType, Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector::reflector};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tests::Cluster;
use tests::wait::eventually_async;

use super::{map, tell};
use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("kube_rs::watchers_lose_and_double_nothing", watchers_lose_and_double_nothing),
    ("kube_rs::a_reflector_holds_what_the_server_holds", a_reflector_holds_what_the_server_holds),
    ("kube_rs::a_controller_keeps_children_as_wanted", a_controller_keeps_children_as_wanted),
];

/// What a watcher has said, in short.
fn said(event: &Event<ConfigMap>) -> String {
    match event {
        Event::Init => "init".into(),
        Event::InitApply(m) => format!("had {}", m.name_any()),
        Event::InitDone => "ready".into(),
        Event::Apply(m) => format!("saw {}", m.name_any()),
        Event::Delete(m) => format!("lost {}", m.name_any()),
    }
}

fn watchers_lose_and_double_nothing(c: &Cluster) {
    let n = c.namespace("rs-watched");
    tell(c, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client, n);
        let post = PostParams::default();
        maps.create(&post, &map("old", json!({}))).await?;

        // The API itself: what is there, a bookmark that says so, what comes.
        let mut events = maps.watch(&WatchParams::default().labels("a=map").initial_events(), "0").await?.boxed();
        let mut next = async || events.try_next().await?.context("the watch has ended");
        assert!(matches!(next().await?, WatchEvent::Added(m) if m.name_any() == "old"));
        match next().await? {
            WatchEvent::Bookmark(mark) => assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true"),
            other => panic!("{other:?}"),
        }

        // Watches that end every second, so that each goes on where the one before has ended: by its bookmark, without a new list.
        let config = watcher::Config::default().labels("a=map").timeout(1);
        for config in [config.clone(), config.clone().streaming_lists(), config.page_size(1)] {
            let mut events = pin!(watcher(maps.clone(), config));
            let mut heard = Vec::new();
            let mut hear = async |count: usize| -> Result<String> {
                while heard.len() < count {
                    heard.push(said(&events.try_next().await?.context("a watcher does not end")?));
                }
                Ok(heard.join(", "))
            };
            assert_eq!(hear(3).await?, "init, had old, ready");
            maps.create(&post, &map("new", json!({}))).await?;
            assert_eq!(hear(4).await?, "init, had old, ready, saw new");
            // Nothing is said while nothing happens, over the end of a watch or two.
            assert!(tokio::time::timeout(Duration::from_millis(1500), hear(5)).await.is_err());
            maps.patch("new", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"a": "other"}}}))).await?;
            assert_eq!(hear(5).await?, "init, had old, ready, saw new, lost new", "out of the selector is away");
            maps.delete("new", &DeleteParams::default()).await?;
        }
        // The first watch has seen all three rounds.
        for _ in 0..3 {
            assert!(matches!(next().await?, WatchEvent::Added(m) if m.name_any() == "new"));
            assert!(matches!(next().await?, WatchEvent::Deleted(m) if m.name_any() == "new"));
        }
        Ok(())
    });
}

fn a_reflector_holds_what_the_server_holds(c: &Cluster) {
    let n = c.namespace("rs-reflected");
    tell(c, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client, n);
        for i in 0..20 {
            maps.create(&PostParams::default(), &map(&format!("m-{i}"), json!({"i": i.to_string()}))).await?;
        }
        let (store, writer) = reflector::store();
        let stream = reflector(writer, watcher(maps.clone(), watcher::Config::default().labels("a=map").page_size(7)));
        let follow = tokio::spawn(stream.default_backoff().touched_objects().for_each(|_| std::future::ready(())));
        store.wait_until_ready().await?;
        assert_eq!(store.len(), 20);
        for i in 0..20 {
            match i % 3 {
                0 => drop(maps.delete(&format!("m-{i}"), &DeleteParams::default()).await?),
                1 => drop(maps.patch(&format!("m-{i}"), &PatchParams::default(), &Patch::Merge(json!({"data": {"i": "changed"}}))).await?),
                _ => {}
            }
        }
        let wanted: BTreeMap<_, _> =
            maps.list(&ListParams::default().labels("a=map")).await?.into_iter().map(|m| (m.name_any(), m.resource_version())).collect();
        eventually_async("the store holds what the server holds", async || {
            let held: BTreeMap<_, _> = store.state().iter().map(|m| (m.name_any(), m.resource_version())).collect();
            anyhow::ensure!(held == wanted, "{held:?}");
            Ok(())
        })
        .await;
        let changed = store.get(&ObjectRef::new("m-1").within(n)).context("m-1 is there")?;
        assert_eq!(changed.data.as_ref().map(|d| d["i"].as_str()), Some("changed"));
        follow.abort();
        Ok(())
    });
}

/// Gives a map with the label `a: map` a child with its data, and says so in an event.
async fn reconcile(parent: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &parent.namespace().unwrap_or_default());
    let mut child = map(&format!("{}-child", parent.name_any()), json!(parent.data));
    child.metadata.labels = None;
    child.metadata.owner_references = parent.controller_owner_ref(&()).map(|owner| vec![owner]);
    maps.patch(&child.name_any(), &PatchParams::apply("keeper").force(), &Patch::Apply(&child)).await?;
    let told =
        Told { type_: EventType::Normal, reason: "Kept".into(), note: Some("has its child".into()), action: "Keeping".into(), secondary: None };
    let recorder = Recorder::new((*client).clone(), Reporter::from("keeper"));
    recorder.publish(&told, &parent.object_ref(&())).await?;
    Ok(Action::await_change())
}

fn a_controller_keeps_children_as_wanted(c: &Cluster) {
    let n = c.namespace("rs-controlled");
    tell(c, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), n);
        let controller = Controller::new(maps.clone(), watcher::Config::default().labels("a=map"))
            .owns(maps.clone(), watcher::Config::default())
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(client.clone()));
        let controller = tokio::spawn(controller.for_each(|_| std::future::ready(())));
        let child = async |wanted: Option<&str>| {
            eventually_async(&format!("a child with {wanted:?}"), async || {
                let child = maps.get_opt("p-child").await?;
                let data = child.as_ref().and_then(|m| m.data.as_ref()?.get("a").map(String::as_str));
                anyhow::ensure!(data == wanted, "{child:?}");
                Ok(child.and_then(|m| m.uid()))
            })
            .await
        };
        maps.create(&PostParams::default(), &map("p", json!({"a": "1"}))).await?;
        let first = child(Some("1")).await;
        maps.patch("p", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "2"}}))).await?;
        assert_eq!(child(Some("2")).await, first, "the same child, changed");
        // Somebody else meddles with it, and takes it away.
        maps.patch("p-child", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "3"}}))).await?;
        assert_eq!(child(Some("2")).await, first);
        maps.delete("p-child", &DeleteParams::default()).await?;
        eventually_async("another child", async || {
            let second = maps.get_opt("p-child").await?.and_then(|m| m.uid());
            anyhow::ensure!(second.is_some() && second != first, "{second:?}");
            Ok(())
        })
        .await;
        let events: Api<StoredEvent> = Api::namespaced(client, n);
        let told = events.list(&ListParams::default().fields("regarding.name=p,reason=Kept")).await?;
        let told = told.items.first().context("an event")?;
        assert_eq!((told.note.as_deref(), told.reporting_controller.as_deref()), (Some("has its child"), Some("keeper")));
        // The collector takes the child of a parent that is gone.
        maps.delete("p", &DeleteParams::background()).await?;
        child(None).await;
        controller.abort();
        Ok(())
    });
}

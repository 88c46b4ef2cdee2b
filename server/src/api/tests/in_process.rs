//! The client without sockets.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use super::server::TestServer;
use crate::storage::testing::eventually;

fn map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_works_under_its_own_identity_and_no_other() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin(), "default");
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"k": "v"}}));
    assert_eq!(maps.patch("a", &PatchParams::default(), &patch).await.unwrap().data.unwrap()["k"], "v");
    assert_eq!(maps.list(&ListParams::default().limit(1)).await.unwrap().items.len(), 1);
    let nobody: Api<ConfigMap> = Api::namespaced(server.client("nobody", &[]), "default");
    let error = nobody.list(&ListParams::default()).await.unwrap_err().to_string();
    let expected = "configmaps is forbidden: User \"nobody\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert!(error.contains(expected), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_dropped_is_closed() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin(), "default");
    let metrics = server.chain.server().metrics.clone();
    let mut watch = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert_eq!(metrics.open_streams(), 1);
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let event = watch.try_next().await.unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Added(m) if m.metadata.name.as_deref() == Some("a")), "{event:?}");
    drop(watch);
    eventually("the watch is closed", || metrics.open_streams() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_informer_keeps_up_without_a_socket() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin(), "default");
    let (reader, writer) = kube::runtime::reflector::store();
    let stream = kube::runtime::reflector(writer, kube::runtime::watcher(maps.clone(), kube::runtime::watcher::Config::default()));
    let informer = tokio::spawn(stream.for_each(|event| async move { drop(event.unwrap()) }));
    for n in 0..100 {
        maps.create(&PostParams::default(), &map(&format!("m{n}"))).await.unwrap();
    }
    eventually("the informer has them all", || reader.len() == 100).await;
    informer.abort();
    server.stop().await;
}

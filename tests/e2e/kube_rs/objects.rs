//! Typed and dynamic reads and writes.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, Discovery, ResourceExt};
use serde_json::json;
use tests::Cluster;

use super::{map, object, refused, tell};
use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("kube_rs::reads_and_writes_typed_objects", reads_and_writes_typed_objects),
    ("kube_rs::patches_and_shares_fields", patches_and_shares_fields),
    ("kube_rs::finds_kinds_at_run_time", finds_kinds_at_run_time),
];

fn reads_and_writes_typed_objects(c: &Cluster) {
    let n = c.namespace("rs-typed");
    tell(c, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client, n);
        let post = PostParams::default();
        let first = maps.create(&post, &map("m-0", json!({"a": "0"}))).await?;
        assert!(first.uid().is_some() && first.metadata.creation_timestamp.is_some(), "{first:?}");
        let message = refused(maps.create(&post, &first).await, 500, "");
        assert_eq!(message, "resourceVersion should not be set on objects to be created");
        refused(maps.create(&post, &map("m-0", json!({}))).await, 409, "AlreadyExists");
        assert!(maps.get_opt("absent").await?.is_none());
        refused(maps.get("absent").await, 404, "NotFound");
        let message = refused(maps.create(&post, &map("Bad_Name", json!({}))).await, 422, "Invalid");
        assert!(message.contains("metadata.name: Invalid value: \"Bad_Name\""), "{message}");
        let dry = PostParams { dry_run: true, ..post.clone() };
        maps.create(&dry, &map("dry", json!({}))).await?;
        assert!(maps.get_opt("dry").await?.is_none());

        for i in 1..5 {
            maps.create(&post, &map(&format!("m-{i}"), json!({"a": i.to_string()}))).await?;
        }
        let mut page = ListParams::default().labels("a=map").limit(2);
        let (mut names, mut pages) = (Vec::new(), 0);
        loop {
            let list = maps.list(&page).await?;
            names.extend(list.iter().map(ResourceExt::name_any));
            pages += 1;
            match list.metadata.continue_.as_deref().filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(token),
                None => break,
            }
        }
        assert_eq!((names.join(" ").as_str(), pages), ("m-0 m-1 m-2 m-3 m-4", 3));
        let heads = maps.list_metadata(&ListParams::default().fields("metadata.name=m-3")).await?;
        assert_eq!(heads.items.len(), 1);
        assert_eq!(maps.get_metadata("m-3").await?.uid(), heads.items[0].uid());

        // Whoever has an old object does not overwrite a newer one.
        let mut newer = first.clone();
        newer.labels_mut().insert("b".into(), "c".into());
        let newer = maps.replace("m-0", &post, &newer).await?;
        assert_ne!(newer.resource_version(), first.resource_version());
        refused(maps.replace("m-0", &post, &first).await, 409, "Conflict");
        maps.entry("m-0")
            .await?
            .and_modify(|m| drop(m.labels_mut().insert("b".into(), "d".into())))
            .or_insert(ConfigMap::default)
            .commit(&post)
            .await?;
        assert_eq!(maps.get("m-0").await?.labels()["b"], "d");

        let other = Preconditions { uid: first.uid(), resource_version: None };
        refused(maps.delete("m-1", &DeleteParams::default().preconditions(other.clone())).await, 409, "Conflict");
        maps.delete("m-0", &DeleteParams::default().preconditions(other)).await?;
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("a=map")).await?;
        assert_eq!(maps.list(&ListParams::default().labels("a=map")).await?.items.len(), 0);
        Ok(())
    });
}

fn patches_and_shares_fields(c: &Cluster) {
    let n = c.namespace("rs-patched");
    tell(c, async |client| {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), n);
        let container = |name: &str, image: &str| json!({"name": name, "image": image});
        let template =
            json!({"metadata": {"labels": {"app": "d"}}, "spec": {"nodeSelector": {"no": "such"}, "containers": [container("one", "busybox:1")]}});
        let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": template});
        deployments.create(&PostParams::default(), &object(json!({"metadata": {"name": "d"}, "spec": spec}))).await?;
        let images = |d: &Deployment| {
            let containers = d.spec.iter().filter_map(|s| s.template.spec.as_ref()).flat_map(|s| &s.containers);
            let mut images: Vec<String> = containers.map(|c| format!("{}={}", c.name, c.image.as_deref().unwrap_or_default())).collect();
            images.sort();
            images.join(" ")
        };
        let list = |name: &str, image: &str| json!({"spec": {"template": {"spec": {"containers": [container(name, image)]}}}});
        let params = PatchParams::default();
        let patched = deployments.patch("d", &params, &Patch::Strategic(list("two", "nginx:live"))).await?;
        assert_eq!(images(&patched), "one=busybox:1 two=nginx:live");
        let patched = deployments.patch("d", &params, &Patch::Merge(list("two", "nginx:live"))).await?;
        assert_eq!(images(&patched), "two=nginx:live");
        let patched = deployments.patch_scale("d", &params, &Patch::Merge(json!({"spec": {"replicas": 2}}))).await?;
        assert_eq!(patched.spec.and_then(|s| s.replicas), Some(2));
        assert_eq!(deployments.get_scale("d").await?.status.and_then(|s| s.selector).as_deref(), Some("app=d"));
        let patched =
            deployments.patch_status("d", &params, &Patch::Merge(json!({"spec": {"replicas": 5}, "status": {"collisionCount": 3}}))).await?;
        assert_eq!((patched.spec.and_then(|s| s.replicas), patched.status.and_then(|s| s.collision_count)), (Some(2), Some(3)));

        // Server-side apply: each manager has its fields.
        let maps: Api<ConfigMap> = Api::namespaced(client, n);
        let apply = async |manager: &str, force: bool, data: serde_json::Value| {
            let params = if force { PatchParams::apply(manager).force() } else { PatchParams::apply(manager) };
            maps.patch("m", &params, &Patch::Apply(map("m", data))).await
        };
        apply("one", false, json!({"a": "1", "b": "1"})).await?;
        apply("two", false, json!({"b": "1", "c": "1"})).await?;
        let message = refused(apply("two", false, json!({"b": "2"})).await, 409, "Conflict");
        assert!(message.contains("Apply failed with 1 conflict: conflict with \"one\": .data.b"), "{message}");
        let taken = apply("two", true, json!({"b": "2"})).await?;
        assert_eq!(json!(taken.data), json!({"a": "1", "b": "2"}));
        let left = apply("one", false, json!({})).await?;
        assert_eq!(json!(left.data), json!({"b": "2"}));
        // They come by the second of their last word.
        let mut managers: Vec<_> = left.managed_fields().iter().filter_map(|f| f.manager.as_deref()).collect();
        managers.sort_unstable();
        assert_eq!(managers, ["one", "two"]);
        let strict = PatchParams::apply("one").validation_strict();
        let typo = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "dta": {}});
        assert!(matches!(maps.patch("m", &strict, &Patch::Apply(typo)).await, Err(kube::Error::Api(status)) if status.message.contains("dta")));
        Ok(())
    });
}

fn finds_kinds_at_run_time(c: &Cluster) {
    let n = c.namespace("rs-dynamic");
    tell(c, async |client| {
        for discovery in [Discovery::new(client.clone()).run().await?, Discovery::new(client.clone()).run_aggregated().await?] {
            assert!(discovery.has_group("batch") && discovery.has_group("rbac.authorization.k8s.io"));
            let (resource, capabilities) = discovery.resolve_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment")).expect("it is served");
            assert_eq!(resource.plural, "deployments");
            assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural.ends_with("scale")), "{capabilities:?}");
        }
        let (resource, _) = kube::discovery::pinned_kind(&client, &GroupVersionKind::gvk("", "v1", "ConfigMap")).await?;
        let maps: Api<DynamicObject> = Api::namespaced_with(client.clone(), n, &resource);
        let made = DynamicObject::new("dynamic", &resource).data(json!({"data": {"a": "1"}}));
        let made = maps.create(&PostParams::default(), &made).await?;
        assert_eq!(made.data["data"]["a"], "1");
        assert_eq!(maps.list(&ListParams::default().fields("metadata.name=dynamic")).await?.items.len(), 1);
        maps.delete("dynamic", &DeleteParams::default()).await?;
        assert!(maps.get_opt("dynamic").await?.is_none());
        assert_eq!(client.apiserver_version().await?.minor, "36");
        Ok(())
    });
}

//! Fetches what belongs to an object. What cannot be read is left out: a description is better incomplete than absent.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, LimitRange, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use serde::de::DeserializeOwned;

use crate::app::Ctx;
use crate::discovery::Kind;
use crate::podspec;
use crate::resource::{self, Info};

async fn list<T: DeserializeOwned>(ctx: &Ctx, group: &str, plural: &str, namespace: Option<&str>, parameters: &[(&str, String)]) -> Option<Vec<T>> {
    let kind = Kind::built_in(group, "v1", "", plural, namespace.is_some());
    let list = resource::list_all(ctx, &kind.collection(namespace), parameters, 500).await.ok()?;
    let items = resource::items_of(&Rc::new(kind), list);
    Some(
        items
            .into_iter()
            .filter_map(|mut info| {
                // These are of a known type: its name would only be in the way.
                let object = info.object.as_object_mut()?;
                object.remove("apiVersion");
                object.remove("kind");
                serde_json::from_value(serde_json::Value::Object(std::mem::take(object))).ok()
            })
            .collect(),
    )
}

fn fields(selector: String) -> [(&'static str, String); 1] {
    [("fieldSelector", selector)]
}

/// The events about an object.
pub async fn events(ctx: &Ctx, info: &Info) -> Vec<Event> {
    let namespace = info.namespace.as_deref();
    let mut selector = format!("involvedObject.name={}", info.name);
    if let Some(namespace) = namespace {
        selector.push_str(&format!(",involvedObject.namespace={namespace}"));
    }
    let uid = info.object["metadata"]["uid"].as_str().unwrap_or_default();
    // Upstream's node events carry the node's name for its UID.
    if info.kind.kind == "Node" {
        selector.push_str(",involvedObject.kind=Node");
    } else if !uid.is_empty() {
        selector.push_str(&format!(",involvedObject.uid={uid}"));
    }
    let kind = Kind::built_in("", "v1", "Event", "events", true);
    let path = kind.collection(namespace);
    let Ok(found) = resource::list_all(ctx, &path, &fields(selector), 500).await else { return Vec::new() };
    let items = found["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().filter_map(|e| serde_json::from_value(e).ok()).collect()
}

/// The pods an object's selector chooses and it owns.
pub async fn pods(ctx: &Ctx, info: &Info) -> Vec<Pod> {
    let Some(selector) = podspec::pod_selector(&info.object) else { return Vec::new() };
    let found: Vec<Pod> = list(ctx, "", "pods", info.namespace.as_deref(), &[("labelSelector", selector)]).await.unwrap_or_default();
    let uid = info.object["metadata"]["uid"].as_str().unwrap_or_default();
    let owned = |pod: &Pod| pod.metadata.owner_references.iter().flatten().any(|o| o.controller == Some(true) && o.uid == uid);
    found.into_iter().filter(owned).collect()
}

/// The replica sets of a deployment.
pub async fn replica_sets(ctx: &Ctx, info: &Info) -> Vec<ReplicaSet> {
    let Some(selector) = podspec::pod_selector(&info.object) else { return Vec::new() };
    let found: Vec<ReplicaSet> =
        list(ctx, "apps", "replicasets", info.namespace.as_deref(), &[("labelSelector", selector)]).await.unwrap_or_default();
    let uid = info.object["metadata"]["uid"].as_str().unwrap_or_default();
    found.into_iter().filter(|s| s.metadata.owner_references.iter().flatten().any(|o| o.controller == Some(true) && o.uid == uid)).collect()
}

/// The endpoint slices of a service.
pub async fn endpoint_slices(ctx: &Ctx, info: &Info) -> Vec<EndpointSlice> {
    let selector = format!("kubernetes.io/service-name={}", info.name);
    list(ctx, "discovery.k8s.io", "endpointslices", info.namespace.as_deref(), &[("labelSelector", selector)]).await.unwrap_or_default()
}

/// The services an ingress leads to, by name, with their endpoint slices; or why they cannot be had.
pub async fn backends(ctx: &Ctx, info: &Info, ingress: &Ingress) -> Backends {
    let spec = ingress.spec.clone().unwrap_or_default();
    let rules = spec.rules.iter().flatten().filter_map(|r| r.http.as_ref()).flat_map(|h| h.paths.iter().map(|p| &p.backend));
    let names: BTreeSet<String> = rules.chain(&spec.default_backend).filter_map(|b| b.service.as_ref().map(|s| s.name.clone())).collect();
    let kind = Rc::new(Kind::built_in("", "v1", "Service", "services", true));
    let mut found = Backends::new();
    for name in names {
        let service = Info { kind: kind.clone(), name: name.clone(), ..info.clone() };
        let slices = endpoint_slices(ctx, &service).await;
        let had = match ctx.client().await {
            Ok(client) => client.get_as::<Service>(&service.path()).await,
            Err(error) => Err(error),
        };
        found.insert(name, had.map(|service| (service, slices)).map_err(|e| e.to_string()));
    }
    found
}

/// Services by name.
pub type Backends = BTreeMap<String, Result<(Service, Vec<EndpointSlice>), String>>;

/// The lease by which a node says that it lives.
pub async fn lease(ctx: &Ctx, node: &str) -> Option<Lease> {
    let kind = Kind::built_in("coordination.k8s.io", "v1", "Lease", "leases", true);
    ctx.client().await.ok()?.get_as(&kind.object(Some("kube-node-lease"), node)).await.ok()
}

/// The pods of a node that have not ended; none when they may not be read.
pub async fn pods_on_node(ctx: &Ctx, node: &str) -> Option<Vec<Pod>> {
    let kind = Kind::built_in("", "v1", "Pod", "pods", true);
    let selector = format!("spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed");
    let found = resource::list_all(ctx, &kind.collection(None), &fields(selector), 500).await.ok()?;
    let items = found["items"].as_array().cloned().unwrap_or_default();
    Some(items.into_iter().filter_map(|p| serde_json::from_value(p).ok()).collect())
}

/// The quotas of a namespace.
pub async fn quotas(ctx: &Ctx, namespace: &str) -> Vec<ResourceQuota> {
    list(ctx, "", "resourcequotas", Some(namespace), &[]).await.unwrap_or_default()
}

/// The limit ranges of a namespace.
pub async fn limit_ranges(ctx: &Ctx, namespace: &str) -> Vec<LimitRange> {
    list(ctx, "", "limitranges", Some(namespace), &[]).await.unwrap_or_default()
}

/// The names of the pods that use a claim.
pub async fn users_of_claim(ctx: &Ctx, info: &Info) -> Vec<String> {
    let found: Vec<Pod> = list(ctx, "", "pods", info.namespace.as_deref(), &[]).await.unwrap_or_default();
    let uses = |pod: &Pod| {
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.clone()).unwrap_or_default();
        volumes.iter().any(|v| v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == info.name))
    };
    found.iter().filter(|p| uses(p)).filter_map(|p| p.metadata.name.clone()).collect()
}

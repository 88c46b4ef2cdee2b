//! Discovery: which groups, versions, resources and verbs there are; legacy (`/api`, `/apis`, `/apis/g/v`) and aggregated (v2)
//! (`k8s.io/apiserver/pkg/endpoints/discovery`).
//!
//! Owns nothing: every document follows from the registry's rows and is kept until those change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::status::ApiError;

use super::reviews::VIRTUAL;
use super::views::VIEWS;
use super::{Body, Response, respond};
use crate::registry::{RESOURCES, Resource, Subresource};

/// Groups in the order in which clients shall look for a resource that several have (`kube-aggregator`'s group priorities).
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "resource.k8s.io",
];

/// One kind, stored or virtual, as discovery shows it.
struct Entry {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    namespaced: bool,
    verbs: &'static [&'static str],
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    subresources: &'static [Subresource],
}

/// A group with its versions, the preferred one first.
struct Group {
    name: &'static str,
    versions: Vec<(&'static str, Vec<Entry>)>,
}

/// A document with its entity tag.
struct Document {
    bytes: Bytes,
    etag: HeaderValue,
}

impl Document {
    fn new(value: &Value) -> Self {
        let bytes = Bytes::from(format!("{value}\n"));
        let tag = Sha256::digest(&bytes).iter().fold(String::new(), |tag, byte| format!("{tag}{byte:02X}"));
        let etag = HeaderValue::from_str(&format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Document { bytes, etag }
    }
    fn response(&self, request: &HeaderMap, media: &'static str) -> Response {
        let known = request.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == self.etag);
        let mut response = if known {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            respond::with_type(StatusCode::OK, media, self.bytes.clone().into())
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
        response
    }
}

struct Documents {
    /// By path: `/api`, `/apis`, `/api/v1`, `/apis/apps`, `/apis/apps/v1`, …
    legacy: BTreeMap<String, Document>,
    core: Document,
    named: Document,
}

/// The documents of the kinds there are now, made anew when those have changed.
fn documents() -> Arc<Documents> {
    static MADE: Mutex<Option<(u64, Arc<Documents>)>> = Mutex::new(None);
    let generation = RESOURCES.generation();
    let mut made = MADE.lock();
    match &*made {
        Some((of, documents)) if *of == generation => documents.clone(),
        _ => {
            let documents = Arc::new(make());
            *made = Some((generation, documents.clone()));
            documents
        }
    }
}

fn make() -> Documents {
    let groups = groups();
    let mut legacy = BTreeMap::new();
    legacy.insert("/api".to_owned(), Document::new(&json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})));
    let listed: Vec<Value> = groups.iter().filter(|g| !g.name.is_empty()).map(legacy_group).collect();
    legacy.insert("/apis".to_owned(), Document::new(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})));
    for group in &groups {
        let root = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        if !group.name.is_empty() {
            let mut value = legacy_group(group);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            legacy.insert(root.clone(), Document::new(&value));
        }
        for (version, entries) in &group.versions {
            legacy.insert(format!("{root}/{version}"), Document::new(&legacy_resources(group.name, version, entries)));
        }
    }
    let (core, named): (Vec<&Group>, Vec<&Group>) = groups.iter().partition(|g| g.name.is_empty());
    Documents { legacy, core: Document::new(&aggregated(&core)), named: Document::new(&aggregated(&named)) }
}

/// The paths that legacy discovery serves, for `/`.
pub fn paths() -> Vec<String> {
    documents().legacy.keys().cloned().collect()
}

/// Groups with their versions, in discovery's order, as `(group, version)`.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    groups().iter().flat_map(|g| g.versions.iter().map(|(v, _)| (g.name, *v))).collect()
}

/// The legacy `/api` with where the server is found, for clients that do not ask for the aggregated form.
pub fn core_versions(headers: &HeaderMap, address: &str) -> Option<Response> {
    if choose(headers, true).ok()? != "application/json" {
        return None;
    }
    let value = json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    });
    Some(Document::new(&value).response(headers, "application/json"))
}

/// Answers a discovery request, or `None` when the path is not discovery's.
///
/// # Errors
/// 406 when the client accepts no JSON.
pub fn answer(path: &str, headers: &HeaderMap) -> Option<Result<Response, ApiError>> {
    let path = path.trim_end_matches('/');
    let documents = documents();
    let legacy = documents.legacy.get(path)?;
    let aggregated = match path {
        "/api" => Some(&documents.core),
        "/apis" => Some(&documents.named),
        _ => None,
    };
    Some(choose(headers, aggregated.is_some()).map(|media| match (media, aggregated) {
        (AGGREGATED, Some(document)) => document.response(headers, AGGREGATED),
        _ => legacy.response(headers, "application/json"),
    }))
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The first media type of the Accept header that is served.
fn choose(headers: &HeaderMap, aggregated: bool) -> Result<&'static str, ApiError> {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    if values.is_empty() {
        return Ok("application/json");
    }
    for value in values {
        let mut parts = value.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<&str> = parts.filter(|p| !p.starts_with("q=")).collect();
        match media {
            "application/json"
                if ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|p| parameters.contains(p)) && aggregated =>
            {
                return Ok(AGGREGATED);
            }
            "application/json" | "application/*" | "*/*" if !parameters.iter().any(|p| p.starts_with("as=")) => return Ok("application/json"),
            _ => {}
        }
    }
    Err(ApiError::not_acceptable("only the following media types are accepted: application/json"))
}

/// A stored kind, as it is found under its own group.
fn entry(r: &'static Resource) -> Entry {
    Entry {
        group: r.group,
        version: r.version,
        kind: r.kind,
        plural: r.plural,
        singular: r.singular,
        namespaced: r.namespaced,
        verbs: r.verbs,
        short_names: r.short_names,
        categories: r.categories,
        subresources: r.subresources,
    }
}

fn groups() -> Vec<Group> {
    let stored = RESOURCES.iter().chain(RESOURCES.custom()).map(entry);
    let virtuals = VIRTUAL.iter().map(|v| Entry {
        group: v.group,
        version: v.version,
        kind: v.kind,
        plural: v.plural,
        singular: v.singular,
        namespaced: v.namespaced,
        verbs: v.verbs,
        short_names: v.short_names,
        categories: &[],
        subresources: &[],
    });
    let views = VIEWS.iter().filter_map(|v| v.row().map(|r| (v, r))).map(|(v, r)| Entry {
        group: v.group,
        version: v.version,
        subresources: v.subresources,
        ..entry(r)
    });
    let mut groups: Vec<Group> = Vec::new();
    for entry in stored.chain(virtuals).chain(views) {
        let at = groups.iter().position(|g| g.name == entry.group).unwrap_or_else(|| {
            groups.push(Group { name: entry.group, versions: Vec::new() });
            groups.len() - 1
        });
        let versions = &mut groups[at].versions;
        match versions.iter_mut().find(|(v, _)| *v == entry.version) {
            Some((_, entries)) => entries.push(entry),
            None => versions.push((entry.version, vec![entry])),
        }
    }
    let order = |name: &str| GROUP_ORDER.iter().position(|g| *g == name).unwrap_or(usize::MAX);
    groups.sort_by(|a, b| order(a.name).cmp(&order(b.name)).then(a.name.cmp(b.name)));
    for group in &mut groups {
        group.versions.sort_by_key(|(version, _)| std::cmp::Reverse(version_priority(version)));
        for (_, entries) in &mut group.versions {
            entries.sort_by_key(|e| e.plural);
        }
    }
    groups
}

/// General before beta before alpha, higher numbers first (`k8s.io/apimachinery/pkg/version.CompareKubeAwareVersionStrings`).
fn version_priority(version: &str) -> (u32, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or_default();
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    if let Some((major, minor)) = rest.split_once("beta") {
        return (1, number(major), number(minor));
    }
    match rest.split_once("alpha") {
        Some((major, minor)) => (0, number(major), number(minor)),
        None => (2, number(rest), 0),
    }
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn legacy_group(group: &Group) -> Value {
    let version = |v: &str| json!({"groupVersion": group_version(group.name, v), "version": v});
    let versions: Vec<Value> = group.versions.iter().map(|(v, _)| version(v)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions[0]})
}

fn legacy_resources(group: &str, version: &str, entries: &[Entry]) -> Value {
    let mut resources = Vec::new();
    for entry in entries {
        let mut value = json!({
            "name": entry.plural, "singularName": entry.singular, "namespaced": entry.namespaced, "kind": entry.kind, "verbs": entry.verbs,
        });
        if !entry.short_names.is_empty() {
            value["shortNames"] = json!(entry.short_names);
        }
        if !entry.categories.is_empty() {
            value["categories"] = json!(entry.categories);
        }
        resources.push(value);
        for sub in entry.subresources {
            let kind = if sub.kind.is_empty() { entry.kind } else { sub.kind };
            let mut value = json!({
                "name": format!("{}/{}", entry.plural, sub.name), "singularName": "", "namespaced": entry.namespaced, "kind": kind, "verbs": sub.verbs,
            });
            if !sub.version.is_empty() {
                value["version"] = sub.version.into();
                value["group"] = sub.group.into();
            }
            resources.push(value);
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version), "resources": resources})
}

fn aggregated(groups: &[&Group]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = group.versions.iter().map(|(version, entries)| aggregated_version(group.name, version, entries)).collect();
            json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_version(group: &str, version: &str, entries: &[Entry]) -> Value {
    let resources: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let mut value = json!({
                "resource": entry.plural,
                "responseKind": {"group": group, "version": version, "kind": entry.kind},
                "scope": if entry.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": entry.singular,
                "verbs": entry.verbs,
            });
            if !entry.short_names.is_empty() {
                value["shortNames"] = json!(entry.short_names);
            }
            if !entry.categories.is_empty() {
                value["categories"] = json!(entry.categories);
            }
            if !entry.subresources.is_empty() {
                value["subresources"] = entry.subresources.iter().map(|sub| aggregated_subresource(entry, sub)).collect();
            }
            value
        })
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_subresource(entry: &Entry, sub: &Subresource) -> Value {
    let (group, version) = if sub.version.is_empty() { (entry.group, entry.version) } else { (sub.group, sub.version) };
    let kind = if sub.kind.is_empty() { entry.kind } else { sub.kind };
    json!({"subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": kind}, "verbs": sub.verbs})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])
    }

    #[test]
    fn versions_are_preferred_as_upstream_prefers_them() {
        let mut versions = ["v1beta1", "v2", "v1", "v1alpha1", "v1beta2", "v10"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_priority(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }

    #[test]
    fn stock_kubectl_gets_aggregated_discovery_and_old_clients_the_legacy_one() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(choose(&accept(kubectl), true).unwrap(), AGGREGATED);
        assert_eq!(choose(&accept(kubectl), false).unwrap(), "application/json");
        assert_eq!(
            choose(&accept("application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io, */*"), true).unwrap(),
            "application/json"
        );
        assert_eq!(choose(&accept("application/vnd.kubernetes.protobuf"), true).unwrap_err().code(), 406);
    }

    #[test]
    fn a_known_entity_tag_is_answered_with_304() {
        let first = answer("/apis", &HeaderMap::new()).unwrap().unwrap();
        let tag = first.headers()[header::ETAG].clone();
        let again = answer("/apis", &HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)])).unwrap().unwrap();
        assert_eq!((first.status(), again.status(), again.body().length()), (StatusCode::OK, StatusCode::NOT_MODIFIED, Some(0)));
    }

    #[test]
    fn virtual_kinds_are_shown_and_other_paths_are_not_discovery() {
        let response = answer("/apis/authorization.k8s.io/v1", &HeaderMap::new()).unwrap().unwrap();
        let bytes = response.body().as_full().unwrap().clone();
        let list: Value = serde_json::from_slice(&bytes).unwrap();
        let names: Vec<&str> = list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"]);
        assert!(answer("/apis/nope/v1", &HeaderMap::new()).is_none());
    }
}

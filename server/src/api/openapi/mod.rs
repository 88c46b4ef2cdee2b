//! OpenAPI v3: one document a group version, for `kubectl explain`, client-side validation and code generators
//! (`k8s.io/kube-openapi/pkg/handler3`). Version 2 is made from these documents.
//!
//! Owns the documents: built from the registry's rows and the types' own schemas, or their definitions', when first asked for, then kept
//! compressed.

mod extensions;
mod parameters;
mod paths;
mod schemas;
mod v2;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::status::ApiError;
use tokio::sync::Mutex;

use super::request_info::RequestInfo;
use super::reviews::VIRTUAL;
use super::views::VIEWS;
use super::{Response, discovery, respond};
use crate::registry::apiextensions::Definition;
use crate::registry::{RESOURCES, Resource, SchemaOf, Subresource};

/// What ObjectMeta says of its name, as tables describe the column.
pub const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// The same of its creation, without the line breaks.
pub const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC. Populated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// One kind, stored or virtual, as the documents describe it.
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    verbs: &'static [&'static str],
    subresources: &'static [Subresource],
    schema: Source,
}

/// Where a kind's schema comes from.
enum Source {
    /// Its Rust type.
    Type(SchemaOf),
    /// The CustomResourceDefinition in force.
    Definition(Arc<Definition>),
}

impl Kind {
    /// What makes another document of the same kind: the definition's id.
    fn mark(&self) -> u64 {
        match &self.schema {
            Source::Type(_) => 0,
            Source::Definition(definition) => definition.id,
        }
    }
}

struct Documents {
    /// Of the registry they were made from.
    generation: u64,
    root: Bytes,
    /// By path below `/openapi/v3/`.
    by_path: BTreeMap<String, Published>,
}

/// The document of a group version.
#[derive(Clone)]
struct Published {
    gzip: Bytes,
    hash: String,
    /// The marks of its kinds; with the same ones it is the same.
    marks: Vec<u64>,
}

static DOCUMENTS: Mutex<Option<Arc<Documents>>> = Mutex::const_new(None);
/// Version 2, with the root document of what it was made from.
static VERSION_2: Mutex<Option<(Bytes, Arc<v2::Document>)>> = Mutex::const_new(None);

/// Answers a request below `/openapi`, or `None` when the path is another.
pub async fn answer(info: &RequestInfo, headers: &HeaderMap) -> Option<Result<Response, ApiError>> {
    let rest = info.path.strip_prefix("/openapi/")?.trim_end_matches('/');
    if rest == "v2" {
        return Some(version_2().await.and_then(|document| document.answer(headers)));
    }
    let rest = rest.strip_prefix("v3")?;
    let documents = match documents().await {
        Ok(documents) => documents,
        Err(error) => return Some(Err(error)),
    };
    if rest.is_empty() {
        return Some(Ok(respond::json_bytes(StatusCode::OK, documents.root.clone())));
    }
    let published = documents.by_path.get(rest.strip_prefix('/')?)?;
    Some(document(&published.gzip, &published.hash, info, headers))
}

fn document(gzip: &Bytes, hash: &str, info: &RequestInfo, headers: &HeaderMap) -> Result<Response, ApiError> {
    let etag = HeaderValue::from_str(&format!("\"{hash}\"")).map_err(ApiError::internal)?;
    let mut response = if headers.get(header::IF_NONE_MATCH) == Some(&etag) {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if respond::accepts_gzip(headers) {
        let mut response = respond::json_bytes(StatusCode::OK, gzip.clone());
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        respond::json_bytes(StatusCode::OK, respond::gunzip(gzip)?)
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    // A path with the right hash never changes its content, so kubectl may keep it.
    if info.param("hash") == Some(hash) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let year = std::time::SystemTime::now() + std::time::Duration::from_secs(365 * 24 * 60 * 60);
        if let Ok(expires) = HeaderValue::from_str(&httpdate(year)) {
            headers.insert(header::EXPIRES, expires);
        }
    }
    Ok(response)
}

fn httpdate(time: std::time::SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The documents of the kinds there are now. To make them all takes some hundred milliseconds, so not on a runtime thread; when kinds have
/// come or gone, only the documents that are about them are made anew.
async fn documents() -> Result<Arc<Documents>, ApiError> {
    let mut made = DOCUMENTS.lock().await;
    let generation = RESOURCES.generation();
    if let Some(documents) = made.as_ref().filter(|d| d.generation == generation) {
        return Ok(documents.clone());
    }
    let before = made.clone();
    let documents = tokio::task::spawn_blocking(move || build(generation, before.as_deref())).await.map_err(ApiError::internal)??;
    Ok(made.insert(Arc::new(documents)).clone())
}

/// Version 2, made of the documents of version 3 and anew when those have changed.
async fn version_2() -> Result<Arc<v2::Document>, ApiError> {
    let documents = documents().await?;
    let mut made = VERSION_2.lock().await;
    if let Some((_, document)) = made.as_ref().filter(|(of, _)| *of == documents.root) {
        return Ok(document.clone());
    }
    let compressed: Vec<Bytes> = documents.by_path.values().map(|p| p.gzip.clone()).collect();
    let read = |gzip: Bytes| serde_json::from_slice(&respond::gunzip(&gzip)?).map_err(ApiError::internal);
    let document = tokio::task::spawn_blocking(move || v2::Document::build(compressed.into_iter().map(read))).await;
    let document = Arc::new(document.map_err(ApiError::internal)??);
    *made = Some((documents.root.clone(), document.clone()));
    Ok(document)
}

fn build(generation: u64, before: Option<&Documents>) -> Result<Documents, ApiError> {
    let kinds = kinds();
    let mut by_path = BTreeMap::new();
    let mut listed = serde_json::Map::new();
    for (group, version) in discovery::group_versions() {
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let own: Vec<&Kind> = kinds.iter().filter(|k| (k.group, k.version) == (group, version)).collect();
        let marks: Vec<u64> = own.iter().map(|k| k.mark()).collect();
        let published = match before.and_then(|b| b.by_path.get(&path)).filter(|p| p.marks == marks) {
            Some(same) => same.clone(),
            None => {
                let bytes = Bytes::from(group_version(group, version, &own).to_string());
                let hash = Sha256::digest(&bytes).iter().fold(String::new(), |hash, byte| format!("{hash}{byte:02X}"));
                Published { gzip: respond::gzip([&bytes]).map_err(ApiError::internal)?, hash, marks }
            }
        };
        listed.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", published.hash)}));
        by_path.insert(path, published);
    }
    Ok(Documents { generation, root: Bytes::from(json!({"paths": listed}).to_string()), by_path })
}

fn kinds() -> Vec<Kind> {
    let row = |r: &'static Resource, schema: Source| Kind {
        group: r.group,
        version: r.version,
        kind: r.kind,
        plural: r.plural,
        namespaced: r.namespaced,
        verbs: r.verbs,
        subresources: r.subresources,
        schema,
    };
    let stored = RESOURCES.iter().filter_map(|r| Some(row(r, Source::Type(r.schema?))));
    let custom = RESOURCES.custom().into_iter().filter_map(|r| Some(row(r, Source::Definition(r.custom.as_ref()?.current()))));
    let virtuals = VIRTUAL.iter().map(|v| Kind {
        group: v.group,
        version: v.version,
        kind: v.kind,
        plural: v.plural,
        namespaced: v.namespaced,
        verbs: v.verbs,
        subresources: &[],
        schema: Source::Type(v.schema),
    });
    let views = VIEWS.iter().filter_map(|v| v.row().map(|r| (v, r))).map(|(v, r)| Kind {
        group: v.group,
        version: v.version,
        kind: r.kind,
        plural: r.plural,
        namespaced: r.namespaced,
        verbs: r.verbs,
        subresources: v.subresources,
        schema: Source::Type(v.schema),
    });
    stored.chain(virtuals).chain(views).chain(custom).collect()
}

/// The document of one group version.
fn group_version(group: &str, version: &str, kinds: &[&Kind]) -> Value {
    let mut schemas = schemas::Schemas::new();
    let mut paths = serde_json::Map::new();
    paths::add_resources(&mut paths, &mut schemas, group, version);
    for kind in kinds {
        paths::add(&mut paths, &mut schemas, kind);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": super::version::GIT_VERSION},
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}},
        },
    })
}

/// Every kind's schema: group, version, kind, the schema's name, and all schemas of its group version; for tests over all kinds.
#[cfg(test)]
pub fn schemas_of_kinds() -> Vec<(String, String, String, String, std::sync::Arc<serde_json::Map<String, Value>>)> {
    let kinds = kinds();
    let mut found = Vec::new();
    for (group, version) in discovery::group_versions() {
        let own: Vec<&Kind> = kinds.iter().filter(|k| (k.group, k.version) == (group, version)).collect();
        let mut document = group_version(group, version, &own);
        let Value::Object(all) = document["components"]["schemas"].take() else { continue };
        let all = std::sync::Arc::new(all);
        for (name, schema) in all.iter() {
            for gvk in schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array).into_iter().flatten() {
                let text = |field: &str| gvk[field].as_str().unwrap_or_default().to_owned();
                if text("group") == group && text("version") == version && !["DeleteOptions", "WatchEvent"].contains(&text("kind").as_str()) {
                    found.push((text("group"), text("version"), text("kind"), name.clone(), all.clone()));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;

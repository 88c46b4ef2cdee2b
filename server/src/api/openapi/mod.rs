//! OpenAPI v3: one document a group version, good enough for `kubectl explain`, client-side validation and code generators
//! (`k8s.io/kube-openapi/pkg/handler3`).
//!
//! Owns the documents: built from the registry's rows and the types' own schemas when first asked for, then kept compressed.
//! There is no v2: clients that know it only speak its protobuf form, and all current ones use v3.

mod paths;
mod schemas;

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::status::ApiError;
use tokio::sync::OnceCell;

use super::request_info::RequestInfo;
use super::reviews::VIRTUAL;
use super::views::VIEWS;
use super::{Response, discovery, respond};
use crate::registry::{RESOURCES, Subresource};

/// One kind, stored or virtual, as the documents describe it.
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    verbs: &'static [&'static str],
    subresources: &'static [Subresource],
    schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

struct Documents {
    root: Bytes,
    /// By path below `/openapi/v3/`: (gzip, hash).
    by_path: BTreeMap<String, (Bytes, String)>,
}

static DOCUMENTS: OnceCell<Documents> = OnceCell::const_new();

/// Answers a request below `/openapi`, or `None` when the path is another.
pub async fn answer(info: &RequestInfo, headers: &HeaderMap) -> Option<Result<Response, ApiError>> {
    let rest = info.path.strip_prefix("/openapi/")?.trim_end_matches('/');
    if rest == "v2" {
        return Some(Err(ApiError::not_acceptable("OpenAPI v2 is not served; use /openapi/v3")));
    }
    let rest = rest.strip_prefix("v3")?;
    let documents = match DOCUMENTS.get_or_try_init(build).await {
        Ok(documents) => documents,
        Err(error) => return Some(Err(error)),
    };
    if rest.is_empty() {
        return Some(Ok(respond::json_bytes(StatusCode::OK, documents.root.clone())));
    }
    let (gzip, hash) = documents.by_path.get(rest.strip_prefix('/')?)?;
    Some(document(gzip, hash, info, headers))
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
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut plain).map_err(ApiError::internal)?;
        respond::json_bytes(StatusCode::OK, plain.into())
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

/// Takes some hundred milliseconds, so not on a runtime thread.
async fn build() -> Result<Documents, ApiError> {
    tokio::task::spawn_blocking(build_all).await.map_err(ApiError::internal)?
}

fn build_all() -> Result<Documents, ApiError> {
    let kinds = kinds();
    let mut by_path = BTreeMap::new();
    let mut listed = serde_json::Map::new();
    for (group, version) in discovery::group_versions() {
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let own: Vec<&Kind> = kinds.iter().filter(|k| (k.group, k.version) == (group, version)).collect();
        let bytes = Bytes::from(group_version(&own).to_string());
        let hash = Sha256::digest(&bytes).iter().fold(String::new(), |hash, byte| format!("{hash}{byte:02X}"));
        listed.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        by_path.insert(path, (respond::gzip([&bytes]).map_err(ApiError::internal)?, hash));
    }
    Ok(Documents { root: Bytes::from(json!({"paths": listed}).to_string()), by_path })
}

fn kinds() -> Vec<Kind> {
    let stored = RESOURCES.iter().filter_map(|r| r.schema.map(|schema| (r, schema))).map(|(r, schema)| Kind {
        group: r.group,
        version: r.version,
        kind: r.kind,
        plural: r.plural,
        namespaced: r.namespaced,
        verbs: r.verbs,
        subresources: r.subresources,
        schema,
    });
    let virtuals = VIRTUAL.iter().map(|v| Kind {
        group: v.group,
        version: v.version,
        kind: v.kind,
        plural: v.plural,
        namespaced: v.namespaced,
        verbs: &["create"],
        subresources: &[],
        schema: v.schema,
    });
    let views = VIEWS.iter().filter_map(|v| v.row().map(|r| (v, r))).map(|(v, r)| Kind {
        group: v.group,
        version: v.version,
        kind: r.kind,
        plural: r.plural,
        namespaced: r.namespaced,
        verbs: r.verbs,
        subresources: &[],
        schema: v.schema,
    });
    stored.chain(virtuals).chain(views).collect()
}

/// The document of one group version.
fn group_version(kinds: &[&Kind]) -> Value {
    let mut schemas = schemas::Schemas::new();
    let mut paths = serde_json::Map::new();
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

#[cfg(test)]
mod tests;

//! `…/scale`: how many replicas, as autoscaling/v1 (`pkg/registry/apps/deployment/storage/storage.go`, `ScaleREST`).
//!
//! Owns the requests; where a kind keeps its replicas and its selector is the registry's.

use http::StatusCode;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};
use shared::patch::strategic;
use shared::status::{ApiError, GroupResource};

use crate::api::chain::Call;
use crate::api::negotiate::{self, Accepted};
use crate::api::request_info::RequestInfo;
use crate::api::verbs::{Patch, options};
use crate::api::{Body, Response, respond};
use crate::registry::store::{self, Current, Decoded};
use crate::registry::{Object, Resource, scale};

/// get, update and patch of a scale.
///
/// # Errors
/// 404, 409 for a stale resourceVersion or another UID, 422 for negative replicas.
pub async fn handle(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let info = call.info;
    if info.verb == "get" {
        let version = info.param("resourceVersion").unwrap_or_default();
        let entry = call.server.store.get(row, &info.namespace, &info.name, version).await?;
        let object = row.ops.decode(&entry.bytes).map_err(ApiError::internal)?;
        return encode(accepted, &scale_of(row, &object)?);
    }
    let source = Source::read(call, body).await?;
    let applied = match &source {
        Source::Patch(patch) if patch.is_apply() => Some(configuration(row, info, patch.bytes())?),
        _ => None,
    };
    let writing = options::writing(call, if info.verb == "patch" { "PatchOptions" } else { "UpdateOptions" }, applied.is_some())?;
    let change = |current: Option<&Current>| {
        let current = current.ok_or_else(|| ApiError::not_found(row.group_resource(), &info.name))?;
        if let Some(configuration) = &applied {
            return store::apply(row, &writing.store, Some(current), configuration);
        }
        let mut wanted = source.scale(&scale_of(row, &current.object)?)?;
        options::same_object(info, row, &mut wanted.metadata)?;
        let replicas = validate(&info.name, &wanted)?;
        let mut object = current.object.clone();
        row.ops.set_replicas(&mut object, replicas);
        // What a scale says of the object's version and identity are preconditions on the object.
        let meta = object.meta_mut();
        meta.resource_version = wanted.metadata.resource_version.filter(|v| !v.is_empty()).or(meta.resource_version.take());
        meta.uid = wanted.metadata.uid.filter(|u| !u.is_empty()).or(meta.uid.take());
        Ok(Decoded::from(object))
    };
    let server = call.server;
    let written = server.store.update(row, &info.namespace, &info.name, &writing.store, &change, &*server.admit).await?;
    let object = row.ops.decode(&written.entry.bytes).map_err(ApiError::internal)?;
    let mut response = encode(accepted, &scale_of(row, &object)?)?;
    respond::add_warnings(response.headers_mut(), &written.warnings);
    Ok(response)
}

/// Where the wanted scale comes from.
enum Source {
    Put(Box<Scale>),
    Patch(Patch),
}

impl Source {
    async fn read(call: &Call<'_>, body: Body) -> Result<Self, ApiError> {
        if call.info.verb == "patch" {
            return Patch::read(call, body).await.map(Source::Patch);
        }
        let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
        super::decode(&json).map(|scale| Source::Put(Box::new(scale)))
    }
    fn scale(&self, current: &Scale) -> Result<Scale, ApiError> {
        match self {
            Source::Put(scale) => Ok(Scale::clone(scale)),
            Source::Patch(patch) => {
                let current = serde_json::to_value(current).map_err(ApiError::internal)?;
                let patched = patch.apply_to(current, strategic::Type::of("autoscaling/v1", "Scale"))?;
                serde_json::from_value(patched)
                    .map_err(|e| ApiError::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {e}")))
            }
        }
    }
}

/// What a server-side apply of a scale means for the object that it is of: a configuration with nothing but the replicas, so that these
/// are what the applier owns (`k8s.io/apimachinery/pkg/util/managedfields/scalehandler.go`).
fn configuration(row: &Resource, info: &RequestInfo, bytes: &[u8]) -> Result<Vec<u8>, ApiError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let config: Value = serde_json::from_slice(bytes).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    let (version, kind) = (text(&config["apiVersion"]), text(&config["kind"]));
    if version.is_empty() || kind.is_empty() {
        let missing = if kind.is_empty() { "kind" } else { "apiVersion" };
        return Err(ApiError::bad_request(format!("Object '{missing}' is missing in '{config}'")));
    }
    if (version.as_str(), kind.as_str()) != ("autoscaling/v1", "Scale") {
        return Err(ApiError::bad_request(format!("invalid object type: {version}, Kind={kind}")));
    }
    let mut wanted = super::decode::<Scale>(bytes)?;
    options::same_object(info, row, &mut wanted.metadata)?;
    validate(&info.name, &wanted)?;
    let mut metadata = json!({"name": info.name, "namespace": info.namespace});
    for name in ["uid", "resourceVersion", "managedFields"] {
        if !config["metadata"][name].is_null() {
            metadata[name] = config["metadata"][name].clone();
        }
    }
    let mut parent = json!({"apiVersion": row.api_version(), "kind": row.kind, "metadata": metadata});
    if !config["spec"]["replicas"].is_null() {
        parent["spec"] = json!({"replicas": config["spec"]["replicas"]});
    }
    serde_json::to_vec(&parent).map_err(ApiError::internal)
}

fn scale_of(row: &Resource, object: &Object) -> Result<Scale, ApiError> {
    scale::to_scale(row, object).ok_or_else(ApiError::unknown_path)
}

fn validate(name: &str, wanted: &Scale) -> Result<i32, ApiError> {
    let errors = scale::validate(wanted);
    if errors.is_empty() {
        return Ok(wanted.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0));
    }
    Err(ApiError::invalid(GroupResource { group: "autoscaling", resource: "Scale" }, name, &errors))
}

fn encode(accepted: Accepted, scale: &Scale) -> Result<Response, ApiError> {
    respond::negotiated(StatusCode::OK, accepted, serde_json::to_vec(scale).map_err(ApiError::internal)?.into())
}

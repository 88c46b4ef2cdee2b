//! create, update, delete and deletecollection.

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusDetails};
use shared::status::ApiError;

use super::{answer, encoded, options};
use crate::api::authz::Access;
use crate::api::chain::Call;
use crate::api::listing::{ListHead, Writer};
use crate::api::negotiate::{self, Accepted, Shape};
use crate::api::{Body, Response, respond};
use crate::cache::Entry;
use crate::registry::Resource;
use crate::registry::store::{Current, Propagation, decode};

/// Kinds whose deletion answers with the object instead of a `Status` (upstream's `ReturnDeletedObject`).
const RETURN_DELETED: [&str; 9] = [
    "persistentvolumes",
    "persistentvolumeclaims",
    "pods",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "services",
    "storageclasses",
    "volumeattachments",
];

/// Whether the deletion of a kind's object answers with the object.
pub(in crate::api) fn returns_deleted(plural: &str) -> bool {
    RETURN_DELETED.contains(&plural)
}

pub(super) async fn create(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let writing = options::writing(call, "CreateOptions", false)?;
    let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
    let decoded = decode(row, &json, writing.validation)?;
    let server = call.server;
    let written = server.store.create(row, &call.info.namespace, decoded, &writing.store, &*server.admit).await?;
    answer(StatusCode::CREATED, accepted, row, &written.entry, &written.warnings)
}

pub(super) async fn update(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let writing = options::writing(call, "UpdateOptions", false)?;
    let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
    let decoded = decode(row, &json, writing.validation)?;
    let (server, info) = (call.server, call.info);
    let change = |current: Option<&Current>| {
        // Creating by an update takes the right to create.
        if current.is_none() {
            call.authorize(&Access { verb: "create", ..Access::of(info) })?;
        }
        Ok(decoded.clone())
    };
    let written = server.store.update(row, &info.namespace, &info.name, &writing.store, &change, &*server.admit).await?;
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    answer(code, accepted, row, &written.entry, &written.warnings)
}

pub(super) async fn delete(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
    let options = options::delete(call.info, &json)?;
    let (server, info) = (call.server, call.info);
    let deleted = server.store.delete(row, &info.namespace, &info.name, &options, call.user, &*server.admit).await?;
    if deleted.gone && !returns_deleted(row.plural) {
        let mut response = respond::negotiated(StatusCode::OK, Accepted { shape: Shape::Object, ..accepted }, success(row, &deleted.entry)?.into())?;
        respond::add_warnings(response.headers_mut(), &deleted.warnings);
        return Ok(response);
    }
    // What waits for its dependents is only accepted.
    let waits = options.propagation_policy == Some(Propagation::Foreground) || options.orphan_dependents == Some(false);
    let code = if !deleted.gone && waits { StatusCode::ACCEPTED } else { StatusCode::OK };
    answer(code, accepted, row, &deleted.entry, &deleted.warnings)
}

/// `Success`, naming what is gone.
fn success(row: &Resource, entry: &Entry) -> Result<Vec<u8>, ApiError> {
    #[derive(serde::Deserialize)]
    struct Uid {
        uid: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Meta {
        metadata: Uid,
    }
    let meta: Meta = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    let details = StatusDetails {
        name: Some(entry.name.to_string()),
        group: (!row.group.is_empty()).then(|| row.group.to_owned()),
        kind: Some(row.plural.to_owned()),
        uid: meta.metadata.uid,
        ..StatusDetails::default()
    };
    let status = Status { metadata: ListMeta::default(), status: Some("Success".into()), details: Some(details), ..Status::default() };
    serde_json::to_vec(&status).map_err(ApiError::internal)
}

pub(super) async fn delete_collection(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
    let options = options::delete(call.info, &json)?;
    let server = call.server;
    let listed = server.store.delete_collection(row, &options::list(call.info)?, &options, call.user, &*server.admit).await?;
    let head = ListHead { revision: listed.revision, next: listed.continue_token.unwrap_or_default(), remaining: listed.remaining };
    let body = Writer::new(row, accepted.shape).list(&head, listed.items)?;
    encoded(accepted, body)
}

//! Subresources: parts of objects with paths and rules of their own. One file each where there is more to one than its strategy.
//!
//! Owns the list of them. Must never write but through the store.

mod admitted;
mod binding;
pub(in crate::api) mod connect;
mod eviction;
pub mod forward;
mod parts;
mod scale;
mod token;

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status};
use shared::status::{ApiError, GroupResource};

use self::admitted::{Part, admitted};
use super::chain::Call;
use super::{Body, Response, respond, verbs};
use crate::registry::store::from_json;
use crate::registry::{ApiObject, RESOURCES, Resource, Subresource};

/// Answers a request for a subresource.
///
/// # Errors
/// 405 for a verb it does not have, and whatever the handler says.
pub async fn handle(call: &Call<'_>, row: &'static Resource, sub: &'static Subresource, body: Body) -> Result<Response, ApiError> {
    // HTTP methods of proxied requests are the target's affair.
    if sub.name != "proxy" && !sub.verbs.contains(&call.info.verb) {
        return Err(ApiError::method_not_supported(row.group_resource(), call.info.verb));
    }
    if matches!(sub.name, "exec" | "attach" | "portforward" | "proxy") {
        admitted::connection(call, row, sub.name).await?;
    }
    match (row.plural, sub.name) {
        (_, "status") => verbs::handle_status(call, row, body).await,
        (_, "scale") => scale::handle(call, row, body).await,
        ("pods", "binding") => binding::create(call, row, body).await,
        ("pods", "eviction") => eviction::create(call, row, body).await,
        ("pods", "ephemeralcontainers" | "resize") | ("namespaces", "finalize") | ("certificatesigningrequests", "approval") => {
            parts::handle(call, row, body).await
        }
        ("serviceaccounts", "token") => token::create(call, row, body).await,
        ("pods", "log") => connect::log(call).await,
        ("pods", "exec" | "attach") => connect::run(call).await,
        ("pods", "portforward") => connect::port_forward(call).await,
        ("pods" | "nodes" | "services", "proxy") => connect::proxy(call, body).await,
        _ => Err(ApiError::unknown_path()),
    }
}

/// The row of a kind that this server must have.
fn row<T: ApiObject>() -> Result<&'static Resource, ApiError> {
    RESOURCES.of::<T>().ok_or_else(|| ApiError::not_found(GroupResource { group: T::GROUP, resource: T::KIND }, ""))
}

/// An object, decoded, as it is now.
async fn typed<T: ApiObject>(call: &Call<'_>, namespace: &str, name: &str) -> Result<T, ApiError> {
    let entry = call.server.store.get(row::<T>()?, namespace, name, "").await?;
    from_json(&entry.bytes, None).map_err(ApiError::internal)
}

/// Objects of a namespace, decoded, as the cache has them.
fn list_typed<T: ApiObject>(call: &Call<'_>, namespace: &str) -> Result<Vec<T>, ApiError> {
    let entries = call.server.store.cache().list(row::<T>()?, namespace).map_err(ApiError::internal)?;
    entries.iter().map(|e| from_json(&e.bytes, None).map_err(ApiError::internal)).collect()
}

/// `201` with a `Status` that says Success, as actions answer.
fn success() -> Response {
    let status = Status { metadata: ListMeta::default(), status: Some("Success".into()), code: Some(201), ..Status::default() };
    respond::json(StatusCode::CREATED, &status)
}

/// Decodes an action's body.
fn decode<T: serde::de::DeserializeOwned + k8s_openapi::Resource>(json: &[u8]) -> Result<T, ApiError> {
    from_json(json, None)
        .map_err(|e| ApiError::bad_request(format!("{} in version {:?} cannot be handled as a {}: {e}", T::KIND, T::VERSION, T::KIND)))
}

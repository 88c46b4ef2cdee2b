//! `serviceaccounts/token`: the request is read here, the token is made by whoever holds the keys.

use http::StatusCode;
use k8s_openapi::api::authentication::v1::TokenRequest;
use shared::status::ApiError;

use super::Part;
use crate::api::chain::Call;
use crate::api::negotiate::{self, Accepted};
use crate::api::verbs::options;
use crate::api::{Body, Response, respond};
use crate::registry::admit::Operation;
use crate::registry::{Object, Resource};

/// Answers a TokenRequest.
///
/// # Errors
/// 400 for another body, and what the issuer says.
pub async fn create(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let issuer = call.server.tokens.as_ref().ok_or_else(ApiError::unknown_path)?;
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
    let request = super::decode::<TokenRequest>(&json)?;
    let mut object = Object::new(request.clone());
    let dry_run = options::writing(call, "CreateOptions", false)?.store.dry_run;
    let part = Part { operation: Operation::Create, subresource: "token", dry_run, object: Some(&mut object), options: None };
    let warnings = super::admitted(call, row, part).await?;
    let request = object.downcast_ref::<TokenRequest>().cloned().unwrap_or(request);
    let answer = issuer.create(call.user, &call.info.namespace, &call.info.name, request).await?;
    let mut response = respond::negotiated(StatusCode::CREATED, accepted, serde_json::to_vec(&answer).map_err(ApiError::internal)?.into())?;
    respond::add_warnings(response.headers_mut(), &warnings);
    Ok(response)
}

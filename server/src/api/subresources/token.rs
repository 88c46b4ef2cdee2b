//! `serviceaccounts/token`: the request is read here, the token is made by whoever holds the keys.

use http::StatusCode;
use k8s_openapi::api::authentication::v1::TokenRequest;
use shared::status::ApiError;

use crate::api::chain::Call;
use crate::api::negotiate::{self, Accepted};
use crate::api::{Body, Response, respond};

/// Answers a TokenRequest.
///
/// # Errors
/// 400 for another body, and what the issuer says.
pub async fn create(call: &Call<'_>, body: Body) -> Result<Response, ApiError> {
    let issuer = call.server.tokens.as_ref().ok_or_else(ApiError::unknown_path)?;
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
    let answer = issuer.create(call.user, &call.info.namespace, &call.info.name, super::decode::<TokenRequest>(&json)?).await?;
    respond::negotiated(StatusCode::CREATED, accepted, serde_json::to_vec(&answer).map_err(ApiError::internal)?.into())
}

//! get and list.

use http::StatusCode;
use shared::status::ApiError;

use super::{answer, encoded, options};
use crate::api::Response;
use crate::api::chain::Call;
use crate::api::listing::{ListHead, Writer};
use crate::api::negotiate::Accepted;
use crate::registry::Resource;

/// A list of more objects is looked through on a thread of its own: a table of thousands would hold up everybody else's requests.
const AT_ONCE: usize = 500;

/// One object.
pub(super) async fn get(call: &Call<'_>, row: &'static Resource) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let version = call.info.param("resourceVersion").unwrap_or_default();
    let entry = call.server.store.get(row, &call.info.namespace, &call.info.name, version).await?;
    answer(StatusCode::OK, accepted, row, &entry, &[])
}

/// A collection, or a page of it.
pub(super) async fn list(call: &Call<'_>, row: &'static Resource) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let listed = call.server.store.list(row, &options::list(call.info)?).await?;
    let head = ListHead { revision: listed.revision, next: listed.continue_token.unwrap_or_default(), remaining: listed.remaining };
    let items = listed.items;
    let large = items.len() > AT_ONCE;
    let write = move || encoded(accepted, Writer::new(row, accepted.shape).list(&head, items)?);
    if large { tokio::task::spawn_blocking(write).await.map_err(ApiError::internal)? } else { write() }
}

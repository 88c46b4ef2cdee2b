//! The verbs over HTTP: options in, the store's verb, the answer in the shape the client accepts.
//!
//! Owns the translation between requests and the store's calls. Must never hold semantics: those are the store's and the strategies'.

pub mod options;
mod patch;
mod read;
mod watch;
mod write;

use http::StatusCode;
use shared::status::ApiError;

use super::chain::Call;
use super::listing::{Chunks, Writer};
use super::negotiate::{Accepted, Format};
use super::{Body, Response, negotiate, respond};
use crate::cache::Entry;
use crate::registry::Resource;

/// Answers a request for a kind's objects themselves.
///
/// # Errors
/// 405 for a verb that the kind or the path does not have, and whatever the verb says.
pub async fn handle(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let verb = call.info.verb;
    let one = matches!(verb, "get" | "update" | "patch" | "delete");
    let misplaced = one == call.info.name.is_empty() && !matches!(verb, "list" | "watch");
    if !row.verbs.contains(&verb) || misplaced {
        return Err(ApiError::method_not_supported(row.group_resource(), verb));
    }
    match verb {
        "get" => read::get(call, row).await,
        "list" => read::list(call, row).await,
        "watch" => watch::open(call, row).await,
        "create" => write::create(call, row, body).await,
        "update" => write::update(call, row, body).await,
        "patch" => patch::handle(call, row, body).await,
        "delete" => write::delete(call, row, body).await,
        _ => write::delete_collection(call, row, body).await,
    }
}

/// Answers a request for an object's `status`.
///
/// # Errors
/// Whatever the verb says.
pub async fn handle_status(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    match call.info.verb {
        "get" => read::get(call, row).await,
        "update" => write::update(call, row, body).await,
        _ => patch::handle(call, row, body).await,
    }
}

pub(super) use patch::Patch;
pub(super) use write::returns_deleted;

/// An object as the answer, with the warnings of how it came about.
pub(super) fn answer(code: StatusCode, accepted: Accepted, row: &'static Resource, entry: &Entry, warnings: &[String]) -> Result<Response, ApiError> {
    let mut response = if accepted.verbatim() {
        respond::json_line(code, entry.bytes.clone())
    } else {
        let mut chunks = Chunks::default();
        Writer::new(row, accepted.shape).object(&mut chunks, entry, true)?;
        respond::negotiated(code, accepted, chunks.into_bytes())?
    };
    respond::add_warnings(response.headers_mut(), warnings);
    Ok(response)
}

/// A body of JSON in the encoding that the client accepts.
fn encoded(accepted: Accepted, body: Body) -> Result<Response, ApiError> {
    if accepted.format == Format::Json && !accepted.pretty {
        return Ok(respond::with_type(StatusCode::OK, "application/json", body));
    }
    let all: Vec<u8> = body.into_chunks().iter().flatten().copied().collect();
    let (bytes, media) = negotiate::encode(accepted, all.into())?;
    Ok(respond::with_type(StatusCode::OK, media, bytes.into()))
}

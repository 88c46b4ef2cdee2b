//! Responses: JSON documents and `Status` errors, compressed where that pays.
//!
//! Owns headers that every answer has. Must never decide what is in a body.

use std::collections::HashSet;
use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::status::ApiError;

use super::negotiate::{self, Accepted, Format};
use super::{Body, Response, protobuf};

/// Answers larger than this are compressed for clients that accept it (`defaultGzipThresholdBytes`).
const GZIP_FROM: u64 = 128 * 1024;

/// A response with a body of a media type.
pub fn with_type(code: StatusCode, media: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Bytes that are JSON already.
pub fn json_bytes(code: StatusCode, bytes: Bytes) -> Response {
    with_type(code, "application/json", bytes.into())
}

/// Objects up to this size are copied to get their newline, so that they go out in one piece.
const COPIED: usize = 4 * 1024;

/// JSON as Go's encoder writes it: with a newline at the end.
pub fn json_line(code: StatusCode, bytes: Bytes) -> Response {
    let newline = Bytes::from_static(b"\n");
    let body = if bytes.len() <= COPIED { Body::from([bytes, newline].concat()) } else { Body::chunks([bytes, newline]) };
    with_type(code, "application/json", body)
}

/// A value as JSON, for documents that do not go through content negotiation.
pub fn json(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_line(code, bytes.into()),
        Err(error) => self::error(&ApiError::internal(error)),
    }
}

/// JSON in the encoding that the client accepts.
///
/// # Errors
/// 500 for bytes that are not JSON.
pub fn negotiated(code: StatusCode, accepted: Accepted, bytes: Bytes) -> Result<Response, ApiError> {
    if accepted.format == Format::Json && !accepted.pretty {
        return Ok(json_line(code, bytes));
    }
    let (bytes, media) = negotiate::encode(accepted, bytes)?;
    Ok(with_type(code, media, bytes.into()))
}

/// A watch, whose lines of JSON become frames for a client that accepts protobuf.
pub fn watch(accepted: Accepted, lines: Body) -> Response {
    if accepted.format != Format::Protobuf {
        return with_type(StatusCode::OK, "application/json", lines);
    }
    let frame = |line: &[u8]| {
        // An event that cannot be shown is said to be so; the stream goes on.
        protobuf::watch_frame(line).unwrap_or_else(|error| {
            let status = serde_json::to_value(&*error.0).unwrap_or_default();
            let line = serde_json::json!({"type": "ERROR", "object": status}).to_string();
            protobuf::watch_frame(line.as_bytes()).unwrap_or_default()
        })
    };
    with_type(StatusCode::OK, negotiate::PROTOBUF_STREAM, each_line(lines, frame))
}

/// A body of lines, each turned into something else as it comes.
pub fn each_line(body: Body, turn: impl Fn(&[u8]) -> Bytes + Send + 'static) -> Body {
    let state = (body, BytesMut::new(), turn);
    Body::stream(futures::stream::unfold(state, |(mut body, mut open, turn)| async move {
        loop {
            let bytes = match body.next().await? {
                Ok(bytes) => bytes,
                Err(error) => return Some((Err(error), (body, open, turn))),
            };
            // Only what is new can hold the end of the line that was begun before.
            let Some(end) = bytes.iter().rposition(|b| *b == b'\n') else {
                open.extend_from_slice(&bytes);
                continue;
            };
            let (whole, rest) = bytes.split_at(end + 1);
            open.extend_from_slice(whole);
            let turned: Vec<u8> = open.split_inclusive(|b| *b == b'\n').flat_map(&turn).collect();
            open.clear();
            open.extend_from_slice(rest);
            return Some((Ok(turned.into()), (body, open, turn)));
        }
    }))
}

/// Plain text.
pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = with_type(code, "text/plain; charset=utf-8", text.into().into());
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// An error as its `Status`, in the encoding that the client accepts, or as JSON when it accepts none.
pub fn error_for(accepted: Option<Accepted>, error: &ApiError) -> Response {
    let mut response = self::error(error);
    let Some(accepted) = accepted.filter(|a| a.format != Format::Json || a.pretty) else { return response };
    let json = serde_json::to_vec(&*error.0).unwrap_or_default();
    if let Ok((bytes, media)) = negotiate::encode(accepted, json.into()) {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        *response.body_mut() = bytes.into();
    }
    response
}

/// An error as its `Status`.
pub fn error(error: &ApiError) -> Response {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = serde_json::to_vec(&*error.0).unwrap_or_default();
    let mut response = json_line(code, bytes.into());
    let seconds = error.0.details.as_ref().and_then(|d| d.retry_after_seconds).filter(|s| *s > 0);
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"kubernetes-master\""));
    }
    add_warnings(response.headers_mut(), error.warnings());
    response
}

/// Longest text of all warnings of an answer together, in bytes; once it is exceeded, each is cut to [`WARNING_LENGTH`].
const WARNINGS_LENGTH: usize = 4096;
/// Longest text of one warning of many, in bytes.
const WARNING_LENGTH: usize = 256;

/// Adds `Warning: 299 - "text"` headers (`k8s.io/apiserver/pkg/endpoints/filters/warning.go`, `net.NewWarningHeader`): quoted, each text
/// once, and no more than clients take.
pub fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    let mut said = HashSet::new();
    let total: usize = warnings.iter().map(String::len).sum();
    let longest = if total > WARNINGS_LENGTH { WARNING_LENGTH } else { WARNINGS_LENGTH };
    let mut left = WARNINGS_LENGTH;
    for text in warnings.iter().filter(|w| said.insert(w.as_str())) {
        left = match left.checked_sub(text.len().min(longest)) {
            Some(left) => left,
            None => return,
        };
        let mut value = String::from("299 - \"");
        for c in text.chars().take(longest) {
            match c {
                '"' | '\\' => value.extend(['\\', c]),
                c if c.is_control() => value.push(' '),
                c => value.push(c),
            }
        }
        value.push('"');
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(header::WARNING, value);
        }
    }
}

/// Compresses a large answer if the client accepts gzip.
pub async fn compress(request: &HeaderMap, response: Response) -> Response {
    let large = response.body().length().is_some_and(|l| l > GZIP_FROM);
    if !large || !accepts_gzip(request) || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let compressed = tokio::task::spawn_blocking(move || gzip(&body.into_chunks())).await;
    let Ok(Ok(bytes)) = compressed else { return error(&ApiError::internal("the answer could not be compressed")) };
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, bytes.into())
}

/// Gzip at the fastest level, as upstream.
///
/// # Errors
/// None that a `Vec` as the sink can have.
pub fn gzip<'a>(chunks: impl IntoIterator<Item = &'a Bytes>) -> std::io::Result<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for chunk in chunks {
        encoder.write_all(chunk)?;
    }
    encoder.finish().map(Bytes::from)
}

/// What was compressed by [`gzip`].
///
/// # Errors
/// 500 for other bytes.
pub fn gunzip(bytes: &Bytes) -> Result<Bytes, ApiError> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).map_err(ApiError::internal)?;
    Ok(plain.into())
}

/// Whether a client accepts gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    accepted.any(|encoding| {
        let mut parts = encoding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.next() != Some("q=0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_and_said_once() {
        let mut headers = HeaderMap::new();
        add_warnings(&mut headers, &["unknown field \"spec.x\"".into(), "a\nb".into(), "unknown field \"spec.x\"".into()]);
        let values: Vec<_> = headers.get_all(header::WARNING).iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(values, [r#"299 - "unknown field \"spec.x\"""#, r#"299 - "a b""#]);
    }

    #[tokio::test]
    async fn only_large_answers_are_compressed_and_only_for_those_who_accept_it() {
        let mut gzip = HeaderMap::new();
        gzip.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("deflate, gzip;q=0.5"));
        let large = || json_bytes(StatusCode::OK, vec![b' '; 200 * 1024].into());
        assert!(compress(&gzip, large()).await.body().length().unwrap() < 2000);
        assert_eq!(compress(&HeaderMap::new(), large()).await.body().length(), Some(200 * 1024));
        assert_eq!(compress(&gzip, json_bytes(StatusCode::OK, "{}".into())).await.body().length(), Some(2));
        gzip.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"));
        assert_eq!(compress(&gzip, large()).await.body().length(), Some(200 * 1024));
    }

    #[tokio::test]
    async fn an_error_is_its_status_with_retry_after() {
        let response = error(&ApiError::too_many_requests("wait", 1));
        assert_eq!((response.status().as_u16(), &response.headers()[header::RETRY_AFTER]), (429, &HeaderValue::from_static("1")));
        let body: serde_json::Value = serde_json::from_slice(&response.into_body().read().await.unwrap()).unwrap();
        assert_eq!((body["kind"].as_str(), body["reason"].as_str(), body["code"].as_u64()), (Some("Status"), Some("TooManyRequests"), Some(429)));
    }
}

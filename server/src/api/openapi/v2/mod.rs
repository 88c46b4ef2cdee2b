//! OpenAPI v2, for clients that know no v3 and for `kubectl`'s validation fallback: the same documents in the older form
//! (`k8s.io/kube-openapi/pkg/builder`, `pkg/handler`).
//!
//! Owns the conversion. Nothing is described here that a v3 document does not say, so kinds that come at run time need nothing more.

mod convert;
mod gnostic;

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::status::ApiError;

use crate::api::{Response, respond, version};

/// Media type of the protobuf form. The second is what clients wrote before media types had to be valid.
const PROTOBUF: [&str; 2] =
    ["application/com.github.proto-openapi.spec.v2.v1.0+protobuf", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];

/// The document in both encodings, compressed.
pub(super) struct Document {
    json: Bytes,
    protobuf: Bytes,
    etag: HeaderValue,
    modified: HeaderValue,
}

/// Named parts of the document, encoded one by one.
#[derive(Default)]
struct Members {
    names: HashSet<String>,
    json: String,
    protobuf: Vec<u8>,
}

impl Members {
    /// Adds a part, unless it is there already.
    fn add(&mut self, name: String, value: &Value, encode: fn(&mut Vec<u8>, &str, &Value)) {
        if self.names.contains(&name) {
            return;
        }
        let comma = if self.json.is_empty() { "" } else { "," };
        self.json.push_str(&format!("{comma}{}:{value}", Value::from(name.as_str())));
        encode(&mut self.protobuf, &name, value);
        self.names.insert(name);
    }
}

impl Document {
    /// Converts v3 documents, one a group version. Each is let go before the next is read: all together they would take much memory.
    ///
    /// # Errors
    /// 500 for a document that is not one.
    pub fn build(documents: impl IntoIterator<Item = Result<Value, ApiError>>) -> Result<Self, ApiError> {
        let (mut paths, mut definitions) = (Members::default(), Members::default());
        for document in documents {
            convert::document(document?, &mut |name, item| paths.add(name, &item, gnostic::add_path), &mut |name, schema| {
                definitions.add(name, &schema, gnostic::add_definition)
            });
        }
        let head = json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": version::GIT_VERSION},
            "securityDefinitions": {
                "BearerToken": {"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header"},
            },
            "security": [{"BearerToken": []}],
        });
        let protobuf = Bytes::from(gnostic::document(&head, paths.protobuf, definitions.protobuf));
        let head = head.to_string();
        let head = head.strip_suffix('}').unwrap_or_default();
        let json = Bytes::from(format!("{head},\"paths\":{{{}}},\"definitions\":{{{}}}}}", paths.json, definitions.json));
        let tag = Sha256::digest(&json).iter().fold(String::new(), |tag, byte| format!("{tag}{byte:02X}"));
        Ok(Document {
            json: respond::gzip([&json]).map_err(ApiError::internal)?,
            protobuf: respond::gzip([&protobuf]).map_err(ApiError::internal)?,
            etag: HeaderValue::from_str(&format!("\"{tag}\"")).map_err(ApiError::internal)?,
            modified: HeaderValue::from_str(&super::httpdate(std::time::SystemTime::now())).map_err(ApiError::internal)?,
        })
    }

    /// Answers a request for it.
    ///
    /// # Errors
    /// 406 when the client accepts neither encoding.
    pub fn answer(&self, headers: &HeaderMap) -> Result<Response, ApiError> {
        let (bytes, media) = match choose(headers) {
            Some(true) => (&self.protobuf, PROTOBUF[0]),
            Some(false) => (&self.json, "application/json"),
            None => return Err(ApiError::not_acceptable(format!("only the following media types are accepted: application/json, {}", PROTOBUF[0]))),
        };
        let mut response = if headers.get(header::IF_NONE_MATCH) == Some(&self.etag) {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else if respond::accepts_gzip(headers) {
            let mut response = respond::with_type(StatusCode::OK, media, bytes.clone().into());
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        } else {
            respond::with_type(StatusCode::OK, media, respond::gunzip(bytes)?.into())
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::LAST_MODIFIED, self.modified.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        Ok(response)
    }
}

/// Whether the first encoding that is served is the protobuf one; without preferences it is not.
fn choose(headers: &HeaderMap) -> Option<bool> {
    let mut clauses: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    if clauses.is_empty() {
        clauses.push("*/*");
    }
    clauses.iter().find_map(|clause| match clause.split(';').next().unwrap_or_default().trim() {
        "application/json" | "application/*" | "*/*" => Some(false),
        media if PROTOBUF.contains(&media) => Some(true),
        _ => None,
    })
}

#[cfg(test)]
mod tests;

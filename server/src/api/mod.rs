//! The API server: HTTP in, the filter chain, verbs over the registry.
//!
//! Order: panic → request info → deadline → authn → audit → impersonation → in-flight → authz → admission → verb.

pub mod admission;
pub mod authn;
pub mod authz;
pub mod request_info;
pub mod user;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

/// Body of requests and responses on the whole API path, HTTP or in process.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
/// A request inside the chain.
pub type Request = http::Request<Body>;
/// A response of the chain.
pub type Response = http::Response<Body>;

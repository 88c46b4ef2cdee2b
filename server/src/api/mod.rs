//! The API server: HTTP in, the filter chain, verbs over the registry.
//!
//! Order: panic → request info → deadline → authn → audit → impersonation → in-flight → authz → admission → verb.
//! Owns the wire: paths, media types, status codes, streams. Must never know etcd, nor what a kind means: that is the registry's.

pub mod admission;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
pub mod build;
pub mod chain;
pub mod client;
mod component_statuses;
mod computed;
mod deprecation;
pub mod discovery;
pub mod dispatch;
pub mod extensions;
pub mod health;
pub mod impersonation;
pub mod inflight;
pub mod listener;
pub mod listing;
pub mod metrics;
pub mod negotiate;
pub mod objects;
pub mod openapi;
pub mod protobuf;
pub mod request_info;
mod resource_metrics;
pub mod respond;
pub mod reviews;
pub mod route;
pub mod subresources;
pub mod user;
pub mod verbs;
pub mod version;
pub mod views;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::SubjectRulesReviewStatus;
use shared::status::ApiError;

use authn::{Authenticator, Peer};
use authz::{Access, Authorizer, Decision};
pub use body::Body;
use objects::Reader;
use user::User;

/// A request inside the chain.
pub type Request = http::Request<Body>;
/// A response of the chain.
pub type Response = http::Response<Body>;

/// Finds out who makes a request.
#[async_trait]
pub trait Authenticate: Send + Sync {
    /// The request's user, `system:anonymous` where that is let in. The extensions hold the request's [`authn::Peer`].
    ///
    /// # Errors
    /// 401 for credentials that are missing or wrong.
    async fn authenticate(&self, parts: &http::request::Parts) -> Result<User, ApiError>;

    /// Answers a TokenReview.
    ///
    /// # Errors
    /// 400 without a token, 5xx when it cannot be checked. A bad token is an answer, not an error.
    async fn review(&self, spec: &TokenReviewSpec) -> Result<TokenReviewStatus, ApiError>;
}

/// Decides who may do what. Answers from memory: it is asked on every request.
pub trait Authorize: Send + Sync {
    /// Whether `user` may have `access`.
    fn authorize(&self, user: &User, access: &Access<'_>) -> Decision;
    /// The same, for those who need no reason: to word one costs more than to decide.
    fn permits(&self, user: &User, access: &Access<'_>) -> bool {
        self.authorize(user, access).allowed
    }
    /// All that a user may do in a namespace, as SelfSubjectRulesReview shows it.
    fn rules(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus;
}

/// Issues service-account tokens and publishes the keys they are checked with.
#[async_trait]
pub trait IssueTokens: Send + Sync {
    /// Answers a TokenRequest: the same object with its status filled in.
    ///
    /// # Errors
    /// 404 without the ServiceAccount or the bound object, 409 when that object's UID differs, 422 for bad values, 403 for a node that asks
    /// for more than its pods' tokens.
    async fn create(&self, user: &User, namespace: &str, name: &str, request: TokenRequest) -> Result<TokenRequest, ApiError>;
    /// The document at `/.well-known/openid-configuration`.
    fn openid_configuration(&self) -> serde_json::Value;
    /// The document at `/openid/v1/jwks`.
    fn jwks(&self) -> serde_json::Value;
}

/// What a TCP connection knows of its client.
#[derive(Debug)]
pub struct Connection {
    /// Remote address.
    pub remote: std::net::SocketAddr,
    /// Who it was opened by, as far as TLS knows.
    pub peer: Peer,
}

#[async_trait]
impl Authenticate for Authenticator {
    async fn authenticate(&self, parts: &http::request::Parts) -> Result<User, ApiError> {
        Authenticator::authenticate(self, parts).await
    }
    async fn review(&self, spec: &TokenReviewSpec) -> Result<TokenReviewStatus, ApiError> {
        Authenticator::review(self, spec).await
    }
}

impl Authorize for Authorizer {
    fn authorize(&self, user: &User, access: &Access<'_>) -> Decision {
        Authorizer::authorize(self, user, access)
    }
    fn permits(&self, user: &User, access: &Access<'_>) -> bool {
        Authorizer::permits(self, user, access)
    }
    fn rules(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus {
        self.rules_for(user, namespace)
    }
}

/// Issues tokens with the server's own keys.
pub struct Tokens {
    /// Reads the ServiceAccounts and what tokens are bound to.
    pub reader: Reader,
    /// The keys.
    pub issuer: Arc<authn::TokenIssuer>,
}

#[async_trait]
impl IssueTokens for Tokens {
    async fn create(&self, user: &User, namespace: &str, name: &str, request: TokenRequest) -> Result<TokenRequest, ApiError> {
        admission::node_restriction::check_token(&self.reader, user, namespace, name, &request).await?;
        authn::token_request::create(&self.reader, &self.issuer, namespace, name, request).await
    }
    fn openid_configuration(&self) -> serde_json::Value {
        self.issuer.openid_configuration(None)
    }
    fn jwks(&self) -> serde_json::Value {
        self.issuer.jwks()
    }
}

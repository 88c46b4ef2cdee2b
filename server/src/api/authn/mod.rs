//! Who makes a request: client certificates, ServiceAccount tokens and bootstrap tokens.
//!
//! Owns the translation of credentials into a [`User`]. Must never decide what that user may do. Wrong credentials are always
//! 401; only a request without any may pass as anonymous, and only to the health endpoints.

mod bootstrap_token;
mod service_account;
pub mod token_request;
pub mod tokens;
mod x509;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReviewSpec, TokenReviewStatus, UserInfo};
use shared::status::ApiError;

use super::objects::Reader;
use super::user::User;
pub use tokens::{TokenError, TokenIssuer};
pub use x509::{CertificateError, ClientCertificate};

/// How a request reached the server. The accept loop (or the in-process client) puts it into the request's extensions; a request
/// without one counts as a connection without certificate.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Over TLS, with the client's certificate if it sent one (rustls has verified its chain).
    Tls(Option<Arc<ClientCertificate>>),
    /// From a component of this process, under its own identity.
    Process(Arc<User>),
}

/// Turns credentials into users. One for the whole server.
pub struct Authenticator {
    reader: Reader,
    tokens: Arc<TokenIssuer>,
}

/// Prefix of the WebSocket subprotocol in which browsers send a bearer token.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether a path is open to requests without credentials.
pub fn is_health_path(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz"].iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

impl Authenticator {
    /// Reads ServiceAccounts, Pods, Nodes and Secrets through `reader`; verifies tokens with the issuer's keys.
    pub fn new(reader: Reader, tokens: Arc<TokenIssuer>) -> Self {
        Authenticator { reader, tokens }
    }

    /// The issuer whose tokens are accepted.
    pub fn tokens(&self) -> &Arc<TokenIssuer> {
        &self.tokens
    }

    /// The user behind a request. Without credentials: anonymous for the health endpoints, else 401.
    ///
    /// # Errors
    /// 401 for missing, malformed, expired or revoked credentials; 5xx when they cannot be checked.
    pub async fn authenticate(&self, parts: &http::request::Parts) -> Result<User, ApiError> {
        let now = Timestamp::now();
        match parts.extensions.get::<Peer>() {
            Some(Peer::Process(user)) => return Ok(User::clone(user)),
            Some(Peer::Tls(Some(certificate))) => {
                return certificate.user_at(now).map_err(|error| {
                    tracing::debug!(%error, "client certificate refused");
                    ApiError::unauthorized()
                });
            }
            Some(Peer::Tls(None)) | None => {}
        }
        match bearer(&parts.headers) {
            Some(token) => self.authenticate_token(&token, &[], now).await.map(|(user, _)| user),
            None if parts.headers.contains_key(AUTHORIZATION) => Err(ApiError::unauthorized()),
            None if is_health_path(parts.uri.path()) => Ok(User::anonymous()),
            None => Err(ApiError::unauthorized()),
        }
    }

    /// The user behind a bearer token and the audiences it is good for; with no `audiences` it must be meant for this server.
    async fn authenticate_token(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<(User, Vec<String>), ApiError> {
        if bootstrap_token::looks_like(token) {
            let user = bootstrap_token::authenticate(&self.reader, token, now)?;
            return user.map(|user| (user, self.tokens.audiences().to_vec())).ok_or_else(ApiError::unauthorized);
        }
        let refused = |error: TokenError| {
            tracing::debug!(%error, "token refused");
            ApiError::unauthorized()
        };
        let claims = self.tokens.verify(token, now).map_err(refused)?;
        let wanted = if audiences.is_empty() { self.tokens.audiences() } else { audiences };
        let good_for: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if good_for.is_empty() {
            return Err(refused(TokenError::Audience));
        }
        let user = service_account::user(&self.reader, &claims, now).await?;
        user.map(|user| (user, good_for)).ok_or_else(ApiError::unauthorized)
    }

    /// Answers a TokenReview (`pkg/registry/authentication/tokenreview/storage.go`).
    ///
    /// # Errors
    /// 400 without a token; 5xx when the token cannot be checked. A bad token is an answer, not an error.
    pub async fn review(&self, spec: &TokenReviewSpec) -> Result<TokenReviewStatus, ApiError> {
        let token = spec.token.as_str();
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let wanted = spec.audiences.as_deref().unwrap_or_default();
        match self.authenticate_token(token, wanted, Timestamp::now()).await {
            Ok((user, good_for)) => Ok(TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(good_for),
                user: Some(UserInfo {
                    username: Some(user.name),
                    uid: (!user.uid.is_empty()).then_some(user.uid),
                    groups: Some(user.groups),
                    extra: (!user.extra.is_empty()).then_some(user.extra),
                }),
                ..TokenReviewStatus::default()
            }),
            Err(error) if error.code() == 401 => Ok(TokenReviewStatus { error: Some("invalid bearer token".into()), ..TokenReviewStatus::default() }),
            Err(error) => Err(error),
        }
    }
}

/// The bearer token of a request: the Authorization header, or a WebSocket subprotocol.
fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ')).then(|| token.to_owned());
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let encoded = offered.filter_map(|p| p.trim().strip_prefix(WEBSOCKET_BEARER)).next()?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok().filter(|t| !t.is_empty())
}

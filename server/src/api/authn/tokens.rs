//! ServiceAccount tokens as JWTs: signing, verifying and the documents by which others verify them
//! (`pkg/serviceaccount/{jwt,claims,openidmetadata}.go`).
//!
//! Owns the claims' format. Whether what a token is bound to still exists is for the authenticator to ask, on every request.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Why a token is refused or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT, a wrong signature, an unknown key, a missing claim.
    #[error("verifying the token: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// Signed by a key this server does not know.
    #[error("the token was signed by an unknown key")]
    UnknownKey,
    /// Expired or not valid yet.
    #[error("the token has expired or is not valid yet")]
    Expired,
    /// Another issuer's.
    #[error("the token is from another issuer")]
    Issuer,
    /// Meant for someone else.
    #[error("the token is not meant for this server")]
    Audience,
    /// Subject and claims disagree.
    #[error("the token's subject does not match its claims")]
    Subject,
    /// A key that is no ES256 key.
    #[error("service account key: {0}")]
    Key(String),
}

/// A named object at one UID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    /// Name.
    pub name: String,
    /// UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The private claims below `kubernetes.io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubernetes {
    /// The ServiceAccount's namespace.
    pub namespace: String,
    /// The node of the pod, or the node the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    /// The pod the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    /// The secret the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    /// The ServiceAccount.
    pub serviceaccount: Ref,
    /// Seconds since the epoch from which use of the token should be warned of: set where the expiry was extended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// All claims of a token. Times are seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    pub aud: Vec<String>,
    /// Expiry.
    pub exp: i64,
    /// Issue time.
    pub iat: i64,
    /// Issuer.
    pub iss: String,
    /// Unique id.
    pub jti: String,
    /// Private claims.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    /// Start of validity.
    pub nbf: i64,
    /// `system:serviceaccount:<ns>:<name>`
    pub sub: String,
}

/// A key pair's public half with its id.
struct VerifyKey {
    id: String,
    key: DecodingKey,
    /// Affine coordinates, for the JWKS.
    point: (Vec<u8>, Vec<u8>),
}

/// Verified tokens that are remembered by digest, so that a signature is checked once and not on each request.
const REMEMBERED: usize = 4096;

/// Signs with one key, verifies with several: the previous keys stay valid until they are revoked.
pub struct TokenIssuer {
    issuer: String,
    audiences: Vec<String>,
    keys: RwLock<Arc<Keys>>,
}

/// The keys of one time, and the tokens that were found to be signed by one of them.
struct Keys {
    signing: (String, EncodingKey),
    verify: Vec<VerifyKey>,
    seen: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

/// The issuer and audience of this cluster's tokens, as kubeadm names it.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl VerifyKey {
    fn of(pair: &rcgen::KeyPair) -> Result<Self, TokenError> {
        let raw = pair.public_key_raw();
        // An uncompressed P-256 point: 0x04, X, Y.
        if raw.len() != 65 || raw[0] != 4 {
            return Err(TokenError::Key("not a P-256 key".into()));
        }
        let id = base64_url(&Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(pair)));
        let key = DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes())?;
        Ok(VerifyKey { id, key, point: (raw[1..33].to_vec(), raw[33..].to_vec()) })
    }
}

impl Keys {
    fn parse(keys: &[String]) -> Result<Self, TokenError> {
        let mut verify = Vec::new();
        let mut signing = None;
        for pem in keys {
            let pair = rcgen::KeyPair::from_pem(pem).map_err(|e| TokenError::Key(e.to_string()))?;
            let key = VerifyKey::of(&pair)?;
            if signing.is_none() {
                signing = Some((key.id.clone(), EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?));
            }
            verify.push(key);
        }
        let signing = signing.ok_or_else(|| TokenError::Key("no signing key".into()))?;
        Ok(Keys { signing, verify, seen: Mutex::default() })
    }
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

impl TokenIssuer {
    /// An issuer that signs with the first of `keys` (PKCS#8 PEM, P-256) and verifies with all.
    ///
    /// # Errors
    /// When there is no key, or one is not a P-256 private key.
    pub fn new(issuer: &str, audiences: &[String], keys: &[String]) -> Result<Self, TokenError> {
        let keys = RwLock::new(Arc::new(Keys::parse(keys)?));
        Ok(TokenIssuer { issuer: issuer.to_owned(), audiences: audiences.to_vec(), keys })
    }

    /// Signs with the first of these keys from now on, and verifies with these alone.
    ///
    /// # Errors
    /// As for [`TokenIssuer::new`]; nothing is replaced then.
    pub fn replace(&self, keys: &[String]) -> Result<(), TokenError> {
        let keys = Arc::new(Keys::parse(keys)?);
        *self.keys.write() = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().clone()
    }

    /// The audiences that mean this API server.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs a token.
    ///
    /// # Errors
    /// Only when signing itself fails.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let (id, key) = &self.keys().signing;
        let header = Header { kid: Some(id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, claims, key)?)
    }

    /// The claims of a token with a good signature, the right issuer and algorithm, inside its validity. Audiences are the caller's concern.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Claims>, TokenError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let keys = self.keys();
        let remembered = keys.seen.lock().get(&digest).cloned();
        let claims = match remembered {
            Some(claims) => claims,
            None => self.verify_signature(&keys, token)?,
        };
        // Upstream's leeway for clocks that differ (go-jose's DefaultLeeway) is one minute.
        let seconds = now.as_second();
        if seconds > claims.exp + LEEWAY_SECONDS || seconds < claims.nbf - LEEWAY_SECONDS || seconds < claims.iat - LEEWAY_SECONDS {
            keys.seen.lock().remove(&digest);
            return Err(TokenError::Expired);
        }
        let mut seen = keys.seen.lock();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(digest, claims.clone());
        Ok(claims)
    }

    fn verify_signature(&self, keys: &Keys, token: &str) -> Result<Arc<Claims>, TokenError> {
        let header = jsonwebtoken::decode_header(token)?;
        let key = match &header.kid {
            Some(id) => keys.verify.iter().find(|k| k.id == *id).ok_or(TokenError::UnknownKey)?,
            None => return Err(TokenError::UnknownKey),
        };
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &validation)?.claims;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        if claims.sub != format!("system:serviceaccount:{}:{}", claims.kubernetes.namespace, claims.kubernetes.serviceaccount.name) {
            return Err(TokenError::Subject);
        }
        Ok(Arc::new(claims))
    }

    /// `/openid/v1/jwks`
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self
            .keys()
            .verify
            .iter()
            .map(|k| json!({"use": "sig", "kty": "EC", "kid": k.id, "crv": "P-256", "alg": "ES256", "x": base64_url(&k.point.0), "y": base64_url(&k.point.1)}))
            .collect();
        json!({ "keys": keys })
    }

    /// `/.well-known/openid-configuration`; `jwks_uri` defaults to the issuer's own `/openid/v1/jwks`.
    pub fn openid_configuration(&self, jwks_uri: Option<&str>) -> Value {
        let jwks_uri = jwks_uri.map_or_else(|| format!("{}/openid/v1/jwks", self.issuer.trim_end_matches('/')), str::to_owned);
        json!({
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// Clock skew that is forgiven.
const LEEWAY_SECONDS: i64 = 60;

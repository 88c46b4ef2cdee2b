//! Puts the API server together: the security layers over the cache, the chain over all of them.
//!
//! Owns the wiring. Must never decide anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use shared::status::ApiError;

use super::Tokens;
use super::admission::Admission;
use super::admission::dynamic::transport::Pool;
use super::authn::{Authenticator, TokenIssuer};
use super::authz::Authorizer;
use super::chain::{self, Chain};
use super::extensions::{self, conversion};
use super::objects::{Objects, Reader};
use crate::cache::{Cache, CacheError, Entry, Interest};
use crate::registry::Resource;
use crate::registry::store::Store;
use crate::tasks::Tasks;

/// Reading and mutating requests in flight (`--max-requests-inflight`, `--max-mutating-requests-inflight`).
const IN_FLIGHT: (usize, usize) = (400, 200);
/// How long a security layer waits for the cache to catch up.
const REFRESH: Duration = Duration::from_secs(5);

/// What a server is built from.
pub struct Parts {
    /// The objects.
    pub store: Store,
    /// Keys of service-account tokens.
    pub issuer: Arc<TokenIssuer>,
    /// How the server shows itself to kubelets and checks them; `None` serves no logs and streams.
    pub kubelet_tls: Option<Arc<ClientConfig>>,
    /// Where the audit log goes, if anywhere.
    pub audit_log: Option<PathBuf>,
}

/// A whole server: certificates and tokens in front, Node and RBAC authorization, every admission plugin. Waits until the cache is loaded.
///
/// # Errors
/// 500 when a stored role or binding cannot be read, or the audit log cannot be opened.
pub async fn build(parts: Parts, tasks: &Tasks) -> Result<Chain, ApiError> {
    let cache = parts.store.cache().clone();
    let reader = Reader::new(Arc::new(Cached(cache.clone())));
    let authorizer = Arc::new(Authorizer::new());
    authorizer.follow(&cache, tasks).await?;
    let (conversions, webhooks) = (reader.clone(), Pool::default());
    let converters: extensions::Converters = Arc::new(move |crd| conversion::converter(crd, &conversions, &webhooks));
    extensions::start(parts.store.clone(), converters, tasks).await?;
    let config = chain::Config {
        store: parts.store,
        authn: Arc::new(Authenticator::new(reader.clone(), parts.issuer.clone())),
        authz: authorizer.clone(),
        admit: Arc::new(Admission::new(reader.clone(), authorizer)),
        tokens: Some(Arc::new(Tokens { reader, issuer: parts.issuer })),
        kubelet_tls: parts.kubelet_tls,
        audit_log: parts.audit_log,
        max_reading: IN_FLIGHT.0,
        max_mutating: IN_FLIGHT.1,
        compress_loopback: false,
    };
    Chain::new(config, tasks).map_err(|e| ApiError::internal(format!("the audit log cannot be opened: {e}")))
}

/// The cache as the security layers read it.
struct Cached(Cache);

#[async_trait]
impl Objects for Cached {
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, ApiError> {
        self.0.get(resource, namespace, name).map_err(ApiError::internal)
    }
    fn list(&self, resource: &'static Resource, namespace: &str) -> Result<Vec<Arc<Entry>>, ApiError> {
        self.0.list(resource, namespace).map_err(ApiError::internal)
    }
    async fn wait_for(&self, resource: &'static Resource, namespace: &str, name: &str, timeout: Duration) -> Result<Option<Arc<Entry>>, ApiError> {
        // Watch before looking, so that nothing falls between the two.
        let interest = Interest::Object(namespace.into(), name.into());
        let mut watcher = self.0.watch(resource, interest, self.0.revision()).map_err(ApiError::internal)?;
        let deadline = tokio::time::Instant::now() + timeout;
        let mut seen = Vec::new();
        loop {
            if let Some(found) = self.get(resource, namespace, name)? {
                return Ok(Some(found));
            }
            if tokio::time::timeout_at(deadline, watcher.changed()).await.is_err() {
                return Ok(None);
            }
            seen.clear();
            watcher.ready(&mut seen).map_err(ApiError::internal)?;
        }
    }
    async fn refresh(&self) -> Result<(), ApiError> {
        self.0.catch_up(REFRESH).await.map_err(|error| match error {
            CacheError::Undecodable(error) => ApiError::internal(error),
            error => ApiError::unavailable(error.to_string()).retry_after(1),
        })
    }
}

//! rustls configurations from PEM: servers that may ask for client certificates, clients that trust one authority.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use super::{Pair, PkiError};

fn tls(error: impl std::fmt::Display) -> PkiError {
    PkiError::Tls(error.to_string())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let found = rustls_pemfile::certs(&mut pem.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(tls)?;
    if found.is_empty() { Err(tls("no certificate in the PEM text")) } else { Ok(found) }
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    rustls_pemfile::private_key(&mut pem.as_bytes()).map_err(tls)?.ok_or_else(|| tls("no private key in the PEM text"))
}

fn roots(pem: &str) -> Result<RootCertStore, PkiError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(tls)?;
    }
    Ok(store)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server's or client's certificate that can be replaced while it is in use: new connections get the new one.
#[derive(Debug)]
pub struct LiveCertificate(RwLock<Arc<CertifiedKey>>);

/// A [`LiveCertificate`] that a server shows.
pub type ServingCertificate = LiveCertificate;

impl LiveCertificate {
    /// Shows this certificate until [`Self::replace`].
    ///
    /// # Errors
    /// When it is not valid PEM or the key is not its own.
    pub fn new(pair: &Pair) -> Result<Arc<Self>, PkiError> {
        Ok(Arc::new(LiveCertificate(RwLock::new(Self::parse(pair)?))))
    }

    fn parse(pair: &Pair) -> Result<Arc<CertifiedKey>, PkiError> {
        CertifiedKey::from_der(certificates(&pair.certificate)?, key(&pair.key)?, &provider()).map(Arc::new).map_err(tls)
    }

    /// The certificate that is shown now.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().clone()
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// As [`Self::new`]; the old one stays.
    pub fn replace(&self, pair: &Pair) -> Result<(), PkiError> {
        *self.0.write() = Self::parse(pair)?;
        Ok(())
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for LiveCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// A server that takes client certificates of `client_ca` and, unless `required`, clients without one.
/// It offers HTTP/2 and HTTP/1.1.
///
/// # Errors
/// When the CA is not valid PEM.
pub fn server_config(serving: Arc<ServingCertificate>, client_ca: &str, required: bool) -> Result<Arc<ServerConfig>, PkiError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca)?), provider());
    let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(tls)?;
    let mut config = builder.with_client_cert_verifier(verifier.build().map_err(tls)?).with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client that trusts servers of `server_ca` only, and shows `own` if it is given. It sets no ALPN: the HTTP client does.
///
/// # Errors
/// When something is not valid PEM.
pub fn client_config(server_ca: &str, own: Option<&Pair>) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(tls)?;
    let builder = builder.with_root_certificates(roots(server_ca)?);
    match own {
        Some(pair) => builder.with_client_auth_cert(certificates(&pair.certificate)?, key(&pair.key)?).map_err(tls),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// [`client_config`] with a certificate of its own that may be replaced.
///
/// # Errors
/// When the CA is not valid PEM.
pub fn live_client_config(server_ca: &str, own: Arc<LiveCertificate>) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(tls)?;
    Ok(builder.with_root_certificates(roots(server_ca)?).with_client_cert_resolver(own))
}

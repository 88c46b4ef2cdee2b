//! TLS of the kubelet's server: its own certificate, and clients that must show one of the configured CA.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio_rustls::TlsAcceptor;

/// Why the server cannot offer TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM.
    #[error("{path}: {error}")]
    Pem {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit.
    #[error("kubelet serving certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// The client CA cannot be used.
    #[error("kubelet client CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |error| TlsError::Pem { path: path.display().to_string(), error };
    CertificateDer::pem_file_iter(path).map_err(fail)?.collect::<Result<_, _>>().map_err(fail)
}

/// An acceptor that requires client certificates. All files are PEM.
pub fn acceptor(certificate: &Path, key: &Path, client_ca: &Path) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in certificates(client_ca)? {
        roots.add(root)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Pem { path: key.display().to_string(), error })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(certificate)?, key)?;
    // Upgrades (exec, port forward) need HTTP/1.1; the API server asks for nothing else.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Common name of the client's certificate, which rustls has verified.
pub fn client_name(connection: &ServerConnection) -> Option<String> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?;
    name.as_str().ok().map(Into::into)
}

//! TLS of the kubelet's server: its own certificate, which is taken up anew when its files change, and clients that must show one of
//! the configured CA.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
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

/// Time between looks at the files of the serving certificate.
const PERIOD: Duration = Duration::from_secs(3600);

/// The serving certificate, as it was last read from its files.
#[derive(Debug)]
pub struct FileCertificate {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Pem { path: key.display().to_string(), error })?;
    Ok(Arc::new(CertifiedKey::from_der(certificates(certificate)?, secret, &provider())?))
}

impl FileCertificate {
    /// Reads the files, which are PEM.
    pub fn new(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(read(certificate, key)?);
        Ok(Arc::new(FileCertificate { certificate: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Takes renewed files up, for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.refresh() {
                Ok(true) => tracing::info!("kubelet serving certificate renewed"),
                Ok(false) => {}
                // Perhaps in the middle of being replaced; the old one stays.
                Err(error) => tracing::warn!(%error, "kubelet serving certificate not read"),
            }
        }
    }

    /// Reads the files again; true if they hold another certificate.
    fn refresh(&self) -> Result<bool, TlsError> {
        let found = read(&self.certificate, &self.key)?;
        let mut current = self.current.write();
        let changed = current.cert != found.cert;
        *current = found;
        Ok(changed)
    }
}

impl ResolvesServerCert for FileCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

/// An acceptor that requires client certificates of a CA, PEM.
pub fn acceptor(serving: Arc<FileCertificate>, client_ca: &Path) -> Result<TlsAcceptor, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(client_ca)? {
        roots.add(root)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_files_are_taken_up_and_broken_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("a.crt"), dir.path().join("a.key"));
        let write = || {
            let pair = rcgen::KeyPair::generate().unwrap();
            let signed = rcgen::CertificateParams::new(vec!["n1".into()]).unwrap().self_signed(&pair).unwrap();
            std::fs::write(&certificate, signed.pem()).unwrap();
            std::fs::write(&key, pair.serialize_pem()).unwrap();
        };
        write();
        let serving = FileCertificate::new(&certificate, &key).unwrap();
        assert!(!serving.refresh().unwrap());
        write();
        assert!(serving.refresh().unwrap());
        let shown = serving.current.read().cert.clone();
        std::fs::write(&certificate, "nonsense").unwrap();
        assert!(serving.refresh().is_err());
        assert_eq!(serving.current.read().cert, shown);
    }
}

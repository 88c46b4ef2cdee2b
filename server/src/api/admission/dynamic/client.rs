//! Whom a webhook's connection trusts: the configuration's own bundle, or else the system's roots.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Checks as webpki does, and takes a certificate that is itself in the bundle, as Go does: who makes a self-signed one by hand makes it
/// an authority, which webpki does not accept from a server.
#[derive(Debug)]
struct Verifier {
    chain: Arc<WebPkiServerVerifier>,
    bundle: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let error = match self.chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        if !self.bundle.iter().any(|known| known.as_ref() == end_entity.as_ref()) || !valid_at(end_entity, now) {
            return Err(error);
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn valid_at(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    validity.not_before.timestamp() <= seconds && seconds <= validity.not_after.timestamp()
}

/// The system's roots, read once.
fn system_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's root certificates cannot be read");
        }
        found.certs
    })
}

/// TLS that trusts a PEM bundle, or the system's roots where it is empty.
///
/// # Errors
/// When the bundle holds no certificate.
pub(in crate::api::admission) fn tls_config(bundle: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let certificates = if bundle.is_empty() {
        system_roots().to_vec()
    } else {
        let read: Result<Vec<_>, _> = rustls_pemfile::certs(&mut &bundle[..]).collect();
        read.ok().filter(|c| !c.is_empty()).ok_or("unable to load root certificates: unable to parse bytes as PEM block")?
    };
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(|e| e.to_string())?;
    let bundle = if bundle.is_empty() { Vec::new() } else { certificates };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { chain, bundle })).with_no_client_auth();
    Ok(Arc::new(config))
}

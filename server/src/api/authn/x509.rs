//! Client certificates: the subject's CN is the user, its O the groups (`k8s.io/apiserver/pkg/authentication/request/x509`).
//!
//! A connection's certificate is parsed once; its validity is checked on every request, so an expired one ends on live connections too.

use std::fmt::Write as _;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use crate::api::user::User;

/// Why a client certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be parsed.
    #[error("parsing the client certificate: {0}")]
    Parse(String),
    /// Its subject names nobody.
    #[error("the client certificate has no common name")]
    NoName,
    /// It is not valid yet.
    #[error("x509: certificate has expired or is not yet valid: current time is before {0}")]
    NotYet(Timestamp),
    /// It is no longer valid.
    #[error("x509: certificate has expired or is not yet valid: current time is after {0}")]
    Expired(Timestamp),
}

/// The identity in a client certificate. Only for certificates whose chain rustls has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    user: User,
    not_before: Timestamp,
    not_after: Timestamp,
}

fn timestamp(time: x509_parser::time::ASN1Time) -> Result<Timestamp, CertificateError> {
    Timestamp::from_second(time.timestamp()).map_err(|e| CertificateError::Parse(e.to_string()))
}

impl ClientCertificate {
    /// Reads the identity of a verified certificate.
    ///
    /// # Errors
    /// When it cannot be parsed or its subject has no common name.
    pub fn parse(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let parse_error = |e: &dyn std::fmt::Display| CertificateError::Parse(e.to_string());
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|e| parse_error(&e))?;
        let subject = parsed.subject();
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().map(str::to_owned).map_err(|e| parse_error(&e));
        let name = subject.iter_common_name().last().map(&text).transpose()?.filter(|n| !n.is_empty()).ok_or(CertificateError::NoName)?;
        let mut groups = subject.iter_organization().map(&text).collect::<Result<Vec<_>, _>>()?;
        groups.push("system:authenticated".into());
        let mut digest = String::from("X509SHA256=");
        for byte in Sha256::digest(certificate.as_ref()) {
            let _ = write!(digest, "{byte:02x}");
        }
        let extra = [("authentication.kubernetes.io/credential-id".to_owned(), vec![digest])].into();
        Ok(ClientCertificate {
            user: User { name, uid: String::new(), groups, extra },
            not_before: timestamp(parsed.validity().not_before)?,
            not_after: timestamp(parsed.validity().not_after)?,
        })
    }

    /// The user, if the certificate is valid at `now`.
    ///
    /// # Errors
    /// When it has expired or is not valid yet.
    pub fn user_at(&self, now: Timestamp) -> Result<User, CertificateError> {
        if now < self.not_before {
            return Err(CertificateError::NotYet(self.not_before));
        }
        if now > self.not_after {
            return Err(CertificateError::Expired(self.not_after));
        }
        Ok(self.user.clone())
    }
}

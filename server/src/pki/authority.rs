//! Certificate authorities and the certificates they issue: made, kept in files, renewed before they expire.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::{PkiError, files};

const DAY: i64 = 24 * 60 * 60;
/// kubeadm's lifetime of a CA: ten years.
const CA_DAYS: i64 = 3650;
/// kubeadm's lifetime of a certificate: one year.
const LEAF_DAYS: i64 = 365;
/// A certificate is renewed when less than this share of its life is left: a third, about four months.
const RENEW_SHARE: i64 = 3;
/// Clocks of other machines may be behind by this much.
const BACKDATE_SECONDS: i64 = 5 * 60;

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair { key: <hidden> }")
    }
}

/// What a certificate is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Common name: the user name of a client.
    pub name: String,
    /// Organizations: the groups of a client.
    pub groups: Vec<String>,
    /// DNS names it serves.
    pub dns: Vec<String>,
    /// Addresses it serves.
    pub ips: Vec<IpAddr>,
    /// Whether it may be used by a server.
    pub server: bool,
    /// Whether it may be used by a client.
    pub client: bool,
}

impl Subject {
    /// A client's certificate.
    pub fn client(name: &str, groups: &[&str]) -> Self {
        Subject { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), client: true, ..Self::default() }
    }
    /// A server's certificate.
    pub fn server(name: &str, dns: &[&str], ips: &[IpAddr]) -> Self {
        let mut dns: Vec<String> = dns.iter().filter(|n| !n.is_empty()).map(|n| (*n).to_owned()).collect();
        let mut ips = ips.to_vec();
        dns.sort_unstable();
        dns.dedup();
        ips.sort_unstable();
        ips.dedup();
        Subject { name: name.into(), dns, ips, server: true, ..Self::default() }
    }
}

/// A CA: its certificate, and its key when this machine holds it.
#[derive(Clone)]
pub struct Authority {
    pair: Pair,
    path: PathBuf,
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, seconds: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |second: i64| epoch + std::time::Duration::from_secs(u64::try_from(second).unwrap_or_default());
    params.not_before = at(now.as_second() - BACKDATE_SECONDS);
    params.not_after = at(now.as_second() + seconds);
}

fn serial() -> rcgen::SerialNumber {
    // 16 random bytes, with the top bit clear so that the number is positive.
    let mut bytes = *uuid::Uuid::new_v4().as_bytes();
    bytes[0] &= 0x7f;
    rcgen::SerialNumber::from_slice(&bytes)
}

fn leaf_params(subject: &Subject, now: Timestamp, seconds: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(subject.dns.clone())?;
    params.subject_alt_names.extend(subject.ips.iter().map(|ip| SanType::IpAddress(*ip)));
    params.distinguished_name = rcgen::DistinguishedName::new();
    for group in &subject.groups {
        params.distinguished_name.push(DnType::OrganizationName, group.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, subject.name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages.extend(subject.server.then_some(ExtendedKeyUsagePurpose::ServerAuth));
    params.extended_key_usages.extend(subject.client.then_some(ExtendedKeyUsagePurpose::ClientAuth));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial());
    set_validity(&mut params, now, seconds);
    Ok(params)
}

fn new_key(path: &Path) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|source| PkiError::Make { path: path.to_owned(), source })
}

/// The files of a pair: `<base>.crt` and `<base>.key`.
fn paths(base: &Path) -> (PathBuf, PathBuf) {
    let with = |extension: &str| {
        let mut name = base.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    (with(".crt"), with(".key"))
}

/// When a PEM certificate ends and how long it lives in all, in seconds since the epoch and seconds; checks that the key is its own.
fn inspect(path: &Path, pair: &Pair) -> Result<(i64, i64), PkiError> {
    let corrupt = |reason: String| PkiError::Corrupt { path: path.to_owned(), reason };
    let (_, pem) = x509_parser::pem::parse_x509_pem(pair.certificate.as_bytes()).map_err(|e| corrupt(e.to_string()))?;
    let parsed = pem.parse_x509().map_err(|e| corrupt(e.to_string()))?;
    let key = KeyPair::from_pem(&pair.key).map_err(|e| corrupt(format!("its key: {e}")))?;
    if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key).as_slice() {
        return Err(corrupt("the key next to it belongs to another certificate".into()));
    }
    let validity = parsed.validity();
    Ok((validity.not_after.timestamp(), validity.not_after.timestamp() - validity.not_before.timestamp()))
}

fn load(base: &Path) -> Result<Option<Pair>, PkiError> {
    let (certificate_path, key_path) = paths(base);
    match (files::read_public(&certificate_path)?, files::read_private(&key_path)?) {
        (Some(certificate), Some(key)) => Ok(Some(Pair { certificate, key })),
        _ => Ok(None),
    }
}

/// The key first: a certificate without its key would be refused at the next start.
fn store(base: &Path, pair: &Pair) -> Result<(), PkiError> {
    let (certificate_path, key_path) = paths(base);
    files::write(&key_path, pair.key.as_bytes(), 0o600)?;
    files::write(&certificate_path, pair.certificate.as_bytes(), 0o644)
}

impl Authority {
    /// The CA in `<base>.crt` and `<base>.key`, made if neither exists.
    pub(super) fn load_or_create(base: &Path, name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = paths(base);
        match load(base)? {
            Some(pair) => {
                let (end, _) = inspect(&certificate_path, &pair)?;
                if end <= now.as_second() {
                    return Err(PkiError::Corrupt { path: certificate_path, reason: "the certificate authority has expired".into() });
                }
                Ok(Authority { pair, path: certificate_path })
            }
            None if certificate_path.exists() => {
                Err(PkiError::Corrupt { path: key_path, reason: "the key of the certificate next to it is missing".into() })
            }
            None if key_path.exists() => {
                Err(PkiError::Corrupt { path: certificate_path, reason: "the certificate of the key next to it is missing".into() })
            }
            None => {
                let authority = Authority { pair: Self::make(&certificate_path, name, now)?, path: certificate_path };
                store(base, &authority.pair)?;
                Ok(authority)
            }
        }
    }

    fn make(path: &Path, name: &str, now: Timestamp) -> Result<Pair, PkiError> {
        let error = |source| PkiError::Make { path: path.to_owned(), source };
        let key = new_key(path)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(error)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial());
        set_validity(&mut params, now, CA_DAYS * DAY);
        let certificate = params.self_signed(&key).map_err(error)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The CA's certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.pair.certificate
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let error = |source| PkiError::Make { path: self.path.clone(), source };
        let key = KeyPair::from_pem(&self.pair.key).map_err(error)?;
        Issuer::from_ca_cert_pem(&self.pair.certificate, key).map_err(error)
    }

    /// A new certificate with a new key, in memory only.
    ///
    /// # Errors
    /// When the subject cannot be encoded.
    pub fn issue(&self, subject: &Subject, now: Timestamp) -> Result<Pair, PkiError> {
        let error = |source| PkiError::Make { path: self.path.clone(), source };
        let key = new_key(&self.path)?;
        let params = leaf_params(subject, now, LEAF_DAYS * DAY).map_err(error)?;
        let certificate = params.signed_by(&key, &self.issuer()?).map_err(error)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Signs a certificate request as it stands, for the usages given, never as a CA. Whether it may be signed is the caller's to know.
    ///
    /// # Errors
    /// When the request cannot be read or names what cannot be signed.
    pub fn sign(&self, request: &str, usages: &[ExtendedKeyUsagePurpose], lifetime: SignedDuration, now: Timestamp) -> Result<String, PkiError> {
        let error = |source| PkiError::Make { path: self.path.clone(), source };
        let mut request = CertificateSigningRequestParams::from_pem(request).map_err(error)?;
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        request.params.extended_key_usages = usages.to_vec();
        request.params.use_authority_key_identifier_extension = true;
        request.params.serial_number = Some(serial());
        set_validity(&mut request.params, now, lifetime.as_secs());
        Ok(request.signed_by(&self.issuer()?).map_err(error)?.pem())
    }

    /// The certificate in `<base>.crt` and `<base>.key`: issued anew when it is missing, due for renewal, of another CA, or for another subject.
    pub(super) fn load_or_issue(&self, base: &Path, subject: &Subject, now: Timestamp) -> Result<Pair, PkiError> {
        let (certificate_path, _) = paths(base);
        if let Some(pair) = load(base)? {
            let (end, lifetime) = inspect(&certificate_path, &pair)?;
            if end - now.as_second() > lifetime / RENEW_SHARE && self.made(&pair, subject) {
                return Ok(pair);
            }
            tracing::info!(path = %certificate_path.display(), "renewing certificate");
        }
        let pair = self.issue(subject, now)?;
        store(base, &pair)?;
        Ok(pair)
    }

    /// Whether this CA issued the certificate, for this subject.
    fn made(&self, pair: &Pair, subject: &Subject) -> bool {
        let Ok((_, own)) = x509_parser::pem::parse_x509_pem(self.pair.certificate.as_bytes()) else { return false };
        let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pair.certificate.as_bytes()) else { return false };
        let (Ok(own), Ok(leaf)) = (own.parse_x509(), pem.parse_x509()) else { return false };
        leaf.verify_signature(Some(own.public_key())).is_ok() && names(&leaf) == wanted_names(subject)
    }
}

/// CN, O and alternative names, sorted.
type Names = (String, Vec<String>, Vec<String>);

fn wanted_names(subject: &Subject) -> Names {
    let ips = subject.ips.iter().map(ToString::to_string);
    sorted(subject.name.clone(), subject.groups.clone(), subject.dns.iter().cloned().chain(ips).collect())
}

fn names(leaf: &x509_parser::certificate::X509Certificate<'_>) -> Names {
    use x509_parser::extensions::GeneralName;
    let name = leaf.subject().iter_common_name().filter_map(|a| a.as_str().ok()).next().unwrap_or_default().to_owned();
    let groups = leaf.subject().iter_organization().filter_map(|a| a.as_str().ok()).map(str::to_owned).collect();
    let alternatives = leaf.subject_alternative_name().ok().flatten().map(|e| e.value.general_names.as_slice()).unwrap_or_default();
    let shown = alternatives.iter().filter_map(|n| match n {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    });
    sorted(name, groups, shown.collect())
}

fn sorted(name: String, mut groups: Vec<String>, mut alternatives: Vec<String>) -> Names {
    groups.sort_unstable();
    alternatives.sort_unstable();
    (name, groups, alternatives)
}

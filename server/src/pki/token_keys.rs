//! The keys of ServiceAccount tokens: `sa.key` signs, and the retired `sa-*.key` go on verifying until they are revoked.
//!
//! Owns those files. A running server takes up what changed when it is told to.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{PkiError, files};
use crate::api::authn::tokens::{DEFAULT_ISSUER, TokenError, TokenIssuer};

/// The signer and verifier of tokens, with this cluster's issuer as only audience.
///
/// # Errors
/// When a key file is damaged or open to others.
pub fn issuer(dir: &Path) -> Result<TokenIssuer, PkiError> {
    TokenIssuer::new(DEFAULT_ISSUER, &[DEFAULT_ISSUER.to_owned()], &load(dir)?).map_err(|error| corrupt(&dir.join("sa.key"), &error))
}

/// Has an issuer sign and verify with what the files hold now.
///
/// # Errors
/// When a key file is damaged or open to others; the issuer keeps the keys it has.
pub fn reload(dir: &Path, issuer: &TokenIssuer) -> Result<(), PkiError> {
    issuer.replace(&load(dir)?).map_err(|error| corrupt(&dir.join("sa.key"), &error))
}

/// Makes a new signing key; the old ones go on verifying.
///
/// # Errors
/// When it cannot be written.
pub fn rotate(dir: &Path) -> Result<(), PkiError> {
    let _lock = files::lock_dir(dir)?;
    let current = dir.join("sa.key");
    // The old one is kept first: a crash between the two leaves it in both places, where it does the same.
    if let Some(old) = files::read_private(&current)? {
        // A damaged one is not carried along.
        TokenIssuer::new(DEFAULT_ISSUER, &[], std::slice::from_ref(&old)).map_err(|error| corrupt(&current, &error))?;
        files::write(&dir.join(format!("sa-{}.key", Timestamp::now().as_nanosecond())), old.as_bytes(), 0o600)?;
    }
    files::write(&current, generate(&current)?.as_bytes(), 0o600)
}

/// Forgets every key but the one that signs: what the others have signed is refused from then on.
///
/// # Errors
/// When one cannot be removed.
pub fn revoke(dir: &Path) -> Result<(), PkiError> {
    let _lock = files::lock_dir(dir)?;
    for path in retired(dir)? {
        std::fs::remove_file(&path).map_err(|source| PkiError::Io { action: "removing", path, source })?;
    }
    files::sync_dir(dir)
}

/// The keys, the signing one first, then the retired ones from the newest.
fn load(dir: &Path) -> Result<Vec<String>, PkiError> {
    let _lock = files::lock_dir(dir)?;
    let mut keys = vec![signing(dir)?];
    for path in retired(dir)? {
        keys.extend(files::read_private(&path)?.filter(|key| !keys.contains(key)));
    }
    Ok(keys)
}

/// The key that signs, made if there is none. The caller holds the directory's lock.
pub(super) fn signing(dir: &Path) -> Result<String, PkiError> {
    let path = dir.join("sa.key");
    if let Some(key) = files::read_private(&path)? {
        return Ok(key);
    }
    let key = generate(&path)?;
    files::write(&path, key.as_bytes(), 0o600)?;
    Ok(key)
}

/// The files of the retired keys, the newest first.
fn retired(dir: &Path) -> Result<Vec<PathBuf>, PkiError> {
    let listed = std::fs::read_dir(dir).map_err(|source| PkiError::Io { action: "listing", path: dir.to_owned(), source })?;
    let mut retired: Vec<PathBuf> = listed
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("sa-") && n.ends_with(".key")))
        .collect();
    retired.sort_unstable_by(|a, b| b.cmp(a));
    Ok(retired)
}

fn generate(path: &Path) -> Result<String, PkiError> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
    key.map(|k| k.serialize_pem()).map_err(|source| PkiError::Make { path: path.to_owned(), source })
}

fn corrupt(path: &Path, error: &TokenError) -> PkiError {
    PkiError::Corrupt { path: path.to_owned(), reason: error.to_string() }
}

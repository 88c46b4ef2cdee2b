//! Bootstrap tokens: Secrets of type `bootstrap.kubernetes.io/token` in kube-system, good for joining nodes only
//! (`plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest as _, Sha256};
use shared::status::ApiError;

use crate::api::objects::Reader;
use crate::api::user::User;

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const DEFAULT_GROUP: &str = "system:bootstrappers";

/// Splits `id.secret`; both halves are lower-case alphanumerics of 6 and 16 characters.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

/// Whether a token has the form of a bootstrap token; no JWT has.
pub(super) fn looks_like(token: &str) -> bool {
    split(token).is_some()
}

/// The user of a bootstrap token, if its Secret exists, allows authentication and has not expired.
///
/// # Errors
/// When the Secret cannot be read.
pub(super) fn authenticate(reader: &Reader, token: &str, now: Timestamp) -> Result<Option<User>, ApiError> {
    let Some((id, secret)) = split(token) else { return Ok(None) };
    let stored = reader.get::<Secret>("kube-system", &format!("bootstrap-token-{id}"))?;
    Ok(stored.and_then(|stored| user(&stored, id, secret, now)))
}

/// Comparing digests takes the same time wherever two secrets differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}

fn user(stored: &Secret, id: &str, secret: &str, now: Timestamp) -> Option<User> {
    let data = stored.data.as_ref()?;
    let bytes = |key: &str| data.get(key).map(|v| v.0.as_slice());
    let text = |key: &str| bytes(key).and_then(|v| std::str::from_utf8(v).ok());
    if stored.type_.as_deref() != Some(SECRET_TYPE) || stored.metadata.deletion_timestamp.is_some() {
        return None;
    }
    if text("token-id") != Some(id) || !same(bytes("token-secret")?, secret.as_bytes()) {
        return None;
    }
    if let Some(expiration) = text("expiration")
        && expiration.parse::<Timestamp>().ok()? <= now
    {
        return None;
    }
    if text("usage-bootstrap-authentication") != Some("true") {
        return None;
    }
    let mut groups = vec![DEFAULT_GROUP.to_owned()];
    for group in text("auth-extra-groups").unwrap_or_default().split(',').filter(|g| !g.is_empty()) {
        if !valid_group(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort_unstable();
    groups.dedup();
    groups.push("system:authenticated".into());
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
fn valid_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let alphanumeric = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    rest.len() <= 256 && rest.bytes().all(|b| alphanumeric(b) || b == b':' || b == b'-') && rest.bytes().last().is_some_and(alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(pairs: &[(&str, &str)]) -> Secret {
        let mut data = std::collections::BTreeMap::new();
        for (k, v) in [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")].iter().chain(pairs) {
            data.insert((*k).to_owned(), ByteString(v.as_bytes().to_vec()));
        }
        Secret { type_: Some(SECRET_TYPE.into()), data: Some(data), ..Secret::default() }
    }

    #[test]
    fn a_bootstrap_token_yields_its_user_and_groups_until_it_expires() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let plain = user(&secret(&[]), "abcdef", "0123456789abcdef", now).unwrap();
        assert_eq!((plain.name.as_str(), plain.groups.len()), ("system:bootstrap:abcdef", 2));
        let extra = secret(&[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token")]);
        assert!(user(&extra, "abcdef", "0123456789abcdef", now).unwrap().in_group("system:bootstrappers:kubeadm:default-node-token"));
        for (pairs, given) in [
            (&[("expiration", "2025-12-31T00:00:00Z")][..], "0123456789abcdef"),
            (&[("expiration", "not a time")][..], "0123456789abcdef"),
            (&[("usage-bootstrap-authentication", "false")][..], "0123456789abcdef"),
            (&[("auth-extra-groups", "system:masters")][..], "0123456789abcdef"),
            (&[][..], "0123456789abcdee"),
        ] {
            assert!(user(&secret(pairs), "abcdef", given, now).is_none(), "{pairs:?}");
        }
    }

    #[test]
    fn only_six_dot_sixteen_has_the_form_of_a_bootstrap_token() {
        for (token, is) in [("abcdef.0123456789abcdef", true), ("abcdef.0123456789abcdeF", false), ("abc.def", false), ("", false), ("a.b.c", false)]
        {
            assert_eq!(looks_like(token), is, "{token}");
        }
    }
}

//! Secrets at rest: XChaCha20-Poly1305 with the etcd key as associated data, so that a value cannot be moved to another name.
//!
//! Stored form: `k8s:enc:xchacha20poly1305:v1:<key id>:` and then the nonce (24 bytes), the ciphertext and the tag (16 bytes).
//! Storage calls [`Transform`] on every value on its way to and from etcd; it must never look at objects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, AeadCore as _, KeyInit as _, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

const PREFIX: &[u8] = b"k8s:enc:xchacha20poly1305:v1:";
const NONCE: usize = 24;

/// Why a value cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionError {
    /// It was written with a key that is not in the key file.
    #[error("{key}: encrypted with the unknown key {id:?}; restore it in encryption.keys")]
    UnknownKey {
        /// Etcd key.
        key: String,
        /// Key id.
        id: String,
    },
    /// It was changed, moved or cut.
    #[error("{key}: the encrypted value is damaged or was not written under this key")]
    Damaged {
        /// Etcd key.
        key: String,
    },
    /// Another program's encryption.
    #[error("{key}: encrypted by another provider")]
    Foreign {
        /// Etcd key.
        key: String,
    },
    /// The cipher refused, which only a value of over 256 GiB can cause.
    #[error("{key}: the value cannot be encrypted")]
    Cipher {
        /// Etcd key.
        key: String,
    },
    /// The key file is not `<id> <base64 of 32 bytes>` lines.
    #[error("line {line}: {reason}")]
    KeyFile {
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The key file has no key.
    #[error("no key in it")]
    NoKey,
}

/// What storage does to values between memory and etcd.
pub trait Transform: Send + Sync {
    /// The form to store. Keys that are not to be encrypted give their value back as it is.
    ///
    /// # Errors
    /// When the cipher fails.
    fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, EncryptionError>;
    /// The plain form, and whether it should be rewritten because it is stored in plain text or under a retired key.
    ///
    /// # Errors
    /// When the value cannot be decrypted: a damaged Secret must be an error, never an empty one.
    fn open(&self, key: &str, value: Bytes) -> Result<(Bytes, bool), EncryptionError>;
}

struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// Keys of Secrets at rest: the first encrypts, all decrypt. `identity` in first place turns encryption off but keeps reading.
pub struct Keys {
    keys: Vec<Key>,
    /// Etcd prefixes whose values are encrypted.
    prefixes: Vec<String>,
}

impl Keys {
    /// A key file's text with one fresh key.
    pub fn generate(id: &str) -> String {
        format!("{id} {}\n", STANDARD.encode(XChaCha20Poly1305::generate_key(&mut OsRng)))
    }

    /// Reads a key file: `<id> <base64 of 32 bytes>` a line; blank lines and `#` lines are skipped.
    ///
    /// # Errors
    /// Names the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, EncryptionError> {
        let mut keys = Vec::new();
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
        for (index, line) in lines {
            let wrong = |reason| EncryptionError::KeyFile { line: index + 1, reason };
            let (id, encoded) = line.split_once(char::is_whitespace).ok_or_else(|| wrong("expected `<id> <key>`"))?;
            if id.contains(':') {
                return Err(wrong("a key id may not contain `:`"));
            }
            let bytes = STANDARD.decode(encoded.trim()).map_err(|_| wrong("the key is not base64"))?;
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| wrong("the key is not 32 bytes long"))?;
            if keys.iter().any(|k: &Key| k.id == id) {
                return Err(wrong("this key id appears twice"));
            }
            keys.push(Key { id: id.to_owned(), cipher });
        }
        if keys.is_empty() {
            return Err(EncryptionError::NoKey);
        }
        Ok(Keys { keys, prefixes: vec!["/registry/secrets/".into()] })
    }

    fn covers(&self, key: &str) -> bool {
        self.prefixes.iter().any(|p| key.starts_with(p.as_str()))
    }
}

impl Transform for Keys {
    fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, EncryptionError> {
        if !self.covers(key) {
            return Ok(value);
        }
        let Some(current) = self.keys.first() else { return Err(EncryptionError::NoKey) };
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let sealed = current.cipher.encrypt(&nonce, Payload { msg: &value, aad: key.as_bytes() });
        let sealed = sealed.map_err(|_| EncryptionError::Cipher { key: key.to_owned() })?;
        let mut stored = Vec::with_capacity(PREFIX.len() + current.id.len() + 1 + NONCE + sealed.len());
        stored.extend_from_slice(PREFIX);
        stored.extend_from_slice(current.id.as_bytes());
        stored.push(b':');
        stored.extend_from_slice(&nonce);
        stored.extend_from_slice(&sealed);
        Ok(stored.into())
    }

    fn open(&self, key: &str, value: Bytes) -> Result<(Bytes, bool), EncryptionError> {
        if !self.covers(key) {
            return Ok((value, false));
        }
        let Some(rest) = value.strip_prefix(PREFIX) else {
            if value.starts_with(b"k8s:enc:") {
                return Err(EncryptionError::Foreign { key: key.to_owned() });
            }
            return Ok((value, true));
        };
        let damaged = || EncryptionError::Damaged { key: key.to_owned() };
        let colon = rest.iter().position(|b| *b == b':').ok_or_else(damaged)?;
        let (id, sealed) = (std::str::from_utf8(&rest[..colon]).map_err(|_| damaged())?, &rest[colon + 1..]);
        let (index, found) = self
            .keys
            .iter()
            .enumerate()
            .find(|(_, k)| k.id == id)
            .ok_or_else(|| EncryptionError::UnknownKey { key: key.to_owned(), id: id.to_owned() })?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or_else(damaged)?;
        let plain = found.cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: key.as_bytes() });
        Ok((plain.map_err(|_| damaged())?.into(), index != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/registry/secrets/default/s";

    fn keys(ids: &[&str]) -> Keys {
        let lines: String = ids.iter().map(|id| format!("{id} {}\n", STANDARD.encode([id.as_bytes()[0]; 32]))).collect();
        Keys::parse(&lines).unwrap()
    }

    #[test]
    fn a_secret_is_unreadable_in_etcd_and_comes_back_whole() {
        let stored = keys(&["a"]).seal(KEY, Bytes::from_static(b"the marker")).unwrap();
        assert!(stored.starts_with(b"k8s:enc:xchacha20poly1305:v1:a:"));
        assert!(!stored.windows(6).any(|w| w == b"marker"));
        assert_eq!(keys(&["a"]).open(KEY, stored.clone()).unwrap(), (Bytes::from_static(b"the marker"), false));
        assert_ne!(keys(&["a"]).seal(KEY, Bytes::from_static(b"the marker")).unwrap(), stored, "every write has its own nonce");
    }

    #[test]
    fn a_value_that_was_moved_changed_or_cut_is_refused() {
        let keys = keys(&["a"]);
        let stored = keys.seal(KEY, Bytes::from_static(b"value")).unwrap();
        assert!(matches!(keys.open("/registry/secrets/default/t", stored.clone()), Err(EncryptionError::Damaged { .. })));
        for cut in PREFIX.len()..stored.len() {
            assert!(keys.open(KEY, stored.slice(..cut)).is_err(), "cut at {cut}");
        }
        for at in PREFIX.len() + 2..stored.len() {
            let mut changed = stored.to_vec();
            changed[at] ^= 1;
            assert!(keys.open(KEY, changed.into()).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn retired_keys_and_plain_text_are_read_and_marked_for_rewriting() {
        let old = keys(&["a"]).seal(KEY, Bytes::from_static(b"value")).unwrap();
        assert_eq!(keys(&["b", "a"]).open(KEY, old.clone()).unwrap(), (Bytes::from_static(b"value"), true));
        assert_eq!(keys(&["b"]).open(KEY, old), Err(EncryptionError::UnknownKey { key: KEY.into(), id: "a".into() }));
        assert_eq!(keys(&["a"]).open(KEY, Bytes::from_static(b"{}")).unwrap(), (Bytes::from_static(b"{}"), true));
        let foreign = Bytes::from_static(b"k8s:enc:aescbc:v1:k:x");
        assert!(matches!(keys(&["a"]).open(KEY, foreign), Err(EncryptionError::Foreign { .. })));
    }

    #[test]
    fn other_kinds_stay_as_they_are() {
        let value = Bytes::from_static(b"{}");
        assert_eq!(keys(&["a"]).seal("/registry/pods/default/p", value.clone()).unwrap(), value);
        assert_eq!(keys(&["a"]).open("/registry/pods/default/p", value.clone()).unwrap(), (value, false));
    }

    #[test]
    fn a_key_file_names_its_bad_line() {
        for (text, line) in [("x", 1), ("# c\n\na QUJD", 3), ("a ???", 1), ("a:b QUJD", 1)] {
            assert!(matches!(Keys::parse(text), Err(EncryptionError::KeyFile { line: l, .. }) if l == line), "{text}");
        }
        assert_eq!(Keys::parse("\n# none\n").err(), Some(EncryptionError::NoKey));
        assert!(Keys::parse(&Keys::generate("1")).is_ok());
    }
}

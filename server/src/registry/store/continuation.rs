//! `continue` tokens (`k8s.io/apiserver/pkg/storage/continue.go`): the revision of page one and the key the next page starts at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use shared::status::ApiError;

const VERSION: &str = "meta.k8s.io/v1";
/// Longer than any key.
const LONGEST: usize = 2048;

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Continuation {
    /// The revision of page one; `None` goes on with whatever there is now.
    pub revision: Option<i64>,
    /// What follows the list's prefix in the first key that may be in the page.
    pub start: String,
}

impl Continuation {
    /// The key after this one.
    pub(super) fn after(key: &str) -> String {
        format!("{key}\0")
    }

    pub(super) fn encode(&self) -> String {
        let wire = Wire { v: VERSION.into(), rv: self.revision.unwrap_or(-1), start: self.start.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// # Errors
    /// 400 for anything that this server does not issue.
    pub(super) fn decode(token: &str) -> Result<Self, ApiError> {
        let bad = |why: String| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        if token.len() > LONGEST {
            return Err(bad("it is too long".into()));
        }
        let json = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| bad(e.to_string()))?;
        let wire: Wire = serde_json::from_slice(&json).map_err(|e| bad(e.to_string()))?;
        if wire.v != VERSION {
            return Err(bad(format!("server does not recognize this encoded version {:?}", wire.v)));
        }
        if wire.rv == 0 || wire.rv < -1 {
            return Err(bad(format!("incorrect encoded start resourceVersion (version {VERSION})")));
        }
        if wire.start.is_empty() {
            return Err(bad(format!("encoded start key empty (version {VERSION})")));
        }
        if wire.start.starts_with('/') || wire.start.split('/').any(|part| part == ".." || part == ".") {
            return Err(bad(format!("{:?}", wire.start)));
        }
        Ok(Continuation { revision: (wire.rv > 0).then_some(wire.rv), start: wire.start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for revision in [Some(7), None] {
            let token = Continuation { revision, start: "ns/name\0".into() };
            assert_eq!(Continuation::decode(&token.encode()).unwrap(), token);
        }
    }

    #[test]
    fn forged_tokens_are_refused() {
        let wire = |v: &str, rv: i64, start: &str| URL_SAFE_NO_PAD.encode(serde_json::json!({"v": v, "rv": rv, "start": start}).to_string());
        for token in [
            "!".into(),
            "e30".into(),
            URL_SAFE_NO_PAD.encode("[]"),
            wire("v0", 1, "a"),
            wire(VERSION, 0, "a"),
            wire(VERSION, -2, "a"),
            wire(VERSION, 1, ""),
            wire(VERSION, 1, "../secrets/x"),
            wire(VERSION, 1, "/a"),
            "a".repeat(3000),
        ] {
            let error = Continuation::decode(&token).unwrap_err();
            assert_eq!(error.code(), 400, "{token}");
            assert!(error.to_string().starts_with("invalid continue token: "), "{error}");
        }
    }
}

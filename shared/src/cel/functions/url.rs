//! URLs (`k8s.io/apiserver/pkg/cel/library/urls.go`), parsed as Go's `url.ParseRequestURI` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Function, Result, charge_text, no_overload};
use crate::cel::value::Value;
use crate::cel::{Budget, EvalError};

/// The parts of an absolute URI or absolute path.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// With the port, and brackets around IPv6.
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// Parses an absolute URI or absolute path.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.chars().any(|c| c.is_ascii_control() || c == ' ') {
            return None;
        }
        let (rest, query) = text.split_once('?').unwrap_or((text, ""));
        let (scheme, rest) = match rest.find(':') {
            Some(at) if !rest.starts_with('/') => {
                let scheme = &rest[..at];
                let valid =
                    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
                if !valid {
                    return None;
                }
                (scheme.to_ascii_lowercase(), &rest[at + 1..])
            }
            _ => (String::new(), rest),
        };
        // Go takes `scheme:opaque` as well; without a scheme only an absolute path will do.
        if !rest.starts_with('/') {
            return (!scheme.is_empty()).then(|| Url { scheme, host: String::new(), path: String::new(), query: query.into() });
        }
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            _ => ("", rest),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let port = if host.starts_with('[') { host.split_once(']')?.1 } else { host.find(':').map_or("", |at| &host[at..]) };
        if !port.is_empty() && !port.strip_prefix(':')?.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        if host.contains(['<', '>', '"', '\\', '^', '`', '{', '|', '}']) {
            return None;
        }
        decode(path)?;
        Some(Url { scheme, host: host.into(), path: path.into(), query: query.into() })
    }

    fn split_host(&self) -> (&str, &str) {
        match self.host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or("")),
            None => self.host.split_once(':').unwrap_or((&self.host, "")),
        }
    }

    fn query(&self) -> Value {
        let mut out: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (decode(&key.replace('+', " ")), decode(&value.replace('+', " "))) {
                out.entry(key).or_default().push(value.into());
            }
        }
        Value::map(out.into_iter().map(|(k, v)| (k, v.into())))
    }

    fn escaped_path(&self) -> String {
        let mut out = String::with_capacity(self.path.len());
        for byte in self.path.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }
}

/// Percent-decodes; `None` when an escape is not one.
fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "url" => |b, a| match a {
            [Value::String(s)] => {
                charge_text(b, s.len())?;
                let parsed = Url::parse(s).map(|u| Value::Url(Arc::new(u)));
                parsed.ok_or_else(|| EvalError::new(format!("URL parse error during conversion from string: parse {s:?}: invalid URI for request")))
            }
            _ => no_overload(),
        },
        "isURL" => |b, a| match a {
            [Value::String(s)] => {
                charge_text(b, s.len())?;
                Ok(Value::Bool(Url::parse(s).is_some()))
            }
            _ => no_overload(),
        },
        "getScheme" => |b, a| part(b, a, |u| u.scheme.as_str().into()),
        "getHost" => |b, a| part(b, a, |u| u.host.as_str().into()),
        "getHostname" => |b, a| part(b, a, |u| u.split_host().0.into()),
        "getPort" => |b, a| part(b, a, |u| u.split_host().1.into()),
        "getEscapedPath" => |b, a| part(b, a, |u| u.escaped_path().into()),
        "getQuery" => |b, a| part(b, a, Url::query),
        _ => return None,
    })
}

fn part(budget: &Budget, args: &[Value], of: fn(&Url) -> Value) -> Result {
    let [Value::Url(url)] = args else { return no_overload() };
    charge_text(budget, url.path.len() + url.query.len())?;
    Ok(of(url))
}

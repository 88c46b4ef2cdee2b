//! Semantic versions 2.0.0 (`k8s.io/apiserver/pkg/cel/library/semverlib.go`).

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Function, Result, no_overload};
use crate::cel::EvalError;
use crate::cel::value::Value;

/// A version. Build metadata is checked and then forgotten: it has no part in any comparison.
#[derive(Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

/// A dot-separated part of a pre-release; numbers come before texts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl Semver {
    /// Parses; with `normalize`, a leading `v`, missing parts and leading zeros are put up with.
    fn parse(text: &str, normalize: bool) -> Option<Self> {
        let text = if normalize { text.strip_prefix('v').unwrap_or(text) } else { text };
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
        let identifiers = |text: &str| text.split('.').all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        if build.is_some_and(|b| !identifiers(b)) || pre.is_some_and(|p| !identifiers(p)) {
            return None;
        }
        let mut parts: Vec<&str> = core.split('.').collect();
        if normalize {
            parts.resize(parts.len().max(3), "0");
        }
        let [major, minor, patch] = parts.as_slice() else { return None };
        let number = |text: &str| {
            let text = if normalize { text.trim_start_matches('0') } else { text };
            if normalize && text.is_empty() {
                return Some(0);
            }
            let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
            if plain { text.parse().ok() } else { None }
        };
        let mut parts = Vec::new();
        for part in pre.map(|p| p.split('.')).into_iter().flatten() {
            parts.push(if part.bytes().all(|b| b.is_ascii_digit()) { Part::Number(number(part)?) } else { Part::Text(part.into()) });
        }
        Some(Semver { numbers: [number(major)?, number(minor)?, number(patch)?], pre: parts })
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        // A release is later than its pre-releases.
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "semver" => |_, a| {
            let (text, normalize) = text(a)?;
            let parsed = Semver::parse(text, normalize).map(|v| Value::Semver(Arc::new(v)));
            parsed.ok_or_else(|| EvalError::new("No Major.Minor.Patch elements found"))
        },
        "isSemver" => |_, a| text(a).map(|(text, normalize)| Value::Bool(Semver::parse(text, normalize).is_some())),
        "major" => |_, a| number(a, 0),
        "minor" => |_, a| number(a, 1),
        "patch" => |_, a| number(a, 2),
        _ => return None,
    })
}

fn text(args: &[Value]) -> Result<(&str, bool)> {
    match args {
        [Value::String(s)] => Ok((s, false)),
        [Value::String(s), Value::Bool(normalize)] => Ok((s, *normalize)),
        _ => no_overload(),
    }
}

fn number(args: &[Value], index: usize) -> Result {
    match args {
        [Value::Semver(v)] => i64::try_from(v.numbers[index]).map(Value::Int).map_err(|_| EvalError::new("integer overflow")),
        _ => no_overload(),
    }
}

//! Regular expressions: `matches`, `find`, `findAll` (`k8s.io/apiserver/pkg/cel/library/regex.go`). Linear in time, as RE2 is.

use regex::{Regex, RegexBuilder};

use super::{Function, Result, no_overload};
use crate::cel::value::Value;
use crate::cel::{Budget, EvalError};

/// How large a compiled expression may be, in bytes.
const SIZE: usize = 1 << 20;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "matches" => |b, a| match a {
            [Value::String(s), Value::String(pattern)] => Ok(Value::Bool(regex(b, s, pattern)?.is_match(s))),
            _ => no_overload(),
        },
        "find" => |b, a| match a {
            [Value::String(s), Value::String(pattern)] => Ok(regex(b, s, pattern)?.find(s).map_or("", |m| m.as_str()).into()),
            _ => no_overload(),
        },
        "findAll" => |b, a| match a {
            [Value::String(s), Value::String(pattern)] => all(b, s, pattern, usize::MAX),
            [Value::String(s), Value::String(pattern), Value::Int(most)] => all(b, s, pattern, usize::try_from(*most).unwrap_or(usize::MAX)),
            _ => no_overload(),
        },
        _ => return None,
    })
}

fn all(budget: &Budget, s: &str, pattern: &str, most: usize) -> Result {
    let regex = regex(budget, s, pattern)?;
    Ok(regex.find_iter(s).take(most).map(|m| Value::from(m.as_str())).collect::<Vec<_>>().into())
}

/// Compiles, charged as upstream estimates: a tenth of the text times a quarter of the pattern.
fn regex(budget: &Budget, text: &str, pattern: &str) -> Result<Regex> {
    let (text, pattern_cost) = ((text.len() as u64 + 1).div_ceil(10), (pattern.len() as u64).div_ceil(4));
    budget.charge(text.saturating_mul(pattern_cost))?;
    RegexBuilder::new(pattern).size_limit(SIZE).build().map_err(|error| {
        EvalError::new(match error {
            regex::Error::CompiledTooBig(_) => "error parsing regexp: expression too large".to_owned(),
            other => format!("error parsing regexp: {other}"),
        })
    })
}

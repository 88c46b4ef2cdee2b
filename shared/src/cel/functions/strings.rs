//! The standard string functions and cel-go's string extensions (`cel-go/ext/strings.go`). Positions count characters.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::{Function, Result, charge_text, no_overload};
use crate::cel::value::Value;
use crate::cel::{Budget, EvalError};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "contains" => |b, a| test(b, a, |s, t| s.contains(t)),
        "startsWith" => |b, a| test(b, a, |s, t| s.starts_with(t)),
        "endsWith" => |b, a| test(b, a, |s, t| s.ends_with(t)),
        "charAt" => char_at,
        "indexOf" => |b, a| match a {
            [Value::List(_), _] => super::lists::index_of(b, a),
            [Value::String(s), Value::String(t)] => index_of(b, s, t, 0),
            [Value::String(s), Value::String(t), Value::Int(from)] => index_of(b, s, t, *from),
            _ => no_overload(),
        },
        "lastIndexOf" => |b, a| match a {
            [Value::List(_), _] => super::lists::last_index_of(b, a),
            [Value::String(s), Value::String(t)] => last_index_of(b, s, t, None),
            [Value::String(s), Value::String(t), Value::Int(from)] => last_index_of(b, s, t, Some(*from)),
            _ => no_overload(),
        },
        "join" => join,
        "lowerAscii" => |b, a| mapped(b, a, str::to_ascii_lowercase),
        "upperAscii" => |b, a| mapped(b, a, str::to_ascii_uppercase),
        "trim" => |b, a| mapped(b, a, |s| s.trim().to_owned()),
        "reverse" => |b, a| match a {
            [Value::String(_)] => mapped(b, a, |s| s.chars().rev().collect()),
            _ => super::lists::reverse(b, a),
        },
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "strings.quote" => |b, a| mapped(b, a, quote),
        "base64.encode" => |b, a| match a {
            [Value::Bytes(bytes)] => {
                charge_text(b, bytes.len())?;
                Ok(STANDARD.encode(bytes).into())
            }
            _ => no_overload(),
        },
        "base64.decode" => |b, a| match a {
            [Value::String(s)] => {
                charge_text(b, s.len())?;
                let decoded = STANDARD.decode(s.as_bytes()).or_else(|_| STANDARD_NO_PAD.decode(s.as_bytes()));
                decoded.map(|d| Value::Bytes(d.into())).map_err(|_| EvalError::new("illegal base64 data at input byte 0"))
            }
            _ => no_overload(),
        },
        "jsonpatch.escapeKey" => |b, a| mapped(b, a, |s| s.replace('~', "~0").replace('/', "~1")),
        _ => return None,
    })
}

fn test(budget: &Budget, args: &[Value], holds: fn(&str, &str) -> bool) -> Result {
    let [Value::String(s), Value::String(t)] = args else { return no_overload() };
    charge_text(budget, s.len() + t.len())?;
    Ok(Value::Bool(holds(s, t)))
}

fn mapped(budget: &Budget, args: &[Value], change: impl Fn(&str) -> String) -> Result {
    let [Value::String(s)] = args else { return no_overload() };
    charge_text(budget, s.len())?;
    Ok(change(s).into())
}

fn range(index: i64) -> EvalError {
    EvalError::new(format!("index out of range: {index}"))
}

fn char_at(budget: &Budget, args: &[Value]) -> Result {
    let [Value::String(s), Value::Int(at)] = args else { return no_overload() };
    charge_text(budget, s.len())?;
    let count = s.chars().count();
    let index = usize::try_from(*at).ok().filter(|at| *at <= count).ok_or_else(|| range(*at))?;
    Ok(s.chars().nth(index).map(String::from).unwrap_or_default().into())
}

fn index_of(budget: &Budget, s: &str, wanted: &str, from: i64) -> Result {
    charge_text(budget, s.len() + wanted.len())?;
    let length = s.chars().count() as i64;
    if from < 0 {
        return Err(range(from));
    }
    if wanted.is_empty() {
        return Ok(Value::Int(from.min(length)));
    }
    if from >= length {
        return Ok(Value::Int(-1));
    }
    let start = byte_of(s, from as usize);
    Ok(Value::Int(s[start..].find(wanted).map_or(-1, |at| from + s[start..start + at].chars().count() as i64)))
}

fn last_index_of(budget: &Budget, s: &str, wanted: &str, from: Option<i64>) -> Result {
    charge_text(budget, s.len() + wanted.len())?;
    let length = s.chars().count() as i64;
    let from = from.unwrap_or(length);
    if from < 0 {
        return Err(range(from));
    }
    if wanted.is_empty() {
        return Ok(Value::Int(from.min(length)));
    }
    // A match may begin at `from` at the latest.
    let end = byte_of(s, from.min(length) as usize).saturating_add(wanted.len()).min(s.len());
    let end = (end..=s.len()).find(|at| s.is_char_boundary(*at)).unwrap_or(s.len());
    let found = s[..end].match_indices(wanted).map(|(at, _)| s[..at].chars().count() as i64).filter(|at| *at <= from).last();
    // Overlapping matches: the last one need not be among those that do not overlap.
    let overlapping = s[..end].rfind(wanted).map(|at| s[..at].chars().count() as i64).filter(|at| *at <= from);
    Ok(Value::Int(found.max(overlapping).unwrap_or(-1)))
}

fn byte_of(s: &str, index: usize) -> usize {
    s.char_indices().nth(index).map_or(s.len(), |(at, _)| at)
}

fn join(budget: &Budget, args: &[Value]) -> Result {
    let (items, separator) = match args {
        [Value::List(items)] => (items, ""),
        [Value::List(items), Value::String(separator)] => (items, separator.as_ref()),
        _ => return no_overload(),
    };
    let parts: Vec<&str> = items.iter().map(|i| i.as_str().ok_or_else(EvalError::no_overload)).collect::<Result<_>>()?;
    charge_text(budget, parts.iter().map(|p| p.len() + separator.len()).sum())?;
    Ok(parts.join(separator).into())
}

fn replace(budget: &Budget, args: &[Value]) -> Result {
    let (s, from, to, limit) = match args {
        [Value::String(s), Value::String(from), Value::String(to)] => (s, from, to, -1),
        [Value::String(s), Value::String(from), Value::String(to), Value::Int(limit)] => (s, from, to, *limit),
        _ => return no_overload(),
    };
    // Charged before, by what it may come to: an empty pattern is found at every place.
    let places = if from.is_empty() { s.len() + 1 } else { s.matches(from.as_ref()).count() };
    charge_text(budget, s.len() + places.saturating_mul(to.len()))?;
    Ok(match usize::try_from(limit) {
        Ok(limit) => s.replacen(from.as_ref(), to, limit),
        Err(_) => s.replace(from.as_ref(), to),
    }
    .into())
}

fn split(budget: &Budget, args: &[Value]) -> Result {
    let (s, separator, limit) = match args {
        [Value::String(s), Value::String(separator)] => (s, separator, -1),
        [Value::String(s), Value::String(separator), Value::Int(limit)] => (s, separator, *limit),
        _ => return no_overload(),
    };
    charge_text(budget, s.len())?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    if most == 0 {
        return Ok(Vec::new().into());
    }
    if !separator.is_empty() {
        return Ok(s.splitn(most, separator.as_ref()).map(Value::from).collect::<Vec<_>>().into());
    }
    // An empty separator splits between characters.
    let chars: Vec<char> = s.chars().collect();
    let cut = chars.len().min(most);
    let mut parts: Vec<Value> = chars[..cut].iter().map(|c| Value::from(c.to_string())).collect();
    if cut < chars.len() {
        parts.pop();
        parts.push(chars[cut - 1..].iter().collect::<String>().into());
    }
    Ok(parts.into())
}

fn substring(budget: &Budget, args: &[Value]) -> Result {
    let [Value::String(s), Value::Int(start), rest @ ..] = args else { return no_overload() };
    charge_text(budget, s.len())?;
    let length = s.chars().count() as i64;
    let end = match rest {
        [] => length,
        [Value::Int(end)] => *end,
        _ => return no_overload(),
    };
    if *start < 0 || *start > length {
        return Err(range(*start));
    }
    if end < 0 || end > length {
        return Err(range(end));
    }
    if *start > end {
        return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    Ok(s[byte_of(s, *start as usize)..byte_of(s, end as usize)].into())
}

fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

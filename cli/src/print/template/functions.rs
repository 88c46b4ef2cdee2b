//! The functions of `text/template` and kubectl's own two.

use std::cmp::Ordering;

use base64::Engine;
use serde_json::Value;

use super::eval::{Maybe, truth};
use super::{Error, fail, format};

const NAMES: &[&str] = &[
    "and",
    "or",
    "not",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "html",
    "js",
    "urlquery",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "call",
    "exists",
    "base64decode",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn call(name: &str, arguments: Vec<Maybe>) -> Result<Maybe, Error> {
    let text = |s: String| Ok(Some(Value::String(s)));
    match name {
        "not" => one(&arguments).map(|v| Some(Value::Bool(!truth(v)))),
        "len" => length(one(&arguments)?),
        "index" => index(&arguments),
        "slice" => slice(&arguments),
        "print" => text(format::sprint(&arguments)),
        "println" => text(arguments.iter().map(format::or_nil).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => match arguments.split_first() {
            Some((Some(Value::String(f)), rest)) => text(format::sprintf(f, rest)),
            _ => fail("wrong type for value; expected string"),
        },
        "html" => text(html(&format::sprint(&arguments))),
        "js" => text(js(&format::sprint(&arguments))),
        "urlquery" => text(urlquery(&format::sprint(&arguments))),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, &arguments).map(|b| Some(Value::Bool(b))),
        "exists" => Ok(Some(Value::Bool(path(&arguments).is_some()))),
        "base64decode" => decode(one(&arguments)?),
        other => fail(format!("{other} cannot be called on objects")),
    }
}

fn one(arguments: &[Maybe]) -> Result<&Maybe, Error> {
    match arguments {
        [one] => Ok(one),
        many => fail(format!("wrong number of args: want 1 got {}", many.len())),
    }
}

fn length(value: &Maybe) -> Result<Maybe, Error> {
    let length = match value {
        Some(Value::String(s)) => s.len(),
        Some(Value::Array(a)) => a.len(),
        Some(Value::Object(o)) => o.len(),
        Some(other) => return fail(format!("len of type {}", format::type_name(other))),
        None => return fail("len of nil pointer"),
    };
    Ok(Some(Value::from(length)))
}

fn path(arguments: &[Maybe]) -> Maybe {
    let (first, keys) = arguments.split_first()?;
    let mut current = first.clone()?;
    for key in keys {
        current = match (current, key.as_ref()?) {
            (Value::Object(mut map), Value::String(key)) => map.remove(key)?,
            (Value::Array(items), key) => items.into_iter().nth(usize::try_from(key.as_u64()?).ok()?)?,
            _ => return None,
        };
    }
    Some(current)
}

fn index(arguments: &[Maybe]) -> Result<Maybe, Error> {
    let Some((first, keys)) = arguments.split_first() else { return fail("wrong number of args: want at least 1 got 0") };
    let mut current = first.clone();
    for key in keys {
        current = match (current, key) {
            (Some(Value::Object(mut map)), Some(Value::String(key))) => map.remove(key),
            (Some(Value::Array(items)), Some(Value::Number(n))) => {
                let Some(item) = n.as_u64().and_then(|i| items.get(i as usize).cloned()) else { return fail(format!("index out of range: {n}")) };
                Some(item)
            }
            (Some(Value::String(s)), Some(Value::Number(n))) => match n.as_u64().and_then(|i| s.as_bytes().get(i as usize).copied()) {
                Some(byte) => Some(Value::from(byte)),
                None => return fail(format!("index out of range: {n}")),
            },
            (None | Some(Value::Null), _) => return fail("index of untyped nil"),
            (Some(value), _) => return fail(format!("can't index item of type {}", format::type_name(&value))),
        };
    }
    Ok(current)
}

fn slice(arguments: &[Maybe]) -> Result<Maybe, Error> {
    let Some((Some(value), bounds)) = arguments.split_first() else { return fail("slice of untyped nil") };
    let length = match value {
        Value::String(s) => s.len(),
        Value::Array(a) => a.len(),
        other => return fail(format!("can't slice item of type {}", format::type_name(other))),
    };
    let bound = |index: usize, default: usize| match bounds.get(index) {
        None => Ok(default),
        Some(value) => {
            value.as_ref().and_then(Value::as_u64).map(|n| n as usize).filter(|n| *n <= length).ok_or_else(|| Error("index out of range".into()))
        }
    };
    let (low, high) = (bound(0, 0)?, bound(1, length)?);
    if low > high {
        return fail(format!("invalid slice index: {low} > {high}"));
    }
    Ok(Some(match value {
        Value::String(s) => Value::String(s.get(low..high).unwrap_or_default().to_owned()),
        Value::Array(a) => Value::Array(a[low..high].to_vec()),
        _ => Value::Null,
    }))
}

fn compare(name: &str, arguments: &[Maybe]) -> Result<bool, Error> {
    let Some((first, rest)) = arguments.split_first().filter(|(_, rest)| !rest.is_empty()) else { return fail("missing argument for comparison") };
    if name == "eq" {
        for other in rest {
            if equal(first, other)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    let other = &rest[0];
    if name == "ne" {
        return equal(first, other).map(|e| !e);
    }
    let order = match (first, other) {
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.is_f64() == b.is_f64() => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        _ => return fail("incompatible types for comparison"),
    };
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn equal(a: &Maybe, b: &Maybe) -> Result<bool, Error> {
    match (a, b) {
        (Some(Value::Number(x)), Some(Value::Number(y))) if x.is_f64() != y.is_f64() => fail("incompatible types for comparison"),
        (Some(x), Some(y)) if !x.is_null() && !y.is_null() && std::mem::discriminant(x) != std::mem::discriminant(y) => {
            fail("incompatible types for comparison")
        }
        (x, y) => Ok(x.as_ref().unwrap_or(&Value::Null) == y.as_ref().unwrap_or(&Value::Null)),
    }
}

fn decode(value: &Maybe) -> Result<Maybe, Error> {
    let Some(Value::String(text)) = value else { return fail("wrong type for value; expected string") };
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(bytes) => Ok(Some(Value::String(String::from_utf8_lossy(&bytes).into_owned()))),
        Err(error) => fail(format!("base64 decode failed: {error}")),
    }
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => {
                out.push('\\');
                out.push(c);
            }
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        match b {
            b' ' => out.push('+'),
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => out.push(b as char),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

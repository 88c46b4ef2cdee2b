//! The functions of `text/template` and kubectl's own two.

use std::cmp::Ordering;

use base64::{DecodeError, Engine};
use serde_json::Value;

use super::eval::{Maybe, Typed, truth};
use super::{Error, fail, format};

/// The functions with the fewest and the most arguments they take.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("and", 1, MANY),
    ("or", 1, MANY),
    ("not", 1, 1),
    ("len", 1, 1),
    ("index", 1, MANY),
    ("slice", 1, MANY),
    ("print", 0, MANY),
    ("printf", 1, MANY),
    ("println", 0, MANY),
    ("html", 0, MANY),
    ("js", 0, MANY),
    ("urlquery", 0, MANY),
    ("eq", 1, MANY),
    ("ne", 2, 2),
    ("lt", 2, 2),
    ("le", 2, 2),
    ("gt", 2, 2),
    ("ge", 2, 2),
    ("call", 1, MANY),
    ("exists", 1, MANY),
    ("base64decode", 1, 1),
];
const MANY: usize = usize::MAX;

/// Stands in an error for how the first operand is written.
pub(super) const OPERAND: &str = "\u{0}";

pub(super) fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, ..)| *known == name)
}

/// Whether the first argument must be text.
pub(super) fn begins_with_text(name: &str) -> bool {
    matches!(name, "printf" | "base64decode")
}

/// Refuses a number of arguments that a function does not take.
pub(super) fn counted(name: &str, got: usize) -> Result<(), Error> {
    match FUNCTIONS.iter().find(|(known, ..)| *known == name) {
        Some((_, least, MANY)) if got < *least => fail(format!("wrong number of args for {name}: want at least {least} got {got}")),
        Some((_, least, most)) if *most != MANY && got != *least => fail(format!("wrong number of args for {name}: want {least} got {got}")),
        _ => Ok(()),
    }
}

pub(super) fn call(name: &str, arguments: Vec<Typed>) -> Result<Maybe, Error> {
    let text = |s: String| Ok(Some(Value::String(s)));
    let truthful = |b: bool| Ok(Some(Value::Bool(b)));
    match (name, arguments.as_slice()) {
        ("not", [one]) => truthful(!truth(&one.value)),
        ("len", [one]) => length(one),
        ("index", _) => index(&arguments),
        ("slice", _) => slice(&arguments),
        ("eq" | "ne" | "lt" | "le" | "gt" | "ge", _) => truthful(compare(name, &arguments)?),
        ("base64decode", [one]) => decode(&one.value),
        ("call", [Typed { value: None | Some(Value::Null), .. }, ..]) => fail("call of nil"),
        ("call", [one, ..]) => fail(format!("non-function {OPERAND} of type {}", one.type_name())),
        _ => {
            let values: Vec<Maybe> = arguments.into_iter().map(|a| a.value).collect();
            match (name, values.split_first()) {
                ("print", _) => text(format::sprint(&values)),
                ("println", _) => text(values.iter().map(format::or_nil).collect::<Vec<_>>().join(" ") + "\n"),
                ("printf", Some((Some(Value::String(f)), rest))) => text(format::sprintf(f, rest)),
                ("html", _) => text(html(&format::sprint(&values))),
                ("js", _) => text(js(&format::sprint(&values))),
                ("urlquery", _) => text(urlquery(&format::sprint(&values))),
                ("exists", _) => truthful(path(&values).is_some()),
                (other, _) => fail(format!("{other} cannot be called on objects")),
            }
        }
    }
}

fn length(of: &Typed) -> Result<Maybe, Error> {
    let length = match &of.value {
        Some(Value::String(s)) => s.len(),
        Some(Value::Array(a)) => a.len(),
        Some(Value::Object(o)) => o.len(),
        None | Some(Value::Null) => return fail("reflect: call of reflect.Value.Type on zero Value"),
        Some(_) => return fail(format!("len of type {}", of.type_name())),
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

fn index(arguments: &[Typed]) -> Result<Maybe, Error> {
    let Some((first, keys)) = arguments.split_first() else { return Ok(None) };
    let mut current = first.clone();
    for key in keys {
        let found = match (&current.value, &key.value) {
            (None | Some(Value::Null), _) => return fail("index of untyped nil"),
            (Some(Value::Object(map)), Some(Value::String(key))) => map.get(key).cloned(),
            (Some(Value::Object(_)), None | Some(Value::Null)) => return fail("value is nil; should be of type string"),
            (Some(Value::Object(_)), Some(_)) => return fail(format!("value has type {}; should be string", key.type_name())),
            (Some(Value::Array(items)), _) => Some(items[position(key, items.len(), false)?].clone()),
            (Some(Value::String(text)), _) => Some(Value::from(text.as_bytes()[position(key, text.len(), false)?])),
            (Some(_), _) => return fail(format!("can't index item of type {}", current.type_name())),
        };
        current = Typed::of(found);
    }
    Ok(current.value)
}

/// A place in a list or text of that length; its end counts where a slice may end.
fn position(key: &Typed, length: usize, end_counts: bool) -> Result<usize, Error> {
    match &key.value {
        None | Some(Value::Null) => fail("cannot index slice/array with nil"),
        Some(Value::Number(n)) if !n.is_f64() => {
            let at = n.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|at| *at < length || end_counts && *at == length);
            at.ok_or_else(|| Error(format!("index out of range: {n}")))
        }
        Some(_) => fail(format!("cannot index slice/array with type {}", key.type_name())),
    }
}

fn slice(arguments: &[Typed]) -> Result<Maybe, Error> {
    let Some((Typed { value: Some(value), .. }, bounds)) = arguments.split_first() else { return fail("slice of untyped nil") };
    let length = match value {
        Value::String(s) => s.len(),
        Value::Array(a) => a.len(),
        _ => return fail(format!("can't slice item of type {}", arguments[0].type_name())),
    };
    let bound = |index: usize, default: usize| bounds.get(index).map_or(Ok(default), |key| position(key, length, true));
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

fn compare(name: &str, arguments: &[Typed]) -> Result<bool, Error> {
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
    let order = match (&first.value, &other.value) {
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.is_f64() == b.is_f64() => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::Bool(_)), Some(Value::Bool(_))) => return fail("invalid type for comparison"),
        (a, b) if !has_kind(a) || !has_kind(b) => return fail("invalid type for comparison"),
        _ => return fail(incompatible(first, other)),
    };
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// Whether a value is of a kind that can be compared at all.
fn has_kind(value: &Maybe) -> bool {
    matches!(value, Some(Value::Bool(_) | Value::Number(_) | Value::String(_)))
}

fn incompatible(a: &Typed, b: &Typed) -> String {
    format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name())
}

fn equal(a: &Typed, b: &Typed) -> Result<bool, Error> {
    match (&a.value, &b.value) {
        (None | Some(Value::Null), None | Some(Value::Null)) => Ok(true),
        (None | Some(Value::Null), _) | (_, None | Some(Value::Null)) => Ok(false),
        (Some(Value::Number(x)), Some(Value::Number(y))) if x.is_f64() != y.is_f64() => fail(incompatible(a, b)),
        (Some(x), Some(_)) if !has_kind(&a.value) && !has_kind(&b.value) => {
            fail(format!("non-comparable type {}: {}", format::as_text(x), a.type_name()))
        }
        (Some(x), Some(y)) if std::mem::discriminant(x) != std::mem::discriminant(y) => fail(incompatible(a, b)),
        (x, y) => Ok(x == y),
    }
}

fn decode(value: &Maybe) -> Result<Maybe, Error> {
    let Some(Value::String(text)) = value else { return Ok(None) };
    // Go's decoder reads over ends of lines.
    let text = text.replace(['\n', '\r'], "");
    let at = match base64::engine::general_purpose::STANDARD.decode(&text) {
        Ok(bytes) => return Ok(Some(Value::String(String::from_utf8_lossy(&bytes).into_owned()))),
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => at,
        Err(_) => text.len(),
    };
    fail(format!("base64 decode failed: illegal base64 data at input byte {at}"))
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

//! `string.format(list)` (`cel-go/ext/formatting.go`).

use super::conversions::double;
use super::{Function, Result, charge_text, no_overload};
use crate::cel::value::Value;
use crate::cel::{Budget, EvalError, time};

/// Digits after the point when none are asked for.
const PRECISION: usize = 6;

pub(super) fn find(name: &str) -> Option<Function> {
    (name == "format").then_some(format as Function)
}

fn format(budget: &Budget, args: &[Value]) -> Result {
    let [Value::String(template), Value::List(values)] = args else { return no_overload() };
    charge_text(budget, template.len())?;
    let count = values.len();
    let mut values = values.iter().enumerate();
    let mut out = String::with_capacity(template.len());
    let mut rest = template.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if rest.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if rest.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(d) = rest.next_if(char::is_ascii_digit) {
                digits.push(d);
            }
            let parsed: usize = digits.parse().map_err(|_| EvalError::new("could not parse formatting clause: error while parsing precision"))?;
            precision = Some(parsed.min(1000));
        }
        let Some(clause) = rest.next() else {
            return Err(EvalError::new("could not parse formatting clause: unexpected end of string"));
        };
        let Some((index, value)) = values.next() else {
            return Err(EvalError::new(format!("index {count} out of range")));
        };
        let part = one(clause, precision, value)
            .ok_or_else(|| EvalError::new(format!("could not parse formatting clause: unrecognized formatting clause \"{clause}\" at {index}")))??;
        charge_text(budget, part.len())?;
        out.push_str(&part);
    }
    Ok(out.into())
}

/// One value by its clause; `None` for a clause that is not known.
fn one(clause: char, precision: Option<usize>, value: &Value) -> Option<Result<String>> {
    let wrong = |wanted: &str| Err(EvalError::new(format!("{wanted} clause can only be used on numbers, was given {}", value.type_name())));
    Some(match clause {
        's' => Ok(text(value)),
        'd' => match value {
            Value::Int(i) => Ok(i.to_string()),
            Value::Uint(u) => Ok(u.to_string()),
            Value::Double(d) if d.is_nan() || d.is_infinite() => Ok(special(*d)),
            _ => wrong("decimal"),
        },
        'f' => number(value).map_or_else(|| wrong("fixed-point"), |d| Ok(fixed(d, precision.unwrap_or(PRECISION)))),
        'e' => number(value).map_or_else(|| wrong("scientific"), |d| Ok(scientific(d, precision.unwrap_or(PRECISION)))),
        'b' => match value {
            Value::Bool(b) => Ok(u8::from(*b).to_string()),
            Value::Int(i) => Ok(signed(*i, |u| format!("{u:b}"))),
            Value::Uint(u) => Ok(format!("{u:b}")),
            _ => wrong("binary"),
        },
        'o' => match value {
            Value::Int(i) => Ok(signed(*i, |u| format!("{u:o}"))),
            Value::Uint(u) => Ok(format!("{u:o}")),
            _ => wrong("octal"),
        },
        'x' | 'X' => {
            let hex = match value {
                Value::Int(i) => signed(*i, |u| format!("{u:x}")),
                Value::Uint(u) => format!("{u:x}"),
                Value::String(s) => s.bytes().map(|b| format!("{b:02x}")).collect(),
                Value::Bytes(bytes) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
                _ => return Some(wrong("hex")),
            };
            Ok(if clause == 'X' { hex.to_ascii_uppercase() } else { hex })
        }
        _ => return None,
    })
}

fn signed(i: i64, digits: impl Fn(u64) -> String) -> String {
    let sign = if i < 0 { "-" } else { "" };
    format!("{sign}{}", digits(i.unsigned_abs()))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Double(d) => Some(*d),
        Value::Int(i) => Some(*i as f64),
        Value::Uint(u) => Some(*u as f64),
        _ => None,
    }
}

fn special(d: f64) -> String {
    let text = if d.is_nan() {
        "NaN"
    } else if d > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    text.into()
}

fn fixed(d: f64, precision: usize) -> String {
    if d.is_finite() { format!("{d:.precision$}") } else { special(d) }
}

fn scientific(d: f64, precision: usize) -> String {
    if !d.is_finite() {
        return special(d);
    }
    let text = format!("{d:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `%s`: anything, lists and maps with their parts.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) if !d.is_finite() => special(*d),
        Value::Double(d) => double(*d),
        Value::String(s) => s.to_string(),
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Value::Timestamp(t) => t.to_string(),
        Value::Duration(d) => time::format_duration(*d),
        Value::Type(name) => name.to_string(),
        Value::List(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k}: {}", text(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Quantity(q) => q.to_string(),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        other => other.type_name().to_owned(),
    }
}

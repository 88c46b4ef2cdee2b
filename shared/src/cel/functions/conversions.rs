//! `int()`, `string()` and the like, `type()`, `dyn()` and `size()`.

use super::{Function, Result, charge_text, no_overload};
use crate::cel::value::Value;
use crate::cel::{Budget, EvalError, time};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "size" => |_, a| match a {
            [Value::String(s)] => Ok(Value::Int(s.chars().count() as i64)),
            [v @ (Value::Bytes(_) | Value::List(_) | Value::Map(_))] => Ok(Value::Int(v.size() as i64)),
            _ => no_overload(),
        },
        "dyn" => |_, a| a.first().cloned().map_or_else(no_overload, Ok),
        "type" => |_, a| a.first().map_or_else(no_overload, |v| Ok(Value::Type(v.type_name().into()))),
        "bool" => |_, a| match a {
            [Value::Bool(b)] => Ok(Value::Bool(*b)),
            [Value::String(s)] => match s.as_ref() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
                _ => Err(conversion("string", "bool")),
            },
            _ => no_overload(),
        },
        "int" => int,
        "uint" => uint,
        "double" => |_, a| match a {
            [Value::Double(d)] => Ok(Value::Double(*d)),
            [Value::Int(i)] => Ok(Value::Double(*i as f64)),
            [Value::Uint(u)] => Ok(Value::Double(*u as f64)),
            [Value::String(s)] => s.trim_start_matches('+').parse().map(Value::Double).map_err(|_| conversion("string", "double")),
            _ => no_overload(),
        },
        "string" => string,
        "bytes" => |b, a| match a {
            [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.clone())),
            [Value::String(s)] => {
                charge_text(b, s.len())?;
                Ok(Value::Bytes(s.as_bytes().into()))
            }
            _ => no_overload(),
        },
        "timestamp" => |_, a| match a {
            [Value::Timestamp(t)] => Ok(Value::Timestamp(*t)),
            [Value::String(s)] => time::parse_timestamp(s)
                .map(Value::Timestamp)
                .ok_or_else(|| EvalError::new(format!("parsing time \"{s}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{s}\" as \"2006\""))),
            [Value::Int(i)] => jiff::Timestamp::from_second(*i).map(Value::Timestamp).map_err(|_| EvalError::new("timestamp overflow")),
            _ => no_overload(),
        },
        "duration" => |_, a| match a {
            [Value::Duration(d)] => Ok(Value::Duration(*d)),
            [Value::String(s)] => {
                time::parse_duration(s).map(Value::Duration).ok_or_else(|| EvalError::new(format!("time: invalid duration \"{s}\"")))
            }
            [Value::Int(i)] => Ok(Value::Duration(*i)),
            _ => no_overload(),
        },
        _ => return None,
    })
}

fn conversion(from: &str, to: &str) -> EvalError {
    EvalError::new(format!("type conversion error from '{from}' to '{to}'"))
}

fn int(_: &Budget, args: &[Value]) -> Result {
    let range = || EvalError::new("integer overflow");
    Ok(Value::Int(match args {
        [Value::Int(i)] => *i,
        [Value::Uint(u)] => i64::try_from(*u).map_err(|_| range())?,
        [Value::Double(d)] if *d > -9.223_372_036_854_775e18 && *d < 9.223_372_036_854_775e18 => *d as i64,
        [Value::Double(_)] => return Err(range()),
        [Value::String(s)] => s.parse().map_err(|_| conversion("string", "int"))?,
        [Value::Timestamp(t)] => t.as_second(),
        [Value::Duration(d)] => *d,
        _ => return no_overload(),
    }))
}

fn uint(_: &Budget, args: &[Value]) -> Result {
    let range = || EvalError::new("unsigned integer overflow");
    Ok(Value::Uint(match args {
        [Value::Uint(u)] => *u,
        [Value::Int(i)] => u64::try_from(*i).map_err(|_| range())?,
        [Value::Double(d)] if *d >= 0.0 && *d < 1.844_674_407_370_955e19 => *d as u64,
        [Value::Double(_)] => return Err(range()),
        [Value::String(s)] => s.parse().map_err(|_| conversion("string", "uint"))?,
        _ => return no_overload(),
    }))
}

fn string(budget: &Budget, args: &[Value]) -> Result {
    let [value] = args else { return no_overload() };
    budget.charge(value.size().div_ceil(10))?;
    Ok(match value {
        Value::String(_) => value.clone(),
        Value::Bool(b) => b.to_string().into(),
        Value::Int(i) => i.to_string().into(),
        Value::Uint(u) => u.to_string().into(),
        Value::Double(d) => double(*d).into(),
        Value::Bytes(b) => std::str::from_utf8(b).map_err(|_| EvalError::new("invalid UTF-8 in bytes, cannot convert to string"))?.into(),
        Value::Timestamp(t) => t.to_string().into(),
        Value::Duration(d) => time::format_duration(*d).into(),
        Value::Ip(ip) => ip.to_string().into(),
        Value::Cidr(cidr) => cidr.to_string().into(),
        _ => return no_overload(),
    })
}

/// Go's shortest form (`%g`): exponents from 21 digits on.
pub(super) fn double(d: f64) -> String {
    if d.is_nan() {
        return "NaN".into();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    if d != 0.0 && (d.abs() >= 1e21 || d.abs() < 1e-4) {
        let text = format!("{d:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    d.to_string()
}

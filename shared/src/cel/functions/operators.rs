//! Arithmetic, comparison, membership and indexing.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Function, Result, charge_items, charge_search, charge_text, comparison, no_overload};
use crate::cel::eval::no_such_key;
use crate::cel::value::{Key, Value, compare};
use crate::cel::{Budget, EvalError};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "_==_" => |b, a| equal(b, a).map(Value::Bool),
        "_!=_" => |b, a| equal(b, a).map(|e| Value::Bool(!e)),
        "_<_" => |b, a| order(b, a, Ordering::is_lt),
        "_<=_" => |b, a| order(b, a, Ordering::is_le),
        "_>_" => |b, a| order(b, a, Ordering::is_gt),
        "_>=_" => |b, a| order(b, a, Ordering::is_ge),
        "@in" => is_in,
        "!_" => |_, a| match a {
            [Value::Bool(b)] => Ok(Value::Bool(!b)),
            _ => no_overload(),
        },
        "-_" => |_, a| match a {
            [Value::Int(i)] => i.checked_neg().map(Value::Int).ok_or_else(overflow),
            [Value::Double(d)] => Ok(Value::Double(-d)),
            _ => no_overload(),
        },
        "_+_" => add,
        "_-_" => subtract,
        "_*_" => multiply,
        "_/_" => divide,
        "_%_" => remainder,
        "_[_]" => |_, a| match a {
            [Value::Optional(None), _] => Ok(Value::Optional(None)),
            [Value::Optional(Some(inner)), key] => Ok(Value::Optional(index(inner, key)?.ok().map(Arc::new))),
            [of, key] => index(of, key)?,
            _ => no_overload(),
        },
        "_[?_]" => |_, a| match a {
            [Value::Optional(None), _] => Ok(Value::Optional(None)),
            [Value::Optional(Some(inner)), key] => Ok(Value::Optional(index(inner, key)?.ok().map(Arc::new))),
            [of, key] => Ok(Value::Optional(index(of, key)?.ok().map(Arc::new))),
            _ => no_overload(),
        },
        _ => return None,
    })
}

fn overflow() -> EvalError {
    EvalError::new("integer overflow")
}

fn equal(budget: &Budget, args: &[Value]) -> Result<bool> {
    let [a, b] = args else { return no_overload() };
    budget.charge(comparison(a, b))?;
    Ok(a == b)
}

fn order(budget: &Budget, args: &[Value], wanted: fn(Ordering) -> bool) -> Result {
    let [a, b] = args else { return no_overload() };
    budget.charge(a.size().min(b.size()).div_ceil(10))?;
    match (compare(a, b), a, b) {
        (Some(order), ..) => Ok(Value::Bool(wanted(order))),
        // Not a number is in no order with anything.
        (None, Value::Double(_), _) | (None, _, Value::Double(_)) if crate::cel::value::is_number(a) && crate::cel::value::is_number(b) => {
            Ok(Value::Bool(false))
        }
        _ => no_overload(),
    }
}

fn is_in(budget: &Budget, args: &[Value]) -> Result {
    Ok(Value::Bool(match args {
        [item, Value::List(items)] => {
            charge_search(budget, items, item)?;
            items.iter().any(|i| i == item)
        }
        [key, Value::Map(entries)] => Key::of(key).is_some_and(|k| entries.contains_key(&k)),
        _ => return no_overload(),
    }))
}

/// An element; the inner error is that there is none.
fn index(of: &Value, key: &Value) -> Result<std::result::Result<Value, EvalError>> {
    match of {
        Value::List(items) => {
            let at = match Key::of(key) {
                Some(Key::Int(at)) => at,
                Some(Key::Uint(at)) => return Ok(Err(EvalError::new(format!("index out of bounds: {at}")))),
                _ => return Err(EvalError::new(format!("unsupported index type '{}' in list", key.type_name()))),
            };
            let found = usize::try_from(at).ok().and_then(|at| items.get(at));
            Ok(found.cloned().ok_or_else(|| EvalError::new(format!("index out of bounds: {at}"))))
        }
        Value::Map(entries) => {
            let Some(key) = Key::of(key) else { return Ok(Err(EvalError::new(format!("unsupported key type: {}", key.type_name())))) };
            Ok(entries.get(&key).cloned().ok_or_else(|| no_such_key(&key)))
        }
        Value::Message(message) => match key {
            Value::String(name) => Ok(message.fields.get(name).cloned().ok_or_else(|| no_such_key(name))),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn add(budget: &Budget, args: &[Value]) -> Result {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_add(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_add(*b).ok_or_else(|| EvalError::new("unsigned integer overflow"))?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a + b),
        [Value::String(a), Value::String(b)] => {
            charge_text(budget, a.len() + b.len())?;
            Value::from(format!("{a}{b}"))
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            charge_text(budget, a.len() + b.len())?;
            Value::Bytes([a.as_ref(), b.as_ref()].concat().into())
        }
        [Value::List(a), Value::List(b)] => {
            charge_items(budget, a.len() + b.len())?;
            a.iter().chain(b.iter()).cloned().collect::<Vec<_>>().into()
        }
        [Value::Duration(a), Value::Duration(b)] => Value::Duration(a.checked_add(*b).ok_or_else(overflow)?),
        [Value::Timestamp(t), Value::Duration(d)] | [Value::Duration(d), Value::Timestamp(t)] => shift(*t, *d)?,
        _ => return no_overload(),
    })
}

fn shift(time: jiff::Timestamp, nanos: i64) -> Result {
    time.checked_add(jiff::SignedDuration::from_nanos(nanos)).map(Value::Timestamp).map_err(|_| EvalError::new("timestamp overflow"))
}

fn subtract(_: &Budget, args: &[Value]) -> Result {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_sub(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_sub(*b).ok_or_else(|| EvalError::new("unsigned integer overflow"))?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a - b),
        [Value::Duration(a), Value::Duration(b)] => Value::Duration(a.checked_sub(*b).ok_or_else(overflow)?),
        [Value::Timestamp(t), Value::Duration(d)] => shift(*t, d.checked_neg().ok_or_else(overflow)?)?,
        [Value::Timestamp(a), Value::Timestamp(b)] => Value::Duration(i64::try_from(a.as_nanosecond() - b.as_nanosecond()).map_err(|_| overflow())?),
        _ => return no_overload(),
    })
}

fn multiply(_: &Budget, args: &[Value]) -> Result {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_mul(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_mul(*b).ok_or_else(|| EvalError::new("unsigned integer overflow"))?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a * b),
        _ => return no_overload(),
    })
}

fn divide(_: &Budget, args: &[Value]) -> Result {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => return Err(EvalError::new("division by zero")),
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_div(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a / b),
        [Value::Double(a), Value::Double(b)] => Value::Double(a / b),
        _ => return no_overload(),
    })
}

fn remainder(_: &Budget, args: &[Value]) -> Result {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => return Err(EvalError::new("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_rem(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a % b),
        _ => return no_overload(),
    })
}

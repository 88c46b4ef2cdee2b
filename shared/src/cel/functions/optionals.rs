//! Optional values (`cel-go/cel/library.go`, optional types).

use std::sync::Arc;

use super::{Function, Result, no_overload};
use crate::cel::EvalError;
use crate::cel::value::Value;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "optional.of" => |_, a| a.first().cloned().map_or_else(no_overload, |v| Ok(Value::some(v))),
        "optional.ofNonZeroValue" => |_, a| match a {
            [value] if zero(value) => Ok(Value::Optional(None)),
            [value] => Ok(Value::some(value.clone())),
            _ => no_overload(),
        },
        "optional.none" => |_, _| Ok(Value::Optional(None)),
        "optional.unwrap" | "unwrapOpt" => |_, a| match a {
            [Value::List(items)] => items
                .iter()
                .filter_map(|i| match i {
                    Value::Optional(inner) => inner.as_deref().cloned().map(Ok),
                    _ => Some(no_overload()),
                })
                .collect::<Result<Vec<_>>>()
                .map(Value::from),
            _ => no_overload(),
        },
        "hasValue" => |_, a| match a {
            [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
            _ => no_overload(),
        },
        "value" => |_, a| match a {
            [Value::Optional(Some(inner))] => Ok(Value::clone(inner)),
            [Value::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
            _ => no_overload(),
        },
        "or" => |_, a| match a {
            [Value::Optional(Some(_)), _] => Ok(a[0].clone()),
            [Value::Optional(None), other] => Ok(other.clone()),
            _ => no_overload(),
        },
        "orValue" => |_, a| match a {
            [Value::Optional(Some(inner)), _] => Ok(Value::clone(inner)),
            [Value::Optional(None), other] => Ok(other.clone()),
            _ => no_overload(),
        },
        "first" => |_, a| end(a, <[Value]>::first),
        "last" => |_, a| end(a, <[Value]>::last),
        _ => return None,
    })
}

fn end(args: &[Value], of: impl Fn(&[Value]) -> Option<&Value>) -> Result {
    match args {
        [Value::List(items)] => Ok(Value::Optional(of(items).cloned().map(Arc::new))),
        _ => no_overload(),
    }
}

fn zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Optional(None) | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
        Value::Double(d) => *d == 0.0,
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => value.size() == 0,
        Value::Message(m) => m.fields.is_empty(),
        _ => false,
    }
}

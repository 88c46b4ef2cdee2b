//! Resource quantities (`k8s.io/apiserver/pkg/cel/library/quantity.go`).

use super::{Function, Result, no_overload};
use crate::cel::EvalError;
use crate::cel::value::Value;
use crate::quantity::{Format, Quantity};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "quantity" => |_, a| match a {
            [Value::String(s)] => s.parse().map(Value::Quantity).map_err(|e: crate::quantity::ParseQuantityError| EvalError::new(e.to_string())),
            _ => no_overload(),
        },
        "isQuantity" => |_, a| match a {
            [Value::String(s)] => Ok(Value::Bool(s.parse::<Quantity>().is_ok())),
            _ => no_overload(),
        },
        "sign" => |_, a| match a {
            [Value::Quantity(q)] => Ok(Value::Int(i64::from(q.signum()))),
            _ => no_overload(),
        },
        "isInteger" => |_, a| match a {
            [Value::Quantity(q)] => Ok(Value::Bool(whole(q))),
            _ => no_overload(),
        },
        "asInteger" => |_, a| match a {
            [Value::Quantity(q)] if whole(q) => Ok(Value::Int(q.value())),
            [Value::Quantity(_)] => Err(EvalError::new("cannot convert value to integer")),
            _ => no_overload(),
        },
        "asApproximateFloat" => |_, a| match a {
            [Value::Quantity(q)] => Ok(Value::Double(if whole(q) { q.value() as f64 } else { q.millis() as f64 / 1000.0 })),
            _ => no_overload(),
        },
        "add" => |_, a| sum(a, Quantity::plus),
        "sub" => |_, a| sum(a, Quantity::minus),
        // Versions are compared by functions of the same names.
        "isGreaterThan" => |_, a| order(a).map(|o| Value::Bool(o.is_gt())),
        "isLessThan" => |_, a| order(a).map(|o| Value::Bool(o.is_lt())),
        "compareTo" => |_, a| order(a).map(|o| Value::Int(o as i64)),
        _ => return None,
    })
}

fn whole(quantity: &Quantity) -> bool {
    *quantity == Quantity::from_units(quantity.value(), Format::DecimalSI)
}

fn sum(args: &[Value], of: fn(Quantity, Quantity) -> Quantity) -> Result {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(Value::Quantity(of(*a, *b))),
        [Value::Quantity(a), Value::Int(b)] => Ok(Value::Quantity(of(*a, Quantity::from_units(*b, Format::DecimalSI)))),
        _ => no_overload(),
    }
}

fn order(args: &[Value]) -> Result<std::cmp::Ordering> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(a.cmp(b)),
        [Value::Semver(a), Value::Semver(b)] => Ok(a.cmp(b)),
        _ => no_overload(),
    }
}

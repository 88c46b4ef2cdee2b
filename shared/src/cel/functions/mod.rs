//! What the declared functions do, a file a library. Arguments come checked where types were known, so each still looks at what it gets.

mod authorization;
mod conversions;
pub(super) mod format;
mod lists;
pub(super) mod net;
mod operators;
mod optionals;
mod quantity;
mod regexes;
pub(super) mod semver;
mod strings;
mod text;
mod times;
pub(super) mod url;

use super::value::Value;
use super::{Budget, EvalError};

/// A function: the budget it charges, and its arguments, what it is called on first.
pub(super) type Function = fn(&Budget, &[Value]) -> Result;

pub(super) type Result<T = Value> = std::result::Result<T, EvalError>;

/// The function behind a name.
pub(super) fn find(name: &str) -> Option<Function> {
    [
        operators::find,
        conversions::find,
        strings::find,
        text::find,
        lists::find,
        regexes::find,
        optionals::find,
        times::find,
        net::find,
        url::find,
        quantity::find,
        semver::find,
        format::find,
        authorization::find,
    ]
    .iter()
    .find_map(|library| library(name))
}

fn no_overload<T>() -> Result<T> {
    Err(EvalError::no_overload())
}

/// A tenth of each byte, as upstream counts looking through text.
fn charge_text(budget: &Budget, bytes: usize) -> Result<()> {
    budget.charge((bytes as u64).div_ceil(10))
}

/// Charges for a list's elements.
fn charge_items(budget: &Budget, count: usize) -> Result<()> {
    budget.charge(count as u64)
}

/// What comparing two values costs: the parts that both have, a tenth of each byte of text. Takes no longer to find out than to compare.
fn comparison(a: &Value, b: &Value) -> u64 {
    match (a, b) {
        (Value::List(a), Value::List(b)) => 1 + a.iter().zip(b.iter()).map(|(a, b)| comparison(a, b)).sum::<u64>(),
        (Value::Map(a), Value::Map(b)) => 1 + a.values().zip(b.values()).map(|(a, b)| comparison(a, b)).sum::<u64>(),
        _ => a.size().min(b.size()).div_ceil(10).max(1),
    }
}

/// Charges for comparing a value with each of a list's.
fn charge_search(budget: &Budget, items: &[Value], wanted: &Value) -> Result<()> {
    items.iter().try_for_each(|item| budget.charge(comparison(item, wanted)))
}

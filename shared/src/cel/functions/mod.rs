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

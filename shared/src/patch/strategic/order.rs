//! The order of a merged list: as the patch says, then as its own elements stand, with the server's other elements in between where they
//! were (`preserve-order-in-strategic-merge-patch`).

use serde_json::Value;

use super::{DIRECTIVE, PatchError, key_of};

/// What identifies an element: its merge key's value, or the scalar itself.
fn identity<'v>(element: &'v Value, key: &str) -> Option<&'v Value> {
    if key.is_empty() { Some(element) } else { element.as_object().and_then(|o| o.get(key)) }
}

pub(super) fn position(list: &[Value], element: &Value, key: &str) -> Option<usize> {
    let wanted = identity(element, key)?;
    list.iter().position(|other| identity(other, key) == Some(wanted))
}

/// Sorts by the order of another list; deletions go to the end.
pub(super) fn sort_by(list: Vec<Value>, order: &[Value], key: &str) -> Result<Vec<Value>, PatchError> {
    if !key.is_empty() {
        for element in list.iter().chain(order) {
            key_of(element, key)?;
        }
    }
    let (mut deletions, mut others): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|e| !key.is_empty() && e.get(DIRECTIVE).is_some_and(|d| d == "delete"));
    others.sort_by_key(|e| position(order, e, key).unwrap_or(usize::MAX));
    others.append(&mut deletions);
    Ok(others)
}

/// Splits a merged list into what the patch's order names and what it does not, orders both, and puts them together again.
pub(super) fn arrange(merged: Vec<Value>, patch_order: &[Value], server_order: &[Value], key: &str) -> Result<Vec<Value>, PatchError> {
    let (named, others): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|e| position(patch_order, e, key).is_some());
    let named = sort_by(named, patch_order, key)?;
    let others = sort_by(others, server_order, key)?;
    Ok(interleave(others, named, server_order, key))
}

/// Each of `left` goes before the first of `right` that stood after it on the server.
fn interleave(left: Vec<Value>, right: Vec<Value>, server_order: &[Value], key: &str) -> Vec<Value> {
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    loop {
        let from_left = match (left.peek(), right.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => match (position(server_order, l, key), position(server_order, r, key)) {
                (Some(l), Some(r)) => l < r,
                _ => false,
            },
        };
        out.extend(if from_left { left.next() } else { right.next() });
    }
}

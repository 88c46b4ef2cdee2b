//! Strategic merge patch: a merge patch that merges lists by key and takes directives
//! (`k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`).
//!
//! - `$patch: replace | delete | merge` in a map, or in an element of a list;
//! - `$retainKeys: [...]`: of the map, nothing else stays;
//! - `$deleteFromPrimitiveList/field: [...]`: elements of a list of scalars that go;
//! - `$setElementOrder/field: [...]`: the order of the list afterwards.

mod apply;
mod diff;
mod order;
mod schema;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use apply::apply;
pub use diff::{three_way, two_way};
pub use schema::Type;

use super::PatchError;

type Object = Map<String, Value>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

/// The field that a parallel list is about.
fn field_of<'k>(key: &'k str, prefix: &str) -> Result<&'k str, PatchError> {
    let rest = key.strip_prefix(prefix).and_then(|k| k.strip_prefix('/'));
    rest.ok_or_else(|| bad_format(if prefix == DELETE_FROM { "primitive list" } else { "setElementOrder list" }))
}

fn bad_format(of: &str) -> PatchError {
    PatchError::Rejected(format!("invalid patch format of {of}"))
}

fn no_merge_key(map: &Object, key: &str) -> PatchError {
    PatchError::Rejected(format!("map: {} does not contain declared merge key: {key}", Value::Object(map.clone())))
}

/// An element's merge key; the element must be a map that has it.
fn key_of<'v>(element: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    match element {
        Value::Object(map) => map.get(key).ok_or_else(|| no_merge_key(map, key)),
        other => Err(PatchError::Rejected(format!("expected a map, but received {other}"))),
    }
}

/// Whether the lists hold maps; all elements must be of one kind, and none a list.
fn holds_maps(lists: &[&[Value]]) -> Result<bool, PatchError> {
    let mut maps = None;
    for element in lists.iter().copied().flatten() {
        if element.is_array() {
            return Err(PatchError::Rejected("lists of lists are not supported".into()));
        }
        if *maps.get_or_insert(element.is_object()) != element.is_object() {
            return Err(PatchError::Rejected("list element types are not identical".into()));
        }
    }
    Ok(maps.unwrap_or(false))
}

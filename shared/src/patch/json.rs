//! JSON patch and JSON merge patch, in upstream's limits
//! (`k8s.io/apiserver/pkg/endpoints/handlers/patch.go`).

use json_patch::PatchOperation;
use serde_json::Value;

use super::PatchError;

/// Most operations of one JSON patch.
pub const MOST_OPERATIONS: usize = 10_000;

/// Applies a JSON patch (`application/json-patch+json`).
///
/// # Errors
/// Not a list of operations, too many of them, or one that fails: a path that is not there, a `test` that does not hold.
pub fn apply_json_patch(mut document: Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch: json_patch::Patch = serde_json::from_slice(patch).map_err(|e| PatchError::Malformed(e.to_string()))?;
    if patch.0.len() > MOST_OPERATIONS {
        let text = format!("The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}", patch.0.len());
        return Err(PatchError::Malformed(text));
    }
    let mut copied = 0;
    for operation in &patch.0 {
        within_bounds(&document, operation, &mut copied)?;
        json_patch::patch(&mut document, std::slice::from_ref(operation)).map_err(|e| PatchError::Rejected(e.to_string()))?;
    }
    Ok(document)
}

/// Most bytes that the copies of one patch may add (upstream's `JSONPatchMaxCopyBytes`).
const MOST_COPIED: usize = 3 * 1024 * 1024;
/// Deepest place a patch may make. Nothing that was read as JSON is deeper.
const DEEPEST: usize = 128;

/// Refuses an operation that lets a document grow without measure, in size or in depth.
fn within_bounds(document: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), PatchError> {
    let (path, depth) = match operation {
        PatchOperation::Add(add) => (&add.path, depth(&add.value)),
        PatchOperation::Replace(replace) => (&replace.path, depth(&replace.value)),
        PatchOperation::Move(r#move) => (&r#move.path, r#move.from.resolve(document).map_or(0, depth)),
        PatchOperation::Copy(copy) => {
            let source = copy.from.resolve(document).unwrap_or(&Value::Null);
            *copied += source.to_string().len();
            if *copied > MOST_COPIED {
                let text =
                    format!("Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MOST_COPIED}");
                return Err(PatchError::Rejected(text));
            }
            (&copy.path, depth(source))
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if path.count() + depth > DEEPEST {
        return Err(PatchError::Rejected(format!("the patch nests deeper than {DEEPEST} levels")));
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Applies a JSON merge patch (`application/merge-patch+json`).
///
/// # Errors
/// Not JSON.
pub fn apply_merge_patch(mut document: Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = serde_json::from_slice(patch).map_err(|e| PatchError::Malformed(e.to_string()))?;
    json_patch::merge(&mut document, &patch);
    Ok(document)
}

/// The merge patch that makes `modified` of `current`, and takes away what `original` had and `modified` has not; `{}` when there is
/// nothing to do (`jsonmergepatch.CreateThreeWayJSONMergePatch`).
pub fn three_way_merge_patch(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = difference(current, modified, false);
    add_deletions(&mut patch, original, modified);
    patch
}

/// What changed or was added, and with `deletions` what is gone, as a merge patch.
fn difference(from: &Value, to: &Value, deletions: bool) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut patch = serde_json::Map::new();
    for (key, new) in to {
        match from.get(key) {
            Some(old) if old == new => {}
            Some(old @ Value::Object(_)) if new.is_object() => {
                let inner = difference(old, new, deletions);
                if inner.as_object().is_none_or(|o| !o.is_empty()) {
                    patch.insert(key.clone(), inner);
                }
            }
            _ => drop(patch.insert(key.clone(), new.clone())),
        }
    }
    if deletions {
        patch.extend(from.keys().filter(|k| !to.contains_key(*k)).map(|k| (k.clone(), Value::Null)));
    }
    Value::Object(patch)
}

/// Adds nulls for what `original` has and `modified` has not.
fn add_deletions(patch: &mut Value, original: &Value, modified: &Value) {
    let (Value::Object(patch), Value::Object(original), Value::Object(modified)) = (patch, original, modified) else { return };
    for (key, old) in original {
        match modified.get(key) {
            None => drop(patch.insert(key.clone(), Value::Null)),
            Some(new) if old.is_object() && new.is_object() => {
                let mut inner = patch.remove(key).unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                add_deletions(&mut inner, old, new);
                if inner.as_object().is_none_or(|o| !o.is_empty()) {
                    patch.insert(key.clone(), inner);
                }
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches_apply_in_order_or_not_at_all() {
        let document = json!({"spec": {"replicas": 1, "list": ["a", "b"]}});
        let patch = br#"[{"op":"test","path":"/spec/replicas","value":1},{"op":"replace","path":"/spec/replicas","value":3},{"op":"add","path":"/spec/list/-","value":"c"}]"#;
        assert_eq!(apply_json_patch(document.clone(), patch).unwrap(), json!({"spec": {"replicas": 3, "list": ["a", "b", "c"]}}));
        let failing = br#"[{"op":"test","path":"/spec/replicas","value":2}]"#;
        assert!(matches!(apply_json_patch(document.clone(), failing), Err(PatchError::Rejected(_))));
        assert!(matches!(apply_json_patch(document.clone(), br#"[{"op":"remove","path":"/nope"}]"#), Err(PatchError::Rejected(_))));
        assert!(matches!(apply_json_patch(document.clone(), b"{}"), Err(PatchError::Malformed(_))));
        let many = format!("[{}]", vec![r#"{"op":"test","path":"/spec/replicas","value":1}"#; MOST_OPERATIONS + 1].join(","));
        assert!(apply_json_patch(document, many.as_bytes()).unwrap_err().to_string().contains("maximum operations"));
    }

    #[test]
    fn copies_cannot_grow_a_document_beyond_bounds() {
        let document = json!({"a": {"filler": "x".repeat(1000)}});
        let copy = |n: usize| format!(r#"{{"op":"copy","from":"/a","path":"/a/c{n}"}}"#);
        let doubling = format!("[{}]", (0..40).map(copy).collect::<Vec<_>>().join(","));
        let error = apply_json_patch(document.clone(), doubling.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("exceeding the limit"), "{error}");
        let small = json!({"a": {}});
        let deepening: Vec<String> = (0..12).map(|n| format!(r#"{{"op":"copy","from":"/a","path":"{}/a"}}"#, "/a".repeat(1 << n))).collect();
        let error = apply_json_patch(small, format!("[{}]", deepening.join(",")).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("nests deeper"), "{error}");
        assert!(apply_json_patch(document, format!("[{}]", copy(0)).as_bytes()).is_ok());
    }

    #[test]
    fn merge_patches_replace_lists_and_delete_by_null() {
        let document = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let patched = apply_merge_patch(document, br#"{"a":{"b":null,"d":3},"l":[3]}"#).unwrap();
        assert_eq!(patched, json!({"a": {"c": 2, "d": 3}, "l": [3]}));
    }

    #[test]
    fn a_three_way_patch_deletes_only_what_was_applied_before() {
        let original = json!({"spec": {"a": 1, "gone": 1, "map": {"x": 1}}});
        let modified = json!({"spec": {"a": 2, "map": {"y": 1}}});
        let current = json!({"spec": {"a": 1, "gone": 1, "others": 1, "map": {"x": 1}}, "status": {}});
        let patch = three_way_merge_patch(&original, &modified, &current);
        assert_eq!(patch, json!({"spec": {"a": 2, "gone": null, "map": {"x": null, "y": 1}}}));
        assert_eq!(three_way_merge_patch(&modified, &modified, &modified), json!({}));
    }
}

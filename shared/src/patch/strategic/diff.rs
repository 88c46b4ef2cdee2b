//! Making strategic merge patches: from two documents, or from what was applied before, what is to be applied, and what is there.

use serde_json::{Value, json};

use super::apply::Merge;
use super::schema::{Field, Type};
use super::{DELETE_FROM, DIRECTIVE, Object, PatchError, RETAIN_KEYS, SET_ORDER, holds_maps, key_of, order};

/// The patch that makes `modified` of `original`; `{}` when they are the same (`CreateTwoWayMergePatch`).
///
/// # Errors
/// [`PatchError::Rejected`]: a list element without its merge key; lists of lists.
pub fn two_way(original: &Value, modified: &Value, kind: Type) -> Result<Value, PatchError> {
    let diff = Diff { changes: true, deletions: true, retain_keys: false };
    Ok(Value::Object(diff.maps(object(original)?, object(modified)?, kind)?))
}

/// The patch that changes `current` to what `modified` says, and takes away what `original` (what was applied before) had and `modified`
/// has not (`CreateThreeWayMergePatch`). With `overwrite` unset, changes that others made meanwhile are a conflict.
///
/// # Errors
/// As [`two_way`]; [`PatchError::Rejected`] for a conflict.
pub fn three_way(original: &Value, modified: &Value, current: &Value, kind: Type, overwrite: bool) -> Result<Value, PatchError> {
    let (original, modified, current) = (object(original)?, object(modified)?, object(current)?);
    let changes = Diff { changes: true, deletions: false, retain_keys: false }.maps(current, modified, kind)?;
    let deletions = Diff { changes: false, deletions: true, retain_keys: false }.maps(original, modified, kind)?;
    let patch = Merge { onto_patch: true }.maps(deletions, changes, kind)?;
    if !overwrite {
        let theirs = Diff { changes: true, deletions: true, retain_keys: false }.maps(original, current, kind)?;
        if maps_conflict(&patch, &theirs, kind) {
            return Err(PatchError::Rejected(format!(
                "patch:\n{}\nconflicts with changes made from original to current:\n{}\n",
                Value::Object(patch),
                Value::Object(theirs)
            )));
        }
    }
    Ok(Value::Object(patch))
}

fn object(value: &Value) -> Result<&Object, PatchError> {
    static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(&EMPTY),
        _ => Err(PatchError::Malformed("invalid JSON document".into())),
    }
}

/// What a patch is to contain.
#[derive(Clone, Copy)]
struct Diff {
    changes: bool,
    deletions: bool,
    /// Whether the map at hand gets a `$retainKeys`.
    retain_keys: bool,
}

impl Diff {
    fn maps(self, original: &Object, modified: &Object, kind: Type) -> Result<Object, PatchError> {
        let mut patch = Object::new();
        for (key, new) in modified {
            let Some(old) = original.get(key) else {
                if self.changes {
                    patch.insert(key.clone(), new.clone());
                }
                continue;
            };
            let field = kind.field(key);
            match (old, new) {
                (Value::Object(old), Value::Object(new)) if field.replace => {
                    if self.changes && old != new {
                        patch.insert(key.clone(), Value::Object(new.clone()));
                    }
                }
                (Value::Object(old), Value::Object(new)) => {
                    let inner = Diff { retain_keys: field.retain_keys, ..self }.maps(old, new, field.child)?;
                    if !inner.is_empty() {
                        patch.insert(key.clone(), Value::Object(inner));
                    }
                }
                (Value::Array(old), Value::Array(new)) if field.merge => self.lists(key, old, new, field, &mut patch)?,
                (old, new) => {
                    if self.changes && old != new {
                        patch.insert(key.clone(), new.clone());
                    }
                }
            }
        }
        let gone: Vec<&String> = original.keys().filter(|k| !modified.contains_key(*k)).collect();
        if self.retain_keys && (!patch.is_empty() || !gone.is_empty()) {
            let mut keys: Vec<&String> = modified.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
            keys.sort_unstable();
            if !keys.is_empty() {
                patch.insert(RETAIN_KEYS.into(), json!(keys));
            }
        }
        if self.deletions {
            patch.extend(gone.into_iter().map(|k| (k.clone(), Value::Null)));
        }
        Ok(patch)
    }

    /// Adds what a merged list's change needs: its elements, its deletions, its order.
    fn lists(self, key: &str, old: &[Value], new: &[Value], field: Field, patch: &mut Object) -> Result<(), PatchError> {
        if old.is_empty() {
            if self.changes && !new.is_empty() {
                patch.insert(key.to_owned(), Value::Array(new.to_vec()));
            }
            return Ok(());
        }
        let order =
            if holds_maps(&[old, new])? { self.lists_of_maps(key, old, new, field, patch)? } else { self.lists_of_scalars(key, old, new, patch)? };
        if let Some(order) = order.filter(|o| !o.is_empty()) {
            patch.insert(format!("{SET_ORDER}/{key}"), Value::Array(order));
        }
        Ok(())
    }

    fn lists_of_maps(self, key: &str, old: &[Value], new: &[Value], field: Field, patch: &mut Object) -> Result<Option<Vec<Value>>, PatchError> {
        let inner = Diff { retain_keys: field.retain_keys, ..self };
        let mut elements = Vec::new();
        for element in new {
            let id = key_of(element, field.key)?;
            let before = order::position(old, element, field.key).and_then(|at| old[at].as_object());
            match (before, element) {
                (Some(before), Value::Object(after)) => {
                    let mut changes = inner.maps(before, after, field.child)?;
                    if !changes.is_empty() {
                        changes.insert(field.key.to_owned(), id.clone());
                        elements.push(Value::Object(changes));
                    }
                }
                _ if self.changes => elements.push(element.clone()),
                _ => {}
            }
        }
        for element in old {
            let id = key_of(element, field.key)?;
            if self.deletions && order::position(new, element, field.key).is_none() {
                elements.push(json!({ DIRECTIVE: "delete", field.key: id }));
            }
        }
        let ids = |list: &[Value]| -> Vec<Value> { list.iter().filter_map(|e| e.get(field.key)).map(|id| json!({ field.key: id })).collect() };
        let reordered = ids(old) != ids(new);
        let wanted = (self.changes && (!elements.is_empty() || reordered)) || (self.deletions && !elements.is_empty());
        if !elements.is_empty() {
            patch.insert(key.to_owned(), Value::Array(elements));
        }
        Ok(wanted.then(|| ids(new)))
    }

    fn lists_of_scalars(self, key: &str, old: &[Value], new: &[Value], patch: &mut Object) -> Result<Option<Vec<Value>>, PatchError> {
        let added: Vec<Value> = new.iter().filter(|e| !old.contains(e)).cloned().collect();
        let mut removed: Vec<Value> = Vec::new();
        for element in old.iter().filter(|e| !new.contains(e)) {
            if !removed.contains(element) {
                removed.push(element.clone());
            }
        }
        removed.sort_by_key(text);
        let wanted = (self.deletions && !removed.is_empty()) || (self.changes && old != new);
        if self.changes && !added.is_empty() {
            patch.insert(key.to_owned(), Value::Array(added));
        }
        if self.deletions && !removed.is_empty() {
            patch.insert(format!("{DELETE_FROM}/{key}"), Value::Array(removed));
        }
        Ok(wanted.then(|| new.to_vec()))
    }
}

/// A scalar as text, which is how upstream orders deletions.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether two patches do different things to the same place (`MergingMapsHaveConflicts`).
fn maps_conflict(left: &Object, right: &Object, kind: Type) -> bool {
    if left.get(DIRECTIVE) != right.get(DIRECTIVE) {
        return true;
    }
    left.iter().filter(|(key, _)| *key != DIRECTIVE && *key != RETAIN_KEYS).any(|(key, l)| match right.get(key) {
        None => false,
        Some(r) => values_conflict(l, r, kind.field(key)),
    })
}

fn values_conflict(left: &Value, right: &Value, field: Field) -> bool {
    match (left, right) {
        (Value::Object(l), Value::Object(r)) => !field.replace && maps_conflict(l, r, field.child),
        (Value::Array(l), Value::Array(r)) if field.merge && !field.key.is_empty() => l.iter().any(|element| {
            order::position(r, element, field.key)
                .and_then(|at| element.as_object().zip(r[at].as_object()))
                .is_some_and(|(l, r)| maps_conflict(l, r, field.child))
        }),
        // Both add to a set of scalars: that is no conflict.
        (Value::Array(_), Value::Array(_)) if field.merge => false,
        (l, r) => l != r,
    }
}

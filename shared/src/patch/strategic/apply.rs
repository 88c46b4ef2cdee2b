//! Applying a strategic merge patch to a document, or to another patch (which is how a three-way patch is made).

use serde_json::Value;

use super::schema::{Field, Type};
use super::{DELETE_FROM, DIRECTIVE, Object, PatchError, RETAIN_KEYS, SET_ORDER, bad_format, field_of, holds_maps, key_of, order};

/// Applies a strategic merge patch to an object of a type.
///
/// # Errors
/// [`PatchError::Rejected`] with upstream's texts: a list element without its merge key, a directive that makes no sense.
pub fn apply(document: Value, patch: Value, kind: Type) -> Result<Value, PatchError> {
    let (Value::Object(document), Value::Object(patch)) = (document, patch) else {
        return Err(PatchError::Malformed("invalid JSON document".into()));
    };
    Merge { onto_patch: false }.maps(document, patch, kind).map(Value::Object)
}

/// What the patch is merged into.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    /// Another patch: parallel lists and nulls are carried over instead of being carried out.
    pub onto_patch: bool,
}

impl Merge {
    pub(super) fn maps(self, mut original: Object, mut patch: Object, kind: Type) -> Result<Object, PatchError> {
        if let Some(directive) = patch.remove(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Object::new()),
                _ => Err(PatchError::Rejected(format!("unknown patch type: {directive} in map: {}", Value::Object(patch)))),
            };
        }
        self.retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, kind)?;
        for (key, value) in patch {
            self.member(&mut original, key, value, kind)?;
        }
        Ok(original)
    }

    fn member(self, original: &mut Object, key: String, value: Value, kind: Type) -> Result<(), PatchError> {
        let deletes = key.starts_with(DELETE_FROM);
        if deletes && self.onto_patch {
            original.insert(key, value);
            return Ok(());
        }
        let name = if deletes { field_of(&key, DELETE_FROM)? } else { key.as_str() };
        if value.is_null() {
            original.remove(name);
            if self.onto_patch {
                original.insert(name.to_owned(), Value::Null);
            }
            return Ok(());
        }
        let field = kind.field(name);
        let Some(old) = original.get_mut(name) else {
            if !deletes {
                let value = if self.onto_patch { value } else { entering(value) };
                original.insert(name.to_owned(), value);
            }
            return Ok(());
        };
        let merged = match (std::mem::take(old), value) {
            (Value::Object(old), Value::Object(new)) if !field.replace => Value::Object(self.maps(old, new, field.child)?),
            (Value::Array(old), Value::Array(new)) if field.merge => Value::Array(self.lists(old, new, field, deletes)?),
            (_, new) => new,
        };
        *old = merged;
        Ok(())
    }

    /// `$retainKeys`: nothing else stays.
    fn retain_keys(self, original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
        let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
        if self.onto_patch {
            match original.get(RETAIN_KEYS) {
                Some(same) if *same == keys => {}
                Some(other) => {
                    return Err(PatchError::Rejected(format!(
                        "{other} and {keys} are not deep equal: this may happen when calculating the 3-way diff patch"
                    )));
                }
                None => drop(original.insert(RETAIN_KEYS.into(), keys)),
            }
            return Ok(());
        }
        let Value::Array(keys) = keys else { return Err(bad_format("retainKeys")) };
        let retained = |key: &str| keys.iter().any(|k| k == key);
        let stray =
            |(key, value): (&String, &Value)| !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER) && !retained(key);
        if patch.iter().any(stray) {
            return Err(bad_format("retainKeys"));
        }
        original.retain(|key, _| retained(key));
        Ok(())
    }

    /// Merges the lists that come with a `$setElementOrder`, and takes both out of the patch.
    fn ordered_lists(self, original: &mut Object, patch: &mut Object, kind: Type) -> Result<(), PatchError> {
        let orders: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
        for directive in orders {
            let wanted = patch.remove(&directive).unwrap_or_default();
            let name = field_of(&directive, SET_ORDER)?;
            if self.onto_patch {
                match original.get(&directive) {
                    Some(same) if *same != wanted => return Err(bad_format("setElementOrder list")),
                    _ => drop(original.insert(directive.clone(), wanted.clone())),
                }
            }
            let Value::Array(wanted) = wanted else { return Err(bad_format("setElementOrder list")) };
            let list = |value: Option<Value>| match value {
                None => Ok(None),
                Some(Value::Array(list)) => Ok(Some(list)),
                Some(other) => Err(PatchError::Rejected(format!("expected a list, but received {other}"))),
            };
            let (old, new) = (list(original.get(name).cloned())?, list(patch.remove(name))?);
            let field = kind.field(name);
            check_order(new.as_deref().unwrap_or_default(), &wanted, field.key)?;
            let before = old.clone().unwrap_or_default();
            let merged = match (old, new) {
                (None, None) => continue,
                (Some(old), None) => old,
                (None, Some(new)) if self.onto_patch => new,
                (None, Some(new)) => new.into_iter().filter(|e| e.get(DIRECTIVE).is_none()).map(entering).collect(),
                (Some(old), Some(new)) if field.merge => self.lists(old, new, field, false)?,
                (Some(_), Some(new)) => new,
            };
            original.insert(name.to_owned(), Value::Array(order::arrange(merged, &wanted, &before, field.key)?));
        }
        Ok(())
    }

    fn lists(self, old: Vec<Value>, new: Vec<Value>, field: Field, deletes: bool) -> Result<Vec<Value>, PatchError> {
        if !holds_maps(&[&old, &new])? {
            if deletes {
                return Ok(old.into_iter().filter(|e| !new.contains(e)).collect());
            }
            let mut merged: Vec<Value> = Vec::new();
            for element in old.iter().chain(&new) {
                if !merged.contains(element) {
                    merged.push(element.clone());
                }
            }
            return order::arrange(merged, &new, &old, "");
        }
        if field.key.is_empty() {
            return Err(PatchError::Rejected("cannot merge lists without merge key".into()));
        }
        let (mut merged, new) = directives(old, new, field.key)?;
        let before = merged.clone();
        for element in &new {
            key_of(element, field.key)?;
            match (order::position(&merged, element, field.key), element) {
                (Some(at), Value::Object(changes)) => {
                    let Value::Object(existing) = std::mem::take(&mut merged[at]) else { continue };
                    merged[at] = Value::Object(self.maps(existing, changes.clone(), field.child)?);
                }
                _ => merged.push(if self.onto_patch { element.clone() } else { entering(element.clone()) }),
            }
        }
        order::arrange(merged, &new, &before, field.key)
    }
}

/// Carries out the `$patch` elements of a list's patch. Returns what is left of the list and of the patch.
fn directives(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::new();
    let mut replace = false;
    for element in new {
        let Some(directive) = element.get(DIRECTIVE) else {
            plain.push(element);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let gone = key_of(&element, key)?;
                old.retain(|e| e.get(key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(PatchError::Rejected("merging lists cannot yet be specified in the patch".into())),
            _ => return Err(PatchError::Rejected(format!("unknown patch type: {directive} in map: {element}"))),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (old, plain) })
}

/// The patch's elements must be in the order list, in the same order.
fn check_order(patch: &[Value], wanted: &[Value], key: &str) -> Result<(), PatchError> {
    if patch.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let mut from = 0;
    for element in patch.iter().filter(|e| e.get(DIRECTIVE).is_none()) {
        if !key.is_empty() {
            key_of(element, key)?;
        }
        match order::position(&wanted[from..], element, key) {
            Some(at) => from += at + 1,
            None => {
                let show = |list: &[Value]| Value::Array(list.to_vec()).to_string();
                let text = format!("The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n", show(patch), show(wanted));
                return Err(PatchError::Rejected(text));
            }
        }
    }
    Ok(())
}

/// A value that enters a document where there was none: what its nulls and directives would take away is not there anyway.
fn entering(value: Value) -> Value {
    let is_directive = |key: &str| key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    match value {
        Value::Object(map) if map.get(DIRECTIVE).is_some_and(|d| d == "delete") => Value::Object(Object::new()),
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(k, v)| !v.is_null() && !is_directive(k)).map(|(k, v)| (k, entering(v))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().filter(|e| e.get(DIRECTIVE).is_none()).map(entering).collect()),
        other => other,
    }
}

//! The fields that a configuration sets (`typed/tofieldset.go`), and what identifies the items of its lists (`typed/helpers.go`).

use serde_json::Value;

use super::path::{Atom, Path, PathElement};
use super::schema::{Form, Node, Type};
use super::set::Set;

/// What an item of a list is called.
///
/// # Errors
/// It lacks a key that has no default, or is not an object although the list has keys.
pub(super) fn element(list: Node, item: &Value) -> Result<PathElement, String> {
    if list.keys().is_empty() {
        return Ok(PathElement::Value(item.into()));
    }
    let map = item.as_object().ok_or("associative list with keys may not have non-map elements")?;
    let mut keys = Vec::with_capacity(list.keys().len());
    for (name, default) in list.keys() {
        let value = match (map.get(*name), default) {
            (Some(value), _) if !value.is_null() => Atom::from(value),
            (_, Some(default)) => Atom::Text((*default).to_owned()),
            _ => return Err(format!("associative list with keys has an element that omits key field {name:?} (and doesn't have default value)")),
        };
        keys.push(((*name).to_owned(), value));
    }
    keys.sort();
    Ok(PathElement::Key(keys))
}

/// The items of a list with their names. Items without a name of their own, or with that of an earlier one, go by their position, so that
/// nothing gets lost of what is stored already.
pub(super) fn items(list: Node, values: &[Value]) -> Vec<(PathElement, &Value)> {
    let mut found: Vec<(PathElement, &Value)> = Vec::with_capacity(values.len());
    for (at, item) in values.iter().enumerate() {
        let taken = |name: &PathElement| found.iter().any(|(other, _)| other == name);
        let name = element(list, item).ok().filter(|name| !taken(name));
        found.push((name.unwrap_or(PathElement::Index(i64::try_from(at).unwrap_or(i64::MAX))), item));
    }
    found
}

/// The fields that a configuration sets.
///
/// # Errors
/// Texts, with paths, of items that cannot be told apart.
pub fn fields_of(of: Type, config: &Value) -> Result<Set, Vec<String>> {
    let mut walk = Walk { set: Set::default(), path: Vec::new(), errors: Vec::new() };
    walk.value(of.root(), config);
    if walk.errors.is_empty() { Ok(walk.set) } else { Err(walk.errors) }
}

/// The same of an object that is stored, whatever it is.
pub(super) fn fields_of_stored(of: Type, object: &Value) -> Set {
    let mut walk = Walk { set: Set::default(), path: Vec::new(), errors: Vec::new() };
    walk.value(of.root(), object);
    walk.set
}

struct Walk {
    set: Set,
    path: Path,
    errors: Vec<String>,
}

impl Walk {
    fn value(&mut self, node: Node, value: &Value) {
        match (node.form(value), value) {
            (Form::Object, Value::Object(map)) => {
                for (name, value) in map {
                    self.path.push(PathElement::field(name));
                    self.value(node.child(&PathElement::field(name)), value);
                    // What users name is owned itself, and so is what is empty.
                    if node.is_map() || value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) {
                        self.set.insert(&self.path);
                    }
                    self.path.pop();
                }
            }
            (Form::List, Value::Array(values)) => self.list(node, values),
            _ => self.set.insert(&self.path),
        }
    }

    fn list(&mut self, node: Node, values: &[Value]) {
        let mut seen = Vec::with_capacity(values.len());
        for (at, item) in values.iter().enumerate() {
            let here: String = self.path.iter().map(ToString::to_string).collect();
            let name = match element(node, item) {
                Ok(name) if seen.contains(&name) => {
                    self.errors.push(format!("{here}: duplicate entries for key {name}"));
                    continue;
                }
                Ok(name) => name,
                Err(error) => {
                    self.errors.push(format!("{here}: element {at}: {error}"));
                    continue;
                }
            };
            seen.push(name.clone());
            self.path.push(name.clone());
            self.value(node.child(&name), item);
            self.set.insert(&self.path);
            self.path.pop();
        }
    }
}

/// A path as decoders print it, `spec.containers[0].image`, as messages about ownership do: `.spec.containers[name="a"].image`.
pub fn locate(of: Type, object: &Value, path: &str) -> String {
    let (mut node, mut value, mut out) = (of.root(), object, String::new());
    for part in path.split('.') {
        let (name, indices) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
        let step = PathElement::field(name);
        out.push_str(&step.to_string());
        (node, value) = (node.child(&step), &value[name]);
        for index in indices.split(['[', ']']).filter_map(|i| i.parse::<usize>().ok()) {
            let item = &value[index];
            let plain = PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX));
            let step = if node.form(value) == Form::List { element(node, item).unwrap_or(plain) } else { plain };
            out.push_str(&step.to_string());
            (node, value) = (node.child(&step), item);
        }
    }
    out
}

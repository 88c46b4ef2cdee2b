//! What differs between two states of an object, as sets of fields (`typed/compare.go`).

use serde_json::Value;

use super::path::{Path, PathElement};
use super::schema::{Form, Node, Type};
use super::set::Set;
use super::walk::items;

/// What became of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// They are no longer there.
    pub removed: Set,
    /// They have another value.
    pub modified: Set,
    /// They were not there before.
    pub added: Set,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Leaves fields out, with all that is below them.
    #[must_use]
    pub fn without(self, fields: &Set) -> Self {
        let without = |set: Set| if fields.is_empty() { set } else { set.recursive_difference(fields) };
        Comparison { removed: without(self.removed), modified: without(self.modified), added: without(self.added) }
    }
}

/// Compares two states.
pub fn compare(of: Type, old: &Value, new: &Value) -> Comparison {
    let mut walk = Walk { found: Comparison::default(), path: Vec::new() };
    walk.value(of.root(), Some(old), Some(new));
    walk.found
}

struct Walk {
    found: Comparison,
    path: Path,
}

impl Walk {
    fn value(&mut self, node: Node, old: Option<&Value>, new: Option<&Value>) {
        let form = |value: &Value| node.form(value);
        match (old.map(form), new.map(form)) {
            (None, None) => {}
            (Some(Form::Object), Some(Form::Object)) | (Some(Form::Object), None) | (None, Some(Form::Object)) if !empty(old) || !empty(new) => {
                self.object(node, old, new);
                self.itself(old, new);
            }
            (Some(Form::List), Some(Form::List)) | (Some(Form::List), None) | (None, Some(Form::List)) if !empty(old) || !empty(new) => {
                self.list(node, old, new);
                self.itself(old, new);
            }
            _ => self.leaf(old, new),
        }
    }

    /// What is there on one side only has come or gone itself, not only what is in it.
    fn itself(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.found.added.insert(&self.path),
            (_, None) => self.found.removed.insert(&self.path),
            _ => {}
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (Some(_), Some(_)) => self.found.modified.insert(&self.path),
            _ => self.itself(old, new),
        }
    }

    fn object(&mut self, node: Node, old: Option<&Value>, new: Option<&Value>) {
        let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
        let own = [old, new].into_iter().flatten().flat_map(|map| map.keys().map(String::as_str));
        let mut names: Vec<&str> = own.chain(node.present_fields().map(|(name, _)| name)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let element = PathElement::field(name);
            let child = node.child(&element);
            let empty = child.present.then(|| node.present_fields().find(|(n, _)| *n == name).map(|(_, value)| value)).flatten();
            let (old, new) = (old.and_then(|m| m.get(name).or(empty)), new.and_then(|m| m.get(name).or(empty)));
            self.path.push(element);
            self.value(child, old, new);
            self.path.pop();
        }
    }

    fn list(&mut self, node: Node, old: Option<&Value>, new: Option<&Value>) {
        let (old, new) = (items(node, values(old)), items(node, values(new)));
        let find = |list: &[(PathElement, &Value)], name: &PathElement| list.iter().position(|(n, _)| n == name);
        for (name, value) in &old {
            let other = find(&new, name).map(|at| new[at].1);
            self.item(node, name, Some(value), other);
        }
        for (name, value) in new.iter().filter(|(name, _)| find(&old, name).is_none()) {
            self.item(node, name, None, Some(value));
        }
    }

    fn item(&mut self, node: Node, name: &PathElement, old: Option<&Value>, new: Option<&Value>) {
        self.path.push(name.clone());
        self.value(node.child(name), old, new);
        self.path.pop();
    }
}

fn values(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Empty or absent: then the whole is a leaf, so that it makes a difference whether it is there.
fn empty(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(values)) => values.is_empty(),
        _ => value.is_none_or(Value::is_null),
    }
}

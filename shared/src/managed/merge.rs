//! Merging an applied configuration into an object, and taking fields out of one (`typed/merge.go`, `typed/remove.go`).

use serde_json::{Map, Value};

use super::path::PathElement;
use super::schema::{Form, Node, Type};
use super::set::Set;
use super::walk::items;

/// The object with what the configuration says.
pub fn merge(of: Type, object: &Value, config: &Value) -> Value {
    value(of.root(), object, config)
}

fn value(node: Node, object: &Value, config: &Value) -> Value {
    match (object, config) {
        (Value::Object(object), Value::Object(config)) if is_object(node) => {
            let mut merged = object.clone();
            for (name, wanted) in config {
                let wanted = match object.get(name) {
                    Some(old) => value(node.child(&PathElement::field(name)), old, wanted),
                    None => wanted.clone(),
                };
                merged.insert(name.clone(), wanted);
            }
            Value::Object(merged)
        }
        (Value::Array(old), Value::Array(wanted)) if node.form(config) == Form::List => Value::Array(list(node, old, wanted)),
        _ => config.clone(),
    }
}

fn is_object(node: Node) -> bool {
    node.form(&Value::Object(Map::new())) == Form::Object
}

/// Items of the configuration in its order; what only the object has stays where it is among them.
fn list(node: Node, object: &[Value], config: &[Value]) -> Vec<Value> {
    let (old, new) = (items(node, object), items(node, config));
    let has = |list: &[(PathElement, &Value)], name: &PathElement| list.iter().any(|(n, _)| n == name);
    let mut merged = Vec::with_capacity(old.len() + new.len());
    let mut old_left = old.iter().peekable();
    for (name, wanted) in &new {
        // Up to the first that the configuration has, the object's own come first.
        while let Some((_, item)) = old_left.next_if(|(n, _)| !has(&new, n)) {
            merged.push((*item).clone());
        }
        let stored = old.iter().find(|(n, _)| n == name).map(|(_, item)| *item);
        merged.push(stored.map_or_else(|| (*wanted).clone(), |item| value(node.child(name), item, wanted)));
        if stored.is_some() {
            old_left.next();
        }
    }
    merged.extend(old_left.filter(|(n, _)| !has(&new, n)).map(|(_, item)| (*item).clone()));
    merged
}

/// The object without some of its fields. What is left empty goes as well.
pub fn remove(of: Type, object: &Value, fields: &Set) -> Value {
    without(of.root(), object, fields).unwrap_or_else(|| Value::Object(Map::new()))
}

fn without(node: Node, value: &Value, fields: &Set) -> Option<Value> {
    let keep = |element: &PathElement, value: &Value| {
        if fields.has_member(element) {
            return None;
        }
        match fields.below(element) {
            Some(fields) => without(node.child(element), value, fields),
            None => Some(value.clone()),
        }
    };
    match (node.form(value), value) {
        (Form::Object, Value::Object(map)) => {
            let left: Map<String, Value> =
                map.iter().filter_map(|(name, value)| Some((name.clone(), keep(&PathElement::field(name), value)?))).collect();
            (!left.is_empty()).then_some(Value::Object(left))
        }
        (Form::List, Value::Array(values)) => {
            let left: Vec<Value> = items(node, values).iter().filter_map(|(name, item)| keep(name, item)).collect();
            (!left.is_empty()).then_some(Value::Array(left))
        }
        // What is owned as a whole has nothing below it that could be taken out.
        (_, Value::Object(_) | Value::Array(_)) => None,
        _ => Some(value.clone()),
    }
}

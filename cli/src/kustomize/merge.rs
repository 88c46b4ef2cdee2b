//! Strategic merge as kustomize does it: what a patch names comes first in lists (`sigs.k8s.io/kustomize/kyaml/yaml/merge2`). Pure.

use serde_json::{Map, Value};

use crate::apply::{Rule, rule};

/// Merges a patch into an object of a kind; false when the patch deletes the object.
pub fn merge(object: &mut Value, patch: &Value, kind: &str, built_in: bool) -> bool {
    let merger = Merger { kind, built_in };
    merger.value(object, patch, "")
}

struct Merger<'a> {
    kind: &'a str,
    /// Only of built-in kinds is known which lists are merged.
    built_in: bool,
}

impl Merger<'_> {
    /// False when the value is to be removed.
    fn value(&self, target: &mut Value, patch: &Value, parent: &str) -> bool {
        let Value::Object(fields) = patch else {
            *target = patch.clone();
            return true;
        };
        match fields.get("$patch").and_then(Value::as_str) {
            Some("delete") => return false,
            Some("replace") => {
                *target = plain(patch);
                return true;
            }
            _ => {}
        }
        let Value::Object(into) = target else {
            *target = plain(patch);
            return true;
        };
        for (field, value) in fields.iter().filter(|(f, _)| !f.starts_with("$patch")) {
            self.field(into, parent, field, value);
        }
        true
    }

    fn field(&self, into: &mut Map<String, Value>, parent: &str, field: &str, value: &Value) {
        if value.is_null() {
            into.remove(field);
            return;
        }
        let Some(target) = into.get_mut(field).filter(|t| !t.is_null()) else {
            let deletes = value.get("$patch").is_some_and(|p| p == "delete");
            if !deletes {
                into.insert(field.to_owned(), plain(value));
            }
            return;
        };
        let kept = match (target.is_array(), value) {
            (true, Value::Array(items)) => self.list(target, items, parent, field),
            _ => self.value(target, value, field),
        };
        if !kept {
            into.remove(field);
        }
    }

    fn list(&self, target: &mut Value, items: &[Value], parent: &str, field: &str) -> bool {
        let Value::Array(existing) = target else { return true };
        let rule = if self.built_in { rule(self.kind, parent, field) } else { Rule::Atomic };
        if items.iter().any(|i| i["$patch"] == "replace") {
            *existing = items.iter().filter(|i| i["$patch"] != "replace").map(plain).collect();
            return true;
        }
        match rule {
            Rule::Atomic => *existing = items.iter().map(plain).collect(),
            Rule::Set => {
                let old = std::mem::replace(existing, items.to_vec());
                existing.extend(old.into_iter().filter(|o| !items.contains(o)));
            }
            Rule::Merge(key) => self.keyed(existing, items, key, field),
        }
        !existing.is_empty() || items.is_empty()
    }

    fn keyed(&self, existing: &mut Vec<Value>, items: &[Value], key: &str, field: &str) {
        // A port is known by its protocol too, once any of them tells one.
        let by_protocol = field == "ports" && existing.iter().chain(items).any(|i| !i["protocol"].is_null());
        let same = |a: &Value, b: &Value| a[key] == b[key] && (!by_protocol || a["protocol"] == b["protocol"]);
        let mut first = Vec::new();
        for item in items {
            let at = existing.iter().position(|e| same(e, item));
            let deletes = item["$patch"] == "delete";
            match at {
                Some(at) if deletes => drop(existing.remove(at)),
                None if deletes => {}
                // With two keys upstream leaves in its place what was there.
                Some(at) if by_protocol => drop(self.value(&mut existing[at], item, field)),
                Some(at) => {
                    let mut merged = existing.remove(at);
                    self.value(&mut merged, item, field);
                    first.push(merged);
                }
                None => first.push(plain(item)),
            }
        }
        existing.splice(0..0, first);
    }
}

/// A value as it is added: without directives and without nulls, which stand for what is to be removed.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(k, v)| !v.is_null() && !k.starts_with("$patch") && v["$patch"] != "delete");
            Value::Object(kept.map(|(k, v)| (k.clone(), plain(v))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().filter(|i| i["$patch"] != "delete").map(plain).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(mut object: Value, patch: Value, kind: &str) -> Value {
        assert!(merge(&mut object, &patch, kind, true));
        object
    }

    #[test]
    fn patched_items_come_first() {
        let pod = json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b", "args": ["x"], "env": [{ "name": "E", "value": "1" }] }, { "name": "c" }] } });
        let patch = json!({ "spec": { "containers": [
            { "name": "n", "foo": null }, { "name": "b", "args": ["y"], "env": [{ "name": "F" }] }, { "name": "c", "$patch": "delete" },
        ] } });
        assert_eq!(
            merged(pod, patch, "Pod")["spec"]["containers"],
            json!([{ "name": "n" }, { "name": "b", "args": ["y"], "env": [{ "name": "F" }, { "name": "E", "value": "1" }] }, { "name": "a" }])
        );
    }

    #[test]
    fn ports_with_protocols_stay_where_they_are() {
        let service = json!({ "spec": { "ports": [{ "port": 80 }, { "port": 80, "protocol": "UDP" }, { "port": 81 }] } });
        let patch = json!({ "spec": { "ports": [{ "port": 9 }, { "port": 81, "name": "z" }] } });
        assert_eq!(
            merged(service, patch, "Service")["spec"]["ports"],
            json!([{ "port": 9 }, { "port": 80 }, { "port": 80, "protocol": "UDP" }, { "port": 81, "name": "z" }])
        );
    }

    #[test]
    fn directives_replace_and_delete() {
        let object = json!({ "a": { "x": 1, "y": 2 }, "b": { "x": 1 }, "c": 1, "list": [1, 2] });
        let patch = json!({ "a": { "$patch": "replace", "z": 3 }, "b": { "$patch": "delete" }, "c": null, "d": { "e": null, "f": {} }, "list": [3] });
        assert_eq!(merged(object, patch, "Foo"), json!({ "a": { "z": 3 }, "d": { "f": {} }, "list": [3] }));
        assert!(!merge(&mut json!({}), &json!({ "$patch": "delete" }), "Foo", true));
    }
}

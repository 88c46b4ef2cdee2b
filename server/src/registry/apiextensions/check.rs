//! Values against a compiled schema, in upstream's words (`k8s.io/kube-openapi/pkg/validation/validate`,
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/validation`, `.../schema/listtype`).
//!
//! Owns no schema and changes no value. What an update leaves as it was is not complained about, so that a stricter schema does not lock
//! objects up (upstream's ratcheting).

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use shared::cel::Budget;
use shared::field::{Error, ErrorList, Path};

use super::formats;
use super::rules;
use super::schema::{Additional, Limits, Schema};

/// Errors of a whole object. `old` is what it replaces.
pub fn object(schema: &Schema, value: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = Vec::new();
    Check { errors: &mut errors }.value(schema, value, old, "");
    // Rules may count on values being of their types.
    if errors.is_empty() {
        rules_hold(schema, value, old, "", &Budget::new(rules::BUDGET), &mut errors);
    }
    errors
}

/// Evaluates the rules of a schema and of everything below it.
fn rules_hold(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, budget: &Budget, errors: &mut ErrorList) {
    if old == Some(value) && !path.is_empty() || value.is_null() {
        return;
    }
    rules::check(&schema.rules, kind_of(value), value, old, path, budget, errors);
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(schema) = schema.field(name) {
                    rules_hold(schema, value, old.and_then(|o| o.get(name)), &below(path, name), budget, errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(of) = &schema.items else { return };
            let before: &[Value] = old.and_then(Value::as_array).map_or(&[], |list| list);
            for (index, item) in items.iter().enumerate() {
                rules_hold(of, item, counterpart(schema, item, before), &format!("{path}[{index}]"), budget, errors);
            }
        }
        _ => {}
    }
}

/// The item of a list before that an item replaces, where items have an identity.
fn counterpart<'a>(schema: &Schema, item: &Value, before: &'a [Value]) -> Option<&'a Value> {
    match schema.list_type.as_str() {
        "map" => {
            let identity = keys(schema, item);
            before.iter().find(|o| keys(schema, o) == identity)
        }
        "set" => before.iter().find(|o| *o == item),
        _ => None,
    }
}

struct Check<'a> {
    errors: &'a mut ErrorList,
}

/// Whether a value satisfies a schema, for `anyOf` and its like.
fn holds(schema: &Schema, value: &Value, path: &str) -> bool {
    let mut errors = Vec::new();
    Check { errors: &mut errors }.value(schema, value, None, path);
    errors.is_empty()
}

fn at(path: &str) -> Path {
    Path::new(path)
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Check<'_> {
    fn invalid(&mut self, path: &str, value: &Value, detail: &str) {
        self.errors.push(Error::invalid(&at(path), value, &format!("{path} in body {detail}")));
    }

    fn composite(&mut self, path: &str, detail: &str) {
        self.errors.push(Error::invalid(&Path::new(""), "", &format!("{path:?} {detail}")));
    }

    fn value(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        if old == Some(value) && !path.is_empty() {
            return;
        }
        if value.is_null() && schema.nullable {
            return;
        }
        if !self.right_type(schema, value, path) {
            return;
        }
        self.limits(&schema.limits, value, path);
        match value {
            Value::Object(map) => self.map(schema, map, old, path),
            Value::Array(items) => self.list(schema, items, old, path),
            _ => {}
        }
    }

    fn right_type(&mut self, schema: &Schema, value: &Value, path: &str) -> bool {
        let found = kind_of(value);
        let (right, wanted) = if schema.int_or_string {
            let whole = value.as_f64().is_some_and(|f| f.fract() == 0.0);
            (value.is_string() || whole, "integer,string")
        } else {
            let right = match schema.kind.as_str() {
                "" => true,
                "number" => value.is_number(),
                "integer" => value.as_f64().is_some_and(|f| f.fract() == 0.0),
                kind => kind == found,
            };
            (right, schema.kind.as_str())
        };
        if !right {
            let detail = format!("{path} in body must be of type {wanted}: {found:?}");
            self.errors.push(Error::type_invalid(&at(path), found, &detail));
        }
        right
    }

    fn map(&mut self, schema: &Schema, map: &Map<String, Value>, old: Option<&Value>, path: &str) {
        for name in &schema.limits.required {
            if !map.contains_key(name) {
                self.errors.push(Error::required(&at(&below(path, name)), ""));
            }
        }
        for (name, value) in map {
            let whole = path.is_empty() || schema.embedded;
            if whole && matches!(name.as_str(), "apiVersion" | "kind") && !schema.properties.contains_key(name) {
                continue;
            }
            let path = below(path, name);
            match (schema.field(name), &schema.additional) {
                (Some(schema), _) => self.value(schema, value, old.and_then(|o| o.get(name)), &path),
                (None, Additional::Any(false)) => self.invalid(&path, value, "is a forbidden property"),
                (None, _) => {}
            }
        }
    }

    fn list(&mut self, schema: &Schema, items: &[Value], old: Option<&Value>, path: &str) {
        let before: &[Value] = old.and_then(Value::as_array).map_or(&[], |list| list);
        let mut seen: Vec<Value> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let identity = match schema.list_type.as_str() {
                "map" => Some(keys(schema, item)),
                "set" => Some(item.clone()),
                _ => None,
            };
            if let Some(identity) = identity {
                if seen.contains(&identity) {
                    self.errors.push(Error::duplicate(&at(&path), &identity));
                }
                seen.push(identity);
            }
            if let Some(of) = &schema.items {
                self.value(of, item, counterpart(schema, item, before), &path);
            }
        }
    }

    fn limits(&mut self, limits: &Limits, value: &Value, path: &str) {
        self.choice(limits, value, path);
        match value {
            Value::String(text) => self.text(limits, text, value, path),
            Value::Number(number) => self.number(limits, number.as_f64().unwrap_or_default(), value, path),
            Value::Array(items) => {
                if let Some(most) = exceeded(limits.items.1, items.len()) {
                    self.errors.push(Error::too_many(&at(path), items.len(), most));
                }
                if let Some(least) = missing(limits.items.0, items.len()) {
                    self.invalid(path, value, &format!("should have at least {least} items"));
                }
                if limits.unique && items.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len() < items.len() {
                    self.invalid(path, value, "shouldn't contain duplicates");
                }
            }
            Value::Object(map) => {
                if let Some(most) = exceeded(limits.properties.1, map.len()) {
                    self.errors.push(Error::too_many(&at(path), map.len(), most));
                }
                if let Some(least) = missing(limits.properties.0, map.len()) {
                    self.invalid(path, value, &format!("should have at least {least} properties"));
                }
            }
            _ => {}
        }
        self.alternatives(limits, value, path);
    }

    fn choice(&mut self, limits: &Limits, value: &Value, path: &str) {
        let Some(allowed) = &limits.one_of_values else { return };
        if !allowed.contains(value) {
            let names: Vec<String> = allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.errors.push(Error::not_supported(&at(path), value, &names));
        }
    }

    fn text(&mut self, limits: &Limits, text: &str, value: &Value, path: &str) {
        let length = text.chars().count();
        if let Some(most) = exceeded(limits.length.1, length) {
            self.errors.push(Error::too_long(&at(path), most));
        }
        if let Some(least) = missing(limits.length.0, length) {
            self.invalid(path, value, &format!("should be at least {least} chars long"));
        }
        if let Some((source, pattern)) = &limits.pattern
            && !pattern.as_ref().is_some_and(|p| p.is_match(text))
        {
            self.invalid(path, value, &format!("should match '{source}'"));
        }
        if !formats::valid(&limits.format, text) {
            let detail = format!("{path} in body must be of type {}: {text:?}", limits.format);
            self.errors.push(Error::type_invalid(&at(path), text, &detail));
        }
    }

    fn number(&mut self, limits: &Limits, number: f64, value: &Value, path: &str) {
        if limits.format == "int32" && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number) {
            self.invalid(path, value, "Checked value must be of type integer with format int32");
        }
        match limits.minimum {
            Some((least, true)) if number <= least => self.invalid(path, value, &format!("should be greater than {least}")),
            Some((least, false)) if number < least => self.invalid(path, value, &format!("should be greater than or equal to {least}")),
            _ => {}
        }
        match limits.maximum {
            Some((most, true)) if number >= most => self.invalid(path, value, &format!("should be less than {most}")),
            Some((most, false)) if number > most => self.invalid(path, value, &format!("should be less than or equal to {most}")),
            _ => {}
        }
        if let Some(factor) = limits.multiple_of
            && factor != 0.0
            && (number / factor).fract() != 0.0
        {
            self.invalid(path, value, &format!("should be a multiple of {factor}"));
        }
    }

    fn alternatives(&mut self, limits: &Limits, value: &Value, path: &str) {
        for schema in &limits.all_of {
            let before = self.errors.len();
            self.value(schema, value, None, path);
            if self.errors.len() > before {
                self.composite(path, "must validate all the schemas (allOf)");
            }
        }
        if !limits.any_of.is_empty() && !limits.any_of.iter().any(|s| holds(s, value, path)) {
            self.composite(path, "must validate at least one schema (anyOf)");
        }
        if !limits.one_of.is_empty() {
            match limits.one_of.iter().filter(|s| holds(s, value, path)).count() {
                1 => {}
                0 => self.composite(path, "must validate one and only one schema (oneOf). Found none valid"),
                many => self.composite(path, &format!("must validate one and only one schema (oneOf). Found {many} valid alternatives")),
            }
        }
        if limits.not.as_ref().is_some_and(|schema| holds(schema, value, path)) {
            self.composite(path, "must not validate the schema (not)");
        }
    }
}

/// The fields that tell an item of a list apart, with their defaults.
fn keys(schema: &Schema, item: &Value) -> Value {
    let default = |key: &str| schema.items.as_ref().and_then(|s| s.properties.get(key)).and_then(|s| s.default.clone());
    let value = |key: &String| Some((key.clone(), item.get(key).cloned().or_else(|| default(key))?));
    Value::Object(schema.list_keys.iter().filter_map(value).collect())
}

fn exceeded(most: Option<i64>, actual: usize) -> Option<usize> {
    most.and_then(|m| usize::try_from(m).ok()).filter(|m| actual > *m)
}

fn missing(least: Option<i64>, actual: usize) -> Option<usize> {
    least.and_then(|m| usize::try_from(m).ok()).filter(|m| actual < *m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
        let wrapped = json!({"type": "object", "properties": {"spec": schema}});
        let schema = Schema::new(&serde_json::from_value(wrapped).unwrap());
        let (value, old) = (json!({"spec": value}), old.map(|o| json!({"spec": o})));
        object(&schema, &value, old.as_ref()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_constraint_is_named_with_upstreams_words() {
        for (schema, value, text) in [
            (json!({"type": "integer"}), json!("a"), "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""),
            (json!({"type": "object"}), json!(null), "spec: Invalid value: \"null\": spec in body must be of type object: \"null\""),
            (json!({"type": "integer", "minimum": 1}), json!(0), "spec: Invalid value: 0: spec in body should be greater than or equal to 1"),
            (
                json!({"type": "integer", "maximum": 9, "exclusiveMaximum": true}),
                json!(9),
                "spec: Invalid value: 9: spec in body should be less than 9",
            ),
            (json!({"type": "string", "pattern": "^a+$"}), json!("b"), "spec: Invalid value: \"b\": spec in body should match '^a+$'"),
            (json!({"type": "string", "enum": ["x", "y"]}), json!("z"), "spec: Unsupported value: \"z\": supported values: \"x\", \"y\""),
            (json!({"type": "string", "maxLength": 2}), json!("abc"), "spec: Too long: may not be more than 2 bytes"),
            (json!({"type": "string", "minLength": 2}), json!("a"), "spec: Invalid value: \"a\": spec in body should be at least 2 chars long"),
            (json!({"type": "object", "required": ["a"]}), json!({}), "spec.a: Required value"),
            (json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}), json!([1, 2]), "spec: Too many: 2: must have at most 1 items"),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                "spec: Invalid value: \"x\": spec in body must be of type date-time: \"x\"",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
                json!(["a", "a"]),
                "spec[1]: Duplicate value: \"a\"",
            ),
            (
                json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({}),
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
            ),
        ] {
            assert_eq!(errors(schema, value, None), [text]);
        }
    }

    #[test]
    fn numbers_that_are_whole_are_integers_and_either_type_may_be_allowed() {
        assert!(errors(json!({"type": "integer"}), json!(1.0), None).is_empty());
        let either = json!({"x-kubernetes-int-or-string": true});
        assert!(errors(either.clone(), json!(1), None).is_empty() && errors(either.clone(), json!("50%"), None).is_empty());
        assert_eq!(errors(either, json!(true), None).len(), 1);
    }

    #[test]
    fn what_an_update_leaves_alone_is_not_complained_about() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "integer", "minimum": 5},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                  "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "minimum": 5}}}}
        }});
        let old = json!({"a": 1, "l": [{"k": "x", "v": 1}]});
        assert!(errors(schema.clone(), json!({"a": 1, "l": [{"k": "y", "v": 6}, {"k": "x", "v": 1}]}), Some(old.clone())).is_empty());
        assert_eq!(errors(schema, json!({"a": 2, "l": [{"k": "x", "v": 2}]}), Some(old)).len(), 2);
    }
}

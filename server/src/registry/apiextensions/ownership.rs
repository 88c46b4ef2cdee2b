//! How the fields of a defined kind are owned and merged by server-side apply: its schema in the form of the built-in kinds' table
//! (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema`, `x-kubernetes-list-type` and `-map-type`).

use serde_json::Value;
use shared::managed::Type;

use super::schema::{Additional, Schema};

/// The type of whole objects.
pub fn of(schema: &Schema) -> Type {
    let mut lines = vec![String::new()];
    let fields = fields(schema, &mut lines);
    lines[0] = format!("Kind{fields}");
    Type::define(&lines.join("\n"))
}

/// What is special about an object's fields, each with a space before it.
fn fields(schema: &Schema, lines: &mut Vec<String>) -> String {
    let plain = |name: &str| !name.is_empty() && !name.contains([' ', '=', ':', '!', '\n']);
    let mut text = String::new();
    for (name, field) in schema.properties.iter().filter(|(name, _)| plain(name) && *name != "metadata") {
        if let Some(described) = describe(field, lines) {
            text.push_str(&format!(" {name}={described}"));
        }
    }
    text
}

/// `type[:shape]` of a field, if there is something special about it.
fn describe(field: &Schema, lines: &mut Vec<String>) -> Option<String> {
    if field.atomic_map {
        return Some("-:atomic".into());
    }
    if let Some(items) = &field.items {
        return match field.list_type.as_str() {
            "set" => Some("-:set".into()),
            "map" => {
                let default = |key: &String| match items.properties.get(key).and_then(|s| s.default.as_ref()) {
                    Some(Value::String(text)) => format!("{key}={text}"),
                    _ => key.clone(),
                };
                let keys: Vec<String> = field.list_keys.iter().map(default).collect();
                Some(format!("{}:list:{}", name(items, lines), keys.join(",")))
            }
            _ => None,
        };
    }
    if let Additional::Schema(values) = &field.additional {
        return Some(format!("{}:map", name(values, lines)));
    }
    Some(name(field, lines)).filter(|n| n != "-")
}

/// The name of an object's type; `-` when there is nothing special about it.
fn name(schema: &Schema, lines: &mut Vec<String>) -> String {
    let at = lines.len();
    lines.push(String::new());
    let text = fields(schema, lines);
    if text.is_empty() {
        lines.truncate(at);
        return "-".into();
    }
    let name = format!("T{at}");
    lines[at] = format!("{name}{text}");
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_special_is_told_and_the_same_schema_gives_the_same_type() {
        let schema = |extra: Value| {
            Schema::new(
                &serde_json::from_value(json!({"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "plain": {"type": "string"},
                        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                                  "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
                        "extra": extra,
                    }}
                }}))
                .unwrap(),
            )
        };
        let plain = of(&schema(json!({"type": "integer"})));
        assert_eq!(plain, of(&schema(json!({"type": "string"}))), "ownership does not depend on scalar types");
        assert_ne!(plain, of(&schema(json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}))));
    }
}

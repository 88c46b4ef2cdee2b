//! A v3 document in v2's terms. Pure: values in, values out.

use serde_json::{Map, Value, json};

const V3: &str = "#/components/schemas/";
const V2: &str = "#/definitions/";

/// Keywords that v2 does not have, or that upstream leaves out of it.
const DROPPED: [&str; 5] = ["default", "oneOf", "anyOf", "not", "nullable"];

/// Hands on a document's paths and definitions, converted.
pub(super) fn document(mut document: Value, path: &mut dyn FnMut(String, Value), definition: &mut dyn FnMut(String, Value)) {
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        for (name, mut value) in std::mem::take(schemas) {
            schema(&mut value);
            definition(name, value);
        }
    }
    if let Some(items) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for (name, item) in std::mem::take(items) {
            path(name, path_item(item));
        }
    }
}

/// A schema, in place.
fn schema(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    // Either type is a string with a format of its own; what may be null has no type that a v2 client could check.
    if map.contains_key("oneOf") && !map.contains_key("type") && !map.contains_key("x-kubernetes-int-or-string") && is_scalar_choice(map) {
        map.insert("type".into(), "string".into());
    }
    if map.get("nullable") == Some(&Value::Bool(true)) {
        for keyword in ["type", "items", "properties", "additionalProperties"] {
            map.remove(keyword);
        }
    }
    for keyword in DROPPED {
        map.remove(keyword);
    }
    if let Some(Value::Array(parts)) = map.get_mut("allOf") {
        if let [part] = parts.as_mut_slice()
            && let Some(reference) = part.get("$ref").cloned()
        {
            map.remove("allOf");
            map.insert("$ref".into(), reference);
        } else {
            parts.iter_mut().for_each(schema);
        }
    }
    if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(V3)) {
        let reference = format!("{V2}{name}");
        map.insert("$ref".into(), reference.into());
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(keyword) {
            schema(inner);
        }
    }
    if let Some(fields) = map.get_mut("properties").and_then(Value::as_object_mut) {
        fields.values_mut().for_each(schema);
    }
}

/// `oneOf` of plain types, as a quantity is.
fn is_scalar_choice(map: &Map<String, Value>) -> bool {
    map.get("oneOf").and_then(Value::as_array).is_some_and(|choices| choices.iter().all(|c| c.get("type").is_some()))
}

fn path_item(item: Value) -> Value {
    let Value::Object(map) = item else { return item };
    map.into_iter()
        .map(|(name, value)| match name.as_str() {
            "parameters" => (name, parameters(value)),
            _ => (name, operation(value)),
        })
        .collect::<Map<_, _>>()
        .into()
}

fn parameters(value: Value) -> Value {
    let Value::Array(parameters) = value else { return value };
    parameters
        .into_iter()
        .map(|mut parameter| {
            let schema = parameter.as_object_mut().and_then(|p| p.remove("schema"));
            if let (Some(map), Some(Value::Object(schema))) = (parameter.as_object_mut(), schema) {
                map.extend(schema.into_iter().filter(|(keyword, _)| !DROPPED.contains(&keyword.as_str())));
            }
            parameter
        })
        .collect()
}

fn operation(value: Value) -> Value {
    let Value::Object(mut map) = value else { return value };
    let mut listed = match map.remove("parameters").map(parameters) {
        Some(Value::Array(listed)) => listed,
        _ => Vec::new(),
    };
    if let Some(mut body) = map.remove("requestBody") {
        let required = body.get("required") == Some(&Value::Bool(true));
        let (types, schema) = content(&mut body);
        map.insert("consumes".into(), json!(types));
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if required {
            parameter["required"] = true.into();
        }
        listed.insert(0, parameter);
    } else {
        map.insert("consumes".into(), json!(["*/*"]));
    }
    if !listed.is_empty() {
        map.insert("parameters".into(), listed.into());
    }
    let mut produces = Vec::new();
    if let Some(responses) = map.get_mut("responses").and_then(Value::as_object_mut) {
        for response in responses.values_mut().filter(|r| r.get("content").is_some()) {
            let (types, schema) = content(response);
            produces = types;
            response["schema"] = schema;
        }
    }
    if !produces.is_empty() {
        map.insert("produces".into(), json!(produces));
    }
    map.insert("schemes".into(), json!(["https"]));
    Value::Object(map)
}

/// Takes `content` out of a body or a response: the media types, and the schema that they share.
fn content(of: &mut Value) -> (Vec<String>, Value) {
    let content = of.as_object_mut().and_then(|map| map.remove("content"));
    let Some(Value::Object(content)) = content else { return (Vec::new(), json!({})) };
    let mut shared = json!({});
    let types = content
        .into_iter()
        .map(|(media, mut of)| {
            if let Some(value) = of.get_mut("schema") {
                shared = value.take();
            }
            media
        })
        .collect();
    schema(&mut shared);
    (types, shared)
}

//! Types from OpenAPI schemas (`k8s.io/apiserver/pkg/cel/common/schemas.go`).
//!
//! Owns the translation only. A schema is JSON as it is published or as a CustomResourceDefinition has it; references are looked up when a
//! field is asked for, so that types may contain themselves.

use std::sync::Arc;

use serde_json::Value as Json;

use super::types::{Fields, ObjectType, Type, unescape};

/// Where `$ref`s lead: a schema by its definition's name (what follows the last `/`).
pub type Definitions = Arc<dyn Fn(&str) -> Option<Json> + Send + Sync>;

struct SchemaFields {
    schema: Json,
    /// Whether it is a whole API object, whose `metadata` is known though the schema does not say.
    root: bool,
    definitions: Definitions,
    name: Arc<str>,
}

/// The type of values that a schema describes. `name` is shown in errors.
pub fn type_of_schema(name: &str, schema: &Json, definitions: &Definitions, root: bool) -> Type {
    let schema = &resolve(schema, definitions);
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::Dyn;
    }
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    let format = schema["format"].as_str().unwrap_or_default();
    match schema["type"].as_str() {
        Some("object") | None if schema["properties"].is_object() || root || embedded => {
            if schema["x-kubernetes-preserve-unknown-fields"] == true && !schema["properties"].is_object() && !root && !embedded {
                return Type::Dyn;
            }
            let fields = SchemaFields { schema: schema.clone(), root: root || embedded, definitions: definitions.clone(), name: name.into() };
            Type::Object(ObjectType { name: name.into(), fields: Arc::new(fields) })
        }
        Some("object") => match &schema["additionalProperties"] {
            values @ Json::Object(_) => Type::map(Type::String, type_of_schema(&format!("{name}.@values"), values, definitions, false)),
            _ => Type::Dyn,
        },
        Some("array") => Type::list(type_of_schema(&format!("{name}.@items"), &schema["items"], definitions, false)),
        Some("string") => match format {
            "byte" => Type::Bytes,
            "duration" => Type::Duration,
            "date" | "date-time" => Type::Timestamp,
            // Quantities and ports-or-names: what is written may be a number.
            "int-or-string" => Type::Dyn,
            _ => Type::String,
        },
        Some("integer") => Type::Int,
        Some("number") => Type::Double,
        Some("boolean") => Type::Bool,
        _ => Type::Dyn,
    }
}

/// Follows references, and the `allOf` of one that publishers wrap around a reference to say more beside it.
fn resolve(schema: &Json, definitions: &Definitions) -> Json {
    let mut schema = schema.clone();
    // As many as schemas have ever been seen to chain; a loop ends here.
    for _ in 0..8 {
        let target = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        let Some(name) = target.and_then(|t| t.rsplit('/').next()) else { break };
        match definitions(name) {
            Some(found) => schema = found,
            None => return Json::Null,
        }
    }
    schema
}

impl Fields for SchemaFields {
    fn field(&self, escaped: &str) -> Option<Type> {
        let name = unescape(escaped);
        if let Some(property) = self.schema["properties"].get(&name)
            && !(self.root
                && name == "metadata"
                && !property["properties"].is_object()
                && property.get("$ref").is_none()
                && property.get("allOf").is_none())
        {
            return Some(type_of_schema(&format!("{}.{name}", self.name), property, &self.definitions, false));
        }
        if self.root {
            return match name.as_str() {
                "apiVersion" | "kind" => Some(Type::String),
                "metadata" => Some(Type::object(&format!("{}.metadata", self.name), [("name", Type::String), ("generateName", Type::String)])),
                _ => None,
            };
        }
        (self.schema["x-kubernetes-preserve-unknown-fields"] == true).then_some(Type::Dyn)
    }
}

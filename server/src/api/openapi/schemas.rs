//! The schemas of a document: the k8s-openapi types' own, brought into the form that upstream publishes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Patch, Status};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::Kind;

const PREFIX: &str = "#/components/schemas/";

/// Collects the schemas that a document refers to.
pub(super) struct Schemas {
    generator: SchemaGenerator,
    /// Kinds with their schema's name, to be marked in the end.
    kinds: Vec<(String, Value)>,
    /// Schemas that no Rust type has: the lists.
    own: Map<String, Value>,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let mut settings = SchemaSettings::openapi3();
        // The types' schemas are OpenAPI already.
        settings.transforms.clear();
        Schemas { generator: settings.into_generator(), kinds: Vec::new(), own: Map::new() }
    }

    /// A reference to a kind's schema.
    pub(super) fn kind(&mut self, kind: &Kind) -> Value {
        let reference = (kind.schema)(&mut self.generator).to_value();
        let name = name_of(&reference);
        let gvk = gvk(kind.group, kind.version, kind.kind);
        if !self.kinds.iter().any(|(n, _)| *n == name) {
            self.kinds.push((name, gvk));
        }
        reference
    }

    /// A reference to the schema of a kind's list.
    pub(super) fn list(&mut self, kind: &Kind) -> Value {
        let item = self.kind(kind);
        let name = format!("{}List", name_of(&item));
        let metadata = self.generator.subschema_for::<ListMeta>().to_value();
        let schema = json!({
            "description": format!("{0}List is a list of {0}", kind.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"description": "APIVersion defines the versioned schema of this representation of an object.", "type": "string"},
                "kind": {"description": "Kind is a string value representing the REST resource this object represents.", "type": "string"},
                "metadata": {"description": "Standard list metadata.", "allOf": [metadata], "default": {}},
                "items": {"description": "Items of the list.", "type": "array", "items": {"allOf": [item], "default": {}}},
            },
            "x-kubernetes-group-version-kind": [gvk(kind.group, kind.version, &format!("{}List", kind.kind))],
        });
        self.own.insert(name.clone(), schema);
        json!({"$ref": format!("{PREFIX}{name}")})
    }

    pub(super) fn status(&mut self) -> Value {
        self.generator.subschema_for::<Status>().to_value()
    }
    pub(super) fn delete_options(&mut self) -> Value {
        self.generator.subschema_for::<DeleteOptions>().to_value()
    }
    pub(super) fn patch(&mut self) -> Value {
        self.generator.subschema_for::<Patch>().to_value()
    }
    pub(super) fn of<T: schemars::JsonSchema>(&mut self) -> Value {
        self.generator.subschema_for::<T>().to_value()
    }

    pub(super) fn finish(mut self) -> Value {
        let mut all = self.generator.take_definitions(false);
        all.append(&mut self.own);
        for schema in all.values_mut() {
            upstream_form(schema);
        }
        for (name, gvk) in self.kinds {
            if let Some(schema) = all.get_mut(&name) {
                schema["x-kubernetes-group-version-kind"] = json!([gvk]);
            }
        }
        Value::Object(all)
    }
}

pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn name_of(reference: &Value) -> String {
    reference["$ref"].as_str().and_then(|r| r.strip_prefix(PREFIX)).unwrap_or_default().to_owned()
}

/// OpenAPI ignores what stands beside a `$ref`, so a described reference goes into an `allOf`, as upstream writes it.
fn upstream_form(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.len() > 1
                && let Some(reference) = map.remove("$ref")
            {
                map.insert("allOf".into(), json!([{"$ref": reference}]));
            }
            for value in map.values_mut() {
                upstream_form(value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(upstream_form),
        _ => {}
    }
}

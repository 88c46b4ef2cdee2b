//! The schemas of a document: the k8s-openapi types' own, brought into the form that upstream publishes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, DeleteOptions, ListMeta, ObjectMeta, Patch, Status, WatchEvent};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::extensions::{self, Root};
use super::{Kind, Source};
use crate::api::discovery;
use crate::registry::apiextensions::Definition;

const PREFIX: &str = "#/components/schemas/";

/// Schemas whose types take several forms in JSON: upstream says which.
const CHOICES: [(&str, &str, &[&str]); 2] = [
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "int-or-string", &["integer", "string"]),
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "", &["string", "number"]),
];

/// Kinds that are the same in every group.
const EVERYWHERE: [(&str, &str); 2] =
    [("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "DeleteOptions"), ("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent", "WatchEvent")];

/// Collects the schemas that a document refers to.
pub(super) struct Schemas {
    generator: SchemaGenerator,
    /// Kinds with their schema's name, to be marked in the end.
    kinds: Vec<(String, Value)>,
    /// Where the rules of merging begin.
    roots: Vec<Root>,
    /// Schemas that no Rust type has: the lists.
    own: Map<String, Value>,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let mut settings = SchemaSettings::openapi3();
        // The types' schemas are OpenAPI already.
        settings.transforms.clear();
        Schemas { generator: settings.into_generator(), kinds: Vec::new(), roots: Vec::new(), own: Map::new() }
    }

    /// A reference to a kind's schema.
    pub(super) fn kind(&mut self, kind: &Kind) -> Value {
        let schema = match &kind.schema {
            Source::Type(schema) => schema,
            Source::Definition(definition) => return self.defined(kind, definition),
        };
        let reference = schema(&mut self.generator).to_value();
        self.mark(&reference, kind.group, kind.version, kind.kind);
        reference
    }

    /// A reference to the schema that a CustomResourceDefinition gives
    /// (`apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`).
    fn defined(&mut self, kind: &Kind, definition: &Definition) -> Value {
        let reversed: Vec<&str> = kind.group.split('.').rev().collect();
        let name = format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind);
        if !self.own.contains_key(&name) {
            let mut schema = definition.published.clone();
            let opaque = schema["properties"].as_object().is_none_or(Map::is_empty) && schema["x-kubernetes-preserve-unknown-fields"] == true;
            if !opaque {
                let metadata = self.generator.subschema_for::<ObjectMeta>().to_value();
                schema["properties"]["apiVersion"] = json!({"description": API_VERSION, "type": "string"});
                schema["properties"]["kind"] = json!({"description": KIND, "type": "string"});
                schema["properties"]["metadata"] = json!({"description": METADATA, "allOf": [metadata]});
            }
            schema["x-kubernetes-group-version-kind"] = json!([gvk(kind.group, kind.version, kind.kind)]);
            self.own.insert(name.clone(), schema);
        }
        json!({"$ref": format!("{PREFIX}{name}")})
    }

    /// Says that a schema is a kind's.
    fn mark(&mut self, reference: &Value, group: &str, version: &str, kind: &'static str) {
        let name = name_of(reference);
        if self.kinds.iter().any(|(n, _)| *n == name) {
            return;
        }
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        self.roots.push(Root { name: name.clone(), api_version, kind });
        self.kinds.push((name, gvk(group, version, kind)));
    }

    /// A reference to the schema of a kind's list.
    pub(super) fn list(&mut self, kind: &Kind) -> Value {
        let item = self.kind(kind);
        let name = format!("{}List", name_of(&item));
        let metadata = self.generator.subschema_for::<ListMeta>().to_value();
        let list_kind = match &kind.schema {
            Source::Type(_) => format!("{}List", kind.kind),
            Source::Definition(definition) => definition.list_kind.clone(),
        };
        let schema = json!({
            "description": format!("{0}List is a list of {0}", kind.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"description": API_VERSION, "type": "string"},
                "kind": {"description": KIND, "type": "string"},
                "metadata": {"description": "Standard list metadata.", "allOf": [metadata], "default": {}},
                "items": {"description": "Items of the list.", "type": "array", "items": {"allOf": [item], "default": {}}},
            },
            "x-kubernetes-group-version-kind": [gvk(kind.group, kind.version, &list_kind)],
        });
        self.own.insert(name.clone(), schema);
        json!({"$ref": format!("{PREFIX}{name}")})
    }

    pub(super) fn status(&mut self) -> Value {
        let reference = self.generator.subschema_for::<Status>().to_value();
        self.mark(&reference, "", "v1", "Status");
        reference
    }
    pub(super) fn resources(&mut self) -> Value {
        let reference = self.generator.subschema_for::<APIResourceList>().to_value();
        self.mark(&reference, "", "v1", "APIResourceList");
        reference
    }
    pub(super) fn delete_options(&mut self) -> Value {
        self.generator.subschema_for::<DeleteOptions>().to_value()
    }
    pub(super) fn watch_event(&mut self) -> Value {
        self.generator.subschema_for::<WatchEvent<RawExtension>>().to_value()
    }
    pub(super) fn patch(&mut self) -> Value {
        self.generator.subschema_for::<Patch>().to_value()
    }
    /// A reference to the schema of a subresource's own kind.
    pub(super) fn of<T: schemars::JsonSchema + k8s_openapi::Resource>(&mut self) -> Value {
        let reference = self.generator.subschema_for::<T>().to_value();
        self.mark(&reference, T::GROUP, T::VERSION, T::KIND);
        reference
    }

    pub(super) fn finish(mut self) -> Value {
        let mut all = self.generator.take_definitions(false);
        all.append(&mut self.own);
        for (name, schema) in &mut all {
            upstream_form(schema);
            if let Some((_, format, types)) = CHOICES.iter().find(|c| c.0 == name)
                && let Some(map) = schema.as_object_mut()
            {
                map.remove("x-kubernetes-int-or-string");
                map.insert("oneOf".into(), types.iter().map(|t| json!({"type": t})).collect());
                if !format.is_empty() {
                    map.insert("format".into(), (*format).into());
                }
            }
        }
        for (name, gvk) in self.kinds {
            if let Some(schema) = all.get_mut(&name) {
                schema["x-kubernetes-group-version-kind"] = json!([gvk]);
            }
        }
        for (name, kind) in EVERYWHERE {
            if let Some(schema) = all.get_mut(name) {
                schema["x-kubernetes-group-version-kind"] =
                    discovery::group_versions().iter().map(|(group, version)| gvk(group, version, kind)).collect();
            }
        }
        extensions::add_merge_rules(&mut all, self.roots);
        extensions::add_defaults(&mut all);
        Value::Object(all)
    }
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

const METADATA: &str =
    "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn name_of(reference: &Value) -> String {
    reference.as_object().and_then(referred).unwrap_or_default().to_owned()
}

/// The name of the schema that a reference, described or not, leads to.
pub(super) fn referred(schema: &Map<String, Value>) -> Option<&str> {
    let reference = schema.get("$ref").or_else(|| schema.get("allOf")?.get(0)?.get("$ref"));
    reference?.as_str()?.strip_prefix(PREFIX)
}

/// OpenAPI ignores what stands beside a `$ref`, so every reference inside a schema goes into an `allOf`, as upstream writes those that are
/// described or have a default.
fn upstream_form(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("$ref").is_some_and(Value::is_string)
                && let Some(reference) = map.remove("$ref")
            {
                map.insert("allOf".into(), json!([{"$ref": reference}]));
                return;
            }
            // Of a schema, not a field of that name.
            if map.get("allOf").is_some_and(Value::is_array) {
                return;
            }
            for value in map.values_mut() {
                upstream_form(value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(upstream_form),
        _ => {}
    }
}

//! A version's schema, compiled: pruning, defaulting and what the checks need to know
//! (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema`).
//!
//! Owns the compiled form and what it does to values. Complaints about values are `check`'s, complaints about schemas `structural`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use regex::Regex;
use serde_json::{Map, Value};

use super::rules::{self, Rule};

/// What properties that are not named may be.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Dropped, unless unknown fields are kept.
    #[default]
    None,
    /// Anything, or, with `false`, forbidden.
    Any(bool),
    /// Of this schema.
    Schema(Box<Schema>),
}

/// One node of a schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty for any.
    pub kind: String,
    /// Whether null is a value.
    pub nullable: bool,
    /// Whether fields that are not specified are kept.
    pub preserve_unknown: bool,
    /// Whether the object has a type and metadata of its own.
    pub embedded: bool,
    /// Integer or string.
    pub int_or_string: bool,
    /// Named fields.
    pub properties: BTreeMap<String, Schema>,
    /// The others.
    pub additional: Additional,
    /// Elements of an array.
    pub items: Option<Box<Schema>>,
    /// What an absent value becomes.
    pub default: Option<Value>,
    /// `atomic`, `set`, `map`, or empty.
    pub list_type: String,
    /// Keys of a list that is a map.
    pub list_keys: Vec<String>,
    /// Whether the object is owned and replaced as a whole.
    pub atomic_map: bool,
    /// Expressions that must hold.
    pub rules: Vec<Arc<Rule>>,
    /// What a value must be beyond its type.
    pub limits: Limits,
}

/// Constraints of a value (JSON schema's validation keywords).
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Allowed values.
    pub one_of_values: Option<Vec<Value>>,
    /// A named form, e.g. `date-time`.
    pub format: String,
    /// With its source.
    pub pattern: Option<(String, Option<Regex>)>,
    /// Characters.
    pub length: (Option<i64>, Option<i64>),
    /// Elements.
    pub items: (Option<i64>, Option<i64>),
    /// Fields.
    pub properties: (Option<i64>, Option<i64>),
    /// Lower bound, and whether it is excluded.
    pub minimum: Option<(f64, bool)>,
    /// Upper bound, and whether it is excluded.
    pub maximum: Option<(f64, bool)>,
    /// The value is a multiple of this.
    pub multiple_of: Option<f64>,
    /// Elements are distinct.
    pub unique: bool,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// All must hold.
    pub all_of: Vec<Schema>,
    /// One must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one must hold.
    pub one_of: Vec<Schema>,
    /// Must not hold.
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// Compiles the schema of whole objects.
    pub fn of_objects(props: &JSONSchemaProps) -> Self {
        Schema { rules: rules::compile(props, true), ..Schema::new(props) }
    }

    /// Compiles a schema. A pattern that is none matches nothing, which validation of the definition has refused.
    pub fn new(props: &JSONSchemaProps) -> Self {
        let all = |list: &Option<Vec<JSONSchemaProps>>| list.iter().flatten().map(Schema::new).collect();
        let bound = |value: Option<f64>, exclusive: Option<bool>| value.map(|v| (v, exclusive.unwrap_or(false)));
        Schema {
            kind: props.type_.clone().unwrap_or_default(),
            nullable: props.nullable.unwrap_or(false),
            preserve_unknown: props.x_kubernetes_preserve_unknown_fields.unwrap_or(false),
            embedded: props.x_kubernetes_embedded_resource.unwrap_or(false),
            int_or_string: props.x_kubernetes_int_or_string.unwrap_or(false),
            properties: props.properties.iter().flatten().map(|(name, schema)| (name.clone(), Schema::new(schema))).collect(),
            additional: match &props.additional_properties {
                None => Additional::None,
                Some(JSONSchemaPropsOrBool::Bool(allowed)) => Additional::Any(*allowed),
                Some(JSONSchemaPropsOrBool::Schema(schema)) => Additional::Schema(Box::new(Schema::new(schema))),
            },
            items: match &props.items {
                Some(JSONSchemaPropsOrArray::Schema(schema)) => Some(Box::new(Schema::new(schema))),
                _ => None,
            },
            default: props.default.as_ref().map(|d| d.0.clone()),
            list_type: props.x_kubernetes_list_type.clone().unwrap_or_default(),
            list_keys: props.x_kubernetes_list_map_keys.clone().unwrap_or_default(),
            atomic_map: props.x_kubernetes_map_type.as_deref() == Some("atomic"),
            rules: rules::compile(props, props.x_kubernetes_embedded_resource == Some(true)),
            limits: Limits {
                one_of_values: props.enum_.as_ref().map(|values| values.iter().map(|v| v.0.clone()).collect()),
                format: props.format.clone().unwrap_or_default(),
                pattern: props.pattern.as_ref().map(|p| (p.clone(), Regex::new(p).ok())),
                length: (props.min_length, props.max_length),
                items: (props.min_items, props.max_items),
                properties: (props.min_properties, props.max_properties),
                minimum: bound(props.minimum, props.exclusive_minimum),
                maximum: bound(props.maximum, props.exclusive_maximum),
                multiple_of: props.multiple_of,
                unique: props.unique_items.unwrap_or(false),
                required: props.required.clone().unwrap_or_default(),
                all_of: all(&props.all_of),
                any_of: all(&props.any_of),
                one_of: all(&props.one_of),
                not: props.not.as_ref().map(|not| Box::new(Schema::new(not))),
            },
        }
    }

    /// The schema of a field, named or not.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Drops what the schema does not specify. `root` says that the value is a whole object. Returns the paths of what was dropped, sorted
    /// (`pruning.Prune`).
    pub fn prune(&self, value: &mut Value, root: bool) -> Vec<String> {
        let mut unknown = Vec::new();
        self.prune_at(value, root || self.embedded, "", &mut unknown);
        unknown.sort_unstable();
        unknown
    }

    fn prune_at(&self, value: &mut Value, object: bool, path: &str, unknown: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let own = |name: &str| object && matches!(name, "apiVersion" | "kind" | "metadata");
                let anything = self.preserve_unknown || matches!(self.additional, Additional::Any(true));
                map.retain(|name, _| {
                    let known = anything || own(name) || self.field(name).is_some();
                    if !known {
                        unknown.push(join(path, name));
                    }
                    known
                });
                for (name, value) in map.iter_mut().filter(|(name, _)| !own(name)) {
                    // What is specified below a field that keeps everything is pruned by its own word.
                    if let Some(schema) = self.field(name) {
                        schema.prune_at(value, schema.embedded, &join(path, name), unknown);
                    }
                }
                if object && !path.is_empty() {
                    known_metadata(map);
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (at, item) in items.iter_mut().enumerate() {
                    schema.prune_at(item, schema.embedded, &format!("{path}[{at}]"), unknown);
                }
            }
            _ => {}
        }
    }

    /// Fills in defaults (`defaulting.Default`).
    pub fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, schema) in &self.properties {
                    let Some(default) = &schema.default else { continue };
                    if map.get(name).is_none_or(|v| v.is_null() && !schema.nullable) {
                        map.insert(name.clone(), default.clone());
                    }
                }
                for (name, value) in map.iter_mut() {
                    let Some(schema) = self.field(name) else { continue };
                    if !self.properties.contains_key(name) {
                        schema.replace_null(value);
                    }
                    schema.fill(value);
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for item in items {
                    schema.replace_null(item);
                    schema.fill(item);
                }
            }
            _ => {}
        }
    }

    fn replace_null(&self, value: &mut Value) {
        if value.is_null()
            && !self.nullable
            && let Some(default) = &self.default
        {
            *value = default.clone();
        }
    }

    /// Drops nulls where none may be and no default stands in for them (`defaulting.PruneNonNullableNullsWithoutDefaults`).
    pub fn drop_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|name, value| {
                    let droppable = |s: &Schema| !s.nullable && s.default.is_none() && !s.kind.is_empty();
                    !(value.is_null() && self.properties.get(name).is_some_and(droppable))
                });
                for (name, value) in map.iter_mut() {
                    if let Some(schema) = self.field(name) {
                        schema.drop_nulls(value);
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                items.iter_mut().for_each(|item| schema.drop_nulls(item));
            }
            _ => {}
        }
    }

    /// Whether any default is in it.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some() || self.children().any(Schema::has_defaults)
    }

    /// The schemas one step below.
    pub fn children(&self) -> impl Iterator<Item = &Schema> {
        let additional = match &self.additional {
            Additional::Schema(schema) => Some(&**schema),
            _ => None,
        };
        self.properties.values().chain(additional).chain(self.items.as_deref())
    }
}

/// An embedded object's metadata keeps nothing but what metadata has.
fn known_metadata(object: &mut Map<String, Value>) {
    let Some(metadata) = object.get_mut("metadata") else { return };
    if let Ok(known) = serde_json::from_value::<ObjectMeta>(metadata.clone()).and_then(serde_json::to_value) {
        *metadata = known;
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(value: Value) -> Schema {
        Schema::new(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn what_is_not_specified_is_dropped_and_named() {
        let schema = schema(json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"b": {"type": "object", "properties": {"c": {"type": "string"}}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {"type": "string"}}}},
            }}
        }}));
        let mut value = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "odd": 1}, "top": 1, "spec": {
            "a": "1", "z": 2, "list": [{"x": 1, "q": 2}], "free": {"k": {"l": 1}, "b": {"c": "1", "d": 2}}, "map": {"m": {"y": "1", "n": 1}}
        }});
        assert_eq!(schema.prune(&mut value, true), ["spec.free.b.d", "spec.list[0].q", "spec.map.m.n", "spec.z", "top"]);
        assert_eq!(value["spec"], json!({"a": "1", "list": [{"x": 1}], "free": {"k": {"l": 1}, "b": {"c": "1"}}, "map": {"m": {"y": "1"}}}));
    }

    #[test]
    fn defaults_fill_what_is_absent_or_null_at_every_depth() {
        let schema = schema(json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "replicas": {"type": "integer", "default": 3},
                "nullable": {"type": "string", "nullable": true, "default": "d"},
                "items": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
            }}
        }}));
        let filled = |mut value: Value| {
            schema.drop_nulls(&mut value);
            schema.fill(&mut value);
            value
        };
        assert_eq!(filled(json!({}))["spec"], json!({"replicas": 3, "nullable": "d"}));
        assert_eq!(filled(json!({"spec": {"replicas": null, "nullable": null}}))["spec"], json!({"replicas": 3, "nullable": null}));
        assert_eq!(filled(json!({"spec": {"items": [{}, {"p": "UDP"}]}}))["spec"]["items"], json!([{"p": "TCP"}, {"p": "UDP"}]));
    }
}

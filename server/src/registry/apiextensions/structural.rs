//! What a schema must be to be served: structural, and nothing that could not be checked in bounded time
//! (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go`, `.../pkg/apis/apiextensions/validation/validation.go`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool};
use regex::Regex;
use serde_json::{Value, json};
use shared::field::{Error, ErrorList, Path};

use super::check;
use super::rules;
use super::schema::Schema;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Where a schema is, which decides over what it must and may say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    /// The metadata of a whole object.
    Metadata,
    /// Below `allOf` and its like: only constraints.
    Junctor,
}

/// Errors of a version's schema.
pub fn validate(props: &JSONSchemaProps, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    if props.type_.as_deref() != Some("object") {
        errors.push(Error::invalid(&path.child("type"), props.type_.as_deref().unwrap_or_default(), "must be object at the root"));
    }
    if props.nullable == Some(true) {
        errors.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    walk(props, path, Place::Root, &mut errors);
    errors
}

fn walk(props: &JSONSchemaProps, path: &Path, place: Place, errors: &mut ErrorList) {
    forbidden(props, path, place, errors);
    types(props, path, place, errors);
    lists(props, path, errors);
    constraints(props, path, errors);
    if place != Place::Junctor {
        default(props, path, errors);
        rules::validate(&rules::compile(props, place == Place::Root), path, errors);
    }
    let whole = place == Place::Root || props.x_kubernetes_embedded_resource == Some(true);
    let inside = |place: Place, normal: Place| if place == Place::Junctor { Place::Junctor } else { normal };
    for (name, property) in props.properties.iter().flatten() {
        let path = path.child("properties").key(name);
        if whole && name == "metadata" && place != Place::Junctor {
            metadata(property, &path, errors);
            walk(property, &path, Place::Metadata, errors);
        } else {
            let place = if place == Place::Metadata { Place::Metadata } else { inside(place, Place::Field) };
            walk(property, &path, place, errors);
        }
    }
    if let Some(JSONSchemaPropsOrBool::Schema(schema)) = &props.additional_properties {
        if props.properties.as_ref().is_some_and(|p| !p.is_empty()) {
            errors.push(Error::forbidden(&path.child("additionalProperties"), "additionalProperties and properties are mutual exclusive"));
        }
        walk(schema, &path.child("additionalProperties"), inside(place, Place::Field), errors);
    }
    match &props.items {
        Some(JSONSchemaPropsOrArray::Schema(schema)) => walk(schema, &path.child("items"), inside(place, Place::Item), errors),
        Some(JSONSchemaPropsOrArray::Schemas(_)) => {
            errors.push(Error::forbidden(&path.child("items"), "items must be a schema object and not an array"));
        }
        None => {}
    }
    for (name, schemas) in [("allOf", &props.all_of), ("anyOf", &props.any_of), ("oneOf", &props.one_of)] {
        for (index, schema) in schemas.iter().flatten().enumerate() {
            walk(schema, &path.child(name).index(index), Place::Junctor, errors);
        }
    }
    if let Some(not) = &props.not {
        walk(not, &path.child("not"), Place::Junctor, errors);
    }
}

/// What no schema may have, and what none below a junctor may.
fn forbidden(props: &JSONSchemaProps, path: &Path, place: Place, errors: &mut ErrorList) {
    let mut refuse = |found: bool, field: &str, text: &str| {
        if found {
            errors.push(Error::forbidden(&path.child(field), text));
        }
    };
    refuse(props.unique_items == Some(true), "uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    refuse(
        matches!(props.additional_properties, Some(JSONSchemaPropsOrBool::Bool(false))),
        "additionalProperties",
        "additionalProperties cannot be set to false",
    );
    refuse(props.definitions.as_ref().is_some_and(|d| !d.is_empty()), "definitions", "definitions is not supported");
    refuse(props.dependencies.as_ref().is_some_and(|d| !d.is_empty()), "dependencies", "dependencies is not supported");
    refuse(props.pattern_properties.as_ref().is_some_and(|p| !p.is_empty()), "patternProperties", "patternProperties is not supported");
    refuse(props.additional_items.is_some(), "additionalItems", "additionalItems is not supported");
    refuse(props.ref_path.as_deref().is_some_and(|r| !r.is_empty()), "$ref", "$ref is not supported");
    refuse(props.id.as_deref().is_some_and(|r| !r.is_empty()), "id", "id is not supported");
    if place != Place::Junctor {
        return;
    }
    const STRUCTURAL: &str = "must be empty to be structural";
    let either = props.x_kubernetes_int_or_string == Some(true);
    refuse(props.description.as_deref().is_some_and(|d| !d.is_empty()), "description", STRUCTURAL);
    refuse(props.title.as_deref().is_some_and(|t| !t.is_empty()), "title", STRUCTURAL);
    refuse(props.type_.as_deref().is_some_and(|t| !t.is_empty() && !matches!(t, "integer" | "string")) && !either, "type", STRUCTURAL);
    refuse(props.default.is_some(), "default", "must be undefined to be structural");
    refuse(props.nullable == Some(true), "nullable", "must be false to be structural");
    refuse(props.additional_properties.is_some(), "additionalProperties", "must be undefined to be structural");
    let extensions = [
        ("x-kubernetes-preserve-unknown-fields", props.x_kubernetes_preserve_unknown_fields == Some(true)),
        ("x-kubernetes-embedded-resource", props.x_kubernetes_embedded_resource == Some(true)),
        ("x-kubernetes-int-or-string", either),
        ("x-kubernetes-validations", props.x_kubernetes_validations.as_ref().is_some_and(|v| !v.is_empty())),
    ];
    for (name, found) in extensions {
        refuse(found, name, if name.ends_with("validations") { STRUCTURAL } else { "must be false to be structural" });
    }
}

fn types(props: &JSONSchemaProps, path: &Path, place: Place, errors: &mut ErrorList) {
    let kind = props.type_.as_deref().unwrap_or_default();
    let at = path.child("type");
    let (either, keep, embedded) = (
        props.x_kubernetes_int_or_string == Some(true),
        props.x_kubernetes_preserve_unknown_fields == Some(true),
        props.x_kubernetes_embedded_resource == Some(true),
    );
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&at, kind, &TYPES));
    }
    if kind.is_empty() && !either && !keep {
        match place {
            Place::Root => errors.push(Error::required(&at, "must not be empty at the root")),
            Place::Field => errors.push(Error::required(&at, "must not be empty for specified object fields")),
            Place::Item => errors.push(Error::required(&at, "must not be empty for specified array items")),
            Place::Metadata | Place::Junctor => {}
        }
    }
    if either && !kind.is_empty() {
        errors.push(Error::forbidden(&at, "must be empty if x-kubernetes-int-or-string is true"));
    }
    if embedded && kind != "object" {
        let text = if kind.is_empty() { "must be object if x-kubernetes-embedded-resource is true" } else { "must be object" };
        errors.push(Error::invalid(&at, kind, text));
    }
    if embedded && !keep && props.properties.as_ref().is_none_or(|p| p.is_empty()) {
        errors.push(Error::required(
            &path.child("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
    if kind == "array" && props.items.is_none() && place != Place::Junctor {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if props.x_kubernetes_preserve_unknown_fields == Some(false) {
        errors.push(Error::invalid(&path.child("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined"));
    }
}

fn metadata(props: &JSONSchemaProps, path: &Path, errors: &mut ErrorList) {
    if props.type_.as_deref().is_some_and(|t| t != "object") {
        errors.push(Error::invalid(&path.child("type"), props.type_.as_deref(), "must be object"));
    }
    let named = props.properties.iter().flatten().all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    if !named || props.additional_properties.is_some() || props.default.is_some() {
        errors.push(Error::forbidden(path, "must not specify anything other than name and generateName, but metadata is implicitly specified"));
    }
}

/// `x-kubernetes-list-type`, `-list-map-keys` and `-map-type`.
fn lists(props: &JSONSchemaProps, path: &Path, errors: &mut ErrorList) {
    let kind = props.type_.as_deref().unwrap_or_default();
    let at = path.child("x-kubernetes-list-type");
    let keys = props.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    if let Some(list) = props.x_kubernetes_list_type.as_deref() {
        if kind != "array" {
            errors.push(Error::invalid(&path.child("type"), kind, "must be array if x-kubernetes-list-type is set"));
        }
        if !["atomic", "map", "set"].contains(&list) {
            errors.push(Error::not_supported(&at, list, &["atomic", "map", "set"]));
        }
        let items = match &props.items {
            Some(JSONSchemaPropsOrArray::Schema(schema)) => Some(&**schema),
            _ => None,
        };
        if list == "map" {
            if keys.is_empty() {
                errors.push(Error::required(&path.child("x-kubernetes-list-map-keys"), "must not be empty if x-kubernetes-list-type is map"));
            }
            if items.is_some_and(|i| i.type_.as_deref() != Some("object")) {
                errors.push(Error::invalid(
                    &path.child("items").child("type"),
                    items.and_then(|i| i.type_.as_deref()).unwrap_or_default(),
                    "must be object if parent array's x-kubernetes-list-type is map",
                ));
            }
            for (index, key) in keys.iter().enumerate() {
                let property = items.and_then(|i| i.properties.as_ref()).and_then(|p| p.get(key));
                let at = path.child("x-kubernetes-list-map-keys").index(index);
                match property {
                    None => errors.push(Error::invalid(&at, key, "entries must all be names of item properties")),
                    Some(p) if matches!(p.type_.as_deref(), Some("object" | "array")) => {
                        errors.push(Error::invalid(&at, key, "must be a scalar type if parent array's x-kubernetes-list-type is map"));
                    }
                    Some(p) => {
                        let required = items.and_then(|i| i.required.as_ref()).is_some_and(|r| r.contains(key));
                        if !required && p.default.is_none() {
                            let at = path.child("items").child("properties").key(key).child("default");
                            errors.push(Error::required(
                                &at,
                                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                            ));
                        }
                    }
                }
            }
        }
    }
    if !keys.is_empty() && props.x_kubernetes_list_type.as_deref() != Some("map") {
        errors.push(Error::invalid(
            &at,
            props.x_kubernetes_list_type.as_deref().unwrap_or_default(),
            "must be map if x-kubernetes-list-map-keys is non-empty",
        ));
    }
    if let Some(map) = props.x_kubernetes_map_type.as_deref() {
        if kind != "object" {
            errors.push(Error::invalid(&path.child("type"), kind, "must be object if x-kubernetes-map-type is specified"));
        }
        if !["atomic", "granular"].contains(&map) {
            errors.push(Error::not_supported(&path.child("x-kubernetes-map-type"), map, &["atomic", "granular"]));
        }
    }
}

fn constraints(props: &JSONSchemaProps, path: &Path, errors: &mut ErrorList) {
    if let Some(pattern) = props.pattern.as_deref()
        && let Err(error) = Regex::new(pattern)
    {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        errors.push(Error::invalid(&path.child("pattern"), pattern, &format!("must be a valid regular expression, but isn't: {reason}")));
    }
    for (field, least, most) in [
        ("minLength", props.min_length, props.max_length),
        ("minItems", props.min_items, props.max_items),
        ("minProperties", props.min_properties, props.max_properties),
    ] {
        if least.is_some_and(|l| l < 0) {
            errors.push(Error::invalid(&path.child(field), least, "must be greater than or equal to 0"));
        }
        if most.is_some_and(|m| m < 0) {
            errors.push(Error::invalid(&path.child(&field.replace("min", "max")), most, "must be greater than or equal to 0"));
        }
    }
}

/// A default must be what its schema allows, and say nothing that would be pruned.
fn default(props: &JSONSchemaProps, path: &Path, errors: &mut ErrorList) {
    let Some(default) = props.default.as_ref().map(|d| &d.0) else { return };
    let at = path.child("default");
    let schema = Schema::new(props);
    let mut value = default.clone();
    if default.is_null() && !schema.nullable {
        errors.push(Error::invalid(&at, Value::Null, "must not be null if nullable is not true"));
        return;
    }
    if !schema.prune(&mut value, false).is_empty() {
        errors.push(Error::invalid(&at, default, "must not have unspecified fields"));
    }
    schema.fill(&mut value);
    // Wrapped, because a value at the root is taken for a whole object.
    let name = "default";
    let wrapped = Schema { kind: "object".into(), properties: [(name.to_owned(), schema)].into(), ..Schema::default() };
    for error in check::object(&wrapped, &json!({ name: value }), None) {
        let text = error.to_string();
        errors.push(Error::invalid(&at, default, text.split_once(": ").map_or(text.as_str(), |(_, detail)| detail)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(value: Value) -> Vec<String> {
        let props: JSONSchemaProps = serde_json::from_value(value).unwrap();
        validate(&props, &Path::new("s")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_structural_schema_is_accepted() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}}},
            "spec": {"type": "object", "properties": {
                "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "any": {"x-kubernetes-preserve-unknown-fields": true},
                "n": {"type": "integer", "default": 1, "minimum": 0},
                "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                      "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}},
            }}
        }});
        assert_eq!(errors(schema), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_structural_is_named() {
        let with = |field: Value| errors(json!({"type": "object", "properties": {"f": field}}));
        assert_eq!(errors(json!({}))[0], "s.type: Invalid value: \"\": must be object at the root");
        assert_eq!(with(json!({})), ["s.properties[f].type: Required value: must not be empty for specified object fields"]);
        assert_eq!(with(json!({"type": "array"})), ["s.properties[f].items: Required value: must be specified"]);
        assert_eq!(
            with(json!({"type": "array", "items": {}})),
            ["s.properties[f].items.type: Required value: must not be empty for specified array items"]
        );
        assert!(
            with(json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}))[0]
                .ends_with("additionalProperties and properties are mutual exclusive")
        );
        assert!(with(json!({"type": "string", "default": 1}))[0].starts_with("s.properties[f].default: Invalid value: 1:"));
        assert!(with(json!({"type": "string", "pattern": "("}))[0].contains("must be a valid regular expression"));
        assert!(with(json!({"type": "object", "anyOf": [{"properties": {"a": {"type": "string", "default": "x"}}}]}))[0].contains("structural"));
    }
}

//! What the generic verbs do with objects of a kind that was defined at run time
//! (`k8s.io/apiextensions-apiserver/pkg/registry/customresource`).
//!
//! Owns the semantics of such objects; what their fields may be is their schema's.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;
use shared::field::{self, Error, Path};

use super::check;
use super::definition::{Definition, PrintedColumn, Slot};
use crate::registry::object::Custom;
use crate::registry::scale::Parts;
use crate::registry::store::{Findings, from_json};
use crate::registry::{Claim, DNS1123_SUBDOMAIN, Object, Ops, PrintContext, Ranges};

/// The behaviour of a row's objects.
pub struct CustomOps(pub Arc<Slot>);

const RIGHT_TYPE: &str = "verbs hand a kind only objects that its own decode made";

fn custom(object: &Object) -> &Custom {
    object.custom().expect(RIGHT_TYPE)
}

fn custom_mut(object: &mut Object) -> &mut Custom {
    object.custom_mut().expect(RIGHT_TYPE)
}

/// Decodes JSON into metadata and the rest, dropping what the schema of its version does not specify.
///
/// # Errors
/// It is no object, or its metadata is none.
pub fn decode(definition: &Definition, bytes: &[u8], findings: Option<&Findings>) -> serde_json::Result<Object> {
    let bad = <serde_json::Error as serde::de::Error>::custom::<&str>;
    let mut value: Value = from_json(bytes, findings)?;
    let Value::Object(map) = &mut value else { return Err(bad("an object is expected")) };
    for name in ["apiVersion", "kind"] {
        map.entry(name).or_insert_with(|| if name == "kind" { definition.kind.as_str() } else { definition.api_version.as_str() }.into());
    }
    let metadata = match map.remove("metadata").unwrap_or_default() {
        Value::Null => ObjectMeta::default(),
        given => metadata(&given, findings)?,
    };
    let version = map.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(schema) = definition.schema(&version) {
        schema.drop_nulls(&mut value);
        let unknown = schema.prune(&mut value, true);
        if let Some(findings) = findings {
            findings.unknown.borrow_mut().extend(unknown);
        }
    }
    let Value::Object(fields) = value else { return Err(bad("an object is expected")) };
    Ok(Object::from_custom(Custom { metadata, fields }))
}

fn metadata(given: &Value, findings: Option<&Findings>) -> serde_json::Result<ObjectMeta> {
    let own = Findings::default();
    let metadata = from_json(given.to_string().as_bytes(), Some(&own));
    if let Some(findings) = findings {
        let prefixed = |path: &String| format!("metadata.{path}");
        findings.unknown.borrow_mut().extend(own.unknown.borrow().iter().map(prefixed));
        if let Some(mut failed) = own.failed.take() {
            failed.path = prefixed(&failed.path);
            *findings.failed.borrow_mut() = Some(failed);
        }
    }
    metadata
}

impl CustomOps {
    fn check(&self, new: &Object, old: Option<&Object>) -> field::ErrorList {
        let definition = self.0.current();
        let Some(schema) = definition.own_schema() else { return Vec::new() };
        let value = |object: &Object| object.to_value().unwrap_or_default();
        let (new, old) = (value(new), old.map(value));
        let mut errors = check::object(schema, &new, old.as_ref());
        if let Some(scale) = &definition.scale {
            errors.extend(scale_errors(scale, &new));
        }
        errors
    }
}

/// Replicas are numbers that are not negative, selectors are texts (`customResourceStrategy.Validate`).
fn scale_errors(scale: &super::definition::ScalePaths, value: &Value) -> field::ErrorList {
    let mut errors = Vec::new();
    for pointer in [&scale.spec_replicas, &scale.status_replicas] {
        let path = Path::new(&pointer.trim_start_matches('/').replace('/', "."));
        match value.pointer(pointer) {
            None | Some(Value::Null) => {}
            Some(found) => match found.as_i64() {
                None => errors.push(Error::invalid(&path, found, "should be an integer")),
                Some(count) if count < 0 => errors.push(Error::invalid(&path, count, "should be a non-negative integer")),
                Some(count) if i32::try_from(count).is_err() => {
                    errors.push(Error::invalid(&path, count, &format!("should be less than or equal to {}", i32::MAX)));
                }
                Some(_) => {}
            },
        }
    }
    errors
}

/// Puts the status of one object into another.
fn take_status(into: &mut Custom, from: &Custom) {
    match from.fields.get("status") {
        Some(status) => drop(into.fields.insert("status".into(), status.clone())),
        None => drop(into.fields.remove("status")),
    }
}

impl Ops for CustomOps {
    fn decode(&self, bytes: &[u8]) -> serde_json::Result<Object> {
        decode(&self.0.current(), bytes, None)
    }
    fn decode_with(&self, bytes: &[u8], findings: &Findings) -> serde_json::Result<Object> {
        decode(&self.0.current(), bytes, Some(findings))
    }
    fn default(&self, object: &mut Object) {
        fill(&self.0.current(), custom_mut(object));
    }
    fn prepare_for_create(&self, object: &mut Object) {
        if self.0.current().status {
            custom_mut(object).fields.remove("status");
        }
    }
    fn validate(&self, object: &Object) -> field::ErrorList {
        self.check(object, None)
    }
    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        if self.0.current().status {
            take_status(custom_mut(new), custom(old));
        }
    }
    fn validate_update(&self, new: &Object, old: &Object) -> field::ErrorList {
        self.check(new, Some(old))
    }
    fn prepare_for_status_update(&self, new: &mut Object, old: &Object) {
        let (new, old) = (custom_mut(new), custom(old));
        let mut kept = old.clone();
        kept.metadata.managed_fields = new.metadata.managed_fields.take();
        take_status(&mut kept, new);
        *new = kept;
    }
    fn validate_status_update(&self, new: &Object, old: &Object) -> field::ErrorList {
        self.check(new, Some(old))
    }
    fn spec_changed(&self, new: &Object, old: &Object) -> bool {
        let status = self.0.current().status;
        let fields = |object: &Object| {
            let mut fields = custom(object).fields.clone();
            if status {
                fields.remove("status");
            }
            fields
        };
        fields(new) != fields(old)
    }
    fn claims(&self, _: &Object) -> Vec<Claim> {
        Vec::new()
    }
    fn allocate(&self, _: &mut Object, _: Option<&Object>, _: &Ranges, _: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
        Ok(())
    }
    fn grace_period(&self, _: &Object, _: Option<i64>) -> Option<i64> {
        None
    }
    fn holds_deletion(&self, _: &Object) -> bool {
        false
    }
    fn begin_deletion(&self, _: &mut Object) {}
    fn warnings(&self, _: &Object) -> Vec<String> {
        Vec::new()
    }
    fn validate_name(&self, name: &str) -> Result<(), String> {
        if shared::selector::is_dns1123_subdomain(name) { Ok(()) } else { Err(DNS1123_SUBDOMAIN.into()) }
    }
    fn cells(&self, object: &Object, context: &PrintContext) -> Vec<Value> {
        let definition = self.0.current();
        let value = object.to_value().unwrap_or_default();
        let name = Value::from(object.name());
        std::iter::once(name).chain(definition.columns.iter().skip(1).map(|c| cell(c, &value, context))).collect()
    }
    fn scale(&self, object: &Object) -> Option<Parts> {
        let definition = self.0.current();
        let paths = definition.scale.as_ref()?;
        let value = object.to_value().ok()?;
        let count = |pointer: &str| value.pointer(pointer).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
        let selector = paths.selector.as_ref().and_then(|p| value.pointer(p)).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Parts { replicas: count(&paths.spec_replicas)?, status_replicas: count(&paths.status_replicas).unwrap_or(0), selector })
    }
    fn set_replicas(&self, object: &mut Object, replicas: i32) -> bool {
        let definition = self.0.current();
        let Some(paths) = &definition.scale else { return false };
        let mut steps = paths.spec_replicas.split('/').skip(1).peekable();
        let mut at = &mut custom_mut(object).fields;
        while let Some(step) = steps.next() {
            if steps.peek().is_none() {
                at.insert(step.to_owned(), replicas.into());
                return true;
            }
            let Value::Object(next) = at.entry(step).or_insert_with(|| Value::Object(serde_json::Map::new())) else { return false };
            at = next;
        }
        false
    }
}

/// Fills in the defaults of an object's version.
pub fn fill(definition: &Definition, object: &mut Custom) {
    let version = object.fields.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(schema) = definition.schema(&version) else { return };
    let mut value = Value::Object(std::mem::take(&mut object.fields));
    schema.fill(&mut value);
    if let Value::Object(fields) = value {
        object.fields = fields;
    }
}

/// A cell of a column (`tableconvertor.ConvertToTable`).
fn cell(column: &PrintedColumn, object: &Value, context: &PrintContext) -> Value {
    let found = column.path.as_ref().and_then(|path| path.find(object, true).ok());
    let Some(value) = found.and_then(|groups| groups.into_iter().next()).and_then(|group| group.into_iter().next()) else { return Value::Null };
    match column.column.kind {
        "string" => shared::jsonpath::to_text(&value).into(),
        "integer" => value.as_i64().or_else(|| value.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from),
        "number" if value.is_number() => value,
        "boolean" if value.is_boolean() => value,
        "date" => match value.as_str().map(|text| text.parse().map(Time)) {
            Some(Ok(time)) => context.age(Some(&time)).into(),
            Some(Err(_)) => "<invalid>".into(),
            None => Value::Null,
        },
        _ => Value::Null,
    }
}

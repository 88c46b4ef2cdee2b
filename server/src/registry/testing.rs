//! What the tests of strategies share: objects from JSON, and one call for each question a test asks of a strategy.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{PrintContext, Strategy};

/// Decodes an object as the API does.
pub fn object<S: Strategy>(json: Value) -> S::Object {
    serde_json::from_value(with_type::<S>(json)).unwrap()
}

fn with_type<S: Strategy>(mut json: Value) -> Value {
    use k8s_openapi::Resource;
    json["apiVersion"] = <S::Object as Resource>::API_VERSION.into();
    json["kind"] = <S::Object as Resource>::KIND.into();
    json
}

fn untyped(object: &impl serde::Serialize) -> Value {
    let mut json = serde_json::to_value(object).unwrap();
    let map = json.as_object_mut().unwrap();
    map.remove("apiVersion");
    map.remove("kind");
    json
}

/// The object after defaulting, having checked that defaulting twice changes nothing more.
pub fn defaulted<S: Strategy>(json: Value) -> Value {
    let mut object = object::<S>(json);
    S::default(&mut object);
    let once = untyped(&object);
    S::default(&mut object);
    assert_eq!(untyped(&object), once, "defaulting is idempotent");
    once
}

/// The object as a create would store it.
pub fn created<S: Strategy>(json: Value) -> S::Object {
    let mut object = object::<S>(json);
    S::default(&mut object);
    S::prepare_for_create(&mut object);
    object
}

/// Validation errors of a create.
pub fn errors<S: Strategy>(json: Value) -> Vec<String> {
    S::validate(&created::<S>(json)).iter().map(ToString::to_string).collect()
}

/// Validation errors of an update.
pub fn update_errors<S: Strategy>(old: Value, new: Value) -> Vec<String> {
    let old = created::<S>(old);
    let mut new = object::<S>(new);
    S::default(&mut new);
    S::prepare_for_update(&mut new, &old);
    S::validate_update(&new, &old).iter().map(ToString::to_string).collect()
}

/// The time tests count ages to.
pub const NOW: &str = "2024-06-01T12:00:00Z";

/// The cells of a row at [`NOW`]; one for each column.
pub fn cells<S: Strategy>(json: Value) -> Vec<Value> {
    let cells = S::cells(&object::<S>(json), &PrintContext { now: NOW.parse::<Timestamp>().unwrap() });
    assert_eq!(cells.len(), S::COLUMNS.len(), "one cell for each column");
    cells
}

/// A JSON merge (RFC 7386) of `patch` into `base`, for tests that vary one thing.
pub fn with(mut base: Value, patch: Value) -> Value {
    fn merge(base: &mut Value, patch: Value) {
        match (base, patch) {
            (Value::Object(base), Value::Object(patch)) => {
                for (key, value) in patch {
                    if value.is_null() {
                        base.remove(&key);
                    } else {
                        merge(base.entry(key).or_insert(Value::Null), value);
                    }
                }
            }
            (base, patch) => *base = patch,
        }
    }
    merge(&mut base, patch);
    base
}

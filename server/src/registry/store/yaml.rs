//! YAML request bodies as JSON, within bounds: aliases let a few kilobytes stand for any number of values.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use shared::status::ApiError;

/// What a document may come to when every alias is written out: a unit for each value, and one for each byte of text. The largest
/// body without aliases stays below it.
const BUDGET: usize = 5 * 1024 * 1024;

/// A YAML document as JSON.
///
/// # Errors
/// 400 when it is not YAML, nests deeper than 128, holds what JSON cannot, or repeats itself through aliases beyond measure.
pub fn yaml_to_json(bytes: &[u8]) -> Result<Vec<u8>, ApiError> {
    let bad = |error: &dyn fmt::Display| ApiError::bad_request(format!("error converting YAML to JSON: yaml: {error}"));
    // JSON is YAML, and what kubectl applies.
    if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        return Ok(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).map_err(|e| bad(&e))?;
    if serde_saphyr::budget::parse_yaml(text, nesting()).map_err(|e| bad(&e))? {
        return Err(bad(&"the document is beyond the limits on depth, aliases or values"));
    }
    let left = Cell::new(BUDGET);
    let value = Bounded(&left).deserialize(serde_yaml::Deserializer::from_slice(bytes)).map_err(|e| bad(&e))?;
    serde_json::to_vec(&value).map_err(|e| bad(&e))
}

/// What a document may hold before libyaml, whose time grows with the square of the nesting, gets to see it.
fn nesting() -> serde_saphyr::Budget {
    let mut budget = serde_saphyr::Budget::default();
    (budget.max_depth, budget.flow_nesting_limit, budget.max_nodes) = (128, 128, 2_000_000);
    budget
}

/// Builds a value while there is budget left.
#[derive(Clone, Copy)]
struct Bounded<'a>(&'a Cell<usize>);

impl Bounded<'_> {
    fn take<E: Error>(self, units: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(units).ok_or_else(|| E::custom("document contains excessive aliasing"))?;
        self.0.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        self.take(1)?;
        inner.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom(format!("json: unsupported value: {value}")))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.take(value.len())?;
        Ok(Value::String(value.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            self.take(key.len())?;
            let value = members.next_value_seed(self)?;
            if out.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} already set in map")));
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(yaml: &str) -> Value {
        serde_json::from_slice(&yaml_to_json(yaml.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn every_value_json_has_comes_through() {
        let value = json("a: [1, -2, 1.5, true, null, ~, text, \"1\"]\nb: &x {c: d}\ne: *x\n");
        assert_eq!(value, serde_json::json!({"a": [1, -2, 1.5, true, null, null, "text", "1"], "b": {"c": "d"}, "e": {"c": "d"}}));
        assert!(yaml_to_json(b"a: .inf").is_err() && yaml_to_json(b"a: 1\na: 2").is_err() && yaml_to_json(b"a: [").is_err());
    }

    #[test]
    fn aliases_cannot_grow_beyond_bounds() {
        let anchor = format!("a: &a [{}]\n", vec!["x"; 100_000].join(","));
        let quadratic = format!("{anchor}b: [{}]\n", vec!["*a"; 50_000].join(","));
        let error = yaml_to_json(quadratic.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("beyond the limits"), "{error}");
        let levels: String = (1..40).map(|n| format!("a{n}: &a{n} [*a{0},*a{0}]\n", n - 1)).collect();
        assert!(yaml_to_json(format!("a0: &a0 x\n{levels}").as_bytes()).is_err());
    }
}

//! From JSON to the wire.
//!
//! Owns the writing of fields. What is not in the table is left out; what has a form that its type cannot have was refused long before.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{Alternative, JSON_SCHEMA, MAGIC, Message, SCHEMA, Type};

/// A body: the magic number, the type, the object.
pub(super) fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 32);
    out.extend_from_slice(MAGIC);
    delimited(&mut out, 1, |out| {
        bytes(out, 1, api_version.as_bytes());
        bytes(out, 2, kind.as_bytes());
    });
    bytes(&mut out, 2, raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    out
}

/// A frame of a watch: the length of a WatchEvent in four bytes, then the event, whose object is a body of its own in a RawExtension.
pub(super) fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    bytes(&mut out, 1, event.as_bytes());
    delimited(&mut out, 2, |out| bytes(out, 1, object));
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn tag(out: &mut Vec<u8>, number: u64, wire: u64) {
    varint(out, number << 3 | wire);
}

fn bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    tag(out, number, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn integer(out: &mut Vec<u8>, number: u64, value: i64) {
    tag(out, number, 0);
    // Two's complement: a negative int32 takes 64 bits, too.
    varint(out, value.cast_unsigned());
}

/// A field whose length is known only when it is written.
pub(super) fn delimited(out: &mut Vec<u8>, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(out, number, &inner);
}

/// An object's fields.
pub(super) fn message(out: &mut Vec<u8>, message: &Message, object: &Map<String, Value>) {
    for (number, field) in message {
        if field.inline {
            if let Type::Message(name) = &field.kind
                && let Some(inner) = SCHEMA.get(name.as_str())
            {
                delimited(out, *number, |out| self::message(out, inner, object));
            }
        } else if let Some(value) = object.get(field.name) {
            self::value(out, *number, &field.kind, value);
        }
    }
}

/// A field's value; nothing for `null`.
fn value(out: &mut Vec<u8>, number: u64, kind: &Type, value: &Value) {
    match (kind, value) {
        (Type::Text, Value::String(text)) => bytes(out, number, text.as_bytes()),
        (Type::Bool, Value::Bool(set)) => integer(out, number, i64::from(*set)),
        (Type::Integer, Value::Number(n)) => integer(out, number, n.as_i64().unwrap_or_default()),
        (Type::Double, Value::Number(n)) => {
            tag(out, number, 1);
            out.extend_from_slice(&n.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Type::Bytes, Value::String(text)) => bytes(out, number, &STANDARD.decode(text).unwrap_or_default()),
        (Type::Time { micro }, Value::String(text)) => time(out, number, text, *micro),
        (Type::Quantity, Value::String(text)) => delimited(out, number, |out| bytes(out, 1, text.as_bytes())),
        (Type::Quantity, Value::Number(n)) => delimited(out, number, |out| bytes(out, 1, n.to_string().as_bytes())),
        (Type::IntOrString, Value::Number(n)) => delimited(out, number, |out| {
            integer(out, 1, 0);
            integer(out, 2, n.as_i64().unwrap_or_default());
            bytes(out, 3, b"");
        }),
        (Type::IntOrString, Value::String(text)) => delimited(out, number, |out| {
            integer(out, 1, 1);
            integer(out, 2, 0);
            bytes(out, 3, text.as_bytes());
        }),
        (Type::Json { raw_extension }, value) if !(value.is_null() && *raw_extension) => {
            delimited(out, number, |out| bytes(out, 1, value.to_string().as_bytes()));
        }
        (Type::Texts, Value::Array(items)) => delimited(out, number, |out| texts(out, items)),
        (Type::Schema(or), value) => schema(out, number, *or, value),
        (Type::Message(name), Value::Object(object)) => {
            if let Some(inner) = SCHEMA.get(name.as_str()) {
                delimited(out, number, |out| message(out, inner, object));
            }
        }
        (Type::List(item), Value::Array(items)) => items.iter().for_each(|value| self::value(out, number, item, value)),
        (Type::Map(kind), Value::Object(entries)) => {
            for (key, value) in entries {
                delimited(out, number, |out| {
                    bytes(out, 1, key.as_bytes());
                    self::value(out, 2, kind, value);
                });
            }
        }
        _ => {}
    }
}

fn texts(out: &mut Vec<u8>, items: &[Value]) {
    for text in items.iter().filter_map(Value::as_str) {
        bytes(out, 1, text.as_bytes());
    }
}

/// Seconds and nanoseconds; of a Time, only the seconds.
fn time(out: &mut Vec<u8>, number: u64, text: &str, micro: bool) {
    let Ok(time) = text.parse::<jiff::Timestamp>() else { return };
    // Nanoseconds of a time before 1970 count up from the whole second below it.
    let nanos = time.as_nanosecond();
    let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    delimited(out, number, |out| {
        integer(out, 1, i64::try_from(seconds).unwrap_or_default());
        integer(out, 2, if micro { i64::try_from(rest).unwrap_or_default() } else { 0 });
    });
}

/// A JSON schema, or what may stand in its place.
fn schema(out: &mut Vec<u8>, number: u64, or: Alternative, value: &Value) {
    let props = |out: &mut Vec<u8>, number, object: &Map<String, Value>| {
        if let Some(inner) = SCHEMA.get(JSON_SCHEMA) {
            delimited(out, number, |out| message(out, inner, object));
        }
    };
    delimited(out, number, |out| match (or, value) {
        (Alternative::Bool, Value::Bool(allows)) => integer(out, 1, i64::from(*allows)),
        (Alternative::Bool, Value::Object(object)) => {
            integer(out, 1, 1);
            props(out, 2, object);
        }
        (_, Value::Object(object)) => props(out, 1, object),
        (Alternative::List, Value::Array(items)) => items.iter().filter_map(Value::as_object).for_each(|object| props(out, 2, object)),
        (Alternative::Texts, Value::Array(items)) => items.iter().filter_map(Value::as_str).for_each(|text| bytes(out, 2, text.as_bytes())),
        _ => {}
    });
}

//! From the wire to JSON.
//!
//! Owns the reading of fields. Unknown ones are dropped, as upstream drops them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Alternative, MAGIC, Message, SCHEMA, Type, to_json};

/// No message of the API nests deeper.
const DEPTH: usize = 64;

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("unexpected end of data")]
    End,
    #[error("field {0} has wire type {1}")]
    WireType(u64, u8),
    #[error("a number is too long")]
    Varint,
    #[error("text is not UTF-8")]
    Text,
    #[error("{0}")]
    Json(serde_json::Error),
    #[error("messages are nested too deeply")]
    Depth,
    #[error("a time is out of range")]
    Time,
}

/// A value as it is on the wire.
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// 32 bits, which nothing of the API uses.
    Other,
}

pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Error::End)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Varint)
    }
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::End)?;
        self.0 = rest;
        Ok(taken)
    }
    /// The next field; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::End)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Other
            }
            other => return Err(Error::WireType(number, u8::try_from(other).unwrap_or(u8::MAX))),
        };
        Ok(Some((number, wire)))
    }
}

pub(super) fn text_of(bytes: &[u8]) -> Result<String, Error> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Error::Text)
}

pub(super) fn read_message(message: &Message, bytes: &[u8], into: &mut Map<String, Value>, depth: usize) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(Error::Depth);
    }
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        // A newer client's field is unknown here, and dropped as upstream drops it.
        let Some(field) = message.get(&number) else { continue };
        match (&field.kind, wire) {
            (Type::Message(name), Wire::Bytes(bytes)) if field.inline => {
                if let Some(inner) = SCHEMA.get(name.as_str()) {
                    read_message(inner, bytes, into, depth + 1)?;
                }
            }
            (Type::List(item), wire) => {
                let item = read_value(item, wire, number, depth)?;
                match into.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(items) => items.extend(item),
                    _ => return Err(Error::WireType(number, 2)),
                }
            }
            (Type::Map(value), Wire::Bytes(bytes)) => {
                let (key, value) = read_entry(value, bytes, depth)?;
                match into.entry(field.name).or_insert_with(|| Value::Object(Map::new())) {
                    Value::Object(entries) => drop(entries.insert(key, value)),
                    _ => return Err(Error::WireType(number, 2)),
                }
            }
            (kind, wire) => {
                if let Some(value) = read_value(kind, wire, number, depth)?
                    && !(field.omit_zero && is_zero(&value))
                {
                    into.insert(field.name.into(), value);
                }
            }
        }
    }
    Ok(())
}

/// A map's entry: key 1, value 2, either of which may be left out when it is zero.
fn read_entry(kind: &Type, bytes: &[u8], depth: usize) -> Result<(String, Value), Error> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text_of(bytes)?,
            (2, wire) => value = read_value(kind, wire, number, depth)?,
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_else(|| zero(kind))))
}

fn zero(kind: &Type) -> Value {
    match kind {
        Type::Text | Type::Bytes | Type::Quantity => "".into(),
        Type::Bool => false.into(),
        Type::Integer | Type::Double | Type::IntOrString => 0.into(),
        Type::Texts | Type::List(_) => Value::Array(Vec::new()),
        Type::Message(_) | Type::Map(_) => Value::Object(Map::new()),
        Type::Time { .. } | Type::Json { .. } | Type::Schema(_) => Value::Null,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// One value; `None` for a time that was not set.
fn read_value(kind: &Type, wire: Wire<'_>, number: u64, depth: usize) -> Result<Option<Value>, Error> {
    Ok(Some(match (kind, wire) {
        (Type::Text, Wire::Bytes(bytes)) => text_of(bytes)?.into(),
        (Type::Bool, Wire::Varint(value)) => (value != 0).into(),
        // Two's complement: a negative int32 is sent as 64 bits, too.
        (Type::Integer, Wire::Varint(value)) => value.cast_signed().into(),
        (Type::Double, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Type::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Type::Time { micro }, Wire::Bytes(bytes)) => return read_time(bytes, *micro),
        (Type::Quantity, Wire::Bytes(bytes)) => first_text(bytes, 1)?.into(),
        (Type::IntOrString, Wire::Bytes(bytes)) => read_int_or_string(bytes)?,
        (Type::Json { raw_extension }, Wire::Bytes(bytes)) => return read_json(bytes, *raw_extension),
        (Type::Texts, Wire::Bytes(bytes)) => {
            let mut items = Vec::new();
            let mut reader = Reader(bytes);
            while let Some((number, wire)) = reader.field()? {
                if let (1, Wire::Bytes(text)) = (number, wire) {
                    items.push(Value::String(text_of(text)?));
                }
            }
            Value::Array(items)
        }
        (Type::Schema(or), Wire::Bytes(bytes)) => read_schema(*or, bytes, depth)?,
        (Type::Message(name), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            if let Some(message) = SCHEMA.get(name.as_str()) {
                read_message(message, bytes, &mut object, depth + 1)?;
            }
            Value::Object(object)
        }
        (_, wire) => {
            let wire = match wire {
                Wire::Varint(_) => 0,
                Wire::Fixed64(_) => 1,
                Wire::Bytes(_) => 2,
                Wire::Other => 5,
            };
            return Err(Error::WireType(number, wire));
        }
    }))
}

/// A JSON schema, or what may stand in its place.
fn read_schema(or: Alternative, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let (mut schema, mut texts, mut schemas, mut allows) = (None, Vec::new(), Vec::new(), false);
    let props = |bytes| {
        let mut object = Map::new();
        if let Some(message) = SCHEMA.get(super::JSON_SCHEMA) {
            read_message(message, bytes, &mut object, depth + 1)?;
        }
        Ok(Value::Object(object))
    };
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (or, number, wire) {
            (Alternative::Bool, 1, Wire::Varint(value)) => allows = value != 0,
            (Alternative::Bool, 2, Wire::Bytes(bytes)) | (Alternative::List | Alternative::Texts, 1, Wire::Bytes(bytes)) => {
                schema = Some(props(bytes)?)
            }
            (Alternative::List, 2, Wire::Bytes(bytes)) => schemas.push(props(bytes)?),
            (Alternative::Texts, 2, Wire::Bytes(bytes)) => texts.push(Value::String(text_of(bytes)?)),
            _ => {}
        }
    }
    Ok(schema.unwrap_or_else(|| match or {
        Alternative::Bool => allows.into(),
        Alternative::List => schemas.into(),
        Alternative::Texts => texts.into(),
    }))
}

/// The text in a field of a small message.
fn first_text(bytes: &[u8], wanted: u64) -> Result<String, Error> {
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (true, Wire::Bytes(text)) = (number == wanted, wire) {
            return text_of(text);
        }
    }
    Ok(String::new())
}

/// Seconds 1 and nanoseconds 2; an empty message is no time.
fn read_time(bytes: &[u8], micro: bool) -> Result<Option<Value>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(value)) => seconds = value.cast_signed(),
            (2, Wire::Varint(value)) => nanos = value.cast_signed(),
            _ => {}
        }
    }
    let nanos = i32::try_from(nanos).map_err(|_| Error::Time)?;
    let time = jiff::Timestamp::new(seconds, if micro { nanos } else { 0 }).map_err(|_| Error::Time)?;
    Ok(Some(if micro { format!("{time:.6}") } else { format!("{time:.0}") }.into()))
}

/// Type 1 (0 is a number), number 2, text 3.
fn read_int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0i64, String::new());
    let mut reader = Reader(bytes);
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Wire::Varint(value)) => is_text = value == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => text = text_of(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// JSON in field 1. A RawExtension may hold another protobuf object instead.
fn read_json(bytes: &[u8], raw_extension: bool) -> Result<Option<Value>, Error> {
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(json)) = (number, wire) {
            if json.is_empty() {
                return Ok(None);
            }
            let inner = match json.starts_with(MAGIC) && raw_extension {
                true => to_json(json).map_err(|e| Error::Json(serde::de::Error::custom(e)))?,
                false => Bytes::copy_from_slice(json),
            };
            return serde_json::from_slice(&inner).map(Some).map_err(Error::Json);
        }
    }
    Ok(None)
}

//! Kubernetes' protobuf bodies, read into JSON (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).
//!
//! Stock kubectl and kube components send protobuf and have no fallback, though they all accept JSON back; so this reads and never
//! writes. Owns the wire format and the table of field numbers in `schema.txt`. Must never know what a field means.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};
use shared::status::ApiError;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every such body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// No message of the API nests deeper.
const DEPTH: usize = 64;

/// How a field's bytes become JSON.
#[derive(Debug)]
enum Type {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    Time { micro: bool },
    Quantity,
    IntOrString,
    Json { raw_extension: bool },
    Texts,
    Message(String),
    List(Box<Type>),
    Map(Box<Type>),
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    inline: bool,
    /// Left out when zero.
    omit_zero: bool,
    kind: Type,
}

type Message = HashMap<u64, Field>;

static SCHEMA: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let mut messages: HashMap<&'static str, Message> = HashMap::new();
    let mut current = "";
    for line in include_str!("schema.txt").lines().filter(|l| !l.starts_with('#')) {
        let Some(field) = line.strip_prefix(' ') else {
            current = line;
            messages.insert(current, Message::new());
            continue;
        };
        let mut words = field.split(' ');
        let (Some(number), Some(name), Some(kind)) = (words.next().and_then(|n| n.parse().ok()), words.next(), words.next()) else { continue };
        let omit_zero = kind.starts_with('?');
        let kind = Type::parse(kind.trim_start_matches('?'));
        messages.entry(current).or_default().insert(number, Field { name, inline: name == "^", omit_zero, kind });
    }
    messages
});

impl Type {
    fn parse(text: &str) -> Self {
        let rest = text.get(1..).unwrap_or_default();
        match text.as_bytes().first() {
            Some(b'b') => Type::Bool,
            Some(b'i') => Type::Integer,
            Some(b'd') => Type::Double,
            Some(b'y') => Type::Bytes,
            Some(b'T') => Type::Time { micro: false },
            Some(b'U') => Type::Time { micro: true },
            Some(b'Q') => Type::Quantity,
            Some(b'I') => Type::IntOrString,
            Some(b'F') => Type::Json { raw_extension: false },
            Some(b'R') => Type::Json { raw_extension: true },
            Some(b'E') => Type::Texts,
            Some(b'M') => Type::Message(rest.to_owned()),
            Some(b'[') => Type::List(Box::new(Type::parse(rest))),
            Some(b'{') => Type::Map(Box::new(Type::parse(rest))),
            _ => Type::Text,
        }
    }
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
enum Error {
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

/// Turns a protobuf body into the JSON of the same object.
///
/// # Errors
/// 400 for bytes that are not a Kubernetes protobuf object, 415 for a kind whose field numbers are not known.
pub fn to_json(body: &[u8]) -> Result<Bytes, ApiError> {
    let bad = |e: &dyn std::fmt::Display| ApiError::bad_request(format!("the protobuf body cannot be read: {e}"));
    let envelope =
        body.strip_prefix(MAGIC).ok_or_else(|| bad(&"provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut outer = Reader(envelope);
    while let Some((number, wire)) = outer.field().map_err(|e| bad(&e))? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((number, wire)) = meta.field().map_err(|e| bad(&e))? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => api_version = text_of(text).map_err(|e| bad(&e))?,
                        (2, Wire::Bytes(text)) => kind = text_of(text).map_err(|e| bad(&e))?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = message_name(&api_version, &kind);
    let message = SCHEMA.get(name.as_str()).ok_or_else(|| {
        ApiError::unsupported_media_type(format!(
            "{kind} in version {api_version:?} is not accepted as protobuf, only as application/json or application/yaml"
        ))
    })?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    read_message(message, raw, &mut object, 0).map_err(|e| bad(&e))?;
    serde_json::to_vec(&object).map(Bytes::from).map_err(|e| bad(&e))
}

/// `core/v1.Pod`; DeleteOptions are the same in every group.
fn message_name(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta/v1.DeleteOptions".into();
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    format!("{}/{version}.{kind}", group.split('.').next().unwrap_or_default())
}

/// A value as it is on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// 32 bits, which nothing of the API uses.
    Other,
}

struct Reader<'a>(&'a [u8]);

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
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, Error> {
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

fn text_of(bytes: &[u8]) -> Result<String, Error> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Error::Text)
}

fn read_message(message: &Message, bytes: &[u8], into: &mut Map<String, Value>, depth: usize) -> Result<(), Error> {
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
        Type::Time { .. } | Type::Json { .. } => Value::Null,
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

#[cfg(test)]
mod tests;

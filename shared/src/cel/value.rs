//! What an expression computes with: CEL's values, the Kubernetes extension types among them, and their way from and to JSON.
//!
//! Owns equality, ordering and conversion. Must never evaluate.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::EvalError;
use super::functions::net::Cidr;
use super::functions::semver::Semver;
use super::functions::url::Url;
use super::time;
use super::types::Type;
use crate::quantity::Quantity;

/// A CEL value. Cheap to clone.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Arc<Vec<Value>>),
    Map(Arc<BTreeMap<Key, Value>>),
    Timestamp(jiff::Timestamp),
    /// In nanoseconds, as Go's `time.Duration`.
    Duration(i64),
    Type(Arc<str>),
    Optional(Option<Arc<Value>>),
    Message(Arc<Message>),
    Quantity(Quantity),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Arc<Semver>),
    /// A named text format (`format.dns1123Label()`).
    Format(&'static str),
    Opaque(Arc<dyn Opaque>),
}

/// A struct that an expression built, e.g. `Object.spec{replicas: 3}`.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its type's name.
    pub name: Arc<str>,
    /// The fields that were set.
    pub fields: BTreeMap<Arc<str>, Value>,
}

/// A value that somebody else implements: the authorizer, or variables that are computed when asked for.
pub trait Opaque: fmt::Debug + Send + Sync {
    /// Its CEL type.
    fn type_name(&self) -> &'static str;
    /// A field of it; `None` when there is no such field.
    fn field(&self, _name: &str) -> Option<Result<Value, EvalError>> {
        None
    }
    /// A member function; `None` when there is no such function.
    fn call(&self, _function: &str, _args: &[Value]) -> Option<Result<Value, EvalError>> {
        None
    }
    /// For its own functions, to get at what it is.
    fn any(&self) -> &dyn Any;
}

/// A map's key. Integers of both sorts are one key, as CEL's equality has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Key {
    Bool(bool),
    Int(i64),
    /// Only what is too large for [`Key::Int`].
    Uint(u64),
    String(Arc<str>),
}

impl Key {
    /// The key a value stands for; doubles count when they are whole.
    pub fn of(value: &Value) -> Option<Key> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(i) => Key::Int(*i),
            Value::Uint(u) => i64::try_from(*u).map_or(Key::Uint(*u), Key::Int),
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 9e18 => Key::Int(*d as i64),
            Value::String(s) => Key::String(s.clone()),
            _ => return None,
        })
    }

    /// The key as a value again.
    pub fn value(&self) -> Value {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Int(i) => Value::Int(*i),
            Key::Uint(u) => Value::Uint(*u),
            Key::String(s) => Value::String(s.clone()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Bool(b) => b.fmt(f),
            Key::Int(i) => i.fmt(f),
            Key::Uint(u) => u.fmt(f),
            Key::String(s) => s.fmt(f),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Value::List(Arc::new(items))
    }
}

impl Value {
    /// A map with these fields.
    pub fn map<K: Into<Arc<str>>>(fields: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::Map(Arc::new(fields.into_iter().map(|(k, v)| (Key::String(k.into()), v)).collect()))
    }

    /// A present optional.
    pub fn some(value: Value) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    /// JSON as it is: what a schema would make more of (times, bytes) stays text.
    pub fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Value::Int(i),
                (None, Some(u)) => Value::Uint(u),
                _ => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(s) => Value::String(s.as_str().into()),
            Json::Array(items) => Value::List(Arc::new(items.iter().map(Value::from_json).collect())),
            Json::Object(fields) => Value::map(fields.iter().map(|(k, v)| (k.as_str(), Value::from_json(v)))),
        }
    }

    /// JSON as a schema sees it: times, durations and bytes are themselves, whole numbers are doubles where the schema says so, and
    /// field names that are CEL's own words are escaped. What does not fit the schema stays as it is.
    pub fn from_typed_json(json: &Json, of: &Type) -> Self {
        match (json, of) {
            (Json::Number(n), Type::Double) => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
            (Json::String(s), Type::Timestamp) => time::parse_timestamp(s).map_or_else(|| Value::from(s.as_str()), Value::Timestamp),
            (Json::String(s), Type::Duration) => time::parse_duration(s).map_or_else(|| Value::from(s.as_str()), Value::Duration),
            (Json::String(s), Type::Bytes) => STANDARD.decode(s).map_or_else(|_| Value::from(s.as_str()), |b| Value::Bytes(b.into())),
            (Json::Array(items), Type::List(item)) => Value::List(Arc::new(items.iter().map(|i| Value::from_typed_json(i, item)).collect())),
            (Json::Object(fields), Type::Map(_, value)) => Value::map(fields.iter().map(|(k, v)| (k.as_str(), Value::from_typed_json(v, value)))),
            (Json::Object(fields), Type::Object(object)) => Value::map(fields.iter().filter(|(_, v)| !v.is_null()).map(|(name, value)| {
                let name = super::types::escape(name);
                let of = object.fields.field(&name).unwrap_or(Type::Dyn);
                (name, Value::from_typed_json(value, &of))
            })),
            _ => Value::from_json(json),
        }
    }

    /// As JSON, the way CEL's own conversion writes values.
    ///
    /// # Errors
    /// When a value has no JSON form.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        Ok(match self {
            Value::Null | Value::Optional(None) => Json::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(i) => (*i).into(),
            Value::Uint(u) => (*u).into(),
            Value::Double(d) => serde_json::Number::from_f64(*d).map_or(Json::Null, Json::Number),
            Value::String(s) => s.as_ref().into(),
            Value::Bytes(b) => STANDARD.encode(b).into(),
            Value::List(items) => Json::Array(items.iter().map(Value::to_json).collect::<Result<_, _>>()?),
            Value::Map(entries) => Json::Object(entries.iter().map(|(k, v)| Ok((k.to_string(), v.to_json()?))).collect::<Result<_, EvalError>>()?),
            Value::Message(m) => {
                Json::Object(m.fields.iter().map(|(k, v)| Ok((super::types::unescape(k), v.to_json()?))).collect::<Result<_, EvalError>>()?)
            }
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Timestamp(t) => t.to_string().into(),
            Value::Duration(d) => time::format_duration(*d).into(),
            Value::Quantity(q) => q.to_string().into(),
            other => return Err(EvalError::new(format!("type conversion error from '{}' to JSON", other.type_name()))),
        })
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Type(_) => "type",
            Value::Optional(_) => "optional_type",
            Value::Message(m) => &m.name,
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Url(_) => "kubernetes.URL",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Opaque(o) => o.type_name(),
        }
    }

    /// How large it is, for what work on it costs.
    pub(super) fn size(&self) -> u64 {
        match self {
            Value::String(s) => s.len() as u64,
            Value::Bytes(b) => b.len() as u64,
            Value::List(items) => items.len() as u64,
            Value::Map(entries) => entries.len() as u64,
            _ => 1,
        }
    }

    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        use Value::{Bool, Bytes, Cidr, Double, Duration, Format, Int, Ip, List, Map, Message, Null, Optional, Semver, Timestamp, Type, Uint};
        match (self, other) {
            (Null, Null) => true,
            (Bool(a), Bool(b)) => a == b,
            (Int(_) | Uint(_) | Double(_), Int(_) | Uint(_) | Double(_)) => compare_numbers(self, other) == Some(Ordering::Equal),
            (Value::String(a), Value::String(b)) => a == b,
            (Bytes(a), Bytes(b)) => a == b,
            (List(a), List(b)) => a == b,
            (Map(a), Map(b)) => a == b,
            (Timestamp(a), Timestamp(b)) => a == b,
            (Duration(a), Duration(b)) => a == b,
            (Type(a), Type(b)) => a == b,
            (Optional(a), Optional(b)) => a == b,
            (Message(a), Message(b)) => a.name == b.name && a.fields == b.fields,
            (Value::Quantity(a), Value::Quantity(b)) => a == b,
            (Value::Url(a), Value::Url(b)) => a == b,
            (Ip(a), Ip(b)) => a == b,
            (Cidr(a), Cidr(b)) => a == b,
            (Semver(a), Semver(b)) => a == b,
            (Format(a), Format(b)) => a == b,
            (Value::Opaque(a), Value::Opaque(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The order of two numbers of whatever sort; `None` when one is not a number.
pub(super) fn compare_numbers(a: &Value, b: &Value) -> Option<Ordering> {
    use Value::{Double, Int, Uint};
    // A double holds no integer beyond 2^53 exactly, so the whole part is compared as an integer.
    let with_double = |whole: i128, d: f64| {
        if d.is_nan() {
            return None;
        }
        let (floor, fraction) = (d.floor(), d - d.floor());
        if floor >= 2e19 {
            return Some(Ordering::Less);
        }
        if floor <= -2e19 {
            return Some(Ordering::Greater);
        }
        Some(whole.cmp(&(floor as i128)).then(if fraction > 0.0 { Ordering::Less } else { Ordering::Equal }))
    };
    match (a, b) {
        (Int(a), Int(b)) => Some(a.cmp(b)),
        (Uint(a), Uint(b)) => Some(a.cmp(b)),
        (Double(a), Double(b)) => a.partial_cmp(b),
        (Int(a), Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Uint(a), Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Int(a), Double(b)) => with_double(i128::from(*a), *b),
        (Uint(a), Double(b)) => with_double(i128::from(*a), *b),
        (Double(a), Int(b)) => with_double(i128::from(*b), *a).map(Ordering::reverse),
        (Double(a), Uint(b)) => with_double(i128::from(*b), *a).map(Ordering::reverse),
        _ => None,
    }
}

/// The order of two values; `None` when there is none between them.
pub(super) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        _ => compare_numbers(a, b),
    }
}

/// Whether it is a number of any sort.
pub(super) fn is_number(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_))
}

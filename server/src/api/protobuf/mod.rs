//! Kubernetes' protobuf bodies, to and from JSON (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).
//!
//! Stock kubectl and kube components send protobuf and have no fallback, and ask for it. Objects are JSON here, so both ways go through
//! the same table of field numbers, `schema.txt`. Owns the wire format and that table. Must never know what a field means.

mod read;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use shared::status::ApiError;

use read::{Reader, Wire, read_message, text_of};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every such body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// The message of JSON schemas, which may stand for lists, booleans and texts.
const JSON_SCHEMA: &str = "apiextensions/v1.JSONSchemaProps";
/// Messages that are the same in every group, and are named by kind alone.
const EVERYWHERE: [&str; 2] = ["DeleteOptions", "Status"];

/// How a field's bytes become JSON.
#[derive(Debug)]
enum Type {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    Time {
        micro: bool,
    },
    Quantity,
    IntOrString,
    Json {
        raw_extension: bool,
    },
    Texts,
    /// A JSON schema, or what may stand in its place.
    Schema(Alternative),
    Message(String),
    List(Box<Type>),
    Map(Box<Type>),
}

/// What may stand in a JSON schema's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alternative {
    List,
    Bool,
    Texts,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    inline: bool,
    /// Left out when zero.
    omit_zero: bool,
    kind: Type,
}

/// Fields by number, which is the order in which they are written.
type Message = BTreeMap<u64, Field>;

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
            Some(b'J') => Type::Schema(match rest {
                "a" => Alternative::List,
                "b" => Alternative::Bool,
                _ => Alternative::Texts,
            }),
            Some(b'M') => Type::Message(rest.to_owned()),
            Some(b'[') => Type::List(Box::new(Type::parse(rest))),
            Some(b'{') => Type::Map(Box::new(Type::parse(rest))),
            _ => Type::Text,
        }
    }
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

/// `core/v1.Pod`; a few kinds are the same in every group.
fn message_name(api_version: &str, kind: &str) -> String {
    if EVERYWHERE.contains(&kind) {
        return format!("meta/v1.{kind}");
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    format!("{}/{version}.{kind}", first_label(group))
}

fn first_label(group: &str) -> &str {
    group.split('.').next().unwrap_or_default()
}

/// The message of an OpenAPI schema's type: `core/v1.Pod` for `io.k8s.api.core.v1.Pod`.
pub fn message_of_schema(name: &str) -> Option<String> {
    let mut labels = name.rsplit('.');
    let (kind, version, group) = (labels.next()?, labels.next()?, labels.next()?);
    Some(format!("{group}/{version}.{kind}"))
}

/// Whether a field is a struct that is no pointer and is left out when it is empty.
pub fn is_struct(message: &str, field: &str) -> bool {
    let fields = SCHEMA.get(message).into_iter().flat_map(BTreeMap::values);
    fields.into_iter().any(|f| f.name == field && f.omit_zero && matches!(f.kind, Type::Message(_)))
}

/// Whether a kind has a protobuf form.
pub fn speaks(group: &str, version: &str, kind: &str) -> bool {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    speaks_version(group, version) && SCHEMA.contains_key(message_name(&api_version, kind).as_str())
}

/// Whether the kinds of a group version have a protobuf form: Kubernetes' own have, custom ones have not.
pub fn speaks_version(group: &str, version: &str) -> bool {
    static VERSIONS: LazyLock<HashSet<&str>> =
        LazyLock::new(|| SCHEMA.keys().filter_map(|name| name.rsplit_once('.')).map(|(version, _)| version).collect());
    let own = !group.contains('.') || group.ends_with(".k8s.io");
    let first = if group.is_empty() { "core" } else { first_label(group) };
    own && VERSIONS.contains(format!("{first}/{version}").as_str())
}

/// As much of an object or list as it takes to know its message.
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    /// Of lists: each is read for itself, so that a large list is never held as values.
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// Turns an object's or a list's JSON into its protobuf body; `None` for a kind that has no such form.
///
/// # Errors
/// 500 for bytes that are not an object's JSON.
pub fn from_json(json: &[u8]) -> Result<Option<Bytes>, ApiError> {
    let internal = |error: serde_json::Error| ApiError::internal(error);
    let outer: Outer<'_> = serde_json::from_slice(json).map_err(internal)?;
    let mut raw = Vec::with_capacity(json.len());
    match (&outer.items, outer.kind.strip_suffix("List")) {
        (Some(items), Some(kind)) => {
            let Some(item) = SCHEMA.get(message_name(&outer.api_version, kind).as_str()) else { return Ok(None) };
            if let (Some(metadata), Some(message)) = (outer.metadata, SCHEMA.get("meta/v1.ListMeta")) {
                let metadata: Map<String, Value> = serde_json::from_str(metadata.get()).map_err(internal)?;
                write::delimited(&mut raw, 1, |out| write::message(out, message, &metadata));
            }
            for text in items {
                let value: Map<String, Value> = serde_json::from_str(text.get()).map_err(internal)?;
                write::delimited(&mut raw, 2, |out| write::message(out, item, &value));
            }
        }
        _ => {
            let Some(message) = SCHEMA.get(message_name(&outer.api_version, &outer.kind).as_str()) else { return Ok(None) };
            let object: Map<String, Value> = serde_json::from_slice(json).map_err(internal)?;
            write::message(&mut raw, message, &object);
        }
    }
    Ok(Some(write::envelope(&outer.api_version, &outer.kind, &raw).into()))
}

/// Turns a line of a JSON watch into a frame of a protobuf one: its length in four bytes, then a WatchEvent.
///
/// # Errors
/// 500 for a line that is no event, or is about a kind that has no protobuf form.
pub fn watch_frame(line: &[u8]) -> Result<Bytes, ApiError> {
    #[derive(Deserialize)]
    struct Event<'a> {
        r#type: String,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let event: Event<'_> = serde_json::from_slice(line).map_err(ApiError::internal)?;
    let object = from_json(event.object.get().as_bytes())?.ok_or_else(|| ApiError::internal("the object has no protobuf form"))?;
    Ok(write::watch_frame(&event.r#type, &object).into())
}

#[cfg(test)]
mod tests;

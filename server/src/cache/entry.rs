//! One object at one revision, made from its stored JSON without decoding it into a Rust type.
//!
//! Stored JSON carries no resourceVersion; it is spliced in as the first member of `metadata`, so one copy of the bytes is all the work
//! that readers and watchers ever need.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Entry;
use crate::registry::{Resource, fields};

/// What is spliced in before the revision.
const VERSION_KEY: &[u8] = b"\"resourceVersion\":\"";

/// What generic code needs to know of an object, without its revision.
#[derive(Debug)]
struct Head {
    namespace: Box<str>,
    name: Box<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[Box<str>]>,
    /// Offset of the first byte after `"metadata":{`.
    splice: usize,
    /// Whether metadata has other members after the splice.
    more: bool,
    /// Byte range of a resourceVersion that is in the JSON against the rules.
    stale: Option<std::ops::Range<usize>>,
}

/// An object's stored bytes, looked through once. Becomes an [`Entry`] when its revision is known, and only once, whoever is first: the
/// writer with etcd's answer or the cache with etcd's event.
#[derive(Debug)]
pub struct Prepared {
    head: Head,
    stored: Bytes,
    entry: OnceLock<Arc<Entry>>,
}

impl Prepared {
    /// Looks through the JSON of an object.
    ///
    /// # Errors
    /// It is not JSON, or has no metadata with a name.
    pub fn new(resource: &Resource, stored: Bytes) -> Result<Self, serde_json::Error> {
        Ok(Prepared { head: head(resource, &stored)?, stored, entry: OnceLock::new() })
    }
    /// The bytes as they are stored.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }
    /// The object as it would be stored, without a resourceVersion, for dry runs.
    pub fn unsaved(&self) -> Arc<Entry> {
        Arc::new(Entry { bytes: self.stored.clone(), ..self.head.entry(&self.stored, 0) })
    }
    /// The object at the revision it was written at.
    pub fn at(&self, revision: i64) -> Arc<Entry> {
        let entry = self.entry.get_or_init(|| Arc::new(self.head.entry(&self.stored, revision)));
        if entry.revision == revision { entry.clone() } else { Arc::new(self.head.entry(&self.stored, revision)) }
    }
}

impl Head {
    fn entry(&self, stored: &[u8], revision: i64) -> Entry {
        Entry {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            revision,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            bytes: self.splice(stored, revision),
            version_at: self.splice + VERSION_KEY.len(),
            shown: Default::default(),
        }
    }

    fn splice(&self, stored: &[u8], revision: i64) -> Bytes {
        let mut bytes = BytesMut::with_capacity(stored.len() + 42);
        bytes.put_slice(&stored[..self.splice]);
        bytes.put_slice(VERSION_KEY);
        bytes.put_slice(revision.to_string().as_bytes());
        bytes.put_slice(if self.more { b"\"," } else { b"\"" });
        match &self.stale {
            None => bytes.put_slice(&stored[self.splice..]),
            Some(stale) => {
                bytes.put_slice(&stored[self.splice..stale.start]);
                bytes.put_slice(&stored[stale.end..]);
            }
        }
        bytes.freeze()
    }
}

impl Entry {
    /// An object from its stored JSON.
    ///
    /// # Errors
    /// It is not JSON, or has no metadata with a name.
    pub fn parse(resource: &Resource, stored: &[u8], revision: i64) -> Result<Entry, serde_json::Error> {
        Ok(head(resource, stored)?.entry(stored, revision))
    }

    /// The same object under another resourceVersion, as deletions show it.
    pub fn at(&self, revision: i64) -> Entry {
        let mut bytes = BytesMut::with_capacity(self.bytes.len() + 8);
        let digits = self.bytes[self.version_at..].iter().take_while(|b| b.is_ascii_digit()).count();
        bytes.put_slice(&self.bytes[..self.version_at]);
        bytes.put_slice(revision.to_string().as_bytes());
        bytes.put_slice(&self.bytes[self.version_at + digits..]);
        Entry {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            revision,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            bytes: bytes.freeze(),
            version_at: self.version_at,
            shown: Default::default(),
        }
    }

    /// Heap use, near enough for budgets.
    pub fn weight(&self) -> usize {
        self.bytes.len() + 160 + 48 * self.labels.len()
    }

    /// The value of one of the kind's selectable fields, `metadata.name` or `metadata.namespace`.
    pub fn field<'a>(&'a self, resource: &Resource, path: &str) -> Option<&'a str> {
        match path {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => resource.fields.iter().position(|f| *f == path).and_then(|i| self.fields.get(i)).map(|v| &**v),
        }
    }
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<Box<str>, Box<str>>>,
    #[serde(borrow, default, rename = "resourceVersion")]
    resource_version: Option<&'a RawValue>,
}

fn head(resource: &Resource, stored: &[u8]) -> Result<Head, serde_json::Error> {
    let text = std::str::from_utf8(stored).map_err(serde::de::Error::custom)?;
    let paths: Vec<(usize, &str)> = fields::paths(resource).enumerate().collect();
    let mut found = Found { metadata: None, fields: vec![Box::default(); paths.len()] };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Object { paths: &paths, top: true, found: &mut found }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    let raw = found.metadata.ok_or_else(|| <serde_json::Error as serde::de::Error>::custom("no metadata"))?.get();
    let meta: Meta<'_> = serde_json::from_str(raw)?;
    let offset = |part: &str| part.as_ptr() as usize - stored.as_ptr() as usize;
    let stale = meta.resource_version.map(|value| member(stored, offset(value.get()), value.get().len()));
    let splice = offset(raw) + 1;
    let rest = match &stale {
        Some(stale) if stale.start == splice => stale.end,
        _ => splice,
    };
    let more = stored[rest..].iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'}');
    Ok(Head {
        namespace: meta.namespace.unwrap_or_default().into(),
        name: meta.name.into(),
        labels: meta.labels.unwrap_or_default().into_iter().collect(),
        fields: fields::choose(resource, found.fields),
        splice,
        more,
        stale,
    })
}

/// The byte range of a member whose value is at `value`, with its key and one of its commas.
fn member(stored: &[u8], value: usize, len: usize) -> std::ops::Range<usize> {
    let key = b"\"resourceVersion\"";
    let start = stored[..value].windows(key.len()).rposition(|w| w == key).unwrap_or(value);
    let end = value + len;
    let next = end + stored[end..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    if stored.get(next) == Some(&b',') {
        return start..next + 1;
    }
    let before = stored[..start].iter().rev().take_while(|b| b.is_ascii_whitespace()).count();
    if stored[..start - before].last() == Some(&b',') { start - before - 1..end } else { start..end }
}

struct Found<'de> {
    metadata: Option<&'de RawValue>,
    fields: Vec<Box<str>>,
}

/// Walks an object, keeping what the paths lead to. A path segment is a member; `*` segments are not supported.
struct Object<'p, 'f, 'de> {
    /// (index of the field, what is left of its path)
    paths: &'p [(usize, &'p str)],
    top: bool,
    found: &'f mut Found<'de>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The paths that go on below a member, and the field that ends there.
fn below<'p>(paths: &[(usize, &'p str)], key: &str) -> Vec<(usize, &'p str)> {
    let rest = |path: &'p str| path.strip_prefix(key).and_then(|r| if r.is_empty() { Some(r) } else { r.strip_prefix('.') });
    paths.iter().filter_map(|(i, path)| rest(path).map(|r| (*i, r))).collect()
}

impl<'de> Visitor<'de> for Object<'_, '_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.top { "an object" } else { "a value" })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if self.top && key == "metadata" {
                self.found.metadata = Some(map.next_value()?);
                continue;
            }
            let paths = below(self.paths, &key);
            if paths.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Object { paths: &paths, top: false, found: self.found })?;
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        if self.top {
            return Err(E::invalid_type(serde::de::Unexpected::Str(value), &self));
        }
        for (index, rest) in self.paths {
            if rest.is_empty() {
                self.found.fields[*index] = value.into();
            }
        }
        Ok(())
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.visit_str(if value { "true" } else { "false" })
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

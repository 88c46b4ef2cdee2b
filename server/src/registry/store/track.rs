//! A serde deserializer that notes, on the way through another one, what typed decoding would swallow: unknown fields, duplicate fields,
//! and where a value of the wrong type was.
//!
//! k8s-openapi's types read unknown fields with `deserialize_ignored_any`; nothing else does, so that call is the mark of one.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

/// What was found in a document.
#[derive(Debug, Default)]
pub struct Findings {
    /// Paths of unknown fields, in order.
    pub unknown: RefCell<Vec<String>>,
    /// Paths of fields given twice, in order.
    pub duplicate: RefCell<Vec<String>>,
    /// The value that could not be decoded.
    pub failed: RefCell<Option<Failed>>,
}

/// Where a value of the wrong type was.
#[derive(Debug)]
pub struct Failed {
    /// The struct it is in.
    pub owner: &'static str,
    /// Its path.
    pub path: String,
    /// The fields of structs that lead to it, as Go names it: without keys of maps and places in lists.
    pub fields: String,
}

/// Decodes JSON, noting findings if they are wanted.
///
/// # Errors
/// What serde says; where it was is in [`Findings::failed`].
pub fn from_json<T: DeserializeOwned>(bytes: &[u8], findings: Option<&Findings>) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let depth = Cell::new(0);
    let value = T::deserialize(Tracked { inner: &mut json, at: &At::Root, owner: "", findings, depth: &depth })?;
    json.end()?;
    Ok(value)
}

/// Most findings of a sort that are kept (`sigs.k8s.io/json`'s `maxStrictErrors`).
const MOST_FINDINGS: usize = 100;

fn note(found: &RefCell<Vec<String>>, at: impl fmt::Display) {
    let mut found = found.borrow_mut();
    if found.len() < MOST_FINDINGS {
        found.push(at.to_string());
    }
}

/// Nothing in Kubernetes nests deeper; serde_json gives up at 128 by itself.
const DEEPEST: usize = 120;

enum At<'a> {
    Root,
    Field(&'a At<'a>, &'a str),
    /// A key of a map.
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Field(At::Root, name) | At::Key(At::Root, name) => f.write_str(name),
            At::Field(parent, name) | At::Key(parent, name) => write!(f, "{parent}.{name}"),
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl At<'_> {
    fn fields(&self) -> String {
        match self {
            At::Root => String::new(),
            At::Key(parent, _) | At::Index(parent, _) => parent.fields(),
            At::Field(parent, name) => match parent.fields() {
                fields if fields.is_empty() => (*name).to_owned(),
                fields => format!("{fields}.{name}"),
            },
        }
    }
}

#[derive(Clone, Copy)]
struct Context<'a> {
    at: &'a At<'a>,
    /// The struct that the value is a field of.
    owner: &'static str,
    findings: Option<&'a Findings>,
    depth: &'a Cell<usize>,
}

struct Tracked<'a, D> {
    inner: D,
    at: &'a At<'a>,
    owner: &'static str,
    findings: Option<&'a Findings>,
    depth: &'a Cell<usize>,
}

impl<'a, D> Tracked<'a, D> {
    fn new(inner: D, context: Context<'a>) -> Self {
        Tracked { inner, at: context.at, owner: context.owner, findings: context.findings, depth: context.depth }
    }
    fn split(self) -> (D, Context<'a>) {
        (self.inner, Context { at: self.at, owner: self.owner, findings: self.findings, depth: self.depth })
    }
}

impl Context<'_> {
    /// Remembers the innermost value that failed.
    fn note<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err()
            && let Some(findings) = self.findings
        {
            findings.failed.borrow_mut().get_or_insert_with(|| Failed { owner: self.owner, path: self.at.to_string(), fields: self.at.fields() });
        }
        result
    }
    fn enter<T, E: Error>(&self, inner: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if self.depth.get() >= DEEPEST {
            return Err(E::custom("exceeded max depth"));
        }
        self.depth.set(self.depth.get() + 1);
        let result = inner();
        self.depth.set(self.depth.get() - 1);
        result
    }
}

macro_rules! forward {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let (inner, context) = self.split();
            context.note(inner.$method(Watched { visitor, context, kind: "" }))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tracked<'_, D> {
    type Error = D::Error;
    forward! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq deserialize_map deserialize_identifier
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if let Some(findings) = self.findings {
            note(&findings.unknown, self.at);
        }
        self.inner.deserialize_ignored_any(visitor)
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, context) = self.split();
        context.note(inner.deserialize_unit_struct(name, Watched { visitor, context, kind: name }))
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, context) = self.split();
        context.note(inner.deserialize_newtype_struct(name, Watched { visitor, context, kind: name }))
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, context) = self.split();
        context.note(inner.deserialize_tuple(len, Watched { visitor, context, kind: "" }))
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, context) = self.split();
        context.note(inner.deserialize_tuple_struct(name, len, Watched { visitor, context, kind: name }))
    }
    fn deserialize_struct<V: Visitor<'de>>(self, name: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, D::Error> {
        let (inner, context) = self.split();
        context.note(inner.deserialize_struct(name, fields, Watched { visitor, context, kind: name }))
    }
    fn deserialize_enum<V: Visitor<'de>>(self, name: &'static str, variants: &'static [&'static str], visitor: V) -> Result<V::Value, D::Error> {
        let (inner, context) = self.split();
        context.note(inner.deserialize_enum(name, variants, Watched { visitor, context, kind: name }))
    }
}

struct Watched<'a, V> {
    visitor: V,
    context: Context<'a>,
    /// The struct being read, empty for maps and lists.
    kind: &'static str,
}

macro_rules! visit {
    ($($method:ident($type:ty))*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watched<'_, V> {
    type Value = V::Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }
    visit! {
        visit_bool(bool) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64)
        visit_f32(f32) visit_f64(f64) visit_char(char) visit_str(&str) visit_borrowed_str(&'de str) visit_string(String) visit_bytes(&[u8])
        visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Tracked::new(inner, self.context))
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Tracked::new(inner, self.context))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.context.enter(|| self.visitor.visit_seq(Items { inner, context: self.context, index: 0 }))
    }
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let members = Members { inner, context: self.context, kind: self.kind, key: String::new(), seen: HashSet::new() };
        self.context.enter(|| self.visitor.visit_map(members))
    }
    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(inner)
    }
}

struct Items<'a, A> {
    inner: A,
    context: Context<'a>,
    index: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, A> {
    type Error = A::Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let at = At::Index(self.context.at, self.index);
        self.index += 1;
        self.inner.next_element_seed(Seed { seed, context: Context { at: &at, ..self.context } })
    }
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Members<'a, A> {
    inner: A,
    context: Context<'a>,
    kind: &'static str,
    key: String,
    /// Keys so far; only kept when findings are wanted.
    seen: HashSet<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(findings) = self.context.findings else { return self.inner.next_key_seed(seed) };
        self.key.clear();
        let key = self.inner.next_key_seed(KeySeed { seed, into: &mut self.key })?;
        if key.is_some() && !self.seen.insert(self.key.clone()) {
            note(&findings.duplicate, At::Field(self.context.at, &self.key));
        }
        Ok(key)
    }
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let map = self.kind.is_empty();
        let at = if map { At::Key(self.context.at, &self.key) } else { At::Field(self.context.at, &self.key) };
        let owner = if map { self.context.owner } else { self.kind };
        self.inner.next_value_seed(Seed { seed, context: Context { at: &at, owner, ..self.context } })
    }
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Seed<'a, T> {
    seed: T,
    context: Context<'a>,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, T> {
    type Value = T::Value;
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        self.seed.deserialize(Tracked::new(inner, self.context))
    }
}

/// Lets the key through and keeps a copy of it.
struct KeySeed<'k, K> {
    seed: K,
    into: &'k mut String,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for KeySeed<'_, K> {
    type Value = K::Value;
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<K::Value, D::Error> {
        self.seed.deserialize(KeyCopy { inner, into: self.into })
    }
}

struct KeyCopy<'k, D> {
    inner: D,
    into: &'k mut String,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for KeyCopy<'_, D> {
    type Error = D::Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(KeyVisitor { visitor, into: self.into })
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct KeyVisitor<'k, V> {
    visitor: V,
    into: &'k mut String,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for KeyVisitor<'_, V> {
    type Value = V::Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.into.push_str(value);
        self.visitor.visit_str(value)
    }
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.into.push_str(value);
        self.visitor.visit_borrowed_str(value)
    }
    fn visit_string<E: Error>(self, value: String) -> Result<V::Value, E> {
        self.into.push_str(&value);
        self.visitor.visit_string(value)
    }
}

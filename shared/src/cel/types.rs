//! Static types, as declared, inferred and named in error texts.
//!
//! Owns the types and when one fits another. Must never look at values.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A static type.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Type {
    /// Anything; checked when evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// An object with fields that are known by name.
    Object(ObjectType),
    /// A type with functions only, e.g. `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A type that a function leaves open, by a number that is fresh for each use.
    Param(u32),
    /// Stands for an expression that has an error already.
    Error,
}

/// An object type. Its fields are looked up when needed, so that it may contain itself.
#[derive(Clone)]
pub struct ObjectType {
    /// Shown in errors.
    pub name: Arc<str>,
    /// Its fields.
    pub fields: Arc<dyn Fields>,
}

/// The fields of an object type.
pub trait Fields: Send + Sync {
    /// A field's type by its (escaped) name.
    fn field(&self, name: &str) -> Option<Type>;
}

impl Fields for HashMap<String, Type> {
    fn field(&self, name: &str) -> Option<Type> {
        self.get(name).cloned()
    }
}

impl fmt::Debug for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Type {
    /// A list of these.
    pub fn list(item: Type) -> Self {
        Type::List(Arc::new(item))
    }

    /// A map from these to these.
    pub fn map(key: Type, value: Type) -> Self {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    /// An optional one of these.
    pub fn optional(value: Type) -> Self {
        Type::Optional(Arc::new(value))
    }

    /// An object with these fields.
    pub fn object<N: Into<String>>(name: &str, fields: impl IntoIterator<Item = (N, Type)>) -> Self {
        let fields: HashMap<String, Type> = fields.into_iter().map(|(name, of)| (name.into(), of)).collect();
        Type::Object(ObjectType { name: name.into(), fields: Arc::new(fields) })
    }

    /// Whether it says nothing.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(value) => write!(f, "optional_type({value})"),
            Type::Type(of) => write!(f, "type({of})"),
            Type::Object(object) => f.write_str(&object.name),
            Type::Opaque(name) => f.write_str(name),
            Type::Param(number) => write!(f, "_var{number}"),
            Type::Error => f.write_str("!error!"),
        }
    }
}

/// What is known about open types so far. Cheap to copy back when an overload turns out not to fit.
#[derive(Clone, Debug, Default)]
pub(super) struct Substitution(HashMap<u32, Type>);

impl Substitution {
    /// A type with what is known filled in; with `close`, what is still open becomes `dyn`.
    pub(super) fn apply(&self, of: &Type, close: bool) -> Type {
        match of {
            Type::Param(number) => match self.0.get(number) {
                Some(known) => self.apply(known, close),
                None if close => Type::Dyn,
                None => of.clone(),
            },
            Type::List(item) => Type::list(self.apply(item, close)),
            Type::Map(key, value) => Type::map(self.apply(key, close), self.apply(value, close)),
            Type::Optional(value) => Type::optional(self.apply(value, close)),
            Type::Type(inner) => Type::Type(Arc::new(self.apply(inner, close))),
            other => other.clone(),
        }
    }

    /// Whether a value of type `from` may be where `to` is wanted; learns what open types are.
    pub(super) fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        // What is known of an open type becomes as general as the most general value that goes there.
        if let Type::Param(number) = to
            && let Some(known) = self.0.get(number).cloned()
        {
            let fits = self.assignable(from, &known);
            let from = self.apply(from, false);
            if fits && more_general(&from, &self.apply(&known, false)) {
                self.bind(*number, &from);
            }
            return fits;
        }
        let (from, to) = (self.apply(from, false), self.apply(to, false));
        match (&from, &to) {
            (Type::Param(a), Type::Param(b)) if a == b => true,
            (_, Type::Param(number)) => self.bind(*number, &from),
            (Type::Param(number), _) => self.bind(*number, &to),
            (Type::Dyn | Type::Error, _) | (_, Type::Dyn | Type::Error) => true,
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) | (Type::Type(a), Type::Type(b)) => self.assignable(a, b),
            (Type::Map(ak, av), Type::Map(bk, bv)) => self.assignable(ak, bk) && self.assignable(av, bv),
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    fn bind(&mut self, number: u32, to: &Type) -> bool {
        if occurs(number, to) {
            return false;
        }
        // Nothing is learnt from something that may be anything.
        self.0.insert(number, to.clone());
        true
    }
}

fn nullable(of: &Type) -> bool {
    matches!(of, Type::Null | Type::Object(_) | Type::Opaque(_) | Type::Timestamp | Type::Duration | Type::Optional(_))
}

/// Whether a type says less than another that it fits.
fn more_general(of: &Type, than: &Type) -> bool {
    match (of, than) {
        (Type::Dyn, Type::Dyn) => false,
        (Type::Dyn, _) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => more_general(a, b),
        (Type::Map(ak, av), Type::Map(bk, bv)) => more_general(ak, bk) || more_general(av, bv),
        (other, Type::Null) => !matches!(other, Type::Null),
        _ => false,
    }
}

fn occurs(number: u32, of: &Type) -> bool {
    match of {
        Type::Param(other) => *other == number,
        Type::List(inner) | Type::Optional(inner) | Type::Type(inner) => occurs(number, inner),
        Type::Map(key, value) => occurs(number, key) || occurs(number, value),
        _ => false,
    }
}

/// Words that are literals or operators.
const LITERALS: &[&str] = &["true", "false", "null", "in"];

/// Words that CEL keeps for later (`cel-go/parser`).
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether nothing may be called so.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Whether a field of this name is escaped (`k8s.io/apiserver/pkg/cel/escaping.go`).
fn is_escaped(name: &str) -> bool {
    LITERALS.contains(&name) || is_reserved(name)
}

/// A property's name as expressions write it: `my-name` is `my__dash__name`, `in` is `__in__`.
pub fn escape(name: &str) -> String {
    if is_escaped(name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

/// The property that an escaped name stands for.
pub fn unescape(name: &str) -> String {
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && is_escaped(word)
    {
        return word.to_owned();
    }
    name.replace("__dot__", ".").replace("__dash__", "-").replace("__slash__", "/").replace("__underscores__", "__")
}

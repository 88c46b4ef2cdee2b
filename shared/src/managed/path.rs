//! A step of a path into an object: a field, or an item of a list by its keys or its value (`fieldpath/element.go`).

use std::fmt;

use serde_json::{Map, Value};

/// A scalar that can be ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atom {
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// Anything else, as its JSON.
    Other(String),
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// `f:name`: a field of a struct, or a key of a map.
    Field(String),
    /// `k:{…}`: an item of a list by its keys, which are in the order of their names.
    Key(Vec<(String, Atom)>),
    /// `v:…`: an item of a set.
    Value(Atom),
    /// `i:0`: an item of a list that has no identity of its own.
    Index(i64),
}

/// A path from an object's root.
pub type Path = Vec<PathElement>;

impl From<&Value> for Atom {
    fn from(value: &Value) -> Self {
        match value {
            Value::String(text) => Atom::Text(text.clone()),
            Value::Bool(truth) => Atom::Bool(*truth),
            other => other.as_i64().map_or_else(|| Atom::Other(other.to_string()), Atom::Int),
        }
    }
}

impl Atom {
    fn to_value(&self) -> Value {
        match self {
            Atom::Int(number) => (*number).into(),
            Atom::Text(text) => text.clone().into(),
            Atom::Bool(truth) => (*truth).into(),
            Atom::Other(json) => serde_json::from_str(json).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Int(number) => write!(f, "{number}"),
            Atom::Text(text) => write!(f, "{text:?}"),
            Atom::Bool(truth) => write!(f, "{truth}"),
            Atom::Other(json) => f.write_str(json),
        }
    }
}

impl PathElement {
    /// A field.
    pub fn field(name: &str) -> Self {
        PathElement::Field(name.to_owned())
    }

    /// As `fieldsV1` names it.
    pub fn encode(&self) -> String {
        match self {
            PathElement::Field(name) => format!("f:{name}"),
            PathElement::Key(keys) => {
                let keys: Map<String, Value> = keys.iter().map(|(name, value)| (name.clone(), value.to_value())).collect();
                format!("k:{}", Value::Object(keys))
            }
            PathElement::Value(value) => format!("v:{}", value.to_value()),
            PathElement::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads what [`Self::encode`] writes; `None` when it is something else.
    pub fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(PathElement::field(rest)),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
                let mut keys: Vec<(String, Atom)> = keys.iter().map(|(name, value)| (name.clone(), value.into())).collect();
                keys.sort();
                Some(PathElement::Key(keys))
            }
            "v" => Some(PathElement::Value((&serde_json::from_str::<Value>(rest).ok()?).into())),
            "i" => rest.parse().ok().map(PathElement::Index),
            _ => None,
        }
    }
}

/// As messages name it: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_survive_their_encoding_and_print_as_upstream_does() {
        let key = |keys: &[(&str, Atom)]| PathElement::Key(keys.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect());
        for (element, encoded, printed) in [
            (PathElement::field("app.kubernetes.io/name"), "f:app.kubernetes.io/name", ".app.kubernetes.io/name"),
            (key(&[("name", Atom::Text("a".into()))]), r#"k:{"name":"a"}"#, r#"[name="a"]"#),
            (
                key(&[("port", Atom::Int(80)), ("protocol", Atom::Text("TCP".into()))]),
                r#"k:{"port":80,"protocol":"TCP"}"#,
                r#"[port=80,protocol="TCP"]"#,
            ),
            (PathElement::Value(Atom::Text("x".into())), r#"v:"x""#, r#"[="x"]"#),
            (PathElement::Value(Atom::Bool(true)), "v:true", "[=true]"),
            (PathElement::Index(3), "i:3", "[3]"),
        ] {
            assert_eq!(element.encode(), encoded);
            assert_eq!(PathElement::decode(encoded).unwrap(), element);
            assert_eq!(element.to_string(), printed);
        }
        for bad in ["spec", "x:y", "k:[]", "v:{", "i:x"] {
            assert_eq!(PathElement::decode(bad), None, "{bad}");
        }
    }
}

//! Which fields are owned how: data, not code (`schema.txt`).

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use serde_json::{Map, Value, json};

use super::path::PathElement;

/// A key of an associative list, with the value of an item that does not say it.
pub(super) type Key = (&'static str, Option<&'static str>);

/// How a field's value is owned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// As its type says: objects field by field, lists as a whole.
    #[default]
    Plain,
    /// An object with keys of the user's choice.
    Map,
    /// As a whole.
    Atomic,
    /// Field by field, whatever the type says.
    Granular,
    /// A list of scalars, item by item.
    Set,
    /// A list of objects, item by item.
    List(&'static [Key]),
}

/// A type of the API, as far as ownership needs to know it: the default knows nothing special.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Type(usize);

/// What is known of a value by its place in an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The type of the value, or of its elements.
    child: Type,
    shape: Shape,
    /// Whether Go's zero value has it, so that it is there whenever its parent is.
    pub present: bool,
}

/// How a value is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A scalar, or something that is owned as a whole.
    Leaf,
    /// An object, field by field.
    Object,
    /// A list, item by item.
    List,
}

#[derive(Default)]
struct Known {
    atomic: bool,
    fields: HashMap<&'static str, Node>,
}

struct Table {
    names: HashMap<&'static str, usize>,
    types: Vec<Known>,
}

/// The type that every kind has for its metadata.
const METADATA: &str = "ObjectMeta";

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("schema.txt")));

/// Types that were defined at run time; their numbers follow the table's.
#[derive(Default)]
struct Defined {
    by_text: HashMap<&'static str, Type>,
    types: Vec<&'static Known>,
}

static DEFINED: LazyLock<RwLock<Defined>> = LazyLock::new(RwLock::default);

impl Type {
    /// The type of a kind that is defined at run time, from lines like those of `schema.txt`, the kind's own first. Types are kept for good;
    /// the same lines give the same type.
    pub fn define(lines: &str) -> Type {
        let mut defined = DEFINED.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = defined.by_text.get(lines) {
            return *known;
        }
        let lines: &'static str = lines.to_owned().leak();
        let first = TABLE.types.len() + defined.types.len();
        let mut names = TABLE.names.clone();
        names.extend(lines.lines().enumerate().filter_map(|(i, line)| Some((line.split(' ').next()?, first + i))));
        for (index, line) in lines.lines().enumerate() {
            let mut fields: HashMap<&'static str, Node> = line.split(' ').skip(1).filter_map(|f| Table::field(&names, f)).collect();
            if index == 0 {
                fields.extend(names.get(METADATA).map(|at| ("metadata", Node { child: Type(*at), present: true, ..Node::default() })));
            }
            defined.types.push(Box::leak(Box::new(Known { atomic: false, fields })));
        }
        defined.by_text.insert(lines, Type(first));
        Type(first)
    }

    fn known(self) -> Option<&'static Known> {
        let table = &*TABLE;
        match self.0.checked_sub(table.types.len()) {
            None => table.types.get(self.0),
            Some(index) => DEFINED.read().unwrap_or_else(PoisonError::into_inner).types.get(index).copied(),
        }
    }

    /// The type of a kind's objects. Kinds that the table does not name have nothing special but their metadata.
    pub fn of(api_version: &str, kind: &str) -> Type {
        let table = &*TABLE;
        let name = format!("{api_version}.{kind}");
        Type(table.names.get(name.as_str()).or_else(|| table.names.get("*")).copied().unwrap_or_default())
    }

    /// Whether values of the type are owned as a whole wherever their place does not say otherwise.
    pub fn is_atomic(self) -> bool {
        self.known().is_some_and(|t| t.atomic)
    }

    /// The fields that the table knows, with the type of their values or elements and what the published OpenAPI says of them.
    pub fn published(self) -> impl Iterator<Item = (&'static str, Type, Map<String, Value>)> {
        let fields = self.known().into_iter().flat_map(|t| t.fields.iter());
        fields.map(|(name, node)| (*name, node.child, node.shape.published()))
    }

    pub(super) fn root(self) -> Node {
        Node { child: self, ..Node::default() }
    }
}

impl Shape {
    /// As OpenAPI extensions.
    fn published(self) -> Map<String, Value> {
        let extensions: Vec<(&str, Value)> = match self {
            Shape::Plain | Shape::Map => Vec::new(),
            Shape::Atomic => vec![("x-kubernetes-map-type", "atomic".into())],
            Shape::Granular => vec![("x-kubernetes-map-type", "granular".into())],
            Shape::Set => vec![("x-kubernetes-list-type", "set".into())],
            Shape::List(keys) => {
                let keys: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
                vec![("x-kubernetes-list-type", "map".into()), ("x-kubernetes-list-map-keys", json!(keys))]
            }
        };
        extensions.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Node {
    /// Whether an object here has keys of the user's choice.
    pub fn is_map(self) -> bool {
        self.shape == Shape::Map
    }

    /// How a value here is walked.
    pub fn form(self, value: &Value) -> Form {
        let atomic = match self.shape {
            Shape::Atomic => true,
            Shape::Plain => self.child.known().is_some_and(|t| t.atomic),
            _ => false,
        };
        match value {
            Value::Object(_) if !atomic => Form::Object,
            Value::Array(_) if matches!(self.shape, Shape::Set | Shape::List(_)) => Form::List,
            _ => Form::Leaf,
        }
    }

    /// The keys of a list's items, none for scalars.
    pub fn keys(self) -> &'static [Key] {
        match self.shape {
            Shape::List(keys) => keys,
            _ => &[],
        }
    }

    /// What is known of a value one step below.
    pub fn child(self, element: &PathElement) -> Node {
        match element {
            PathElement::Field(name) if matches!(self.shape, Shape::Plain | Shape::Granular) => {
                self.child.known().and_then(|t| t.fields.get(name.as_str())).copied().unwrap_or_default()
            }
            _ => Node { child: self.child, ..Node::default() },
        }
    }

    /// The fields that are there whenever an object here is, and what they are when they are empty.
    pub fn present_fields(self) -> impl Iterator<Item = (&'static str, &'static Value)> {
        static EMPTY: LazyLock<(Value, Value)> = LazyLock::new(|| (Value::Object(serde_json::Map::new()), Value::Array(Vec::new())));
        let known = matches!(self.shape, Shape::Plain | Shape::Granular).then(|| self.child.known()).flatten();
        let empty = |node: &Node| if matches!(node.shape, Shape::Set | Shape::List(_)) { &EMPTY.1 } else { &EMPTY.0 };
        known.into_iter().flat_map(|t| t.fields.iter()).filter(|(_, node)| node.present).map(move |(name, node)| (*name, empty(node)))
    }
}

impl Table {
    fn parse(text: &'static str) -> Self {
        let lines: Vec<(&str, &str)> =
            text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|l| l.split_once(' ').unwrap_or((l, ""))).collect();
        // Type 0 is `-`; then one more for kinds without a line.
        let mut names: HashMap<&'static str, usize> = HashMap::from([("-", 0), ("*", 1)]);
        names.extend(lines.iter().enumerate().map(|(i, (name, _))| (*name, i + 2)));
        let metadata = names.get(METADATA).map(|at| ("metadata", Node { child: Type(*at), present: true, ..Node::default() }));
        let mut types = vec![Known::default(), Known { atomic: false, fields: metadata.into_iter().collect() }];
        for (name, fields) in lines {
            // Only kinds have a version, and thus a slash or a dotted version, in their names; all of them have metadata.
            let is_kind = name.rsplit_once('.').is_some_and(|(version, _)| version.contains('/') || version == "v1");
            let mut parsed: HashMap<&'static str, Node> = fields.split(' ').filter_map(|f| Self::field(&names, f)).collect();
            parsed.extend(metadata.filter(|_| is_kind));
            types.push(Known { atomic: fields.split(' ').any(|f| f == "atomic"), fields: parsed });
        }
        Table { names, types }
    }

    /// `field=type[:shape][!]`
    fn field(names: &HashMap<&'static str, usize>, text: &'static str) -> Option<(&'static str, Node)> {
        let (name, rest) = text.split_once('=')?;
        let (rest, present) = rest.strip_suffix('!').map_or((rest, false), |rest| (rest, true));
        let (child, shape) = rest.split_once(':').unwrap_or((rest, ""));
        let shape = match shape {
            "" => Shape::Plain,
            "map" => Shape::Map,
            "atomic" => Shape::Atomic,
            "granular" => Shape::Granular,
            "set" => Shape::Set,
            list => {
                let keys = list.strip_prefix("list:")?.split(',').map(|key| match key.split_once('=') {
                    Some((key, default)) => (key, Some(default)),
                    None => (key, None),
                });
                // The table is built once and lives as long as the process.
                Shape::List(Vec::leak(keys.collect()))
            }
        };
        Some((name, Node { child: Type(*names.get(child)?), shape, present }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(of: Type, path: &[&str]) -> Node {
        path.iter().fold(of.root(), |node, name| node.child(&PathElement::field(name)))
    }

    #[test]
    fn the_table_knows_lists_maps_and_what_is_owned_as_a_whole() {
        let pod = Type::of("v1", "Pod");
        assert_eq!(at(pod, &["spec", "containers"]).keys(), [("name", None)]);
        let item = at(pod, &["spec", "containers"]).child(&PathElement::Index(0));
        assert_eq!(item.child(&PathElement::field("ports")).keys(), [("containerPort", None), ("protocol", Some("TCP"))]);
        assert_eq!(at(pod, &["spec", "containers"]).form(&json!([])), Form::List);
        assert_eq!(at(pod, &["spec", "tolerations"]).form(&json!([])), Form::Leaf);
        assert_eq!(at(pod, &["spec", "nodeSelector"]).form(&json!({})), Form::Leaf);
        assert_eq!(at(pod, &["metadata", "labels"]).form(&json!({})), Form::Object);
        assert!(at(pod, &["metadata", "labels"]).is_map() && !at(pod, &["spec"]).is_map());
        let deployment = Type::of("apps/v1", "Deployment");
        assert_eq!(at(deployment, &["spec", "selector"]).form(&json!({})), Form::Leaf, "by its type");
        assert_eq!(at(deployment, &["spec", "template", "spec", "containers"]).keys(), [("name", None)]);
        assert_eq!(at(Type::of("v1", "PersistentVolume"), &["spec", "claimRef"]).form(&json!({})), Form::Object, "against its type");
        assert_eq!(at(Type::of("v1", "Role"), &["metadata", "finalizers"]).form(&json!([])), Form::List, "of a kind without a line");
    }

    #[test]
    fn a_kind_that_is_defined_at_run_time_has_lists_of_its_own() {
        let lines = "Kind spec=T1\nT1 ports=-:list:name,protocol=TCP tags=-:set free=-:atomic labels=-:map";
        let of = Type::define(lines);
        assert_eq!(of, Type::define(lines), "the same lines, the same type");
        assert_eq!(at(of, &["spec", "ports"]).keys(), [("name", None), ("protocol", Some("TCP"))]);
        assert_eq!(at(of, &["spec", "tags"]).form(&json!([])), Form::List);
        assert_eq!(at(of, &["spec", "free"]).form(&json!({})), Form::Leaf);
        assert!(at(of, &["spec", "labels"]).is_map() && at(of, &["metadata", "labels"]).is_map());
        assert_ne!(of, Type::define("Kind spec=-"));
    }

    #[test]
    fn every_line_names_types_that_are_there() {
        for line in include_str!("schema.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            for field in line.split(' ').skip(1).filter(|f| *f != "atomic") {
                assert!(Table::field(&TABLE.names, field).is_some(), "{line}: {field}");
            }
        }
    }
}

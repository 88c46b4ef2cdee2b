//! Checks built-in kinds against the table of their fields and types, and tells unknown fields and wrong types by position.
//!
//! The table (`schema.txt`) is generated from k8s-openapi's types: reading into the types themselves would take megabytes of code. Kinds
//! that are not in it are left to the server.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine;
use serde_json::Value;

use super::diagnose::Problem;
use super::tree::{Content, Node, Position};

/// The fields of a type with the codes of their types.
type Fields = Vec<(&'static str, &'static str)>;

struct Table {
    /// Types by the version and kind that a manifest gives.
    kinds: HashMap<(&'static str, &'static str), &'static str>,
    types: HashMap<&'static str, Fields>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("schema.txt")));

impl Table {
    fn parse(text: &'static str) -> Table {
        let mut table = Table { kinds: HashMap::new(), types: HashMap::new() };
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let mut words = line.split(' ');
            match words.next() {
                Some("+") => {
                    if let (Some(version), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) {
                        table.kinds.insert((version, kind), name);
                    }
                }
                Some(name) => drop(table.types.insert(name, words.filter_map(|w| w.split_once(':')).collect())),
                None => {}
            }
        }
        table
    }

    fn fields(&self, of: &str) -> &[(&'static str, &'static str)] {
        self.types.get(of).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Everything the schema has to say about a document; nothing for kinds it does not know.
pub fn check(node: &Node, source: &str) -> Vec<Problem> {
    let problems = RefCell::new(Vec::new());
    let kind = node.get("kind").map(Node::text).unwrap_or_default();
    let version = node.get("apiVersion").map(Node::text).unwrap_or_default();
    let known = TABLE.kinds.get(&(version, kind)).copied();
    let findings = Findings { source, kind, known, problems: &problems, root: node };
    if kind == "List" {
        if let Some(Node { content: Content::Sequence(items), .. }) = node.get("items") {
            return items.iter().flat_map(|item| check(item, source)).collect();
        }
    } else if let Some(known) = known {
        findings.value(node, "", known);
    } else {
        misspelt_head(node, &findings);
    }
    problems.into_inner()
}

/// `piVersion` and `netadata`: words that only resemble those every object begins with.
fn misspelt_head(node: &Node, findings: &Findings<'_>) {
    const HEAD: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
    let Content::Mapping(entries) = &node.content else { return };
    for (key, at, _) in entries {
        let near = HEAD.iter().find(|h| *h != key && crate::suggest::distance(key, h) <= 2 && node.get(h).is_none());
        if let Some(wanted) = near {
            findings.add(*at, format!("unknown field {key:?}"), Some(format!("hint: did you mean {wanted:?}?")));
        }
    }
}

struct Findings<'a> {
    source: &'a str,
    kind: &'a str,
    /// The kind's type.
    known: Option<&'static str>,
    problems: &'a RefCell<Vec<Problem>>,
    root: &'a Node,
}

impl Findings<'_> {
    fn add(&self, at: Position, message: String, hint: Option<String>) {
        self.problems.borrow_mut().push(Problem { source: self.source.to_owned(), at, message, hint });
    }

    fn unknown(&self, key: &str, at: Position, path: &str, fields: &[(&'static str, &'static str)]) {
        let full = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let name = self.root.get("metadata").and_then(|m| m.get("name")).map(Node::text).unwrap_or_default();
        let owner = if name.is_empty() { self.kind.to_owned() } else { format!("{} {name:?}", self.kind) };
        let names: Vec<&'static str> = fields.iter().map(|(name, _)| *name).collect();
        let near = names.iter().filter(|f| crate::suggest::distance(key, f) <= 2).min_by_key(|f| crate::suggest::distance(key, f));
        let hint = match near {
            Some(near) => Some(format!("hint: did you mean {near:?}?")),
            None if path.is_empty() && self.fits_spec(key) => {
                Some(format!("hint: {key:?} belongs inside \"spec\": did you mean spec.{key}? Indent it, and what is below it, by two spaces more"))
            }
            None => fits_below(&names, key)
                .map(|parent| format!("hint: {key:?} is a field of {parent:?}; did you mean {}?", join(path, &format!("{parent}.{key}")))),
        };
        self.add(at, format!("unknown field {full:?} in {owner}"), hint);
    }

    /// Whether the key would be known inside `spec`.
    fn fits_spec(&self, key: &str) -> bool {
        let spec = self.known.and_then(|kind| TABLE.fields(kind).iter().find(|(name, _)| *name == "spec"));
        spec.is_some_and(|(_, spec)| TABLE.fields(spec).iter().any(|(name, _)| *name == key))
    }

    /// Checks a value against the code of its type.
    fn value(&self, node: &Node, path: &str, wanted: &'static str) {
        let wrong = |expected: &str| self.wrong(node, path, &format!("invalid type: {}, expected {expected}", described(node)));
        if let Some(item) = wanted.strip_prefix('[') {
            match &node.content {
                Content::Sequence(items) => items.iter().enumerate().for_each(|(at, node)| self.value(node, &format!("{path}[{at}]"), item)),
                _ => wrong("a sequence"),
            }
        } else if let Some(item) = wanted.strip_prefix('{') {
            match &node.content {
                Content::Mapping(entries) => entries.iter().for_each(|(key, _, node)| self.value(node, &join(path, key), item)),
                _ => wrong("a map"),
            }
        } else if let Some(fields) = TABLE.types.get(wanted) {
            match &node.content {
                Content::Mapping(entries) => self.object(entries, path, fields),
                _ => wrong(wanted),
            }
        } else if let Content::Scalar(scalar) = &node.content {
            if let Some(expected) = misfit(scalar, wanted) {
                wrong(expected);
            } else if let Some(message) = unreadable(scalar, wanted) {
                self.wrong(node, path, &message);
            }
        } else if wanted != "*" {
            wrong(expected(wanted));
        }
    }

    fn object(&self, entries: &[(String, Position, Node)], path: &str, fields: &[(&'static str, &'static str)]) {
        let known = |key: &str| fields.iter().find(|(name, _)| *name == key);
        for (key, at, _) in entries.iter().filter(|(key, _, _)| known(key).is_none()) {
            self.unknown(key, *at, path, fields);
        }
        for (key, _, node) in entries {
            // A field that is null is a field that is not there.
            let null = matches!(node.content, Content::Scalar(Value::Null));
            if let Some((_, wanted)) = known(key).filter(|_| !null) {
                self.value(node, &join(path, key), wanted);
            }
        }
    }

    fn wrong(&self, node: &Node, path: &str, message: &str) {
        let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
        self.add(node.at, format!("{path}{message}"), None);
    }
}

/// What a code wants, in words.
fn expected(code: &str) -> &'static str {
    match code {
        "b" => "a boolean",
        "i4" => "i32",
        "i8" => "i64",
        "f" => "f64",
        "t" => "a time",
        "y" => "a base64-encoded string",
        "q" => "a quantity",
        "x" => "an integer or a string",
        _ => "a string",
    }
}

/// What is wanted in place of a scalar of another type.
fn misfit(scalar: &Value, code: &str) -> Option<&'static str> {
    let fits = match (code, scalar) {
        ("*", _) | ("s" | "t" | "y" | "q" | "x", Value::String(_)) | ("b", Value::Bool(_)) | ("q" | "f", Value::Number(_)) => true,
        ("i4" | "i8" | "x", Value::Number(n)) => !n.is_f64(),
        _ => false,
    };
    (!fits).then(|| expected(code))
}

/// What is wrong with a scalar of the right type.
fn unreadable(scalar: &Value, code: &str) -> Option<String> {
    match (code, scalar) {
        ("i4" | "x", Value::Number(n)) if n.as_i64().and_then(|i| i32::try_from(i).ok()).is_none() => {
            Some(format!("invalid value: integer `{n}`, expected i32"))
        }
        ("i8", Value::Number(n)) if n.as_i64().is_none() => Some(format!("invalid value: integer `{n}`, expected i64")),
        ("t", Value::String(text)) if text.parse::<jiff::Timestamp>().is_err() => Some(format!("invalid value: string {text:?}, expected a time")),
        ("y", Value::String(text)) => {
            // Go's decoder reads Base64 over several lines.
            let plain = text.replace(['\n', '\r'], "");
            base64::engine::general_purpose::STANDARD.decode(plain).err().map(|error| format!("illegal base64 data: {error}"))
        }
        _ => None,
    }
}

/// A value as an error names it.
fn described(node: &Node) -> String {
    match &node.content {
        Content::Sequence(_) => "sequence".into(),
        Content::Mapping(_) => "map".into(),
        Content::Scalar(Value::Bool(b)) => format!("boolean `{b}`"),
        Content::Scalar(Value::Number(n)) if n.is_f64() => format!("floating point `{n}`"),
        Content::Scalar(Value::Number(n)) => format!("integer `{n}`"),
        Content::Scalar(Value::String(s)) => format!("string {s:?}"),
        Content::Scalar(_) => "null".into(),
    }
}

/// Fields that are often written one level too high.
fn fits_below(fields: &[&str], key: &str) -> Option<&'static str> {
    const NESTED: &[(&str, &[&str])] = &[
        ("metadata", &["name", "namespace", "labels", "annotations"]),
        ("template", &["containers", "restartPolicy", "volumes"]),
        ("securityContext", &["privileged", "runAsUser", "runAsNonRoot", "capabilities"]),
        ("resources", &["limits", "requests"]),
    ];
    NESTED.iter().find(|(parent, keys)| fields.contains(parent) && keys.contains(&key)).map(|(parent, _)| *parent)
}

fn join(path: &str, rest: &str) -> String {
    if path.is_empty() { rest.to_owned() } else { format!("{path}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::check;

    fn told(text: &str) -> Vec<String> {
        tree::documents(text).unwrap().iter().flat_map(|n| check(n, "x.yaml")).map(|p| p.to_string()).collect()
    }

    #[test]
    fn a_field_outside_spec_is_sent_back_inside() {
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\nspec:\n  type: NodePort\nports:\n- port: 80\n";
        let said = told(text);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("x.yaml:7:1: unknown field \"ports\" in Service \"s\""), "{}", said[0]);
        assert!(said[0].contains("did you mean spec.ports?"), "{}", said[0]);
    }

    #[test]
    fn misspelt_words_get_a_suggestion() {
        assert!(told("piVersion: v1\nkind: Pod\nmetadata: {name: x}\n")[0].contains("did you mean \"apiVersion\"?"));
        assert!(told("apiVersion: v1\nkind: Pod\nnetadata: {name: x}\n")[0].contains("did you mean \"metadata\"?"));
        let deep = told("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n    imagee: b\n");
        assert_eq!(deep[0].lines().next().unwrap(), "x.yaml:6:5: unknown field \"spec.containers[0].imagee\" in Pod");
    }

    #[test]
    fn wrong_types_are_placed() {
        let said = told("apiVersion: apps/v1\nkind: Deployment\nspec:\n  replicas: three\n  selector: {}\n  template: {}\n");
        assert!(said[0].starts_with("x.yaml:4:13: spec.replicas: invalid type: string \"three\""), "{said:?}");
    }

    #[test]
    fn every_type_in_the_table_is_known() {
        for (of, fields) in &super::TABLE.types {
            for (field, code) in fields {
                let inner = code.trim_start_matches(['[', '{']);
                let scalar = matches!(inner, "s" | "b" | "i4" | "i8" | "f" | "t" | "y" | "q" | "x" | "*");
                assert!(scalar || super::TABLE.types.contains_key(inner), "{of}.{field}: {code}");
            }
        }
        assert!(super::TABLE.kinds.values().all(|of| super::TABLE.types.contains_key(of)));
    }

    #[test]
    fn scalars_are_read_as_the_server_reads_them() {
        let secret = |data: &str| told(&format!("apiVersion: v1\nkind: Secret\ndata:\n  a: {data}\n"));
        assert!(secret("\"aGVs\\nbG8=\"").is_empty());
        assert!(secret("'%%%'")[0].starts_with("x.yaml:4:6: data.a: illegal base64 data"), "{:?}", secret("'%%%'"));
        let quota = told("apiVersion: v1\nkind: ResourceQuota\nspec: {hard: {pods: 3, cpu: [1]}}\n");
        assert_eq!(quota.len(), 1);
        assert!(quota[0].contains("spec.hard.cpu: invalid type: sequence, expected a quantity"), "{quota:?}");
        let many = told("apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 99999999999, paused: 'yes', minReadySeconds: null}\n");
        assert_eq!(many.len(), 2, "{many:?}");
        assert!(many[0].contains("spec.replicas: invalid value: integer `99999999999`, expected i32"), "{many:?}");
    }

    #[test]
    fn whole_and_unknown_kinds_pass() {
        assert!(
            told("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, creationTimestamp: null}\ndata: {a: b}\nbinaryData: {c: aGk=}\n").is_empty()
        );
        assert!(told("apiVersion: example.com/v1\nkind: Foo\nwhatever: 1\n").is_empty());
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: a\n    image: b\n    ports: [{containerPort: 80}]\n    resources: {limits: {cpu: 1}}\n    livenessProbe: {httpGet: {port: http}}\n";
        assert_eq!(told(pod), Vec::<String>::new());
    }
}

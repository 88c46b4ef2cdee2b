//! kubectl's JSONPath template dialect (`k8s.io/client-go/util/jsonpath`): text with `{…}` actions.
//!
//! Owns lexing, the `range`/`end` blocks and the dialect's own rules (a missing key is empty, an index out of range is an error).
//! Selecting children is left to jsonpath-rust: every step becomes an RFC 9535 segment. Must never do I/O.

use std::collections::BTreeMap;

use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::query::js_path_process;
use serde_json::Value;

mod parse;

/// A template that does not parse, or cannot be evaluated on a given object; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// One step or piece of text.
#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Literal(Value),
    /// A child by name, with the query that selects it.
    Field(String, JpQuery),
    Wildcard(JpQuery),
    Recursive,
    /// `[start:end:step]`; an index is a slice of one, `derived` from its start.
    Slice(Bounds),
    Filter(Box<Comparison>),
    Union(Vec<Vec<Node>>),
    /// A `{…}` block or a sub-expression.
    List(Vec<Node>),
    Range,
    End,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    start: Option<i64>,
    end: Option<i64>,
    derived: bool,
    step: Option<i64>,
}

#[derive(Clone, Debug)]
struct Comparison {
    left: Vec<Node>,
    operator: String,
    right: Vec<Node>,
}

/// A parsed template.
///
/// ```
/// let template = shared::jsonpath::Template::parse("{.metadata.name}").unwrap();
/// let object = serde_json::json!({"metadata": {"name": "web"}});
/// assert_eq!(template.print(&object, true).unwrap(), "web");
/// ```
#[derive(Clone, Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Node {
    fn field(name: String) -> Node {
        let query = JpQuery::new(vec![Segment::Selector(Selector::Name(name.clone()))]);
        Node::Field(name, query)
    }
    fn wildcard() -> Node {
        Node::Wildcard(JpQuery::new(vec![Segment::Selector(Selector::Wildcard)]))
    }
}

impl Template {
    /// Parses a template; text outside braces stays text.
    ///
    /// # Errors
    /// Upstream's parser messages, such as `unclosed action`.
    pub fn parse(text: &str) -> Result<Template, Error> {
        Ok(Template { nodes: parse::parse(text)? })
    }

    /// Every value the template selects, in order, one group for each `{…}` block that selects something.
    ///
    /// # Errors
    /// An index out of range, a step into a value of the wrong type, or a missing key unless `allow_missing`.
    pub fn find(&self, object: &Value, allow_missing: bool) -> Result<Vec<Vec<Value>>, Error> {
        let evaluator = Evaluator { allow_missing };
        let mut groups = Vec::new();
        evaluator.block(&self.nodes, object, &mut groups, 0)?;
        Ok(groups)
    }

    /// The text kubectl prints: values of one block joined by spaces, objects and lists as compact JSON.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn print(&self, object: &Value, allow_missing: bool) -> Result<String, Error> {
        let mut text = String::new();
        for group in self.find(object, allow_missing)? {
            for (index, value) in group.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(&to_text(value));
            }
        }
        Ok(text)
    }
}

/// How one value is printed by a template.
pub fn to_text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "null".into(),
        other => crate::gojson::compact(other),
    }
}

struct Evaluator {
    allow_missing: bool,
}

/// A group under way: text and literals are owned, selections borrow the object.
type Selected<'a> = Vec<std::borrow::Cow<'a, Value>>;

impl Evaluator {
    /// Runs top-level nodes from the first on, and returns how many were consumed when an `end` closed the block.
    fn block(&self, nodes: &[Node], current: &Value, out: &mut Vec<Vec<Value>>, depth: usize) -> Result<usize, Error> {
        let mut index = 0;
        while index < nodes.len() {
            match range_of(&nodes[index]) {
                Block::Range(steps) => {
                    let selected = self.walk(vec![std::borrow::Cow::Borrowed(current)], steps)?;
                    let body = &nodes[index + 1..];
                    for value in &selected {
                        self.block(body, value, out, depth + 1)?;
                    }
                    index += body_length(body);
                }
                Block::End if depth == 0 => return Err(Error("not in range, nothing to end".into())),
                Block::End => return Ok(index + 1),
                Block::Plain(steps) => {
                    let selected = self.walk(vec![std::borrow::Cow::Borrowed(current)], steps)?;
                    out.push(selected.into_iter().map(std::borrow::Cow::into_owned).collect());
                }
            }
            index += 1;
        }
        Ok(index)
    }

    fn walk<'a>(&self, mut values: Selected<'a>, nodes: &[Node]) -> Result<Selected<'a>, Error> {
        for node in nodes {
            values = self.step(values, node)?;
        }
        Ok(values)
    }

    fn step<'a>(&self, values: Selected<'a>, node: &Node) -> Result<Selected<'a>, Error> {
        Ok(match node {
            Node::Text(text) => vec![std::borrow::Cow::Owned(Value::String(text.clone()))],
            Node::Literal(value) => vec![std::borrow::Cow::Owned(value.clone())],
            Node::Field(name, query) => {
                let found = select(&values, query);
                if found.is_empty() && !self.allow_missing {
                    return Err(Error(format!("{name} is not found")));
                }
                found
            }
            Node::Wildcard(query) => select(&values, query),
            Node::Recursive => values.iter().flat_map(|v| descend(v)).map(std::borrow::Cow::Owned).collect(),
            Node::Slice(bounds) => slice(&values, *bounds)?,
            Node::Filter(filter) => self.filter(&values, filter)?,
            Node::Union(branches) => {
                let mut all = Vec::new();
                for branch in branches {
                    all.extend(self.walk(values.clone(), branch)?);
                }
                all
            }
            Node::List(nodes) => self.walk(values, nodes)?,
            Node::Range | Node::End => values,
        })
    }

    fn filter<'a>(&self, values: &Selected<'a>, filter: &Comparison) -> Result<Selected<'a>, Error> {
        let mut kept = Vec::new();
        for value in values {
            let items = match value.as_ref() {
                Value::Array(items) => items,
                Value::Null => continue,
                other => return Err(Error(format!("{} is not array or slice and cannot be filtered", go_kind_text(other)))),
            };
            for item in items {
                // Inside a filter a missing key only means "does not match".
                let lenient = Evaluator { allow_missing: true };
                let left = lenient.walk(vec![std::borrow::Cow::Borrowed(item)], &filter.left)?;
                let passes = if filter.operator == "exists" {
                    !left.is_empty()
                } else {
                    let right = lenient.walk(vec![std::borrow::Cow::Borrowed(item)], &filter.right)?;
                    match (left.as_slice(), right.as_slice()) {
                        ([], _) | (_, []) => false,
                        ([l], [r]) => compare(l, &filter.operator, r)?,
                        _ => return Err(Error("can only compare one element at a time".into())),
                    }
                };
                if passes {
                    kept.push(std::borrow::Cow::Owned(item.clone()));
                }
            }
        }
        Ok(kept)
    }
}

enum Block<'a> {
    Range(&'a [Node]),
    End,
    Plain(&'a [Node]),
}

fn range_of(node: &Node) -> Block<'_> {
    match node {
        Node::List(nodes) => match nodes.first() {
            Some(Node::Range) => Block::Range(&nodes[1..]),
            Some(Node::End) => Block::End,
            _ => Block::Plain(nodes),
        },
        other => Block::Plain(std::slice::from_ref(other)),
    }
}

/// How many nodes belong to a range's body, its `end` included. Behind a range that nothing ends, upstream goes on at the last `end` it met,
/// or else runs the body once more, outside of the range.
fn body_length(nodes: &[Node]) -> usize {
    let mut depth = 0;
    for (index, node) in nodes.iter().enumerate() {
        match range_of(node) {
            Block::Range(_) => depth += 1,
            Block::End if depth == 0 => return index + 1,
            Block::End => depth -= 1,
            Block::Plain(_) => {}
        }
    }
    nodes.iter().rposition(|node| matches!(range_of(node), Block::End)).map_or(0, |at| at + 1)
}

fn select<'a>(values: &Selected<'a>, query: &JpQuery) -> Selected<'a> {
    let mut found = Vec::new();
    for value in values {
        match value {
            std::borrow::Cow::Borrowed(v) => {
                found.extend(js_path_process(query, *v).unwrap_or_default().into_iter().map(|r| std::borrow::Cow::Borrowed(r.val())));
            }
            std::borrow::Cow::Owned(v) => {
                found.extend(js_path_process(query, v).unwrap_or_default().into_iter().map(|r| std::borrow::Cow::Owned(r.val().clone())));
            }
        }
    }
    found
}

fn slice<'a>(values: &Selected<'a>, bounds: Bounds) -> Result<Selected<'a>, Error> {
    let mut out = Vec::new();
    for value in values {
        let length = match value.as_ref() {
            Value::Array(items) => items.len() as i64,
            Value::Null => continue,
            other => return Err(Error(format!("{} is not array or slice", go_kind(other)))),
        };
        let mut start = bounds.start.unwrap_or(0);
        if start < 0 {
            start += length;
        }
        let mut end = bounds.end.unwrap_or(length);
        if end < 0 || (end == 0 && bounds.derived) {
            end += length;
        }
        if start == end {
            continue;
        }
        if start >= length || start < 0 {
            return Err(Error(format!("array index out of bounds: index {start}, length {length}")));
        }
        if end > length || end < 0 {
            return Err(Error(format!("array index out of bounds: index {}, length {length}", end - 1)));
        }
        if start > end {
            return Err(Error(format!("starting index {start} is greater than ending index {end}")));
        }
        if bounds.step.is_some_and(|s| s <= 0) {
            return Err(Error("step must be > 0".into()));
        }
        let query = JpQuery::new(vec![Segment::Selector(Selector::Slice(Some(start), Some(end), bounds.step))]);
        out.extend(select(&vec![value.clone()], &query));
    }
    Ok(out)
}

/// The value and everything below it that holds something, parents first.
fn descend(value: &Value) -> Vec<Value> {
    let children: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        // Upstream walks into text as into a list, so text that holds something counts.
        Value::String(s) if !s.is_empty() => return vec![value.clone()],
        _ => return Vec::new(),
    };
    if children.is_empty() {
        return Vec::new();
    }
    let mut out = vec![value.clone()];
    for child in children {
        out.extend(descend(child));
    }
    out
}

fn compare(left: &Value, operator: &str, right: &Value) -> Result<bool, Error> {
    use std::cmp::Ordering;
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => match operator {
            "==" | "!=" => Some(a.cmp(b)),
            _ => return Err(Error("invalid type for comparison".into())),
        },
        _ => return Err(Error("incompatible types for comparison".into())),
    };
    Ok(match operator {
        "==" => order == Some(Ordering::Equal),
        "!=" => order != Some(Ordering::Equal),
        "<" => order == Some(Ordering::Less),
        ">" => order == Some(Ordering::Greater),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        ">=" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        other => return Err(Error(format!("unrecognized filter operator {other}"))),
    })
}

/// Go's name for a value's kind, as upstream's messages carry it.
fn go_kind(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) => if n.is_f64() { "float64" } else { "int64" }.into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "[]interface {}".into(),
        Value::Object(_) => "map[string]interface {}".into(),
    }
}

fn go_kind_text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let inner: Vec<String> = sorted.iter().map(|(k, v)| format!("{k}:{}", go_kind_text(v))).collect();
            format!("map[{}]", inner.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(go_kind_text).collect::<Vec<_>>().join(" ")),
        other => crate::gojson::compact(other),
    }
}

/// kubectl's relaxed spelling: `x.y`, `.x.y` and `{x.y}` all mean `{.x.y}` (`RelaxedJSONPathExpression`).
///
/// # Errors
/// `unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{name1.name2}' or '{.name1.name2}'`.
pub fn relaxed(expression: &str) -> Result<String, Error> {
    if expression.is_empty() {
        return Ok(String::new());
    }
    let bad = || {
        Error(format!(
            "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}' (got {expression:?})"
        ))
    };
    let inner = match (expression.strip_prefix('{'), expression.strip_suffix('}')) {
        (Some(_), Some(_)) => &expression[1..expression.len() - 1],
        (None, None) => expression,
        _ => return Err(bad()),
    };
    let inner = inner.strip_prefix('.').unwrap_or(inner);
    if inner.is_empty() || inner.contains(['{', '}']) {
        return Err(bad());
    }
    Ok(format!("{{.{inner}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "kind": "Deployment",
            "metadata": {"name": "d", "labels": {"app.kubernetes.io/name": "web", "zz": "1"}, "annotations": {"x": "a<b"}},
            "spec": {"replicas": 3, "paused": true, "f": 1.5, "template": {"spec": {"containers": [
                {"name": "a", "image": "i1", "ports": [{"containerPort": 80}, {"containerPort": 81}]},
                {"name": "b", "image": "i2"}]}}}
        })
    }

    #[test]
    fn prints_as_kubectl_does() {
        const C: &str = ".spec.template.spec.containers";
        for (template, expected) in [
            ("{.metadata.name}", "d"),
            (".metadata.name", ".metadata.name"),
            ("{.spec.nope}", ""),
            ("x{.spec.nope.y}y", "xy"),
            ("{C[*].name}", "a b"),
            ("{C[-1].name}", "b"),
            ("{C[0:2].name}", "a b"),
            ("{C[-1:].name}", "b"),
            ("{C[::2].name}", "a"),
            ("{C[].name}", "a"),
            ("{..containerPort}", "80 81"),
            ("{.spec..name}", "a b"),
            ("{range C[*]}{.name}{\"\\t\"}{.image}{\"\\n\"}{end}", "a\ti1\nb\ti2\n"),
            ("{range C[*]}[{.name}{range .ports[*]} {.containerPort}{end}]{end}", "[a 80 81][b]"),
            ("{range .spec.x[*]}a{end}b", "b"),
            ("{.metadata.labels.app\\.kubernetes\\.io/name}", "web"),
            ("{.metadata.labels['app\\.kubernetes\\.io/name']}", "web"),
            ("{.metadata['name','labels']}", "d {\"app.kubernetes.io/name\":\"web\",\"zz\":\"1\"}"),
            ("{C[?(@.name==\"a\")].image}", "i1"),
            ("{C[?(@.name=='b')].image}", "i2"),
            ("{C[?(@.ports)].image}", "i1"),
            ("{C[?(@.name!=\"a\")].image}", "i2"),
            ("{C[0].ports[?(@.containerPort>80)]}", "{\"containerPort\":81}"),
            ("{.metadata.annotations}", "{\"x\":\"a\\u003cb\"}"),
            ("{.spec.replicas}{.spec.paused}{.spec.f}", "3true1.5"),
            ("{$.kind}-{@.kind}", "Deployment-Deployment"),
            ("{C[0,1].name}", "a b"),
            ("{C.name}", ""),
            ("{\"a\"}{1}{true}", "a1true"),
            ("{'x'}", "x"),
            ("{ .kind }", "Deployment"),
            ("{.kind .metadata.name}", ""),
            ("{.items[*].x}", ""),
        ] {
            let text = template.replace('C', C);
            assert_eq!(Template::parse(&text).and_then(|t| t.print(&sample(), true)), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn fails_with_upstreams_words() {
        const C: &str = ".spec.template.spec.containers";
        for (template, message) in [
            ("{C[5].name}", "array index out of bounds: index 5, length 2"),
            ("{C[3:].name}", "array index out of bounds: index 3, length 2"),
            ("{C[0:1:0]}", "step must be > 0"),
            ("{", "unclosed action"),
            ("{.x", "unclosed action"),
            ("{end}", "not in range, nothing to end"),
            ("{.metadata.name[0]}", "string is not array or slice"),
            ("{C[a]}", "invalid array index a"),
            ("{C[?(@.name==\"a\" && @.image==\"i1\")].image}", "unrecognized character in action: U+0026 '&'"),
        ] {
            let text = template.replace('C', C);
            let error = Template::parse(&text).and_then(|t| t.print(&sample(), true)).unwrap_err();
            assert_eq!(error.0, message, "{text}");
        }
        assert_eq!(Template::parse("{.spec.nope}").unwrap().print(&sample(), false).unwrap_err().0, "nope is not found");
    }

    #[test]
    fn relaxed_expressions_get_their_braces() {
        for (given, wanted) in [("x.y", "{.x.y}"), (".x.y", "{.x.y}"), ("{x.y}", "{.x.y}"), ("{.x.y}", "{.x.y}"), ("", "")] {
            assert_eq!(relaxed(given).unwrap(), wanted);
        }
        assert!(relaxed("{.x").is_err());
    }
}

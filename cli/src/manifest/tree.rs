//! YAML as a tree that remembers where everything stands, read by the YAML 1.1 rules kubectl's reader follows.
//!
//! serde_yaml gives neither positions nor a scalar's quoting, and both are needed here.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};
use shared::yaml11;

/// A place in a text, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Something that keeps a text from being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Position,
    pub message: String,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub at: Position,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Scalar(Value),
    Sequence(Vec<Node>),
    /// Keys in the order written, with their positions.
    Mapping(Vec<(String, Position, Node)>),
}

impl Node {
    /// The value without positions.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::Sequence(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Content::Mapping(entries) => Value::Object(entries.iter().map(|(k, _, v)| (k.clone(), v.to_json())).collect::<Map<_, _>>()),
        }
    }
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().find(|(k, _, _)| k == key).map(|(_, _, v)| v),
            _ => None,
        }
    }
    /// The text of a scalar.
    pub fn text(&self) -> &str {
        match &self.content {
            Content::Scalar(Value::String(s)) => s,
            _ => "",
        }
    }
}

/// Every document of a text, or everything wrong with it: a broken document does not hide the next one's faults.
pub fn documents(text: &str) -> Result<Vec<Node>, Vec<Fault>> {
    documents_by(text, yaml11::to_json)
}

/// As [`documents`], with the meaning of plain words left to the caller.
pub fn documents_by(text: &str, plain: fn(&str) -> Value) -> Result<Vec<Node>, Vec<Fault>> {
    let mut nodes = Vec::new();
    let mut faults = Vec::new();
    for (first_line, part) in split(text) {
        let shift = |at: Position| Position { line: at.line + first_line, ..at };
        match Builder::read(part, first_line, plain) {
            Ok(found) => nodes.extend(found),
            Err(fault) => faults.push(Fault { at: shift(fault.at), ..fault }),
        }
    }
    if faults.is_empty() { Ok(nodes) } else { Err(faults) }
}

/// Cuts at lines of `---`, as upstream's reader does before it parses; gives the number of lines before each part.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        if line.trim_end() == "---" || line.starts_with("--- #") {
            parts.push((first_line, &text[start..offset]));
            (start, first_line) = (end, number + 1);
        }
        offset = end;
    }
    parts.push((first_line, &text[start..]));
    parts
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

enum Frame {
    Sequence(Position, Vec<Node>, usize),
    Mapping(Position, Vec<(String, Position, Node)>, usize, Option<(String, Position)>, Vec<Node>),
}

struct Builder {
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    done: Vec<Node>,
    line_shift: usize,
    size: usize,
    plain: fn(&str) -> Value,
}

/// Aliases may multiply a document; upstream's reader gives up in the same way.
const MAX_NODES: usize = 1_000_000;

impl Builder {
    fn read(text: &str, line_shift: usize, plain: fn(&str) -> Value) -> Result<Vec<Node>, Fault> {
        let mut builder = Builder { stack: Vec::new(), anchors: HashMap::new(), done: Vec::new(), line_shift, size: 0, plain };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|e| Fault { at: position(e.marker()), message: e.info() })?;
            builder.event(event, &span)?;
        }
        Ok(builder.done)
    }

    fn at(&self, span: &Span) -> Position {
        let at = position(&span.start);
        Position { line: at.line + self.line_shift, ..at }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Fault> {
        let at = self.at(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let forced_text = tag.as_ref().is_some_and(|t| t.core_suffix() == Some("str"));
                let plain = style == ScalarStyle::Plain && !forced_text;
                let value = if plain { (self.plain)(&text) } else { Value::String(text.into_owned()) };
                self.add(Node { at, content: Content::Scalar(value) }, anchor, span)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.stack.push(Frame::Sequence(at, Vec::new(), anchor));
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.stack.push(Frame::Mapping(at, Vec::new(), anchor, None, Vec::new()));
                Ok(())
            }
            Event::SequenceEnd => match self.stack.pop() {
                Some(Frame::Sequence(at, items, anchor)) => self.add(Node { at, content: Content::Sequence(items) }, anchor, span),
                _ => Ok(()),
            },
            Event::MappingEnd => match self.stack.pop() {
                Some(Frame::Mapping(at, entries, anchor, _, merges)) => {
                    let entries = merged(entries, merges);
                    self.add(Node { at, content: Content::Mapping(entries) }, anchor, span)
                }
                _ => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.add(node, 0, span),
                None => Err(Fault { at: position(&span.start), message: "unknown anchor".into() }),
            },
            _ => Ok(()),
        }
    }

    fn add(&mut self, node: Node, anchor: usize, span: &Span) -> Result<(), Fault> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.size += 1;
        if self.size > MAX_NODES {
            return Err(Fault { at: position(&span.start), message: "document contains excessive aliasing".into() });
        }
        match self.stack.last_mut() {
            None => self.done.push(node),
            Some(Frame::Sequence(_, items, _)) => items.push(node),
            Some(Frame::Mapping(_, entries, _, pending, merges)) => match pending.take() {
                Some((key, _)) if key == "<<" => match node.content {
                    Content::Sequence(items) => merges.extend(items),
                    _ => merges.push(node),
                },
                Some((key, at)) => entries.push((key, at, node)),
                None => {
                    let Content::Scalar(scalar) = &node.content else {
                        return Err(Fault { at: position(&span.start), message: "a key must be plain text".into() });
                    };
                    let key = match scalar {
                        Value::String(s) => s.clone(),
                        other => shared::gojson::compact(other),
                    };
                    if let Some((_, first, _)) = entries.iter().find(|(k, _, _)| *k == key) {
                        return Err(Fault {
                            at: position(&span.start),
                            message: format!("key {key:?} already set in map (first at line {})", first.line),
                        });
                    }
                    *pending = Some((key, node.at));
                }
            },
        }
        Ok(())
    }
}

/// `<<` fills in what the mapping does not set itself.
fn merged(mut entries: Vec<(String, Position, Node)>, merges: Vec<Node>) -> Vec<(String, Position, Node)> {
    for merge in merges {
        if let Content::Mapping(more) = merge.content {
            for entry in more {
                if !entries.iter().any(|(k, _, _)| *k == entry.0) {
                    entries.push(entry);
                }
            }
        }
    }
    entries
}

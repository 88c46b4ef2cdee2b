//! Turns a template's text into nodes (`k8s.io/client-go/util/jsonpath/parser.go`).

use serde_json::Value;

use super::{Bounds, Comparison, Error, Node};

struct Parser<'a> {
    text: &'a str,
    position: usize,
}

fn fail<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error(message.into()))
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, Error> {
    let mut nodes = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            nodes.push(Node::Text(rest[..open].to_owned()));
        }
        let mut parser = Parser { text: &rest[open + 1..], position: 0 };
        nodes.push(Node::List(parser.action(true)?));
        rest = &parser.text[parser.position..];
    }
    if !rest.is_empty() {
        nodes.push(Node::Text(rest.to_owned()));
    }
    Ok(nodes)
}

/// Parses an expression without braces, as filters and unions hold.
fn expression(text: &str) -> Result<Vec<Node>, Error> {
    Parser { text, position: 0 }.action(false)
}

fn is_terminator(c: char) -> bool {
    matches!(c, '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}') || c.is_whitespace()
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }
    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.position += c.len_utf8();
        Some(c)
    }

    fn action(&mut self, braced: bool) -> Result<Vec<Node>, Error> {
        let mut nodes = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with("[?(") {
                nodes.push(self.filter()?);
                continue;
            }
            if rest.starts_with("..") {
                if matches!(nodes.last(), Some(Node::Recursive)) {
                    return fail("invalid multiple recursive descent");
                }
                self.position += 2;
                nodes.push(Node::Recursive);
                if self.rest().starts_with(is_word) {
                    nodes.push(self.field());
                }
                continue;
            }
            match self.next() {
                Some('}') if braced => return Ok(nodes),
                None if !braced => return Ok(nodes),
                None | Some('\n' | '\r') => return fail("unclosed action"),
                Some(' ' | '@' | '$') => {}
                Some('[') => nodes.push(self.array()?),
                Some(quote @ ('"' | '\'')) => nodes.push(self.quoted(quote)?),
                Some('.') => nodes.push(self.field()),
                Some(c) if c == '+' || c == '-' || c.is_ascii_digit() => {
                    self.position -= c.len_utf8();
                    nodes.push(self.number()?);
                }
                Some(c) if is_word(c) => {
                    self.position -= c.len_utf8();
                    nodes.push(self.identifier()?);
                }
                Some(c) => return fail(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32)),
            }
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.position += end;
        &rest[..end]
    }

    fn identifier(&mut self) -> Result<Node, Error> {
        let word = self.take_while(|c| !is_terminator(c));
        match word {
            "true" => Ok(Node::Literal(Value::Bool(true))),
            "false" => Ok(Node::Literal(Value::Bool(false))),
            "range" => Ok(Node::Range),
            "end" => Ok(Node::End),
            other => fail(format!("unrecognized identifier {other}")),
        }
    }

    fn number(&mut self) -> Result<Node, Error> {
        let start = self.position;
        if self.rest().starts_with(['+', '-']) {
            self.position += 1;
        }
        self.take_while(|c| c == '.' || c.is_ascii_digit());
        let text = &self.text[start..self.position];
        if let Ok(integer) = text.trim_start_matches('+').parse::<i64>() {
            return Ok(Node::Literal(integer.into()));
        }
        match text.parse::<f64>() {
            Ok(float) => Ok(Node::Literal(float.into())),
            Err(_) => fail(format!("cannot parse number {text}")),
        }
    }

    fn field(&mut self) -> Node {
        let mut name = String::new();
        while let Some(c) = self.rest().chars().next() {
            if c == '\\' {
                self.next();
                name.extend(self.next());
            } else if is_terminator(c) {
                break;
            } else {
                name.push(c);
                self.next();
            }
        }
        if name == "*" { Node::wildcard() } else { Node::field(name) }
    }

    fn quoted(&mut self, quote: char) -> Result<Node, Error> {
        let mut text = String::new();
        loop {
            match self.next() {
                None | Some('\n') => return fail("unterminated quoted string"),
                Some('\\') => match self.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(c @ ('\\' | '"' | '\'' | '{' | '}')) => text.push(c),
                    Some('u') => {
                        let digits = self.rest().get(..4).unwrap_or_default();
                        let Some(c) = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) else { return fail("invalid syntax") };
                        self.position += digits.len();
                        text.push(c);
                    }
                    Some(c) => {
                        text.push('\\');
                        text.push(c);
                    }
                    None => return fail("unterminated quoted string"),
                },
                Some(c) if c == quote => return Ok(Node::Text(text)),
                Some(c) => text.push(c),
            }
        }
    }

    fn filter(&mut self) -> Result<Node, Error> {
        self.position += "[?(".len();
        let start = self.position;
        let mut quote = None;
        loop {
            match self.next() {
                None | Some('\n') => return fail("unterminated filter"),
                Some(c @ ('"' | '\'')) => match quote {
                    None => quote = Some(c),
                    Some(open) if open == c && !self.text[..self.position - 1].ends_with('\\') => quote = None,
                    Some(_) => {}
                },
                Some(')') if quote.is_none() => break,
                Some(_) => {}
            }
        }
        if self.next() != Some(']') {
            return fail("unclosed array expect ]");
        }
        let text = &self.text[start..self.position - 2];
        let is_operator = |c: char| matches!(c, '!' | '<' | '>' | '=');
        let comparison = match text.find(is_operator).filter(|at| *at > 0) {
            Some(at) => {
                let after = &text[at..];
                let width = after.find(|c| !is_operator(c)).unwrap_or(after.len());
                Comparison { left: expression(&text[..at])?, operator: after[..width].to_owned(), right: expression(&after[width..])? }
            }
            None => Comparison { left: expression(text)?, operator: "exists".into(), right: Vec::new() },
        };
        Ok(Node::Filter(Box::new(comparison)))
    }

    fn array(&mut self) -> Result<Node, Error> {
        let start = self.position;
        loop {
            match self.next() {
                None | Some('\n') => return fail("unterminated array"),
                Some(']') => break,
                Some(_) => {}
            }
        }
        let text = &self.text[start..self.position - 1];
        if text == "*" {
            return Ok(Node::Slice(Bounds::default()));
        }
        let parts: Vec<&str> = text.split(',').collect();
        if parts.len() > 1 {
            let branches = parts.into_iter().map(|part| expression(&format!("[{}]", part.trim_matches(' '))));
            return Ok(Node::Union(branches.collect::<Result<_, _>>()?));
        }
        if let Some(key) = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')).filter(|k| !k.contains('\'')) {
            return Ok(Node::List(expression(&format!(".{key}"))?));
        }
        bounds(text).map(Node::Slice)
    }
}

fn bounds(text: &str) -> Result<Bounds, Error> {
    let invalid = || Error(format!("invalid array index {text}"));
    let mut numbers = [None; 3];
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 {
        return Err(invalid());
    }
    for (slot, part) in numbers.iter_mut().zip(&parts) {
        if !part.is_empty() {
            *slot = Some(part.parse::<i64>().map_err(|_| invalid())?);
        }
    }
    let [start, mut end, step] = numbers;
    let derived = parts.len() == 1;
    if derived {
        end = Some(start.unwrap_or(0) + 1);
    }
    Ok(Bounds { start, end, derived, step })
}

//! Builds the tree of a template.

use std::collections::HashMap;

use serde_json::Value;

use super::lex::{self, Lexeme, Piece, Token};
use super::{Error, Template, fail, functions};

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// A pipeline whose value is printed unless it declares.
    Action(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    Template(String, Option<Pipe>, Place),
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub(super) struct Pipe {
    pub variables: Vec<String>,
    /// `=` instead of `:=`.
    pub assigns: bool,
    pub commands: Vec<Command>,
}

/// Operands, the first one perhaps a function.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub operands: Vec<Operand>,
    pub place: Place,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub what: What,
    pub place: Place,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Dot,
    Nil,
    Constant(Value),
    Function(String),
    Variable(String),
    Nested(Box<Pipe>),
    /// Fields of another operand.
    Chain(Box<Operand>, Vec<String>),
}

/// What an error names: where something stands, and how `text/template` would write it.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub at: usize,
    pub text: String,
}

fn written(commands: &[Command]) -> String {
    commands.iter().map(|c| c.place.text.as_str()).collect::<Vec<_>>().join(" | ")
}

pub(super) fn parse(text: &str) -> Result<Template, Error> {
    let mut parser = Parser { pieces: lex::pieces(text)?.into_iter(), named: HashMap::new(), variables: vec![String::new()], loops: 0 };
    let (body, end) = parser.list()?;
    match end {
        Stop::Eof => Ok(Template { source: text.to_owned(), body, named: parser.named }),
        Stop::End => fail("unexpected {{end}}"),
        Stop::Else(_) => fail("unexpected {{else}}"),
    }
}

enum Stop {
    Eof,
    End,
    Else(Vec<Lexeme>),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    named: HashMap<String, Vec<Node>>,
    variables: Vec<String>,
    loops: usize,
}

impl Parser {
    fn list(&mut self) -> Result<(Vec<Node>, Stop), Error> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            match piece {
                Piece::Text(text) => nodes.push(Node::Text(text)),
                Piece::Action(tokens) => {
                    let keyword = match tokens.iter().map(|t| &t.token).find(|t| **t != Token::Space) {
                        Some(Token::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    let rest = || after_keyword(&tokens);
                    match keyword.as_str() {
                        "end" => return Ok((nodes, Stop::End)),
                        "else" => return Ok((nodes, Stop::Else(rest()))),
                        "if" | "with" | "range" => nodes.push(self.control(&keyword, rest())?),
                        "define" | "block" => nodes.extend(self.define(&keyword, rest())?),
                        "template" => nodes.push(self.template(&rest())?),
                        "break" | "continue" if self.loops == 0 => return fail(format!("{{{{{keyword}}}}} outside {{{{range}}}}")),
                        "break" => nodes.push(Node::Break),
                        "continue" => nodes.push(Node::Continue),
                        _ => nodes.push(Node::Action(self.pipe(&tokens, "command")?)),
                    }
                }
            }
        }
        Ok((nodes, Stop::Eof))
    }

    fn control(&mut self, keyword: &str, tokens: Vec<Lexeme>) -> Result<Node, Error> {
        let scope = self.variables.len();
        let pipe = self.pipe(&tokens, keyword)?;
        if keyword == "range" {
            self.loops += 1;
        }
        let (body, end) = self.list()?;
        let otherwise = match end {
            Stop::Eof => return fail("unexpected EOF"),
            Stop::End => Vec::new(),
            Stop::Else(tokens) => match tokens.iter().map(|t| &t.token).find(|t| **t != Token::Space) {
                Some(Token::Word(word)) if word == keyword && keyword != "range" => vec![self.control(keyword, after_keyword(&tokens))?],
                Some(_) => return fail("expected end; found {{else}}"),
                None => match self.list()? {
                    (nodes, Stop::End) => nodes,
                    _ => return fail("expected end; found {{else}}"),
                },
            },
        };
        self.variables.truncate(scope);
        Ok(match keyword {
            "if" => Node::If(pipe, body, otherwise),
            "with" => Node::With(pipe, body, otherwise),
            _ => {
                self.loops -= 1;
                Node::Range(pipe, body, otherwise)
            }
        })
    }

    fn define(&mut self, keyword: &str, tokens: Vec<Lexeme>) -> Result<Option<Node>, Error> {
        let (name, argument, place) = self.name_and_pipe(&tokens)?;
        match self.list()? {
            (body, Stop::End) => self.named.insert(name.clone(), body),
            _ => return fail(format!("unexpected EOF in {keyword} clause")),
        };
        Ok((keyword == "block").then_some(Node::Template(name, argument, place)))
    }

    fn template(&mut self, tokens: &[Lexeme]) -> Result<Node, Error> {
        let (name, argument, place) = self.name_and_pipe(tokens)?;
        Ok(Node::Template(name, argument, place))
    }

    fn name_and_pipe(&mut self, tokens: &[Lexeme]) -> Result<(String, Option<Pipe>, Place), Error> {
        let mut rest = tokens.iter().enumerate().filter(|(_, t)| t.token != Token::Space);
        let Some((at, Lexeme { token: Token::Text(name), at: start, .. })) = rest.next() else { return fail("missing template name") };
        let argument = &tokens[at + 1..];
        let has_argument = argument.iter().any(|t| t.token != Token::Space);
        let pipe = if has_argument { Some(self.pipe(argument, "template clause")?) } else { None };
        let behind = pipe.as_ref().map_or_else(String::new, |p| format!(" {}", written(&p.commands)));
        let place = Place { at: *start, text: format!("{{{{template {name:?}{behind}}}}}") };
        Ok((name.clone(), pipe, place))
    }

    fn pipe(&mut self, tokens: &[Lexeme], context: &str) -> Result<Pipe, Error> {
        let mut reader = Reader { tokens, position: 0 };
        let mut pipe = Pipe { variables: Vec::new(), assigns: false, commands: Vec::new() };
        if let Some(at) = tokens.iter().position(|t| matches!(t.token, Token::Declare | Token::Assign)) {
            pipe.assigns = tokens[at].token == Token::Assign;
            for lexeme in &tokens[..at] {
                match &lexeme.token {
                    Token::Variable(name) => pipe.variables.push(name.clone()),
                    Token::Space | Token::Comma => {}
                    other => return fail(format!("unexpected {other:?} in {context}")),
                }
            }
            reader.position = at + 1;
        }
        pipe.commands = self.commands(&mut reader, false)?;
        if pipe.commands.is_empty() {
            return fail(format!("missing value for {context}"));
        }
        if !pipe.assigns {
            self.variables.extend(pipe.variables.iter().cloned());
        }
        Ok(pipe)
    }

    fn commands(&mut self, reader: &mut Reader<'_>, nested: bool) -> Result<Vec<Command>, Error> {
        let mut commands = Vec::new();
        let mut operands: Vec<Operand> = Vec::new();
        let mut start = 0;
        let command = |operands: Vec<Operand>, at: usize| {
            let text = operands.iter().map(|o| o.place.text.as_str()).collect::<Vec<_>>().join(" ");
            Command { operands, place: Place { at, text } }
        };
        loop {
            let Some(lexeme) = reader.next() else {
                if nested {
                    return fail("unclosed left paren");
                }
                break;
            };
            match &lexeme.token {
                Token::Close if nested => break,
                Token::Close => return fail("unexpected right paren"),
                Token::Space => {}
                Token::Pipe => {
                    if operands.is_empty() {
                        return fail("missing value for command");
                    }
                    commands.push(command(std::mem::take(&mut operands), start));
                }
                _ => {
                    if operands.is_empty() {
                        start = lexeme.at;
                    }
                    operands.push(self.operand(lexeme, reader)?);
                }
            }
        }
        if !operands.is_empty() {
            commands.push(command(operands, start));
        }
        Ok(commands)
    }

    fn operand(&mut self, lexeme: &Lexeme, reader: &mut Reader<'_>) -> Result<Operand, Error> {
        let mut fields = Vec::new();
        let mut text = lexeme.written.clone();
        let what = match &lexeme.token {
            Token::Field(name) => {
                if !name.is_empty() {
                    fields.push(name.clone());
                }
                What::Dot
            }
            Token::Variable(name) => {
                if !self.variables.contains(name) {
                    return fail(format!("undefined variable \"${name}\""));
                }
                What::Variable(name.clone())
            }
            Token::Text(text) => What::Constant(Value::String(text.clone())),
            Token::Char(c) => What::Constant(Value::from(*c as u32)),
            Token::Number(text) => What::Constant(number(text)?),
            Token::Word(word) => match word.as_str() {
                "true" => What::Constant(Value::Bool(true)),
                "false" => What::Constant(Value::Bool(false)),
                "nil" => What::Nil,
                name if functions::exists(name) => What::Function(word.clone()),
                name => return fail(format!("function {name:?} not defined")),
            },
            Token::Open => {
                let commands = self.commands(reader, true)?;
                if commands.is_empty() {
                    return fail("missing value for parenthesized pipeline");
                }
                text = format!("({})", written(&commands));
                What::Nested(Box::new(Pipe { variables: Vec::new(), assigns: false, commands }))
            }
            other => return fail(format!("unexpected {other:?} in operand")),
        };
        // A chain begins, as text/template counts, at the first field behind its first part.
        let mut at = lexeme.at;
        let base = Operand { what, place: Place { at, text: text.clone() } };
        let mut first = true;
        while let Some(Lexeme { token: Token::Field(name), at: here, written }) = reader.peek() {
            if std::mem::take(&mut first) {
                at = *here;
            }
            fields.push(name.clone());
            text.push_str(written);
            reader.position += 1;
        }
        Ok(if fields.is_empty() { base } else { Operand { what: What::Chain(Box::new(base), fields), place: Place { at, text } } })
    }
}

fn after_keyword(tokens: &[Lexeme]) -> Vec<Lexeme> {
    let at = tokens.iter().position(|t| t.token != Token::Space).map_or(tokens.len(), |at| at + 1);
    tokens[at..].to_vec()
}

fn number(text: &str) -> Result<Value, Error> {
    let plain = text.replace('_', "");
    if let shared::yaml11::Resolved::Int(i) = shared::yaml11::resolve(&plain) {
        return Ok(Value::from(i));
    }
    plain.parse::<f64>().map(Value::from).or_else(|_| fail(format!("bad number syntax: {text:?}")))
}

struct Reader<'a> {
    tokens: &'a [Lexeme],
    position: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Lexeme> {
        self.tokens.get(self.position)
    }
    fn next(&mut self) -> Option<&'a Lexeme> {
        self.position += 1;
        self.tokens.get(self.position - 1)
    }
}

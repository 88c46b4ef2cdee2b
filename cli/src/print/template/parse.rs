//! Builds the tree of a template.

use std::collections::HashMap;

use serde_json::Value;

use super::lex::{self, Piece, Token};
use super::{Error, Template, fail, functions};

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// A pipeline whose value is printed unless it declares.
    Action(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    Template(String, Option<Pipe>),
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub(super) struct Pipe {
    pub variables: Vec<String>,
    /// `=` instead of `:=`.
    pub assigns: bool,
    /// Each command is its operands, the first one perhaps a function.
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    Dot,
    Nil,
    Constant(Value),
    Function(String),
    Variable(String),
    Nested(Box<Pipe>),
    /// Fields of another operand.
    Chain(Box<Operand>, Vec<String>),
}

pub(super) fn parse(text: &str) -> Result<Template, Error> {
    let mut parser = Parser { pieces: lex::pieces(text)?.into_iter(), named: HashMap::new(), variables: vec![String::new()], loops: 0 };
    let (body, end) = parser.list()?;
    match end {
        Stop::Eof => Ok(Template { body, named: parser.named }),
        Stop::End => fail("unexpected {{end}}"),
        Stop::Else(_) => fail("unexpected {{else}}"),
    }
}

enum Stop {
    Eof,
    End,
    Else(Vec<Token>),
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
                    let keyword = match tokens.iter().find(|t| **t != Token::Space) {
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

    fn control(&mut self, keyword: &str, tokens: Vec<Token>) -> Result<Node, Error> {
        let scope = self.variables.len();
        let pipe = self.pipe(&tokens, keyword)?;
        if keyword == "range" {
            self.loops += 1;
        }
        let (body, end) = self.list()?;
        let otherwise = match end {
            Stop::Eof => return fail("unexpected EOF"),
            Stop::End => Vec::new(),
            Stop::Else(tokens) => match tokens.iter().find(|t| **t != Token::Space) {
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

    fn define(&mut self, keyword: &str, tokens: Vec<Token>) -> Result<Option<Node>, Error> {
        let (name, argument) = self.name_and_pipe(&tokens)?;
        match self.list()? {
            (body, Stop::End) => self.named.insert(name.clone(), body),
            _ => return fail(format!("unexpected EOF in {keyword} clause")),
        };
        Ok((keyword == "block").then_some(Node::Template(name, argument)))
    }

    fn template(&mut self, tokens: &[Token]) -> Result<Node, Error> {
        let (name, argument) = self.name_and_pipe(tokens)?;
        Ok(Node::Template(name, argument))
    }

    fn name_and_pipe(&mut self, tokens: &[Token]) -> Result<(String, Option<Pipe>), Error> {
        let mut rest = tokens.iter().enumerate().filter(|(_, t)| **t != Token::Space);
        let Some((at, Token::Text(name))) = rest.next() else { return fail("missing template name") };
        let argument = &tokens[at + 1..];
        let has_argument = argument.iter().any(|t| *t != Token::Space);
        let pipe = if has_argument { Some(self.pipe(argument, "template clause")?) } else { None };
        Ok((name.clone(), pipe))
    }

    fn pipe(&mut self, tokens: &[Token], context: &str) -> Result<Pipe, Error> {
        let mut reader = Reader { tokens, position: 0 };
        let mut pipe = Pipe { variables: Vec::new(), assigns: false, commands: Vec::new() };
        if let Some(at) = tokens.iter().position(|t| matches!(t, Token::Declare | Token::Assign)) {
            pipe.assigns = tokens[at] == Token::Assign;
            for token in &tokens[..at] {
                match token {
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

    fn commands(&mut self, reader: &mut Reader<'_>, nested: bool) -> Result<Vec<Vec<Operand>>, Error> {
        let mut commands = Vec::new();
        let mut operands = Vec::new();
        loop {
            match reader.next() {
                None if nested => return fail("unclosed left paren"),
                None => break,
                Some(Token::Close) if nested => break,
                Some(Token::Close) => return fail("unexpected right paren"),
                Some(Token::Space) => {}
                Some(Token::Pipe) => {
                    if operands.is_empty() {
                        return fail("missing value for command");
                    }
                    commands.push(std::mem::take(&mut operands));
                }
                Some(token) => {
                    let operand = self.operand(token.clone(), reader)?;
                    operands.push(operand);
                }
            }
        }
        if !operands.is_empty() {
            commands.push(operands);
        }
        Ok(commands)
    }

    fn operand(&mut self, token: Token, reader: &mut Reader<'_>) -> Result<Operand, Error> {
        let mut fields = Vec::new();
        let base = match token {
            Token::Field(name) => {
                if !name.is_empty() {
                    fields.push(name);
                }
                Operand::Dot
            }
            Token::Variable(name) => {
                if !self.variables.contains(&name) {
                    return fail(format!("undefined variable \"${name}\""));
                }
                Operand::Variable(name)
            }
            Token::Text(text) => Operand::Constant(Value::String(text)),
            Token::Char(c) => Operand::Constant(Value::from(c as u32)),
            Token::Number(text) => Operand::Constant(number(&text)?),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Constant(Value::Bool(true)),
                "false" => Operand::Constant(Value::Bool(false)),
                "nil" => Operand::Nil,
                name if functions::exists(name) => Operand::Function(word),
                name => return fail(format!("function {name:?} not defined")),
            },
            Token::Open => {
                let commands = self.commands(reader, true)?;
                if commands.is_empty() {
                    return fail("missing value for parenthesized pipeline");
                }
                Operand::Nested(Box::new(Pipe { variables: Vec::new(), assigns: false, commands }))
            }
            other => return fail(format!("unexpected {other:?} in operand")),
        };
        while let Some(Token::Field(name)) = reader.peek() {
            fields.push(name.clone());
            reader.position += 1;
        }
        Ok(if fields.is_empty() { base } else { Operand::Chain(Box::new(base), fields) })
    }
}

fn after_keyword(tokens: &[Token]) -> Vec<Token> {
    let at = tokens.iter().position(|t| *t != Token::Space).map_or(tokens.len(), |at| at + 1);
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
    tokens: &'a [Token],
    position: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.position)
    }
    fn next(&mut self) -> Option<&'a Token> {
        self.position += 1;
        self.tokens.get(self.position - 1)
    }
}

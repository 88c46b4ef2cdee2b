//! From text to syntax tree: precedence climbing over the tokens, macros recognised as they are read.

use std::sync::Arc;

use super::ast::{Call, Comprehension, Expr, Field, Item, Kind, Macro, Select, Struct};
use super::lex::{Spanned, SyntaxError, Token, tokens};
use super::types;
use super::value::Value;

/// How deep expressions may nest: evaluation recurses, and its stack is a thread's.
const DEPTH: usize = 100;

struct Parser {
    tokens: Vec<Spanned>,
    next: usize,
    depth: usize,
}

/// Parses a whole expression.
pub(super) fn parse(source: &str) -> Result<Expr, SyntaxError> {
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

/// A binary operator's rank and the function behind it.
fn binary(mark: &str) -> Option<(u8, &'static str)> {
    Some(match mark {
        "||" => (1, "_||_"),
        "&&" => (2, "_&&_"),
        "==" => (3, "_==_"),
        "!=" => (3, "_!=_"),
        "<" => (3, "_<_"),
        "<=" => (3, "_<=_"),
        ">" => (3, "_>_"),
        ">=" => (3, "_>=_"),
        "in" => (3, "@in"),
        "+" => (4, "_+_"),
        "-" => (4, "_-_"),
        "*" => (5, "_*_"),
        "/" => (5, "_/_"),
        "%" => (5, "_%_"),
        _ => return None,
    })
}

pub(super) fn call(at: usize, name: &str, target: Option<Expr>, args: Vec<Expr>) -> Expr {
    Expr { at, kind: Kind::Call(Box::new(Call { name: name.into(), target, args, run: None })) }
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.next].token.clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn take(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Token::Mark(m) if *m == mark);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, mark: &str) -> Result<(), SyntaxError> {
        if self.take(mark) { Ok(()) } else { Err(self.unexpected(&format!("'{mark}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> SyntaxError {
        let found = &self.tokens[self.next];
        (found.at, format!("Syntax error: mismatched input '{}' expecting {wanted}", found.text))
    }

    fn expr(&mut self) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err((self.at(), format!("expression recursion limit exceeded: {DEPTH}")));
        }
        let condition = self.operators(1)?;
        let at = self.at();
        let expr = if self.take("?") {
            let yes = self.operators(1)?;
            self.expect(":")?;
            let no = self.expr()?;
            Expr { at, kind: Kind::Ternary(Box::new([condition, yes, no])) }
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn operators(&mut self, least: u8) -> Result<Expr, SyntaxError> {
        let mut left = self.unary()?;
        let mut chained = 0;
        loop {
            let Token::Mark(mark) = *self.peek() else { break };
            let Some((rank, name)) = binary(mark).filter(|(rank, _)| *rank >= least) else { break };
            let at = self.at();
            self.advance();
            let right = self.operators(rank + 1)?;
            // Chains of && and || are flat; those of other operators nest to the left, as deep as they are long.
            left = match (name, left) {
                ("_&&_", Expr { kind: Kind::And(mut all), at }) => {
                    all.push(right);
                    Expr { at, kind: Kind::And(all) }
                }
                ("_||_", Expr { kind: Kind::Or(mut all), at }) => {
                    all.push(right);
                    Expr { at, kind: Kind::Or(all) }
                }
                ("_&&_", left) => Expr { at, kind: Kind::And(vec![left, right]) },
                ("_||_", left) => Expr { at, kind: Kind::Or(vec![left, right]) },
                (name, left) => {
                    chained += 1;
                    if chained > DEPTH {
                        return Err((at, format!("expression recursion limit exceeded: {DEPTH}")));
                    }
                    call(at, name, None, vec![left, right])
                }
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, SyntaxError> {
        let at = self.at();
        let (mut nots, mut minuses) = (0, 0);
        while self.take("!") {
            nots += 1;
        }
        while nots == 0 && self.take("-") {
            minuses += 1;
        }
        if minuses % 2 == 1
            && let Token::Literal(literal) = self.peek()
        {
            let negated = match literal {
                Value::Int(i) => Some(Value::Int(-i)),
                Value::Uint(u) if *u == i64::MIN.unsigned_abs() && !self.tokens[self.next].text.ends_with(['u', 'U']) => Some(Value::Int(i64::MIN)),
                Value::Double(d) => Some(Value::Double(-d)),
                _ => None,
            };
            if let Some(value) = negated {
                self.advance();
                return self.members(Expr { at, kind: Kind::Literal(value) });
            }
        }
        let operand = self.primary()?;
        let operand = self.members(operand)?;
        Ok(match (nots % 2, minuses % 2) {
            (1, _) => call(at, "!_", None, vec![operand]),
            (_, 1) => call(at, "-_", None, vec![operand]),
            _ => operand,
        })
    }

    fn members(&mut self, mut expr: Expr) -> Result<Expr, SyntaxError> {
        let mut chained = 0;
        loop {
            let at = self.at();
            if self.take(".") {
                expr = self.member(at, expr)?;
            } else if self.take("[") {
                let name = if self.take("?") { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                expr = call(at, name, None, vec![expr, index]);
            } else if matches!(self.peek(), Token::Mark("{"))
                && let Some(name) = qualified(&expr)
            {
                self.advance();
                expr = Expr { at, kind: Kind::Message(Box::new(Struct { name, fields: self.fields()? })) };
            } else {
                return Ok(expr);
            }
            chained += 1;
            if chained > DEPTH {
                return Err((at, format!("expression recursion limit exceeded: {DEPTH}")));
            }
        }
    }

    fn member(&mut self, at: usize, operand: Expr) -> Result<Expr, SyntaxError> {
        let optional = self.take("?");
        let field = match self.advance() {
            Token::Ident(name) => name,
            Token::Quoted(name) => name,
            Token::Mark("in") => "in".into(),
            Token::Literal(_) if self.tokens[self.next - 1].text.chars().all(char::is_alphabetic) => self.tokens[self.next - 1].text.as_str().into(),
            _ => {
                self.next = self.next.saturating_sub(1);
                return Err(self.unexpected("IDENTIFIER"));
            }
        };
        let open = self.at();
        if optional || !self.take("(") {
            return Ok(Expr { at, kind: Kind::Select(Box::new(Select { operand, field, test: false, optional })) });
        }
        let args = self.list(")", Self::expr)?;
        comprehension(open, &field, operand, args)
    }

    fn primary(&mut self) -> Result<Expr, SyntaxError> {
        let at = self.at();
        let token = self.peek().clone();
        match token {
            Token::Literal(Value::Uint(u)) if u == i64::MIN.unsigned_abs() && !self.tokens[self.next].text.ends_with(['u', 'U']) => {
                Err((at, "invalid int literal".into()))
            }
            Token::Literal(value) => {
                self.advance();
                Ok(Expr { at, kind: Kind::Literal(value) })
            }
            Token::Mark("(") => {
                self.advance();
                let inner = self.expr()?;
                self.expect(")")?;
                // Brackets end a chain: (a && b) && c is not flattened into one, which changes nothing but the tree.
                Ok(inner)
            }
            Token::Mark("[") => {
                self.advance();
                let items = self.list("]", Self::item)?;
                Ok(Expr { at, kind: Kind::List(items) })
            }
            Token::Mark("{") => {
                self.advance();
                let entries = self.list("}", |p| {
                    let optional = p.take("?");
                    let key = p.expr()?;
                    p.expect(":")?;
                    Ok((key, Item { value: p.expr()?, optional }))
                })?;
                Ok(Expr { at, kind: Kind::Map(entries) })
            }
            Token::Mark(".") | Token::Ident(_) => {
                let rooted = self.take(".");
                let Token::Ident(name) = self.peek().clone() else { return Err(self.unexpected("IDENTIFIER")) };
                if !rooted && types::is_reserved(name.as_ref()) {
                    return Err((at, format!("reserved identifier: {name}")));
                }
                self.advance();
                let open = self.at();
                if !self.take("(") {
                    return Ok(Expr { at, kind: Kind::Ident(name) });
                }
                let args = self.list(")", Self::expr)?;
                if name.as_ref() == "has" && args.len() == 1 {
                    return has(open, args);
                }
                Ok(call(open, &name, None, args))
            }
            _ => {
                Err(self
                    .unexpected("{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"))
            }
        }
    }

    fn item(&mut self) -> Result<Item, SyntaxError> {
        let optional = self.take("?");
        Ok(Item { value: self.expr()?, optional })
    }

    fn fields(&mut self) -> Result<Vec<Field>, SyntaxError> {
        self.list("}", |p| {
            let optional = p.take("?");
            let (Token::Ident(name) | Token::Quoted(name)) = p.peek().clone() else { return Err(p.unexpected("IDENTIFIER")) };
            p.advance();
            let at = p.at();
            p.expect(":")?;
            Ok(Field { at, name, item: Item { value: p.expr()?, optional } })
        })
    }

    /// Comma-separated, up to the closing mark; a last comma is allowed but in calls.
    fn list<T>(&mut self, close: &str, mut one: impl FnMut(&mut Self) -> Result<T, SyntaxError>) -> Result<Vec<T>, SyntaxError> {
        let mut out = Vec::new();
        while !self.take(close) {
            out.push(one(self)?);
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
            if close == ")" && matches!(self.peek(), Token::Mark(")")) {
                return Err(self.unexpected("an expression"));
            }
        }
        Ok(out)
    }
}

/// `a.b.c` as a name.
pub(super) fn qualified(expr: &Expr) -> Option<Arc<str>> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select(select) if !select.test && !select.optional => Some(format!("{}.{}", qualified(&select.operand)?, select.field).into()),
        _ => None,
    }
}

fn has(open: usize, mut args: Vec<Expr>) -> Result<Expr, SyntaxError> {
    match args.pop() {
        Some(Expr { at, kind: Kind::Select(mut select) }) if !select.test && !select.optional => {
            select.test = true;
            Ok(Expr { at, kind: Kind::Select(select) })
        }
        Some(other) => Err((other.at, "invalid argument to has() macro".into())),
        None => Err((open, "invalid argument to has() macro".into())),
    }
}

/// A member call, or the macro of that name.
fn comprehension(at: usize, name: &str, range: Expr, mut args: Vec<Expr>) -> Result<Expr, SyntaxError> {
    // (macro, number of variables, whether there is a filter)
    let shape = match (name, args.len()) {
        ("all", 2) => Some((Macro::All, 1, false)),
        ("exists", 2) => Some((Macro::Exists, 1, false)),
        ("exists_one" | "existsOne", 2) => Some((Macro::ExistsOne, 1, false)),
        ("map", 2) => Some((Macro::Map, 1, false)),
        ("map", 3) => Some((Macro::Map, 1, true)),
        ("filter", 2) => Some((Macro::Filter, 1, false)),
        ("all", 3) => Some((Macro::All, 2, false)),
        ("exists", 3) => Some((Macro::Exists, 2, false)),
        ("exists_one" | "existsOne", 3) => Some((Macro::ExistsOne, 2, false)),
        ("transformList", 3) => Some((Macro::TransformList, 2, false)),
        ("transformList", 4) => Some((Macro::TransformList, 2, true)),
        ("transformMap", 3) => Some((Macro::TransformMap, 2, false)),
        ("transformMap", 4) => Some((Macro::TransformMap, 2, true)),
        ("transformMapEntry", 3) => Some((Macro::TransformMapEntry, 2, false)),
        ("transformMapEntry", 4) => Some((Macro::TransformMapEntry, 2, true)),
        ("optMap", 2) => Some((Macro::OptMap, 1, false)),
        ("optFlatMap", 2) => Some((Macro::OptFlatMap, 1, false)),
        _ => None,
    };
    let Some((of, count, filtered)) = shape else { return Ok(call(at, name, Some(range), args)) };
    let body = args.pop().unwrap_or_else(|| range.clone());
    let filter = if filtered { args.pop() } else { None };
    let mut variables: Vec<Arc<str>> = Vec::with_capacity(count);
    for variable in args {
        match variable.kind {
            Kind::Ident(name) if variables.contains(&name) => {
                return Err((variable.at, format!("duplicate variable name: {name}")));
            }
            Kind::Ident(name) => variables.push(name),
            _ => return Err((variable.at, "argument must be a simple name".into())),
        }
    }
    Ok(Expr { at, kind: Kind::Comprehension(Box::new(Comprehension { of, range, variables, filter, body })) })
}

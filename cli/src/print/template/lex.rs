//! Splits a template into text and the tokens of its actions.

use super::{Error, fail};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.name`, or `.` alone as the empty name.
    Field(String),
    /// `$name`, `$` alone as the empty name.
    Variable(String),
    Word(String),
    Text(String),
    Number(String),
    Char(char),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
    Space,
}

/// A token, where it begins in the template, and how it is written there.
#[derive(Debug, Clone)]
pub(super) struct Lexeme {
    pub token: Token,
    pub at: usize,
    pub written: String,
}

#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Lexeme>),
}

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let (mut plain, after) = match rest.find("{{") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        if trim_next {
            plain = plain.trim_start();
        }
        let Some(mut action) = after else {
            push_text(&mut pieces, plain);
            return Ok(pieces);
        };
        if action.starts_with("- ") || action.starts_with("-\n") || action.starts_with("-\t") {
            plain = plain.trim_end();
            action = &action[2..];
        }
        push_text(&mut pieces, plain);
        if let Some(comment) = action.trim_start().strip_prefix("/*") {
            let Some(end) = comment.find("*/") else { return fail("unclosed comment") };
            let tail = comment[end + 2..].trim_start();
            trim_next = tail.starts_with('-');
            let Some(tail) = tail.trim_start_matches('-').strip_prefix("}}") else { return fail("comment ends before closing delimiter") };
            rest = tail;
            continue;
        }
        let mut lexer = Lexer { text: action, position: 0, before: text.len() - action.len() };
        let (tokens, trim) = lexer.action()?;
        trim_next = trim;
        rest = &action[lexer.position..];
        pieces.push(Piece::Action(tokens));
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

struct Lexer<'a> {
    text: &'a str,
    position: usize,
    /// How much of the template stands before the action.
    before: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }
    fn word(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.position += end;
        rest[..end].to_owned()
    }

    /// Reads up to the closing braces; the flag says whether they trim what follows.
    fn action(&mut self) -> Result<(Vec<Lexeme>, bool), Error> {
        let mut tokens = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with("}}") {
                self.position += 2;
                return Ok((tokens, false));
            }
            if rest.starts_with([' ', '\t', '\n', '\r']) {
                let trimmed = rest.trim_start();
                if trimmed.starts_with("-}}") {
                    self.position += rest.len() - trimmed.len() + 3;
                    return Ok((tokens, true));
                }
                let at = self.before + self.position;
                self.position += rest.len() - trimmed.len();
                tokens.push(Lexeme { token: Token::Space, at, written: " ".into() });
                continue;
            }
            let Some(c) = rest.chars().next() else { return fail("unclosed action") };
            let start = self.position;
            let token = self.token(c)?;
            tokens.push(Lexeme { token, at: self.before + start, written: self.text[start..self.position].to_owned() });
        }
    }

    fn token(&mut self, c: char) -> Result<Token, Error> {
        let rest = self.rest();
        let simple = match c {
            '|' => Some(Token::Pipe),
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            ',' => Some(Token::Comma),
            '=' => Some(Token::Assign),
            _ => None,
        };
        if let Some(token) = simple {
            self.position += 1;
            return Ok(token);
        }
        match c {
            ':' if rest.starts_with(":=") => {
                self.position += 2;
                Ok(Token::Declare)
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.position += 1;
                Ok(Token::Field(self.word()))
            }
            '$' => {
                self.position += 1;
                Ok(Token::Variable(self.word()))
            }
            '"' => self.quoted().map(Token::Text),
            '`' => {
                let Some(end) = rest[1..].find('`') else { return fail("unterminated raw quoted string") };
                self.position += end + 2;
                Ok(Token::Text(rest[1..=end].to_owned()))
            }
            '\'' => {
                self.position += 1;
                let c = self.escaped('\'')?;
                if !self.rest().starts_with('\'') {
                    return fail("unterminated character constant");
                }
                self.position += 1;
                c.map_or_else(|| fail("malformed character constant"), |c| Ok(Token::Char(c)))
            }
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => {
                let end = rest
                    .char_indices()
                    .skip(1)
                    .find(|(i, c)| !(c.is_alphanumeric() || matches!(c, '.' | '_') || (matches!(c, '+' | '-') && rest[..*i].ends_with(['e', 'E']))));
                let end = end.map_or(rest.len(), |(i, _)| i);
                self.position += end;
                Ok(Token::Number(rest[..end].to_owned()))
            }
            c if c.is_alphabetic() || c == '_' => Ok(Token::Word(self.word())),
            c => fail(format!("unexpected {c:?} in command")),
        }
    }

    fn quoted(&mut self) -> Result<String, Error> {
        self.position += 1;
        let mut text = String::new();
        while let Some(c) = self.escaped('"')? {
            text.push(c);
        }
        self.position += 1;
        Ok(text)
    }

    /// The next character of a quoted constant; none at its end.
    fn escaped(&mut self, quote: char) -> Result<Option<char>, Error> {
        let rest = self.rest();
        let Some(c) = rest.chars().next().filter(|c| *c != '\n') else { return fail("unterminated quoted string") };
        if c == quote {
            return Ok(None);
        }
        self.position += c.len_utf8();
        if c != '\\' {
            return Ok(Some(c));
        }
        let Some(e) = rest[1..].chars().next() else { return fail("unterminated quoted string") };
        self.position += e.len_utf8();
        let hex = |count: usize, lexer: &mut Self| {
            let digits = lexer.rest().get(..count).unwrap_or_default();
            lexer.position += digits.len();
            u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).map_or_else(|| fail("bad escape in string"), Ok)
        };
        Ok(Some(match e {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'x' => hex(2, self)?,
            'u' => hex(4, self)?,
            'U' => hex(8, self)?,
            '\\' | '\'' | '"' => e,
            _ => return fail("bad escape in string"),
        }))
    }
}

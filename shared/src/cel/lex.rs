//! Tokens of an expression. Owns literals and their escapes.

use std::sync::Arc;

use super::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(Arc<str>),
    /// An identifier in backticks: only a field's name.
    Quoted(Arc<str>),
    Literal(Value),
    /// A punctuation mark or operator.
    Mark(&'static str),
    End,
}

/// A token, the characters before it, and its text.
#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) at: usize,
    pub(super) text: String,
}

/// A syntax error: characters before it, and what is wrong.
pub(super) type SyntaxError = (usize, String);

const MARKS: &[&str] =
    &["==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*", "/", "%", "<", ">"];

struct Lexer<'a> {
    source: &'a [char],
    at: usize,
}

/// All tokens, the last one [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<Spanned>, SyntaxError> {
    let chars: Vec<char> = source.chars().collect();
    let mut lexer = Lexer { source: &chars, at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        let text = if end { "<EOF>".into() } else { chars[at..lexer.at].iter().collect() };
        out.push(Spanned { token, at, text });
        if end {
            return Ok(out);
        }
    }
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.source.get(self.at + ahead).copied()
    }

    fn starts(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c))
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.peek(0) {
            if self.starts("//") {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else if c.is_ascii_whitespace() {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn token(&mut self) -> Result<Token, SyntaxError> {
        let Some(c) = self.peek(0) else { return Ok(Token::End) };
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|d| d.is_ascii_digit())) {
            return self.number();
        }
        let prefix = (0..3).take_while(|i| self.peek(*i).is_some_and(|c| "rRbB".contains(c))).count();
        if prefix < 3 && self.peek(prefix).is_some_and(|c| c == '"' || c == '\'') {
            return self.string(prefix);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            let word: String = self.source[start..self.at].iter().collect();
            return Ok(match word.as_str() {
                "true" => Token::Literal(Value::Bool(true)),
                "false" => Token::Literal(Value::Bool(false)),
                "null" => Token::Literal(Value::Null),
                "in" => Token::Mark("in"),
                _ => Token::Ident(word.into()),
            });
        }
        if c == '`' {
            let start = self.at + 1;
            let Some(length) = self.source[start..].iter().position(|c| *c == '`') else {
                return Err((self.at, "Syntax error: token recognition error at: '`'".into()));
            };
            self.at = start + length + 1;
            return Ok(Token::Quoted(self.source[start..start + length].iter().collect::<String>().into()));
        }
        for mark in MARKS {
            if self.starts(mark) {
                self.at += mark.len();
                return Ok(Token::Mark(mark));
            }
        }
        Err((self.at, format!("Syntax error: token recognition error at: '{c}'")))
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.at += 2;
            let digits: String = self.take_while(|c| c.is_ascii_hexdigit());
            return self.integer(start, &digits, 16);
        }
        let mut text = self.take_while(|c| c.is_ascii_digit());
        let mut double = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            double = true;
            self.at += 1;
            text.push('.');
            text += &self.take_while(|c| c.is_ascii_digit());
        }
        let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
        if matches!(self.peek(0), Some('e' | 'E')) && self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
            double = true;
            text.extend(&self.source[self.at..self.at + 1 + sign]);
            self.at += 1 + sign;
            text += &self.take_while(|c| c.is_ascii_digit());
        }
        if !double {
            return self.integer(start, &text, 10);
        }
        let number: f64 = text.parse().map_err(|_| (start, "invalid double literal".to_owned()))?;
        Ok(Token::Literal(Value::Double(number)))
    }

    fn integer(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, SyntaxError> {
        let number = u64::from_str_radix(digits, radix);
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return number.map(|n| Token::Literal(Value::Uint(n))).map_err(|_| (start, "invalid uint literal".into()));
        }
        match number {
            Ok(n) if n <= i64::MAX as u64 => Ok(Token::Literal(Value::Int(n as i64))),
            // Only a minus before it makes this one an int; the parser sees to that.
            Ok(n) if n == i64::MIN.unsigned_abs() => Ok(Token::Literal(Value::Uint(n))),
            _ => Err((start, "invalid int literal".into())),
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&wanted) {
            self.at += 1;
        }
        self.source[start..self.at].iter().collect()
    }

    fn string(&mut self, prefix: usize) -> Result<Token, SyntaxError> {
        let start = self.at;
        let flags: String = self.source[start..start + prefix].iter().collect::<String>().to_ascii_lowercase();
        let (raw, bytes) = (flags.contains('r'), flags.contains('b'));
        self.at += prefix;
        let quote = self.source[self.at];
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let unterminated = || (start, format!("Syntax error: token recognition error at: '{}'", self.source[start..].iter().collect::<String>()));
        let mut out: Vec<u8> = Vec::new();
        let mut buffer = [0; 4];
        loop {
            let Some(c) = self.source.get(self.at).copied() else { return Err(unterminated()) };
            if c == quote && (0..width).all(|i| self.source.get(self.at + i) == Some(&quote)) {
                self.at += width;
                break;
            }
            if c == '\n' && !triple {
                return Err(unterminated());
            }
            if c != '\\' || raw {
                out.extend(c.encode_utf8(&mut buffer).as_bytes());
                self.at += 1;
                // A raw string's backslash still keeps a quote from ending it.
                if c == '\\'
                    && let Some(next) = self.source.get(self.at).copied().filter(|n| *n == quote && !triple)
                {
                    out.extend(next.encode_utf8(&mut buffer).as_bytes());
                    self.at += 1;
                }
                continue;
            }
            self.at += 1;
            self.escape(bytes, &mut out).ok_or((start, "Syntax error: invalid escape sequence".to_owned()))?;
        }
        if bytes {
            return Ok(Token::Literal(Value::Bytes(out.into())));
        }
        String::from_utf8(out).map(|s| Token::Literal(Value::from(s))).map_err(|_| (start, "invalid string literal".into()))
    }

    /// One escape, its backslash already read.
    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Option<()> {
        let c = self.peek(0)?;
        self.at += 1;
        let simple = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => c as u8,
            'x' | 'X' => return self.code(2, 16, bytes, out),
            'u' if !bytes => return self.code(4, 16, bytes, out),
            'U' if !bytes => return self.code(8, 16, bytes, out),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, bytes, out);
            }
            _ => return None,
        };
        out.push(simple);
        Some(())
    }

    fn code(&mut self, digits: usize, radix: u32, bytes: bool, out: &mut Vec<u8>) -> Option<()> {
        let text: String = self.source.get(self.at..self.at + digits)?.iter().collect();
        self.at += digits;
        let code = u32::from_str_radix(&text, radix).ok()?;
        if bytes {
            out.push(u8::try_from(code).ok()?);
        } else {
            out.extend(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Some(())
    }
}

//! Label and field selectors: parsing, printing and matching
//! (`k8s.io/apimachinery/pkg/labels/selector.go`, `pkg/fields/selector.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// How a requirement compares a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// `k=v`, `k==v`
    Equals,
    /// `k!=v`: also true when the label is absent
    NotEquals,
    /// `k in (a,b)`
    In,
    /// `k notin (a,b)`: also true when the label is absent
    NotIn,
    /// `k`
    Exists,
    /// `!k`
    DoesNotExist,
    /// `k>1`, integers only
    GreaterThan,
    /// `k<1`, integers only
    LessThan,
}

/// One condition of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values, sorted; empty for the existence operators.
    pub values: BTreeSet<String>,
}

/// Every requirement must hold; none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// A selector that cannot be parsed; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// Looks labels up, whatever holds them.
pub trait Labels {
    /// The value of a label, if it is set.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<T: Labels> Labels for Option<T> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|l| l.label(key))
    }
}

impl Requirement {
    fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.label(&self.key);
        match self.operator {
            Operator::Equals | Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotEquals | Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let Some(actual) = value.and_then(|v| v.parse::<i64>().ok()) else { return false };
                let Some(bound) = self.values.first().and_then(|v| v.parse::<i64>().ok()) else { return false };
                if self.operator == Operator::GreaterThan { actual > bound } else { actual < bound }
            }
        }
    }
}

impl Selector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }
    /// Selects no object.
    pub fn nothing() -> Self {
        Selector { requirements: Vec::new(), nothing: true }
    }
    /// Whether it selects every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }
    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }
    /// A selector from a plain map, as Services and ReplicationControllers have. An empty map selects everything.
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        let requirements = map.iter().map(|(k, v)| Requirement { key: k.clone(), operator: Operator::Equals, values: [v.clone()].into() }).collect();
        Selector { requirements, nothing: false }
    }
    /// A selector from a typed `LabelSelector`. An empty one selects everything; `None` selects nothing.
    ///
    /// # Errors
    /// An unknown operator, values where there may be none, or none where some are needed.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, ParseError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Self::from_map(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new())).requirements;
        for expression in selector.match_expressions.iter().flatten() {
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(ParseError(format!("\"{other}\" is not a valid label selector operator"))),
            };
            let set = matches!(operator, Operator::In | Operator::NotIn);
            if set == values.is_empty() {
                return Err(ParseError(if set {
                    "for 'in', 'notin' operators, values set can't be empty".into()
                } else {
                    "values set must be empty for exists and does not exist".into()
                }));
            }
            requirements.push(Requirement { key: expression.key.clone(), operator, values });
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector { requirements, nothing: false })
    }
    /// Parses `a=b,c!=d,e in (f,g),!h,i>1`.
    ///
    /// # Errors
    /// Upstream's text, naming what was found and what was expected.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser { tokens: lex(text)?, at: 0 };
        let mut requirements = parser.requirements()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector { requirements, nothing: false })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let joined = r.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match r.operator {
                Operator::Equals => write!(f, "{}={joined}", r.key)?,
                Operator::NotEquals => write!(f, "{}!={joined}", r.key)?,
                Operator::In => write!(f, "{} in ({joined})", r.key)?,
                Operator::NotIn => write!(f, "{} notin ({joined})", r.key)?,
                Operator::Exists => f.write_str(&r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::GreaterThan => write!(f, "{}>{joined}", r.key)?,
                Operator::LessThan => write!(f, "{}<{joined}", r.key)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Bang,
    Equals,
    NotEquals,
    Greater,
    Less,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(w) => w,
            Token::Comma => ",",
            Token::Open => "(",
            Token::Close => ")",
            Token::Bang => "!",
            Token::Equals => "=",
            Token::NotEquals => "!=",
            Token::Greater => ">",
            Token::Less => "<",
        }
    }
}

fn lex(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {
                chars.next();
            }
            '(' | ')' | ',' | '>' | '<' => {
                chars.next();
                tokens.push(match c {
                    '(' => Token::Open,
                    ')' => Token::Close,
                    ',' => Token::Comma,
                    '>' => Token::Greater,
                    _ => Token::Less,
                });
            }
            '=' => {
                chars.next();
                chars.next_if_eq(&'=');
                tokens.push(Token::Equals);
            }
            '!' => {
                chars.next();
                tokens.push(if chars.next_if_eq(&'=').is_some() { Token::NotEquals } else { Token::Bang });
            }
            _ => {
                let mut word = String::new();
                while let Some(c) = chars.next_if(|c| !" \t\r\n(),><=!".contains(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }
    fn unexpected(found: Option<&Token>, expected: &str) -> ParseError {
        ParseError(format!("found '{}', expected: {expected}", found.map_or("", Token::text)))
    }
    fn requirements(&mut self) -> Result<Vec<Requirement>, ParseError> {
        let mut list = Vec::new();
        loop {
            match self.peek() {
                None => return Ok(list),
                Some(Token::Word(_) | Token::Bang) => {
                    list.push(self.requirement()?);
                    match self.next() {
                        None => return Ok(list),
                        Some(Token::Comma) => match self.peek() {
                            Some(Token::Word(_) | Token::Bang) => {}
                            found => return Err(Self::unexpected(found, "identifier after ','")),
                        },
                        found => return Err(Self::unexpected(found.as_ref(), "',' or 'end of string'")),
                    }
                }
                found => return Err(Self::unexpected(found, "!, identifier, or 'end of string'")),
            }
        }
    }
    fn requirement(&mut self) -> Result<Requirement, ParseError> {
        let negated = matches!(self.peek(), Some(Token::Bang));
        if negated {
            self.at += 1;
        }
        let key = match self.next() {
            Some(Token::Word(word)) => word,
            found => return Err(Self::unexpected(found.as_ref(), "identifier")),
        };
        check_label_key(&key)?;
        if negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: BTreeSet::new() });
        }
        let operator = match self.peek() {
            None | Some(Token::Comma) => return Ok(Requirement { key, operator: Operator::Exists, values: BTreeSet::new() }),
            Some(Token::Equals) => Operator::Equals,
            Some(Token::NotEquals) => Operator::NotEquals,
            Some(Token::Greater) => Operator::GreaterThan,
            Some(Token::Less) => Operator::LessThan,
            Some(Token::Word(w)) if w == "in" => Operator::In,
            Some(Token::Word(w)) if w == "notin" => Operator::NotIn,
            found => return Err(Self::unexpected(found, "in, notin, =, ==, !=, gt, lt")),
        };
        self.at += 1;
        let values = match operator {
            Operator::In | Operator::NotIn => self.set()?,
            _ => [self.exact_value()?].into(),
        };
        for value in &values {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                return Err(ParseError("for 'Gt', 'Lt' operators, the value must be an integer".into()));
            }
            check_label_value(&key, value)?;
        }
        Ok(Requirement { key, operator, values })
    }
    fn exact_value(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            None | Some(Token::Comma) => Ok(String::new()),
            Some(Token::Word(w)) => {
                let word = w.clone();
                self.at += 1;
                Ok(word)
            }
            found => Err(Self::unexpected(found, "identifier")),
        }
    }
    fn set(&mut self) -> Result<BTreeSet<String>, ParseError> {
        match self.next() {
            Some(Token::Open) => {}
            found => return Err(Self::unexpected(found.as_ref(), "'('")),
        }
        let mut values = BTreeSet::new();
        let mut after_comma = true;
        loop {
            match self.next() {
                Some(Token::Word(word)) if after_comma => {
                    values.insert(word);
                    after_comma = false;
                }
                Some(Token::Comma) => {
                    if after_comma {
                        values.insert(String::new());
                    }
                    after_comma = true;
                }
                Some(Token::Close) => {
                    if after_comma {
                        values.insert(String::new());
                    }
                    return Ok(values);
                }
                found => return Err(Self::unexpected(found.as_ref(), "',', or identifier")),
            }
        }
    }
}

const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Whether `s` is `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`.
fn is_name_part(s: &str) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = s.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// Whether `s` is a lowercase RFC 1123 subdomain of at most 253 bytes.
pub fn is_dns1123_subdomain(s: &str) -> bool {
    s.len() <= 253 && s.split('.').all(is_dns1123_body)
}

/// Whether `s` is a lowercase RFC 1123 label of at most 63 bytes.
pub fn is_dns1123_label(s: &str) -> bool {
    s.len() <= 63 && is_dns1123_body(s)
}

fn is_dns1123_body(s: &str) -> bool {
    let alnum = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = s.as_bytes();
    bytes.first().is_some_and(alnum) && bytes.last().is_some_and(alnum) && bytes.iter().all(|c| alnum(c) || *c == b'-')
}

/// What is wrong with a label or annotation key; empty when it is well formed (upstream's `IsQualifiedName`).
pub fn qualified_name_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".into());
            } else if !is_dns1123_subdomain(prefix) {
                errors.push("prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".into());
            }
            if name.contains('/') {
                return vec!["a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".into()];
            }
            name
        }
        None => key,
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".into());
    }
    if !is_name_part(name) {
        errors.push(NAME_PART.into());
    }
    errors
}

/// What is wrong with a label value; empty when it is well formed (upstream's `IsValidLabelValue`).
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push("must be no more than 63 bytes".into());
    }
    if !value.is_empty() && !is_name_part(value) {
        errors.push("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into());
    }
    errors
}

fn check_label_key(key: &str) -> Result<(), ParseError> {
    match qualified_name_errors(key).as_slice() {
        [] => Ok(()),
        errors => Err(ParseError(format!("key: Invalid value: \"{key}\": {}", errors.join("; ")))),
    }
}

fn check_label_value(key: &str, value: &str) -> Result<(), ParseError> {
    match label_value_errors(value).as_slice() {
        [] => Ok(()),
        errors => Err(ParseError(format!("values[0][{key}]: Invalid value: \"{value}\": {}", errors.join("; ")))),
    }
}

/// A field selector: `metadata.name=x,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// (path, value, whether it must be equal)
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// Parses `path=value`, `path==value` and `path!=value`, joined by commas; `\,`, `\=` and `\\` are escapes.
    ///
    /// # Errors
    /// A term without an operator, or a bad escape.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let found = term.char_indices().find_map(|(i, _)| {
                let rest = &term[i..];
                ["!=", "==", "="].iter().find(|op| rest.starts_with(**op)).map(|op| (i, *op))
            });
            let Some((at, op)) = found else {
                return Err(ParseError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            let value =
                unescape(&term[at + op.len()..]).ok_or_else(|| ParseError(format!("invalid field selector: invalid escape sequence in '{term}'")))?;
            terms.push((term[..at].to_owned(), value, op != "!="));
        }
        Ok(FieldSelector { terms })
    }
    /// Whether it selects every object.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
    /// Whether an object whose fields `lookup` gives is selected; an absent field is the empty string.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|(path, value, equal)| (lookup(path).unwrap_or_default() == value) == *equal)
    }
    /// The value a path must be equal to, if the selector fixes one.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|(p, _, equal)| *equal && p == path).map(|(_, v, _)| v.as_str())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn matches_as_upstream_does() {
        let set = labels(&[("tier", "frontend"), ("environment", "production"), ("n", "5")]);
        for (text, expected) in [
            ("", true),
            ("tier=frontend", true),
            ("tier==frontend", true),
            ("tier!=frontend", false),
            ("absent!=x", true),
            ("tier in (frontend)", true),
            ("environment in (production),tier in (frontend)", true),
            ("tier notin (frontend,backend)", false),
            ("absent notin (x)", true),
            ("tier", true),
            ("!tier", false),
            ("!absent", true),
            ("n>4", true),
            ("n<5", false),
            ("tier in (,frontend)", true),
            ("tier=", false),
            ("tier in (backend, frontend),environment notin (dev)", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&set), expected, "{text}");
        }
    }

    #[test]
    fn refuses_nonsense() {
        for text in ["tier in", "tier in (", "tier in (a", "a,,b", "a b", "=x", "a in b", "x>y", "a=b=c", "-a"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_what_parses_again() {
        let once = Selector::parse("a=b,c in (d,e),!f,g!=h,i notin (j),k>1,l").unwrap();
        assert_eq!(Selector::parse(&once.to_string()).unwrap(), once);
    }

    #[test]
    fn field_selectors_compare_for_equality_only() {
        let field = |path: &str| if path == "status.phase" { Some("Running") } else { None };
        assert!(FieldSelector::parse("status.phase=Running").unwrap().matches(field));
        assert!(FieldSelector::parse("status.phase!=Failed,spec.nodeName=").unwrap().matches(field));
        assert!(!FieldSelector::parse("status.phase!=Running").unwrap().matches(field));
        assert!(FieldSelector::parse("status.phase").is_err());
    }
}

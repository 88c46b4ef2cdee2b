//! YAML as kubectl writes it: the block style of libyaml's emitter with lines folded at 80 columns.
//!
//! serde_yaml's writer leaves `yes` and `on` plain and never folds, so the text is written here;
//! the rules are those of `sigs.k8s.io/yaml/goyaml.v2/emitterc.go`. Owns text only.

use serde_json::{Number, Value};
use shared::yaml11;

const WIDTH: usize = 80;

/// One document, ending in a newline.
pub fn to_string(value: &Value) -> String {
    let mut emitter = Emitter::default();
    emitter.node(value, Place { indent: 0, in_mapping: false, root: true });
    if !emitter.out.ends_with('\n') {
        emitter.out.push('\n');
    }
    emitter.out
}

#[derive(Default)]
struct Emitter {
    out: String,
    column: usize,
}

/// Where a node is written.
#[derive(Clone, Copy)]
struct Place {
    /// The column its block belongs to.
    indent: usize,
    /// Directly behind `key:`, where a list is not indented.
    in_mapping: bool,
    root: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

impl Emitter {
    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column = if c == '\n' { 0 } else { self.column + 1 };
    }
    fn text(&mut self, s: &str) {
        s.chars().for_each(|c| self.put(c));
    }
    fn new_line(&mut self, indent: usize) {
        if self.column > 0 {
            self.put('\n');
        }
        self.pad(indent);
    }
    fn pad(&mut self, indent: usize) {
        while self.column < indent {
            self.put(' ');
        }
    }
    /// A space between an indicator and what follows, unless one is there.
    fn space(&mut self) {
        if self.column > 0 && !self.out.ends_with(' ') {
            self.put(' ');
        }
    }

    fn node(&mut self, value: &Value, place: Place) {
        match value {
            Value::Object(map) if map.is_empty() => {
                self.space();
                self.text("{}");
            }
            Value::Array(items) if items.is_empty() => {
                self.space();
                self.text("[]");
            }
            Value::Object(map) => {
                let indent = if place.root { 0 } else { place.indent + 2 };
                let mut keys: Vec<_> = map.iter().collect();
                keys.sort_by(|a, b| key_order(a.0, b.0));
                for (index, (key, item)) in keys.into_iter().enumerate() {
                    self.start_entry(index, indent, place);
                    self.entry(key, item, indent);
                }
            }
            Value::Array(items) => {
                let indent = if place.root || place.in_mapping { place.indent } else { place.indent + 2 };
                for (index, item) in items.iter().enumerate() {
                    self.start_entry(index, indent, place);
                    self.text("-");
                    self.node(item, Place { indent, in_mapping: false, root: false });
                }
            }
            Value::String(s) => self.scalar(s, place),
            Value::Null => self.plain_word("null"),
            Value::Bool(b) => self.plain_word(if *b { "true" } else { "false" }),
            Value::Number(n) => {
                let text = number(n);
                self.plain_word(&text);
            }
        }
    }

    /// The first entry of a block inside a list item stays on the dash's line.
    fn start_entry(&mut self, index: usize, indent: usize, place: Place) {
        if index == 0 && !place.in_mapping && self.column < indent && self.column > 0 {
            self.pad(indent);
        } else {
            self.new_line(indent);
        }
    }

    fn entry(&mut self, key: &str, item: &Value, indent: usize) {
        let shape = Shape::of(key);
        if shape.multiline || key.len() > 128 {
            self.text("?");
            self.scalar(key, Place { indent, in_mapping: false, root: false });
            self.new_line(indent);
            self.text(":");
            self.node(item, Place { indent, in_mapping: false, root: false });
            return;
        }
        match style_of(key, shape, true) {
            Style::Plain => self.text(key),
            Style::Single => self.single(key, indent, false),
            Style::Double | Style::Literal => self.double(key, indent, false),
        }
        self.text(":");
        self.node(item, Place { indent, in_mapping: true, root: false });
    }

    fn plain_word(&mut self, text: &str) {
        self.space();
        self.text(text);
    }

    fn scalar(&mut self, text: &str, place: Place) {
        let indent = place.indent + 2;
        let indent = if place.root { 2 } else { indent };
        self.space();
        match style_of(text, Shape::of(text), false) {
            Style::Plain => self.plain(text, indent),
            Style::Single => self.single(text, indent, true),
            Style::Double => self.double(text, indent, true),
            Style::Literal => self.literal(text, indent),
        }
    }

    fn fold(&mut self, indent: usize) {
        self.put('\n');
        self.pad(indent);
    }

    fn plain(&mut self, text: &str, indent: usize) {
        let mut spaces = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == ' ' && !spaces && self.column > WIDTH && chars.peek() != Some(&' ') {
                self.fold(indent);
            } else {
                self.put(c);
            }
            spaces = c == ' ';
        }
    }

    fn single(&mut self, text: &str, indent: usize, may_fold: bool) {
        self.put('\'');
        let (mut spaces, mut breaks) = (false, false);
        let chars: Vec<char> = text.chars().collect();
        for (index, &c) in chars.iter().enumerate() {
            let inside = index > 0 && index + 1 < chars.len();
            if c == ' ' {
                if may_fold && !spaces && self.column > WIDTH && inside && chars[index + 1] != ' ' {
                    self.fold(indent);
                } else {
                    self.put(c);
                }
                spaces = true;
            } else if is_break(c) {
                self.out.push(c);
                self.column = 0;
                breaks = true;
            } else {
                if breaks {
                    self.pad(indent);
                }
                if c == '\'' {
                    self.put(c);
                }
                self.put(c);
                (spaces, breaks) = (false, false);
            }
        }
        self.put('\'');
    }

    fn double(&mut self, text: &str, indent: usize, may_fold: bool) {
        self.put('"');
        let mut spaces = false;
        // libyaml looks for a byte order mark at the start of the text, whatever the position: then everything is escaped.
        let marked = text.starts_with('\u{feff}');
        let chars: Vec<char> = text.chars().collect();
        for (index, &c) in chars.iter().enumerate() {
            if !is_printable(c) || marked || is_break(c) || c == '"' || c == '\\' {
                self.text(&escape(c));
                spaces = false;
            } else if c == ' ' {
                if may_fold && !spaces && self.column > WIDTH && index > 0 && index + 1 < chars.len() {
                    self.fold(indent);
                    if chars[index + 1] == ' ' {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
        self.put('"');
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put('|');
        let starts = text.chars().next();
        if starts.is_some_and(|c| c == ' ' || is_break(c)) {
            self.put('2');
        }
        let mut from_end = text.chars().rev();
        if !from_end.next().is_some_and(is_break) {
            self.put('-');
        } else if from_end.next().is_none_or(is_break) {
            self.put('+');
        }
        self.put('\n');
        let mut at_start = true;
        for c in text.chars() {
            if is_break(c) {
                self.out.push(c);
                self.column = 0;
                at_start = true;
            } else {
                if at_start {
                    self.pad(indent);
                }
                self.put(c);
                at_start = false;
            }
        }
    }
}

/// What a text contains that limits how it may be written (`yaml_emitter_analyze_scalar`).
#[derive(Clone, Copy)]
struct Shape {
    multiline: bool,
    plain: bool,
    single: bool,
    block: bool,
}

impl Shape {
    fn of(text: &str) -> Shape {
        if text.is_empty() {
            return Shape { multiline: false, plain: true, single: true, block: false };
        }
        let chars: Vec<char> = text.chars().collect();
        let (mut indicators, mut breaks, mut special) = (text.starts_with("---") || text.starts_with("..."), false, false);
        let (mut break_space, mut space_break) = (false, false);
        let (mut previous_space, mut previous_break, mut after_blank) = (false, false, true);
        for (index, &c) in chars.iter().enumerate() {
            let before_blank = chars.get(index + 1).is_none_or(|n| matches!(n, ' ' | '\t') || is_break(*n));
            indicators |= match c {
                '#' if index > 0 => after_blank,
                ':' => before_blank,
                '?' | '-' if index == 0 => before_blank,
                ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => index == 0,
                _ => false,
            };
            special |= !is_printable(c);
            breaks |= is_break(c);
            if c == ' ' {
                break_space |= previous_break;
                (previous_space, previous_break) = (true, false);
            } else if is_break(c) {
                space_break |= previous_space;
                (previous_space, previous_break) = (false, true);
            } else {
                (previous_space, previous_break) = (false, false);
            }
            after_blank = matches!(c, ' ' | '\t') || is_break(c);
        }
        let (first, last) = (chars[0], chars[chars.len() - 1]);
        let edge = |c: char| c == ' ' || is_break(c);
        let broken = space_break || special;
        Shape {
            multiline: breaks,
            plain: !(indicators || breaks || edge(first) || edge(last) || break_space || broken),
            single: !(break_space || broken),
            block: last != ' ' && !broken,
        }
    }
}

fn style_of(text: &str, shape: Shape, key: bool) -> Style {
    let wanted = if text.contains('\n') {
        Style::Literal
    } else if yaml11::needs_quotes(text) {
        Style::Double
    } else {
        Style::Plain
    };
    match wanted {
        Style::Literal if !shape.block || key => Style::Double,
        Style::Plain if !shape.plain && shape.single => Style::Single,
        Style::Plain if !shape.plain => Style::Double,
        style => style,
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

fn escape(c: char) -> String {
    match c {
        '\0' => "\\0".into(),
        '\u{7}' => "\\a".into(),
        '\u{8}' => "\\b".into(),
        '\t' => "\\t".into(),
        '\n' => "\\n".into(),
        '\u{b}' => "\\v".into(),
        '\u{c}' => "\\f".into(),
        '\r' => "\\r".into(),
        '\u{1b}' => "\\e".into(),
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        '\u{85}' => "\\N".into(),
        '\u{a0}' => "\\_".into(),
        '\u{2028}' => "\\L".into(),
        '\u{2029}' => "\\P".into(),
        c if c as u32 <= 0xff => format!("\\x{:02X}", c as u32),
        c if c as u32 <= 0xffff => format!("\\u{:04X}", c as u32),
        c => format!("\\U{:08X}", c as u32),
    }
}

/// Integers as in JSON; floats as Go's `%g`.
pub fn number(n: &Number) -> String {
    let json = shared::gojson::number(n);
    if json.parse::<i64>().is_ok() || json.parse::<u64>().is_ok() {
        return json;
    }
    let f = n.as_f64().unwrap_or_default();
    let exponent = f.abs().log10().floor();
    if !(-4.0..21.0).contains(&exponent) || json.len() > 20 && !json.contains('.') { shared::gojson::exponent(f, 2) } else { json }
}

/// Keys sort naturally: runs of digits by value, letters behind other marks (`goyaml.v2/sorter.go`).
fn key_order(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (x, y): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut digits = false;
    for at in 0..x.len().min(y.len()) {
        let (c, d) = (x[at], y[at]);
        if c == d {
            digits = c.is_numeric();
            continue;
        }
        let letter_first = if digits { Ordering::Less } else { Ordering::Greater };
        return match (c.is_alphabetic(), d.is_alphabetic()) {
            (true, true) => c.cmp(&d),
            (true, false) => letter_first,
            (false, true) => letter_first.reverse(),
            (false, false) => natural(&x, &y, at),
        };
    }
    x.len().cmp(&y.len())
}

/// Compares two runs of digits by value, then by length.
fn natural(x: &[char], y: &[char], at: usize) -> std::cmp::Ordering {
    let leading = (x[at] == '0' || y[at] == '0') && x[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
    let run = |s: &[char]| {
        let digits = s[at..].iter().map_while(|c| c.to_digit(10));
        digits.fold((u64::from(leading), 0), |(n, count), d| (n.wrapping_mul(10).wrapping_add(u64::from(d)), count + 1))
    };
    run(x).cmp(&run(y)).then(x[at].cmp(&y[at]))
}

#[cfg(test)]
mod tests {
    use super::to_string;
    use serde_json::json;

    #[test]
    fn nests_as_kubectl_does() {
        let value = json!({"a": {"l": ["x", ["y", "z"], {"k": 1, "m": null}, [], {}], "e": {}}, "b": "yes"});
        assert_eq!(to_string(&value), "a:\n  e: {}\n  l:\n  - x\n  - - \"y\"\n    - z\n  - k: 1\n    m: null\n  - []\n  - {}\nb: \"yes\"\n");
    }

    #[test]
    fn multi_line_text_is_a_literal_block() {
        assert_eq!(to_string(&json!({"a": "x\ny\n", "b": "x\ny", "c": "x\n\n"})), "a: |\n  x\n  y\nb: |-\n  x\n  y\nc: |+\n  x\n\n");
    }
}

//! JSON as Go's `encoding/json` writes it: `<`, `>` and `&` escaped, floats in Go's shortest form, keys sorted.
//!
//! Owns only the text form; objects stay `serde_json::Value`.

use serde_json::{Number, Value};

/// Compact JSON, as `json.Marshal` prints it.
pub fn compact(value: &Value) -> String {
    let mut out = String::new();
    write(value, None, 0, &mut out);
    out
}

/// Indented JSON, as `json.MarshalIndent(v, "", indent)` prints it, without a final newline.
pub fn indented(value: &Value, indent: &str) -> String {
    let mut out = String::new();
    write(value, Some(indent), 0, &mut out);
    out
}

/// As [`indented`], with fields ordered by a rank, as Go orders a struct's; equal ranks go by name.
pub fn indented_by(value: &Value, indent: &str, rank: fn(&str) -> usize) -> String {
    let mut out = String::new();
    write_by(value, Some(indent), 0, rank, &mut out);
    out
}

/// A number as Go prints it in JSON: integers plain, floats shortest, with an exponent below 1e-6 and from 1e21 on.
pub fn number(n: &Number) -> String {
    if let Some(i) = n.as_i64() {
        return i.to_string();
    }
    // Beyond int64 upstream's decoder falls back to float64.
    let f = n.as_f64().unwrap_or_default();
    if f == 0.0 {
        return "0".into();
    }
    if f.abs() < 1e-6 || f.abs() >= 1e21 { exponent(f, 1) } else { format!("{f}") }
}

/// `1e-8`, `1.5e+21`: Go's `%e` with the shortest mantissa and at least `digits` exponent digits.
pub fn exponent(f: f64, digits: usize) -> String {
    let text = format!("{f:e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, power) = match power.strip_prefix('-') {
        Some(p) => ('-', p),
        None => ('+', power),
    };
    format!("{mantissa}e{sign}{power:0>digits$}")
}

/// A quoted JSON string with Go's HTML-safe escapes.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_string(text, &mut out);
    out
}

fn write(value: &Value, indent: Option<&str>, depth: usize, out: &mut String) {
    write_by(value, indent, depth, |_| 0, out);
}

fn write_by(value: &Value, indent: Option<&str>, depth: usize, rank: fn(&str) -> usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&number(n)),
        Value::String(s) => write_string(s, out),
        Value::Array(items) => {
            if items.is_empty() {
                return out.push_str("[]");
            }
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(index, indent, depth + 1, out);
                write_by(item, indent, depth + 1, rank, out);
            }
            line(indent, depth, out);
            out.push(']');
        }
        Value::Object(map) => {
            if map.is_empty() {
                return out.push_str("{}");
            }
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(k, _)| (rank(k), *k));
            out.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                separate(index, indent, depth + 1, out);
                write_string(key, out);
                out.push_str(if indent.is_some() { ": " } else { ":" });
                write_by(item, indent, depth + 1, rank, out);
            }
            line(indent, depth, out);
            out.push('}');
        }
    }
}

fn separate(index: usize, indent: Option<&str>, depth: usize, out: &mut String) {
    if index > 0 {
        out.push(',');
    }
    line(indent, depth, out);
}

fn line(indent: Option<&str>, depth: usize, out: &mut String) {
    if let Some(indent) = indent {
        out.push('\n');
        for _ in 0..depth {
            out.push_str(indent);
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gos() {
        for (given, wanted) in [
            ("1.0", "1"),
            ("1.5", "1.5"),
            ("1e21", "1e+21"),
            ("1e20", "100000000000000000000"),
            ("12345678901234567890", "12345678901234567000"),
            ("-0.0", "0"),
            ("1e-8", "1e-8"),
            ("-7", "-7"),
        ] {
            let value: Value = serde_json::from_str(given).unwrap();
            assert_eq!(compact(&value), wanted, "{given}");
        }
    }

    #[test]
    fn strings_are_safe_inside_html() {
        assert_eq!(string("a<b>&\u{2028}\u{1}\"\\\n"), r#""a\u003cb\u003e\u0026\u2028\u0001\"\\\n""#);
    }

    #[test]
    fn empty_collections_stay_on_one_line() {
        assert_eq!(
            indented(&serde_json::json!({"a": [], "b": {}, "c": [1]}), "    "),
            "{\n    \"a\": [],\n    \"b\": {},\n    \"c\": [\n        1\n    ]\n}"
        );
    }
}

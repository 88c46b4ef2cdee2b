//! KYAML, the explicit flow-style YAML of KEP-5295 (`sigs.k8s.io/yaml/kyaml`). Owns text only.

use serde_json::Value;
use shared::yaml11;

/// One document with its `---` header.
pub fn to_string(value: &Value) -> String {
    let mut out = String::from("---\n");
    node(value, 0, &mut out);
    out.push('\n');
    out
}

fn node(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&shared::gojson::compact(value)),
        Value::String(s) => string(s, indent + 1, out),
        Value::Array(items) => sequence(items, indent, out),
        Value::Object(map) if map.is_empty() => out.push_str("{}"),
        Value::Object(map) => {
            out.push_str("{\n");
            for (key, item) in map {
                pad(indent + 1, out);
                if needs_quotes(key) {
                    quoted(key, out)
                } else {
                    out.push_str(key)
                }
                out.push_str(": ");
                node(item, indent + 1, out);
                out.push_str(",\n");
            }
            pad(indent, out);
            out.push('}');
        }
    }
}

fn sequence(items: &[Value], indent: usize, out: &mut String) {
    if items.is_empty() {
        return out.push_str("[]");
    }
    // Lists of objects or lists keep their brackets together.
    if items.iter().all(|i| i.is_object() || i.is_array()) {
        out.push('[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            node(item, indent, out);
        }
        return out.push(']');
    }
    out.push_str("[\n");
    for item in items {
        pad(indent + 1, out);
        node(item, indent + 1, out);
        out.push_str(",\n");
    }
    pad(indent, out);
    out.push(']');
}

fn pad(indent: usize, out: &mut String) {
    (0..indent).for_each(|_| out.push_str("  "));
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    text.chars().for_each(|c| escape(c, "\\n", out));
    out.push('"');
}

/// Text of several lines is folded, one source line each.
fn string(text: &str, indent: usize, out: &mut String) {
    if !text.contains('\n') {
        return quoted(text, out);
    }
    out.push_str("\"\\\n");
    for c in text.chars() {
        if out.ends_with('\n') {
            pad(indent, out);
            out.push(if c.is_whitespace() && c != '\n' { '\\' } else { ' ' });
        }
        escape(c, "\\n\\\n", out);
    }
    if !out.ends_with('\n') {
        out.push_str("\\\n");
    }
    pad(indent, out);
    out.push('"');
}

fn escape(c: char, newline: &str, out: &mut String) {
    match c {
        '"' | '\\' => {
            out.push('\\');
            out.push(c);
        }
        '\n' => out.push_str(newline),
        '\t' => out.push('\t'),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\r' => out.push_str("\\r"),
        '\u{b}' => out.push_str("\\v"),
        '\0' => out.push_str("\\0"),
        '\u{1b}' => out.push_str("\\e"),
        '\u{85}' => out.push_str("\\N"),
        '\u{a0}' => out.push_str("\\_"),
        '\u{2028}' => out.push_str("\\L"),
        '\u{2029}' => out.push_str("\\P"),
        c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
        c if c.is_control() || c == '\u{feff}' => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => out.push(c),
    }
}

/// Keys stay bare unless a YAML reader could take them for something else.
fn needs_quotes(key: &str) -> bool {
    let lower = key.to_lowercase();
    let guessed = matches!(
        lower.as_str(),
        "" | "~" | "null" | "true" | "false" | "y" | "n" | "t" | "f" | "yes" | "no" | "on" | "off" | "inf" | "nan" | "infinity"
    ) || yaml11::needs_quotes(key)
        || key.parse::<f64>().is_ok();
    let last = key.chars().count().saturating_sub(1);
    guessed || key.chars().enumerate().any(|(i, c)| !(c.is_alphanumeric() || c == '_' || (i > 0 && i < last && matches!(c, '-' | '.' | '/'))))
}

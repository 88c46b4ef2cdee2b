//! What changed between two objects, for errors about immutable fields.

use serde::Serialize;
use serde_json::Value;

/// The differing fields, one a line: `  path: old → new`. Empty when nothing differs.
pub fn changes(old: &impl Serialize, new: &impl Serialize) -> String {
    let json = |value: serde_json::Result<Value>| value.unwrap_or_default();
    let mut lines = Vec::new();
    walk("", &json(serde_json::to_value(old)), &json(serde_json::to_value(new)), &mut lines);
    lines.join("\n")
}

fn walk(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            keys.sort();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                walk(&format!("{path}[{index}]"), a, b, lines);
            }
        }
        _ => lines.push(format!("  {path}: {old} → {new}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn only_what_differs_is_listed() {
        let old = json!({"a": 1, "b": {"c": [1, {"d": "x"}]}, "e": true});
        let new = json!({"a": 1, "b": {"c": [1, {"d": "y"}]}});
        assert_eq!(super::changes(&old, &new), "  b.c[1].d: \"x\" → \"y\"\n  e: true → null");
        assert_eq!(super::changes(&old, &old), "");
    }
}

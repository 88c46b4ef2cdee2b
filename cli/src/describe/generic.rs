//! Any other kind, field by field.

use serde_json::{Map, Value};

use super::Writer;

const SKIPPED: &[&str] = &[".metadata.managedFields", ".metadata.name", ".metadata.namespace", ".metadata.labels", ".metadata.annotations"];

pub(super) fn describe(w: &mut Writer, object: &Value) {
    let map = |field: &str| -> Option<std::collections::BTreeMap<String, String>> { serde_json::from_value(object["metadata"][field].clone()).ok() };
    w.field(0, "Name", object["metadata"]["name"].as_str().unwrap_or_default());
    w.field(0, "Namespace", object["metadata"]["namespace"].as_str().unwrap_or_default());
    w.labels("Labels", map("labels").as_ref());
    w.annotations("Annotations", map("annotations").as_ref());
    if let Some(fields) = object.as_object() {
        content(w, 0, fields, "");
    }
}

fn content(w: &mut Writer, level: usize, fields: &Map<String, Value>, path: &str) {
    for (field, value) in fields {
        let path = format!("{path}.{field}");
        if SKIPPED.contains(&path.as_str()) {
            continue;
        }
        let label = label(field);
        match value {
            Value::Object(inner) => {
                w.write(level, &format!("{label}:\n"));
                content(w, level + 1, inner, &path);
            }
            Value::Array(items) => {
                w.write(level, &format!("{label}:\n"));
                for item in items {
                    match item {
                        Value::Object(inner) => content(w, level + 1, inner, &path),
                        other => w.write(level + 1, &format!("{}\n", crate::print::template::plain(other))),
                    }
                }
            }
            other => w.field(level, &label, crate::print::template::plain(other)),
        }
    }
}

/// `creationTimestamp` becomes `Creation Timestamp`; `apiVersion` becomes `API Version`.
fn label(field: &str) -> String {
    if field.chars().any(|c| !c.is_alphabetic() && c != '-') {
        return field.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let chars: Vec<char> = field.chars().collect();
    for (index, &c) in chars.iter().enumerate() {
        let previous = index.checked_sub(1).map(|i| chars[i]);
        let next_is_lower = chars.get(index + 1).is_some_and(|n| n.is_lowercase());
        let starts = match previous {
            None => true,
            Some(p) => (c.is_uppercase() && (p.is_lowercase() || next_is_lower)) || (c == '-') != (p == '-'),
        };
        if starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    let shown = words.into_iter().map(|word| {
        let upper = word.to_uppercase();
        if matches!(upper.as_str(), "API" | "URL" | "UID" | "OSB" | "GUID") {
            return upper;
        }
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn field_names_become_words() {
        for (field, words) in [
            ("apiVersion", "API Version"),
            ("creationTimestamp", "Creation Timestamp"),
            ("uid", "UID"),
            ("kind", "Kind"),
            ("a.b/c", "a.b/c"),
            ("clusterIP", "Cluster IP"),
        ] {
            assert_eq!(label(field), words);
        }
    }
}

//! Strategic merge on this side, for `--local` and client dry runs: what the server would do with simple patches.

use serde_json::{Map, Value};

use super::merge_keys::{Rule, rule};

/// Merges a patch into an object.
pub fn merge(object: &mut Value, patch: &Value, kind: &str) {
    merge_value(object, patch, "", kind);
}

fn merge_value(object: &mut Value, patch: &Value, parent: &str, kind: &str) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if patch.get("$patch").is_some_and(|d| d == "replace") {
        *object = Value::Object(patch.iter().filter(|(k, _)| *k != "$patch").map(|(k, v)| (k.clone(), v.clone())).collect());
        return;
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else { return };
    for (field, value) in patch {
        if field.starts_with('$') {
            continue;
        }
        match value {
            Value::Null => {
                fields.remove(field);
            }
            Value::Array(items) => merge_items(fields.entry(field.clone()).or_insert_with(|| Value::Array(Vec::new())), items, parent, field, kind),
            other => merge_value(fields.entry(field.clone()).or_insert(Value::Null), other, field, kind),
        }
    }
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        fields.retain(|k, _| kept.iter().any(|r| r == k.as_str()));
    }
}

fn merge_items(target: &mut Value, items: &[Value], parent: &str, field: &str, kind: &str) {
    let Value::Array(existing) = target else {
        *target = Value::Array(items.to_vec());
        return;
    };
    match rule(kind, parent, field) {
        Rule::Atomic => *existing = items.to_vec(),
        Rule::Set => existing.extend(items.iter().filter(|i| !existing.contains(i)).cloned().collect::<Vec<_>>()),
        Rule::Merge(key) => {
            if items.iter().any(|i| i["$patch"] == "replace") {
                *existing = items.iter().filter(|i| i["$patch"] != "replace").cloned().collect();
                return;
            }
            for item in items {
                let at = existing.iter().position(|e| e[key] == item[key]);
                match at {
                    Some(at) if item["$patch"] == "delete" => {
                        existing.remove(at);
                    }
                    Some(at) => merge_value(&mut existing[at], item, field, kind),
                    None if item["$patch"] == "delete" => {}
                    // Upstream puts new items of a patch in front.
                    None => existing.insert(0, item.clone()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn lists_merge_by_their_key() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}], "tolerations": [{"key": "x"}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}], "tolerations": [{"key": "y"}], "nodeName": null}});
        super::merge(&mut pod, &patch, "Pod");
        assert_eq!(pod, json!({"spec": {"containers": [{"name": "a", "image": "2"}], "tolerations": [{"key": "y"}]}}));
    }
}

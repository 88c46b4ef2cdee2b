//! Strategic merge patches between versions of an object (`k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`). Pure.

use serde_json::{Map, Value, json};

use super::merge_keys::{Rule, retains_keys, rule};

/// Which differences count.
#[derive(Clone, Copy, Debug)]
struct Options<'a> {
    kind: &'a str,
    deletions: bool,
    changes: bool,
}

pub(super) fn two_way(before: &Value, after: &Value, kind: &str) -> Value {
    Value::Object(diff(before, after, "", Options { kind, deletions: true, changes: true }))
}

pub(super) fn three_way(original: &Value, modified: &Value, current: &Value, kind: &str) -> Value {
    let mut patch = diff(current, modified, "", Options { kind, deletions: false, changes: true });
    let deletions = diff(original, modified, "", Options { kind, deletions: true, changes: false });
    combine(&mut patch, deletions, "", kind);
    Value::Object(patch)
}

fn diff(before: &Value, after: &Value, parent: &str, options: Options<'_>) -> Map<String, Value> {
    let mut patch = Map::new();
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return patch };
    for (field, new) in after {
        match before.get(field) {
            None if options.changes => {
                patch.insert(field.clone(), new.clone());
            }
            None => {}
            Some(old) if old == new => {}
            Some(old) => field_diff(old, new, parent, field, options, &mut patch),
        }
    }
    if options.deletions {
        for field in before.keys().filter(|f| !after.contains_key(*f)) {
            patch.insert(field.clone(), Value::Null);
        }
    }
    patch
}

fn field_diff(old: &Value, new: &Value, parent: &str, field: &str, options: Options<'_>, patch: &mut Map<String, Value>) {
    match (old, new) {
        (Value::Object(_), Value::Object(new_map)) => {
            let mut inner = diff(old, new, field, options);
            if !inner.is_empty() {
                if retains_keys(field) {
                    inner.insert("$retainKeys".into(), json!(new_map.keys().collect::<Vec<_>>()));
                }
                patch.insert(field.to_owned(), Value::Object(inner));
            }
        }
        (Value::Array(old_items), Value::Array(new_items)) => match rule(options.kind, parent, field) {
            Rule::Merge(key) => merge_list(old_items, new_items, key, field, options, patch),
            Rule::Set => set_list(old_items, new_items, field, options, patch),
            Rule::Atomic if options.changes => {
                patch.insert(field.to_owned(), new.clone());
            }
            Rule::Atomic => {}
        },
        _ if options.changes => {
            patch.insert(field.to_owned(), new.clone());
        }
        _ => {}
    }
}

fn merge_list(old: &[Value], new: &[Value], key: &str, field: &str, options: Options<'_>, patch: &mut Map<String, Value>) {
    let find = |items: &[Value], wanted: &Value| items.iter().find(|i| i[key] == *wanted).cloned();
    let mut items = Vec::new();
    for item in new {
        match find(old, &item[key]) {
            Some(before) => {
                let mut inner = diff(&before, item, field, options);
                if !inner.is_empty() {
                    if retains_keys(field)
                        && let Some(map) = item.as_object()
                    {
                        inner.insert("$retainKeys".into(), json!(map.keys().collect::<Vec<_>>()));
                    }
                    inner.insert(key.to_owned(), item[key].clone());
                    items.push(Value::Object(inner));
                }
            }
            None if options.changes => items.push(item.clone()),
            None => {}
        }
    }
    if options.deletions {
        for item in old.iter().filter(|o| find(new, &o[key]).is_none()) {
            items.push(json!({ "$patch": "delete", key: item[key] }));
        }
    }
    let order = |items: &[Value]| items.iter().map(|i| i[key].clone()).collect::<Vec<_>>();
    let reordered = options.changes && order(old).iter().filter(|k| order(new).contains(k)).ne(order(new).iter().filter(|k| order(old).contains(k)));
    if !items.is_empty() || reordered {
        let names: Vec<Value> = new.iter().map(|i| json!({ key: i[key] })).collect();
        patch.insert(format!("$setElementOrder/{field}"), Value::Array(names));
    }
    if !items.is_empty() {
        patch.insert(field.to_owned(), Value::Array(items));
    }
}

fn set_list(old: &[Value], new: &[Value], field: &str, options: Options<'_>, patch: &mut Map<String, Value>) {
    let added: Vec<Value> = new.iter().filter(|n| !old.contains(n)).cloned().collect();
    let removed: Vec<Value> = old.iter().filter(|o| !new.contains(o)).cloned().collect();
    let (adds, removes) = (options.changes && !added.is_empty(), options.deletions && !removed.is_empty());
    if adds || removes {
        patch.insert(format!("$setElementOrder/{field}"), Value::Array(new.to_vec()));
    }
    if adds {
        patch.insert(field.to_owned(), Value::Array(added));
    }
    if removes {
        patch.insert(format!("$deleteFromPrimitiveList/{field}"), Value::Array(removed));
    }
}

/// Adds the deletions to the changes: two patches become one.
fn combine(patch: &mut Map<String, Value>, more: Map<String, Value>, parent: &str, kind: &str) {
    for (field, value) in more {
        match (patch.get_mut(&field), value) {
            (None, value) => {
                patch.insert(field, value);
            }
            (Some(Value::Object(into)), Value::Object(from)) => combine(into, from, &field, kind),
            (Some(Value::Array(into)), Value::Array(from)) if !field.starts_with('$') => match rule(kind, parent, &field) {
                Rule::Merge(key) => combine_lists(into, from, key, &field, kind),
                _ => into.extend(from),
            },
            // A change says more than the deletion of what it replaces.
            (Some(_), _) => {}
        }
    }
}

fn combine_lists(into: &mut Vec<Value>, from: Vec<Value>, key: &str, field: &str, kind: &str) {
    for item in from {
        match (into.iter_mut().find(|i| i[key] == item[key]), item) {
            (Some(Value::Object(existing)), Value::Object(item)) => combine(existing, item, field, kind),
            (Some(_), _) => {}
            (None, item) => into.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: Value) -> Value {
        json!({"spec": {"containers": containers}})
    }

    #[test]
    fn containers_merge_by_name() {
        let before = pod(json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]));
        let after = pod(json!([{"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}]}]));
        assert_eq!(
            two_way(&before, &after, "Pod"),
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}]}})
        );
    }

    #[test]
    fn others_additions_survive_and_own_removals_happen() {
        let original = pod(json!([{"name": "a", "image": "1", "command": ["x"]}, {"name": "old", "image": "1"}]));
        let modified = pod(json!([{"name": "a", "image": "2"}]));
        let current = pod(
            json!([{"name": "a", "image": "1", "command": ["x"], "imagePullPolicy": "Always"}, {"name": "old", "image": "1"}, {"name": "sidecar", "image": "s"}]),
        );
        assert_eq!(
            three_way(&original, &modified, &current, "Pod"),
            json!({"spec": {
                "$setElementOrder/containers": [{"name": "a"}],
                "containers": [{"name": "a", "image": "2", "command": null}, {"name": "old", "$patch": "delete"}]}})
        );
    }

    #[test]
    fn nothing_changed_is_an_empty_patch() {
        let object = pod(json!([{"name": "a", "image": "1"}]));
        let current = pod(json!([{"name": "a", "image": "1", "imagePullPolicy": "Always"}]));
        assert_eq!(three_way(&object, &object, &current, "Pod"), json!({}));
    }

    #[test]
    fn service_ports_merge_by_port_and_container_ports_by_container_port() {
        let service = |p: Value| json!({"spec": {"ports": p}});
        let patch = two_way(&service(json!([{"port": 80, "nodePort": 1}])), &service(json!([{"port": 80, "nodePort": 2}])), "Service");
        assert_eq!(patch["spec"]["ports"], json!([{"port": 80, "nodePort": 2}]));
        let pods = |p: Value| pod(json!([{"name": "a", "ports": p}]));
        let patch = two_way(&pods(json!([{"containerPort": 80}])), &pods(json!([{"containerPort": 81}])), "Pod");
        assert_eq!(patch["spec"]["containers"][0]["ports"], json!([{"containerPort": 81}, {"$patch": "delete", "containerPort": 80}]));
    }

    #[test]
    fn finalizers_are_a_set_and_volumes_keep_one_source() {
        let meta = |f: Value| json!({"metadata": {"finalizers": f}});
        assert_eq!(
            two_way(&meta(json!(["a", "b"])), &meta(json!(["b", "c"])), "Pod"),
            json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b", "c"]}})
        );
        let volumes = |v: Value| json!({"spec": {"volumes": [v]}});
        let patch = two_way(&volumes(json!({"name": "v", "emptyDir": {}})), &volumes(json!({"name": "v", "hostPath": {"path": "/"}})), "Pod");
        assert_eq!(patch["spec"]["volumes"][0]["$retainKeys"], json!(["hostPath", "name"]));
    }
}

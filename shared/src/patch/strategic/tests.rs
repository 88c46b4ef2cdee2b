//! `cases.json` holds what kubectl v1.36 answers to `kubectl patch --local --type=strategic`: document, patch, and result or error.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[derive(Deserialize)]
struct Case {
    name: String,
    document: Value,
    patch: Value,
    result: Option<Value>,
    error: Option<String>,
}

/// What both sides mean the same by: kubectl prints typed objects, so fields without a value are gone or empty.
fn tidy(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) => {
            let map: serde_json::Map<String, Value> =
                map.iter().filter(|(k, _)| *k != "creationTimestamp").filter_map(|(k, v)| tidy(v).map(|v| (k.clone(), v))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        Value::Array(list) if list.is_empty() => None,
        Value::Array(list) => Some(Value::Array(list.iter().map(|v| tidy(v).unwrap_or(json!({}))).collect())),
        Value::String(text) if text.is_empty() => None,
        other => Some(other.clone()),
    }
}

fn kind(document: &Value) -> Type {
    Type::of(document["apiVersion"].as_str().unwrap(), document["kind"].as_str().unwrap())
}

#[test]
fn patches_come_out_as_kubectls_do() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("cases.json")).unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let answer = apply(case.document.clone(), case.patch, kind(&case.document));
        match (&answer, &case.result, &case.error) {
            (Ok(ours), Some(theirs), None) if tidy(ours) == tidy(theirs) => {}
            (Err(_), None, Some(_)) => {}
            _ => wrong.push(format!("{}\n  ours   {answer:?}\n  theirs {:?} {:?}", case.name, case.result, case.error)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_directive_ends_up_in_a_document() {
    // Kubectl leaves these in, which the server would store as elements without a value.
    let patch = json!({"spec": {"containers": [
        {"name": "n", "env": [{"name": "a", "value": "1"}, {"name": "b", "$patch": "delete"}], "resources": {"$patch": "replace", "limits": {}}}
    ]}});
    let patched = apply(pod(json!({"containers": [{"name": "a"}]})), patch, Type::of("v1", "Pod")).unwrap();
    let new = json!({"name": "n", "env": [{"name": "a", "value": "1"}], "resources": {"limits": {}}});
    assert_eq!(patched["spec"]["containers"], json!([new, {"name": "a"}]));
}

fn pod(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x" }, "spec": spec })
}

#[test]
fn two_way_patches_are_upstreams() {
    let cases = [
        (json!({}), json!({}), json!({})),
        (json!({"spec": {"a": 1, "b": 2}}), json!({"spec": {"b": 3, "c": 4}}), json!({"spec": {"a": null, "b": 3, "c": 4}})),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}, {"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}, {"name": "d"}]}}),
            json!({"spec": {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "d"}],
                "containers": [{"name": "b", "image": "2"}, {"name": "d"}, {"name": "c", "$patch": "delete"}]
            }}),
        ),
        (
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            json!({"metadata": {"finalizers": ["d", "b"]}}),
            json!({"metadata": {
                "$deleteFromPrimitiveList/finalizers": ["a", "c"],
                "$setElementOrder/finalizers": ["d", "b"],
                "finalizers": ["d"]
            }}),
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
            json!({"spec": {
                "$setElementOrder/volumes": [{"name": "v"}],
                "volumes": [{"$retainKeys": ["hostPath", "name"], "name": "v", "hostPath": {"path": "/x"}, "emptyDir": null}]
            }}),
        ),
    ];
    for (original, modified, patch) in cases {
        assert_eq!(two_way(&original, &modified, Type::of("v1", "Pod")).unwrap(), patch, "{original} → {modified}");
    }
}

#[test]
fn three_way_patches_leave_alone_what_others_did() {
    let kind = Type::of("apps/v1", "Deployment");
    let original = json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}}});
    let modified = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}});
    let current = json!({"spec": {"replicas": 5, "paused": true, "template": {"spec": {"containers": [
        {"name": "a", "image": "1", "imagePullPolicy": "Always"}, {"name": "b", "image": "1"}, {"name": "injected", "image": "x"}
    ]}}}});
    let patch = three_way(&original, &modified, &current, kind, true).unwrap();
    assert_eq!(
        patch,
        json!({"spec": {"replicas": null, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}]
        }}}})
    );
    let applied = apply(current.clone(), patch, kind).unwrap();
    assert_eq!(
        applied,
        json!({"spec": {"paused": true, "template": {"spec": {"containers": [
            {"name": "a", "image": "2", "imagePullPolicy": "Always"}, {"name": "injected", "image": "x"}
        ]}}}})
    );
    // As upstream: the injected element makes the lists differ, so the order is said again, to no effect.
    let again = three_way(&modified, &modified, &applied, kind, true).unwrap();
    assert_eq!(again, json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "a"}]}}}}));
    assert_eq!(apply(applied.clone(), again, kind).unwrap(), applied);
    let conflicting = json!({"spec": {"replicas": 2}});
    let others = json!({"spec": {"replicas": 3}});
    assert!(three_way(&json!({"spec": {"replicas": 1}}), &conflicting, &others, kind, false).is_err());
    assert!(three_way(&json!({"spec": {"replicas": 3}}), &conflicting, &others, kind, false).is_ok());
}

fn container() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[0-2]", 0..3);
    ("[a-e]", "[0-2]", env, prop::option::of(prop::collection::vec("[x-z]", 0..3))).prop_map(|(name, image, env, args)| {
        let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let mut container = json!({ "name": name, "image": image, "env": env });
        if let Some(args) = args {
            container["args"] = json!(args);
        }
        container
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let labels = prop::option::of(prop::collection::btree_map("[k-m]", "[0-2]", 0..3));
    let finalizers = prop::collection::btree_set("[f-i]", 0..4).prop_map(|s| s.into_iter().collect::<Vec<_>>()).prop_shuffle();
    (prop::collection::vec(container(), 0..5), labels, finalizers).prop_map(|(containers, labels, finalizers)| {
        let mut seen = std::collections::BTreeSet::new();
        let containers: Vec<Value> = containers.into_iter().filter(|c| seen.insert(c["name"].to_string())).collect();
        let mut pod = pod(json!({ "containers": containers }));
        if let Some(labels) = labels {
            pod["metadata"]["labels"] = json!(labels);
        }
        pod["metadata"]["finalizers"] = json!(finalizers);
        pod
    })
}

proptest! {
    #[test]
    fn applying_a_two_way_patch_yields_the_other_document(original in any_pod(), modified in any_pod()) {
        let kind = Type::of("v1", "Pod");
        let patch = two_way(&original, &modified, kind).unwrap();
        let applied = apply(original, patch, kind).unwrap();
        prop_assert_eq!(tidy(&applied), tidy(&modified));
    }

    #[test]
    fn applying_twice_changes_nothing_more(applied_before in any_pod(), modified in any_pod(), current in any_pod()) {
        let kind = Type::of("v1", "Pod");
        let patch = three_way(&applied_before, &modified, &current, kind, true).unwrap();
        let once = apply(current, patch, kind).unwrap();
        let again = three_way(&modified, &modified, &once, kind, true).unwrap();
        prop_assert_eq!(apply(once.clone(), again, kind).unwrap(), once);
    }
}

//! Bad input in bulk for the pure engines: selectors, patches, field ownership. None may panic. Bounded by a fixed number of cases.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use shared::managed::{self, Manager, Managers, Operation, Set};
use shared::patch::{json as json_patch, strategic};
use shared::selector::{FieldSelector, Selector};

/// Any JSON, with the names that the engines look for.
fn any_json() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("containers"),
        Just("name"),
        Just("ports"),
        Just("containerPort"),
        Just("finalizers"),
        Just("labels"),
        Just("$patch"),
        Just("$retainKeys"),
        Just("$setElementOrder/containers"),
        Just("$deleteFromPrimitiveList/finalizers"),
        Just("volumes"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z$]{0,6}".prop_map(Value::from),
        Just(json!("delete")),
        Just(json!("replace")),
        Just(json!("merge")),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(|entries| entries
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

fn manager(name: &str) -> Manager {
    Manager { name: name.into(), operation: Operation::Update, api_version: "v1".into(), subresource: String::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn selectors_are_understood_or_refused(text in "[a-z0-9=!,() <>./\\\\-]{0,60}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert!(Selector::parse(&selector.to_string()).is_ok(), "{text:?} prints as {selector}");
        }
        let _ = FieldSelector::parse(&text);
    }

    #[test]
    fn patches_are_applied_or_refused(document in any_json(), patch in any_json(), current in any_json()) {
        let pod = strategic::Type::of("v1", "Pod");
        let _ = strategic::apply(document.clone(), patch.clone(), pod);
        let _ = strategic::two_way(&document, &patch, pod);
        let _ = strategic::three_way(&document, &patch, &current, pod, true);
        let _ = json_patch::apply_merge_patch(document.clone(), patch.to_string().as_bytes());
        let _ = json_patch::apply_json_patch(document, patch.to_string().as_bytes());
    }

    #[test]
    fn operations_on_any_path_are_applied_or_refused(document in any_json(), paths in prop::collection::vec("(/[a-z0-9~-]{0,8}){0,4}", 1..4)) {
        let operations: Vec<Value> = paths
            .iter()
            .zip(["add", "remove", "replace", "move", "copy", "test", "other"].iter().cycle())
            .map(|(path, op)| json!({"op": op, "path": path, "from": paths[0], "value": 1}))
            .collect();
        let _ = json_patch::apply_json_patch(document, Value::from(operations).to_string().as_bytes());
    }

    #[test]
    fn ownership_of_anything_is_worked_out(old in any_json(), new in any_json()) {
        let of = managed::Type::of("v1", "Pod");
        let mut managers = Managers::new();
        managed::update(of, &json!({}), &old, &mut managers, &manager("a"), "v1", &Set::default());
        managed::update(of, &old, &new, &mut managers, &manager("b"), "v1", &Set::default());
        for owned in managers.values() {
            prop_assert_eq!(&Set::from_value(&owned.set.to_value()).unwrap(), &owned.set);
        }
        if let Ok(fields) = managed::fields_of(of, &new) {
            let applier = Manager { operation: Operation::Apply, ..manager("c") };
            let _ = managed::apply(of, &old, (&new, &fields), &mut managers, &applier, "v1", &Set::default(), true);
        }
    }

    #[test]
    fn entries_that_are_none_are_refused(value in any_json()) {
        let _ = Set::from_value(&value);
    }
}

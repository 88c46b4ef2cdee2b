use serde_json::{Value, json};

use super::*;

fn deployment() -> Type {
    Type::of("apps/v1", "Deployment")
}

fn manager(name: &str, operation: Operation) -> Manager {
    let api_version = if operation == Operation::Update { "apps/v1" } else { "" };
    Manager { name: name.into(), operation, api_version: api_version.into(), subresource: String::new() }
}

fn web(replicas: u32, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": image}]}},
        },
    })
}

/// Applies, and returns the object.
fn try_apply(object: &Value, config: &Value, managers: &mut Managers, name: &str, force: bool) -> Result<Value, Vec<Conflict>> {
    let fields = fields_of(deployment(), config).unwrap();
    apply(deployment(), object, (config, &fields), managers, &manager(name, Operation::Apply), "apps/v1", &Set::default(), force)
}

fn apply_as(object: &Value, config: &Value, managers: &mut Managers, name: &str) -> Value {
    try_apply(object, config, managers, name, false).unwrap()
}

fn update_as(old: &Value, new: &Value, managers: &mut Managers, name: &str) {
    update(deployment(), old, new, managers, &manager(name, Operation::Update), "apps/v1", &Set::of_fields(&["status"]));
}

fn owned(managers: &Managers, name: &str) -> Value {
    managers.iter().find(|(m, _)| m.name == name).map_or(Value::Null, |(_, o)| o.set.to_value())
}

fn printed(conflicts: &[Conflict]) -> Vec<String> {
    conflicts.iter().map(|c| format!("{}: {}", c.manager, c.path.iter().map(ToString::to_string).collect::<String>())).collect()
}

#[test]
fn an_applied_configuration_owns_its_leaves_and_the_items_of_its_lists() {
    let fields = fields_of(deployment(), &web(1, "x")).unwrap().to_value();
    assert_eq!(
        fields,
        json!({
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}}},
                },
            },
        })
    );
}

#[test]
fn a_created_object_is_owned_as_upstream_shows_it() {
    let mut managers = Managers::new();
    let mut object = web(1, "x");
    object["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}});
    object["status"] = json!({"replicas": 1});
    update_as(&json!({}), &object, &mut managers, "kubectl-create");
    assert_eq!(
        owned(&managers, "kubectl-create"),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {}}}},
                },
            },
        })
    );
}

#[test]
fn two_appliers_share_an_object_and_conflict_over_one_value() {
    let mut managers = Managers::new();
    let object = apply_as(&json!({}), &web(1, "x"), &mut managers, "one");
    // The same value may have two owners; another value may not.
    let object = apply_as(&object, &json!({"spec": {"replicas": 1}}), &mut managers, "two");
    let conflicts = try_apply(&object, &json!({"spec": {"replicas": 3, "paused": true}}), &mut managers.clone(), "three", false).unwrap_err();
    assert_eq!(printed(&conflicts), ["\"one\": .spec.replicas", "\"two\": .spec.replicas"]);
    let forced = try_apply(&object, &json!({"spec": {"replicas": 3}}), &mut managers, "three", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(owned(&managers, "two"), Value::Null, "it has lost all it had");
    assert!(owned(&managers, "one")["f:spec"].get("f:replicas").is_none());
    assert_eq!(owned(&managers, "three"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn what_an_applier_leaves_out_goes_unless_somebody_else_has_it() {
    let mut managers = Managers::new();
    let object = apply_as(&json!({}), &web(2, "x"), &mut managers, "one");
    let object = apply_as(&object, &json!({"metadata": {"labels": {"tier": "a"}}, "spec": {"paused": true}}), &mut managers, "two");
    let side = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}});
    let object = apply_as(&object, &side, &mut managers, "two");
    assert_eq!(object["metadata"]["labels"], json!({"app": "web"}), "the label went with the applier that dropped it");
    assert!(object["spec"].get("paused").is_none());
    let containers = &object["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers, &json!([{"name": "a", "image": "x"}, {"name": "side", "image": "s"}]));
    let mut without = web(2, "x");
    without["spec"].as_object_mut().unwrap().remove("replicas");
    without["metadata"] = json!({});
    let object = apply_as(&object, &without, &mut managers, "one");
    assert!(object["spec"].get("replicas").is_none() && object.get("metadata").is_none_or(|m| m.get("labels").is_none()), "{object}");
    assert_eq!(object["spec"]["template"]["spec"]["containers"][1]["name"], "side");
}

#[test]
fn what_others_wrote_into_an_applied_item_stays() {
    let mut managers = Managers::new();
    let object = apply_as(&json!({}), &web(1, "x"), &mut managers, "one");
    let mut written = object.clone();
    written["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "E", "value": "1"}]);
    written["spec"]["replicas"] = json!(5);
    update_as(&object, &written, &mut managers, "hand");
    assert_eq!(owned(&managers, "hand")["f:spec"]["f:replicas"], json!({}));
    let error = try_apply(&written, &web(1, "x"), &mut managers.clone(), "one", false).unwrap_err();
    assert_eq!(printed(&error), ["\"hand\" using apps/v1: .spec.replicas"]);
    let mut config = web(1, "y");
    config["spec"].as_object_mut().unwrap().remove("replicas");
    let object = apply_as(&written, &config, &mut managers, "one");
    assert_eq!(object["spec"]["replicas"], 5);
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0], json!({"name": "a", "image": "y", "env": [{"name": "E", "value": "1"}]}));
}

#[test]
fn removing_by_an_update_takes_the_field_from_all() {
    let mut managers = Managers::new();
    let object = apply_as(&json!({}), &web(1, "x"), &mut managers, "one");
    let mut written = object.clone();
    written["metadata"] = json!({});
    update_as(&object, &written, &mut managers, "hand");
    assert!(owned(&managers, "one").get("f:metadata").is_none());
    assert_eq!(owned(&managers, "hand"), Value::Null, "it owns nothing of what is gone");
}

#[test]
fn an_applied_list_of_scalars_is_shared_item_by_item() {
    let mut managers = Managers::new();
    let finalizers = |names: &[&str]| json!({"metadata": {"finalizers": names}});
    let object = apply_as(&json!({}), &finalizers(&["a", "b"]), &mut managers, "one");
    let object = apply_as(&object, &finalizers(&["c"]), &mut managers, "two");
    assert_eq!(object, finalizers(&["a", "b", "c"]));
    let object = apply_as(&object, &finalizers(&["b"]), &mut managers, "one");
    assert_eq!(object, finalizers(&["b", "c"]));
    assert_eq!(owned(&managers, "two"), json!({"f:metadata": {"f:finalizers": {"v:\"c\"": {}}}}));
}

#[test]
fn merged_lists_take_the_configurations_order() {
    let list = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        json!({"spec": {"template": {"spec": {"containers": items}}}})
    };
    for (old, new, merged) in [
        (&["a", "b", "c"][..], &["b", "d"][..], &["a", "b", "c", "d"][..]),
        (&["a", "b"], &["b", "a"], &["b", "a"]),
        (&["x", "a", "y"], &["a"], &["x", "a", "y"]),
        (&[], &["a"], &["a"]),
        (&["a"], &["b", "a", "c"], &["b", "a", "c"]),
    ] {
        let result = merge(deployment(), &list(old), &list(new));
        let names: Vec<&str> =
            result["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, merged, "{old:?} + {new:?}");
    }
}

#[test]
fn keys_have_their_defaults_and_items_must_be_told_apart() {
    let service = Type::of("v1", "Service");
    let fields = fields_of(service, &json!({"spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]}})).unwrap();
    assert_eq!(
        fields.to_value(),
        json!({"f:spec": {"f:ports": {
            "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}},
            "k:{\"port\":80,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}, "f:protocol": {}},
        }}})
    );
    let twice = fields_of(service, &json!({"spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]}})).unwrap_err();
    assert_eq!(twice, [".spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]"]);
    let unnamed = fields_of(service, &json!({"spec": {"ports": [{"name": "x"}]}})).unwrap_err();
    assert!(unnamed[0].starts_with(".spec.ports: element 0: associative list with keys has an element that omits key field \"port\""), "{unnamed:?}");
}

#[test]
fn a_decoders_path_is_printed_with_keys() {
    let object = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "foo": 1}], "tolerations": [{}]}}}});
    for (path, located) in [
        ("spec.foo", ".spec.foo"),
        ("spec.template.spec.containers[0].foo", ".spec.template.spec.containers[name=\"a\"].foo"),
        ("spec.template.spec.tolerations[0].foo", ".spec.template.spec.tolerations[0].foo"),
    ] {
        assert_eq!(locate(deployment(), &object, path), located);
    }
}

//! Tests over every registered kind at once: what must hold of any row, whoever wrote its strategy.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{ALL_VERBS, Object, PrintContext, RESOURCES, Ranges, Resource};

fn empty(resource: &Resource) -> Object {
    let json = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": "x"}});
    resource.ops.decode(json.to_string().as_bytes()).unwrap()
}

fn encoded(object: &Object) -> Value {
    serde_json::from_slice(&object.encode().unwrap()).unwrap()
}

#[test]
fn every_kind_survives_an_object_with_nothing_but_a_name() {
    let context = PrintContext { now: Timestamp::UNIX_EPOCH };
    for resource in RESOURCES.iter() {
        let mut object = empty(resource);
        resource.ops.default(&mut object);
        let once = encoded(&object);
        resource.ops.default(&mut object);
        assert_eq!(encoded(&object), once, "{} defaults the same twice", resource.kind);
        resource.ops.prepare_for_create(&mut object);
        let old = object.clone();
        let _ = resource.ops.validate(&object);
        resource.ops.prepare_for_update(&mut object, &old);
        let _ = resource.ops.validate_update(&object, &old);
        resource.ops.prepare_for_status_update(&mut object, &old);
        let _ = resource.ops.validate_status_update(&object, &old);
        assert!(!resource.ops.spec_changed(&object, &old), "{} is unchanged", resource.kind);
        let cells = resource.ops.cells(&object, &context);
        assert_eq!(cells.len(), resource.columns.len(), "{} has a cell for each column", resource.kind);
        assert_eq!(resource.ops.grace_period(&object, None), None, "{} is deleted at once", resource.kind);
    }
}

#[test]
fn an_update_that_changes_nothing_is_valid_wherever_the_object_was() {
    for resource in RESOURCES.iter() {
        let mut object = empty(resource);
        resource.ops.default(&mut object);
        resource.ops.prepare_for_create(&mut object);
        let old = object.clone();
        resource.ops.prepare_for_update(&mut object, &old);
        let before: BTreeSet<_> = resource.ops.validate(&old).iter().map(ToString::to_string).collect();
        let after: BTreeSet<_> = resource.ops.validate_update(&object, &old).iter().map(ToString::to_string).collect();
        assert!(after.is_subset(&before), "{}: {after:?} beyond {before:?}", resource.kind);
    }
}

#[test]
fn names_and_paths_are_unique_and_rows_begin_with_a_name_column() {
    let (mut prefixes, mut kinds, mut short) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for resource in RESOURCES.iter() {
        assert!(prefixes.insert(resource.prefix.clone()), "{} is stored apart", resource.kind);
        assert!(kinds.insert((resource.group, resource.kind)), "{} is one kind", resource.kind);
        assert!(resource.short_names.iter().all(|name| short.insert(*name)), "short names of {} are its own", resource.kind);
        let names = resource.columns.iter().filter(|c| c.format == "name").count();
        assert_eq!(names, 1, "{} has one name column", resource.kind);
        assert!(resource.verbs.iter().all(|v| ALL_VERBS.contains(v)), "{}", resource.kind);
        assert!(resource.field_sources.iter().all(|s| resource.fields.contains(&s.field)), "{} has its fields", resource.kind);
        assert_eq!(RESOURCES.find(resource.group, resource.version, resource.plural).map(|r| r.index), Some(resource.index));
    }
    // One prefix inside another would mix two kinds in one range.
    for prefix in &prefixes {
        assert!(prefixes.iter().all(|other| other == prefix || !other.starts_with(prefix.as_str())), "{prefix}");
    }
}

#[test]
fn storage_paths_are_upstreams() {
    for (group, plural, prefix) in [
        ("", "nodes", "/registry/minions/"),
        ("", "services", "/registry/services/specs/"),
        ("", "endpoints", "/registry/services/endpoints/"),
        ("", "replicationcontrollers", "/registry/controllers/"),
        ("", "pods", "/registry/pods/"),
        ("apps", "deployments", "/registry/deployments/"),
        ("networking.k8s.io", "ingresses", "/registry/ingress/"),
        ("coordination.k8s.io", "leases", "/registry/leases/"),
    ] {
        let found = RESOURCES.iter().find(|r| (r.group, r.plural) == (group, plural)).unwrap();
        assert_eq!(found.prefix, prefix);
    }
}

#[test]
fn what_kubectl_calls_all_is_what_it_was() {
    let all: BTreeSet<_> = RESOURCES.iter().filter(|r| r.categories.contains(&"all")).map(|r| r.plural).collect();
    let expected = [
        "cronjobs",
        "daemonsets",
        "deployments",
        "horizontalpodautoscalers",
        "jobs",
        "pods",
        "replicasets",
        "replicationcontrollers",
        "services",
        "statefulsets",
    ];
    assert_eq!(all, BTreeSet::from(expected));
}

#[test]
fn the_manifests_of_the_course_are_accepted_as_they_stand() {
    for (file, text) in [
        ("nginx-nodeport", include_str!("../../../tests/fixtures/course/nginx-nodeport.yaml")),
        ("pod-downward-env", include_str!("../../../tests/fixtures/course/pod-downward-env.yaml")),
        ("quota-compute", include_str!("../../../tests/fixtures/course/quota-compute.yaml")),
        ("quota-object-counts", include_str!("../../../tests/fixtures/course/quota-object-counts.yaml")),
    ] {
        for document in serde_yaml::Deserializer::from_str(text) {
            let json: Value = serde::Deserialize::deserialize(document).unwrap();
            let (group, version) = json["apiVersion"].as_str().map(|v| v.rsplit_once('/').unwrap_or(("", v))).unwrap();
            let resource = RESOURCES.find_kind(group, version, json["kind"].as_str().unwrap()).unwrap();
            let mut object = resource.ops.decode(json.to_string().as_bytes()).unwrap();
            resource.ops.default(&mut object);
            resource.ops.prepare_for_create(&mut object);
            let ranges = Ranges { service_network: [10, 96, 0, 0].into(), service_prefix: 12, node_ports: (30000, 32767) };
            resource.ops.allocate(&mut object, None, &ranges, &|_| false).unwrap();
            assert_eq!(resource.ops.validate(&object), [], "{file}");
        }
    }
}

use std::sync::Arc;

use super::*;
use crate::api::user::User;
use crate::cache::Entry;
use crate::registry::RESOURCES;

fn resource() -> &'static Resource {
    RESOURCES.find("", "v1", "configmaps").unwrap()
}

fn options<'a>(user: &'a User, manager: &str) -> WriteOptions<'a> {
    WriteOptions { field_manager: manager.into(), tracking: Tracking::Update, ..WriteOptions::new(user) }
}

fn config_map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": data})
}

fn object(value: &Value) -> Object {
    resource().ops.decode(value.to_string().as_bytes()).unwrap()
}

fn current(object: Object) -> Current {
    let bytes = object.encode().unwrap();
    Current { entry: Arc::new(Entry::parse(resource(), &bytes, 7).unwrap()), object, outdated: false }
}

fn apply_to(stored: Option<&Current>, manager: &str, config: &Value, force: bool) -> Result<Object, ApiError> {
    let user = User::new("u", &[]);
    let options = WriteOptions { force, ..options(&user, manager) };
    apply(resource(), &options, stored, config.to_string().as_bytes()).map(|d| d.object)
}

fn entries(object: &Object) -> Vec<(String, String, Value)> {
    let of = |e: &ManagedFieldsEntry| {
        (e.manager.clone().unwrap_or_default(), e.operation.clone().unwrap_or_default(), e.fields_v1.as_ref().unwrap().0.clone())
    };
    object.meta().managed_fields.iter().flatten().map(of).collect()
}

fn created(manager: &str, data: &Value) -> Object {
    let mut object = object(&config_map(data));
    track(resource(), &options(&User::new("u", &[]), manager), None, &mut object).unwrap();
    object
}

#[test]
fn a_creator_owns_what_it_sent_and_an_updater_what_it_changed() {
    let old = created("creator", &json!({"a": "1", "b": "1"}));
    assert_eq!(entries(&old), [("creator".into(), "Update".into(), json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}))]);
    let mut new = old.clone();
    new.downcast_mut::<k8s_openapi::api::core::v1::ConfigMap>().unwrap().data = Some([("a".to_owned(), "2".to_owned())].into());
    track(resource(), &options(&User::new("u", &[]), "updater"), Some(&old), &mut new).unwrap();
    let mut found = entries(&new);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        found,
        [("creator".into(), "Update".into(), json!({"f:data": {}})), ("updater".into(), "Update".into(), json!({"f:data": {"f:a": {}}})),]
    );
}

#[test]
fn clients_that_drop_the_entries_lose_nothing_and_an_empty_entry_forgets_all() {
    let old = created("creator", &json!({"a": "1"}));
    let mut dropped = old.clone();
    dropped.meta_mut().managed_fields = None;
    track(resource(), &options(&User::new("u", &[]), "other"), Some(&old), &mut dropped).unwrap();
    assert_eq!(entries(&dropped), entries(&old));
    let mut reset = old.clone();
    reset.meta_mut().managed_fields = Some(vec![ManagedFieldsEntry::default()]);
    track(resource(), &options(&User::new("u", &[]), "other"), Some(&old), &mut reset).unwrap();
    assert_eq!(reset.meta().managed_fields, None);
    let mut later = reset.clone();
    later.downcast_mut::<k8s_openapi::api::core::v1::ConfigMap>().unwrap().data = None;
    track(resource(), &options(&User::new("u", &[]), "other"), Some(&reset), &mut later).unwrap();
    assert_eq!(later.meta().managed_fields, None, "nobody is tracked until somebody applies");
}

#[test]
fn an_apply_conflicts_with_upstreams_words_and_can_be_forced() {
    let stored = current(created("creator", &json!({"a": "1", "b": "1"})));
    let error = apply_to(Some(&stored), "applier", &config_map(&json!({"a": "2"})), false).unwrap_err();
    assert_eq!((error.code(), error.reason()), (409, "Conflict"));
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"creator\" using v1: .data.a");
    let causes = error.0.details.as_ref().unwrap().causes.as_ref().unwrap();
    assert_eq!(causes[0].reason.as_deref(), Some("FieldManagerConflict"));
    assert_eq!(causes[0].field.as_deref(), Some(".data.a"));
    let both = apply_to(Some(&stored), "applier", &config_map(&json!({"a": "2", "b": "2"})), false).unwrap_err();
    assert_eq!(both.to_string(), "Apply failed with 2 conflicts: conflicts with \"creator\" using v1:\n- .data.a\n- .data.b");
    let forced = apply_to(Some(&stored), "applier", &config_map(&json!({"a": "2"})), true).unwrap();
    let expected = [
        ("applier".into(), "Apply".into(), json!({"f:data": {"f:a": {}}})),
        ("creator".into(), "Update".into(), json!({"f:data": {".": {}, "f:b": {}}})),
    ];
    assert_eq!(entries(&forced), expected);
}

#[test]
fn kubectl_may_take_over_what_it_applied_from_its_side() {
    let last = config_map(&json!({"a": "1"})).to_string();
    let mut value = config_map(&json!({"a": "1", "b": "1"}));
    value["metadata"]["annotations"] = json!({LAST_APPLIED: last});
    let mut stored = object(&value);
    track(resource(), &options(&User::new("u", &[]), "kubectl-client-side-apply"), None, &mut stored).unwrap();
    let stored = current(stored);
    let taken = apply_to(Some(&stored), "kubectl", &config_map(&json!({"a": "2"})), false).unwrap();
    let annotation = taken.meta().annotations.as_ref().unwrap()[LAST_APPLIED].clone();
    assert_eq!(serde_json::from_str::<Value>(&annotation).unwrap()["data"], json!({"a": "2"}), "the annotation is kept in step");
    assert_eq!(apply_to(Some(&stored), "kubectl", &config_map(&json!({"b": "2"})), false).unwrap_err().code(), 409);
    assert_eq!(apply_to(Some(&stored), "other", &config_map(&json!({"a": "2"})), false).unwrap_err().code(), 409);
}

#[test]
fn what_was_there_untracked_is_owned_by_nobody_in_particular() {
    let stored = current(object(&config_map(&json!({"a": "1"}))));
    let error = apply_to(Some(&stored), "applier", &config_map(&json!({"a": "2"})), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a");
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut config = config_map(&json!({"a": "1"}));
        change(&mut config);
        let error = apply_to(None, "applier", &config, false).unwrap_err();
        (error.code(), error.to_string())
    };
    let cases: [(&dyn Fn(&mut Value), u16, &str); 6] = [
        (
            &|c| c["data"]["a"] = json!(1),
            500,
            "failed to create typed patch object (n/c; v1, Kind=ConfigMap): .data.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (&|c| c["kind"] = json!("Pod"), 400, "invalid object type: v1, Kind=Pod"),
        (&|c| c["metadata"]["managedFields"] = json!([{}]), 400, "metadata.managedFields must be nil"),
        (
            &|c| c["metadata"]["uid"] = json!("u"),
            409,
            "Operation cannot be fulfilled on configmaps \"c\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
        (&|c| c["dta"] = json!({}), 500, "failed to create typed patch object (n/c; v1, Kind=ConfigMap): .dta: field not declared in schema"),
        (
            &|c| c["metadata"]["finalizers"] = json!(["a/b", "a/b"]),
            500,
            "failed to create typed patch object (n/c; v1, Kind=ConfigMap): .metadata.finalizers: duplicate entries for key [=\"a/b\"]",
        ),
    ];
    for (change, code, text) in cases {
        assert_eq!(refused(change), (code, text.to_owned()));
    }
}

#[test]
fn the_oldest_of_many_updaters_share_an_entry() {
    let mut object = created("u00", &json!({"00": "1"}));
    for at in 1..15 {
        let old = object.clone();
        let map = object.downcast_mut::<k8s_openapi::api::core::v1::ConfigMap>().unwrap();
        map.data.get_or_insert_default().insert(format!("{at:02}"), "1".into());
        track(resource(), &options(&User::new("u", &[]), &format!("u{at:02}")), Some(&old), &mut object).unwrap();
    }
    let found = entries(&object);
    assert_eq!(found.len(), UPDATERS);
    let ancient = found.iter().find(|(name, ..)| name == ANCIENT).unwrap();
    assert_eq!(ancient.2["f:data"].as_object().unwrap().len(), 7, "{ancient:?}");
}

#[test]
fn entries_that_cannot_be_read_count_for_nothing() {
    let good = ManagedFieldsEntry {
        operation: Some("Update".into()),
        fields_type: Some(FIELDS_V1.into()),
        fields_v1: Some(FieldsV1(json!({"f:data": {}}))),
        ..ManagedFieldsEntry::default()
    };
    assert!(Entries::decode(std::slice::from_ref(&good)).is_some());
    for bad in [
        ManagedFieldsEntry { operation: Some("Delete".into()), ..good.clone() },
        ManagedFieldsEntry { fields_type: None, ..good.clone() },
        ManagedFieldsEntry { fields_v1: Some(FieldsV1(json!({"data": {}}))), ..good.clone() },
    ] {
        assert!(Entries::decode(&[good.clone(), bad]).is_none());
    }
}

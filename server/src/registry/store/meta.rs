//! `metadata`: what the server fills in and what it refuses, for every kind alike
//! (`k8s.io/apiserver/pkg/registry/rest/{create,update,meta}.go`, `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use shared::field::{Error, ErrorList, Path};
use shared::selector::{is_dns1123_label, label_value_errors, qualified_name_errors};
use shared::status::ApiError;

use super::names;
use crate::registry::{DNS1123_LABEL, Object, Resource};

/// Finalizer under which the garbage collector orphans dependents.
pub const ORPHAN: &str = "orphan";
/// Finalizer under which the garbage collector deletes dependents first.
pub const FOREGROUND: &str = "foregroundDeletion";

const ANNOTATIONS_LIMIT: usize = 256 * 1024;
const IMMUTABLE: &str = "field is immutable";

/// The present, in whole seconds as the API shows times.
pub(super) fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Takes the request's namespace over; a cluster-scoped object loses its own.
///
/// # Errors
/// 400 when the object says another one.
pub(super) fn match_namespace(resource: &Resource, namespace: &str, object: &mut Object) -> Result<(), ApiError> {
    let meta = object.meta_mut();
    let given = meta.namespace.as_deref().unwrap_or_default();
    if !resource.namespaced {
        meta.namespace = None;
    } else if given.is_empty() {
        meta.namespace = Some(namespace.to_owned());
    } else if given != namespace {
        return Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    Ok(())
}

/// Fills in what the system owns of a new object.
pub(super) fn fill_for_create(resource: &Resource, object: &mut Object) {
    let meta = object.meta_mut();
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    meta.creation_timestamp = Some(now());
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.generation = resource.generation.then_some(1);
    if meta.name.as_deref().unwrap_or_default().is_empty()
        && let Some(base) = meta.generate_name.as_deref().filter(|b| !b.is_empty())
    {
        meta.name = Some(names::generate(base));
    }
    tidy(meta);
}

/// Keeps what an update may not change.
pub(super) fn fill_for_update(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.self_link = None;
    if new.uid.as_deref().unwrap_or_default().is_empty() {
        new.uid.clone_from(&old.uid);
    }
    if old.creation_timestamp.is_some() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    tidy(new);
}

/// Empty collections are stored as absent, as Go's `omitempty` does.
fn tidy(meta: &mut ObjectMeta) {
    fn drop_empty<T>(value: &mut Option<T>, is_empty: impl Fn(&T) -> bool) {
        if value.as_ref().is_some_and(is_empty) {
            *value = None;
        }
    }
    drop_empty(&mut meta.labels, std::collections::BTreeMap::is_empty);
    drop_empty(&mut meta.annotations, std::collections::BTreeMap::is_empty);
    drop_empty(&mut meta.finalizers, Vec::is_empty);
    drop_empty(&mut meta.owner_references, Vec::is_empty);
    drop_empty(&mut meta.managed_fields, Vec::is_empty);
    drop_empty(&mut meta.generate_name, String::is_empty);
    drop_empty(&mut meta.namespace, String::is_empty);
}

/// Errors of a new object's metadata.
pub(super) fn validate(resource: &Resource, meta: &ObjectMeta) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    if let Some(base) = meta.generate_name.as_deref() {
        // The letters that follow end the name well, whatever the base ends with.
        if let Err(message) = resource.ops.validate_name(&format!("{base}a")) {
            errors.push(Error::invalid(&path.child("generateName"), base, &message));
        }
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(Error::required(&path.child("name"), "name or generateName is required")),
        name => {
            if let Err(message) = path_segment(name).and_then(|()| resource.ops.validate_name(name)) {
                errors.push(Error::invalid(&path.child("name"), name, &message));
            }
        }
    }
    common(resource, meta, &path, &mut errors);
    errors
}

/// What no name may be, because it is part of a URL (`k8s.io/apimachinery/pkg/api/validation/path/name.go`).
fn path_segment(name: &str) -> Result<(), String> {
    if name == "." || name == ".." {
        return Err(format!("may not be '{name}'"));
    }
    match name.chars().find(|c| matches!(c, '/' | '%')) {
        Some(c) => Err(format!("may not contain '{c}'")),
        None => Ok(()),
    }
}

fn common(resource: &Resource, meta: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let at = path.child("namespace");
    match (resource.namespaced, namespace) {
        (true, "") => errors.push(Error::required(&at, "")),
        (true, namespace) if !is_dns1123_label(namespace) => errors.push(Error::invalid(&at, namespace, DNS1123_LABEL)),
        (true, _) | (false, "") => {}
        (false, _) => errors.push(Error::forbidden(&at, "not allowed on this type")),
    }
    if let Some(generation) = meta.generation.filter(|g| *g < 0) {
        errors.push(Error::invalid(&path.child("generation"), generation, "must be greater than or equal to 0"));
    }
    labels_and_annotations(meta, path, errors);
    owner_references(meta.owner_references.as_deref().unwrap_or_default(), &path.child("ownerReferences"), errors);
    finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"), errors);
}

fn labels_and_annotations(meta: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    let at = path.child("labels");
    for (key, value) in meta.labels.iter().flatten() {
        errors.extend(qualified_name_errors(key).iter().map(|m| Error::invalid(&at, key, m)));
        errors.extend(label_value_errors(value).iter().map(|m| Error::invalid(&at, value, m)));
    }
    let at = path.child("annotations");
    let mut size = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        errors.extend(qualified_name_errors(&key.to_lowercase()).iter().map(|m| Error::invalid(&at, key, m)));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(Error::too_long(&at, ANNOTATIONS_LIMIT));
    }
}

fn owner_references(references: &[OwnerReference], at: &Path, errors: &mut ErrorList) {
    let mut controller: Option<String> = None;
    for reference in references {
        let version = reference.api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            errors.push(Error::invalid(&at.child("apiVersion"), &reference.api_version, "version must not be empty"));
        }
        for (field, value) in [("kind", &reference.kind), ("name", &reference.name), ("uid", &reference.uid)] {
            if value.is_empty() {
                errors.push(Error::invalid(&at.child(field), value, "must not be empty"));
            }
        }
        if reference.api_version == "v1" && reference.kind == "Event" {
            errors.push(Error::invalid(at, reference, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if reference.controller == Some(true) {
            let this = format!("{}/{}", reference.kind, reference.name);
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let text = format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}");
                    errors.push(Error::invalid(at, references, &text));
                }
            }
        }
    }
}

fn finalizers(finalizers: &[String], at: &Path, errors: &mut ErrorList) {
    for finalizer in finalizers {
        errors.extend(qualified_name_errors(finalizer).iter().map(|m| Error::invalid(at, finalizer, m)));
    }
    if finalizers.iter().any(|f| f == ORPHAN) && finalizers.iter().any(|f| f == FOREGROUND) {
        errors.push(Error::invalid(at, finalizers, &format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set")));
    }
}

/// Errors of an updated object's metadata.
pub(super) fn validate_update(resource: &Resource, new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    common(resource, new, &path, &mut errors);
    if old.deletion_timestamp.is_some() {
        let had = old.finalizers.as_deref().unwrap_or_default();
        let mut extra: Vec<&String> = new.finalizers.iter().flatten().filter(|f| !had.contains(f)).collect();
        extra.sort_unstable();
        if !extra.is_empty() {
            let list = extra.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            let text = format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}");
            errors.push(Error::forbidden(&path.child("finalizers"), &text));
        }
    }
    let mut immutable = |field: &str, same: bool, value: serde_json::Value| {
        if !same {
            errors.push(Error::invalid(&path.child(field), value, IMMUTABLE));
        }
    };
    let text = |value: &Option<String>| value.as_deref().unwrap_or_default().to_owned();
    immutable("name", text(&new.name) == text(&old.name), text(&new.name).into());
    immutable("namespace", text(&new.namespace) == text(&old.namespace), text(&new.namespace).into());
    immutable("uid", text(&new.uid) == text(&old.uid), text(&new.uid).into());
    let time = |value: &Option<Time>| serde_json::to_value(value).unwrap_or_default();
    immutable("creationTimestamp", new.creation_timestamp == old.creation_timestamp, time(&new.creation_timestamp));
    immutable("deletionTimestamp", new.deletion_timestamp == old.deletion_timestamp, time(&new.deletion_timestamp));
    let (new_grace, old_grace) = (new.deletion_grace_period_seconds, old.deletion_grace_period_seconds);
    immutable("deletionGracePeriodSeconds", new_grace == old_grace, new_grace.into());
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(change: impl FnOnce(&mut ObjectMeta)) -> Vec<String> {
        let mut meta = ObjectMeta::default();
        change(&mut meta);
        let (path, mut errors) = (Path::new("metadata"), Vec::new());
        labels_and_annotations(&meta, &path, &mut errors);
        owner_references(meta.owner_references.as_deref().unwrap_or_default(), &path.child("ownerReferences"), &mut errors);
        finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn owner(name: &str, controller: bool) -> OwnerReference {
        OwnerReference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: name.into(),
            uid: "u".into(),
            controller: Some(controller),
            ..OwnerReference::default()
        }
    }

    #[test]
    fn bad_metadata_is_named_with_upstream_words() {
        let one = |key: &str, value: &str| Some([(key.to_owned(), value.to_owned())].into());
        assert!(errors(|m| m.labels = one("app", "web")).is_empty());
        let found = errors(|m| m.labels = one("app", "-"));
        assert!(found[0].starts_with("metadata.labels: Invalid value: \"-\": a valid label must be"), "{found:?}");
        let found = errors(|m| m.annotations = one("a", &"x".repeat(ANNOTATIONS_LIMIT)));
        assert_eq!(found, ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
        assert!(errors(|m| m.annotations = one("Upper/Case", "v")).is_empty());
        let found = errors(|m| m.finalizers = Some(vec![ORPHAN.into(), FOREGROUND.into()]));
        assert!(found[0].ends_with("finalizer orphan and foregroundDeletion cannot be both set"), "{found:?}");
        let found = errors(|m| m.owner_references = Some(vec![owner("a", true), owner("b", true)]));
        assert!(found[0].contains("Found \"true\" in references for ReplicaSet/a and ReplicaSet/b"), "{found:?}");
        assert!(errors(|m| m.owner_references = Some(vec![owner("a", true), owner("b", false)])).is_empty());
        let found = errors(|m| m.owner_references = Some(vec![OwnerReference { uid: String::new(), ..owner("a", false) }]));
        assert_eq!(found, ["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"]);
    }
}

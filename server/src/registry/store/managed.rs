//! `metadata.managedFields`: who owns which field, kept on every write, and server-side apply on top of it
//! (`k8s.io/apimachinery/pkg/util/managedfields`).
//!
//! Owns the entries of objects. What owning means is `shared::managed`'s, which is pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::{Value, json};
use shared::managed::{self, Conflict, Manager, Managers, Operation, Owned, Set, Type};
use shared::status::ApiError;

use super::track::Findings;
use super::{Current, Decoded, FieldValidation, Tracking, WriteOptions, decode, meta, reset};
use crate::registry::{Object, Resource};

/// The only form there is.
const FIELDS_V1: &str = "FieldsV1";
/// Who owns what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Who owns what many updaters wrote long ago.
const ANCIENT: &str = "ancient-changes";
/// Most updaters an object remembers (upstream's `DefaultMaxUpdateManagers`).
const UPDATERS: usize = 10;
/// Where client-side apply keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most that all annotations of an object may come to.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// An object's entries.
#[derive(Clone, Default)]
struct Entries {
    managers: Managers,
    times: BTreeMap<Manager, Time>,
}

impl Entries {
    /// `None` when they cannot all be read.
    fn decode(entries: &[ManagedFieldsEntry]) -> Option<Self> {
        let mut decoded = Entries::default();
        for entry in entries {
            let api_version = entry.api_version.clone().unwrap_or_default();
            let operation = match entry.operation.as_deref() {
                Some("Apply") => Operation::Apply,
                Some("Update") => Operation::Update,
                _ => return None,
            };
            if entry.fields_type.as_deref() != Some(FIELDS_V1) {
                return None;
            }
            let manager = Manager {
                name: entry.manager.clone().unwrap_or_default(),
                operation,
                api_version: if operation == Operation::Update { api_version.clone() } else { String::new() },
                subresource: entry.subresource.clone().unwrap_or_default(),
            };
            let set = Set::from_value(entry.fields_v1.as_ref().map_or(&json!({}), |f| &f.0)).ok()?;
            decoded.times.extend(entry.time.clone().map(|time| (manager.clone(), time)));
            decoded.managers.insert(manager, Owned { set, api_version });
        }
        Some(decoded)
    }

    /// Appliers first, then by age.
    fn encode(mut self) -> Option<Vec<ManagedFieldsEntry>> {
        if self.managers.is_empty() {
            return None;
        }
        let mut encoded: Vec<(Operation, i64, ManagedFieldsEntry)> = Vec::with_capacity(self.managers.len());
        for (manager, owned) in self.managers {
            let time = self.times.remove(&manager);
            let text = |text: String| (!text.is_empty()).then_some(text);
            let entry = ManagedFieldsEntry {
                api_version: text(owned.api_version),
                fields_type: Some(FIELDS_V1.into()),
                fields_v1: Some(FieldsV1(owned.set.to_value())),
                manager: text(manager.name),
                operation: Some(if manager.operation == Operation::Apply { "Apply" } else { "Update" }.into()),
                subresource: text(manager.subresource),
                time: time.clone(),
            };
            encoded.push((manager.operation, time.map_or(0, |t| t.0.as_second()), entry));
        }
        encoded.sort_by(|(a, at, ae), (b, bt, be)| {
            (a, at, &ae.manager, &ae.api_version, &ae.subresource).cmp(&(b, bt, &be.manager, &be.api_version, &be.subresource))
        });
        Some(encoded.into_iter().map(|(_, _, entry)| entry).collect())
    }

    /// Lets the oldest of too many updaters share one entry for each version.
    fn cap(&mut self) {
        let mut updaters: Vec<(i64, Manager)> = self
            .managers
            .keys()
            .filter(|m| m.operation == Operation::Update)
            .map(|m| (self.times.get(m).map_or(0, |t| t.0.as_second()), m.clone()))
            .collect();
        let mut left = updaters.len();
        updaters.sort();
        let mut first: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if left <= UPDATERS {
                return;
            }
            let version = manager.api_version.clone();
            let Some(kept) = first.get(&version) else {
                first.insert(version, manager);
                continue;
            };
            let bucket = Manager { name: ANCIENT.into(), operation: Operation::Update, api_version: version.clone(), subresource: String::new() };
            for merged in [kept.clone(), manager] {
                let Some(owned) = (merged != bucket).then(|| self.managers.remove(&merged)).flatten() else { continue };
                let into = self.managers.entry(bucket.clone()).or_insert_with(|| Owned { set: Set::default(), api_version: version.clone() });
                into.set = into.set.union(&owned.set);
                if let Some(time) = self.times.remove(&merged) {
                    self.times.insert(bucket.clone(), time);
                }
            }
            first.insert(version, bucket);
            left -= 1;
        }
    }
}

/// How a kind's fields are owned.
fn type_of(resource: &Resource) -> Type {
    match &resource.custom {
        None => Type::of(&resource.api_version(), resource.kind),
        Some(slot) => slot.current().ownership,
    }
}

fn writer(resource: &Resource, options: &WriteOptions<'_>, name: &str, operation: Operation) -> Manager {
    Manager {
        name: name.to_owned(),
        operation,
        api_version: if operation == Operation::Update { resource.api_version() } else { String::new() },
        subresource: options.subresource.to_owned(),
    }
}

/// Notes who owns what after a write through anything but a server-side apply.
///
/// # Errors
/// Only what encoding refuses.
pub(super) fn track(resource: &Resource, options: &WriteOptions<'_>, old: Option<&Object>, new: &mut Object) -> Result<(), ApiError> {
    let stored = old.and_then(|o| o.meta().managed_fields.as_deref()).unwrap_or_default();
    match options.tracking {
        Tracking::Settled => return Ok(()),
        Tracking::Keep => {
            if new.meta().managed_fields.is_none() && !stored.is_empty() {
                new.meta_mut().managed_fields = Some(stored.to_vec());
            }
            return Ok(());
        }
        Tracking::Update => {}
    }
    let given = new.meta_mut().managed_fields.take().unwrap_or_default();
    // One entry with nothing in it is how clients ask to forget it all.
    let reset = matches!(given.as_slice(), [one] if *one == ManagedFieldsEntry::default());
    // What clients cannot read they do not send; that must not lose it.
    let given = if options.subresource.is_empty() { Entries::decode(&given).filter(|e| !e.managers.is_empty()) } else { None };
    let mut entries =
        if reset && options.subresource.is_empty() { Entries::default() } else { given.or_else(|| Entries::decode(stored)).unwrap_or_default() };
    if old.is_some() && entries.managers.is_empty() {
        return Ok(());
    }
    let before = old.map_or_else(|| Ok(json!({})), Object::to_value).map_err(ApiError::internal)?;
    let after = new.to_value().map_err(ApiError::internal)?;
    update(resource, options, &options.field_manager, &mut entries, (&before, &after));
    new.meta_mut().managed_fields = entries.encode();
    Ok(())
}

fn update(resource: &Resource, options: &WriteOptions<'_>, name: &str, entries: &mut Entries, (before, after): (&Value, &Value)) {
    let version = resource.api_version();
    let manager = writer(resource, options, name, Operation::Update);
    let ignored = reset::fields(resource, options.subresource);
    if managed::update(type_of(resource), before, after, &mut entries.managers, &manager, &version, ignored) {
        entries.times.insert(manager, meta::now());
    }
    entries.cap();
}

/// Whether two objects' entries are the same but for their times.
pub(super) fn differ_in_times_only(a: Option<&[ManagedFieldsEntry]>, b: Option<&[ManagedFieldsEntry]>) -> bool {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    let timeless = |entry: &ManagedFieldsEntry| ManagedFieldsEntry { time: None, ..entry.clone() };
    // Times are part of the order.
    a.len() == b.len() && a.iter().all(|entry| b.iter().any(|other| timeless(entry) == timeless(other)))
}

/// The object that a server-side apply of a configuration makes of the stored one, or makes where there is none.
///
/// # Errors
/// 400 for another kind and for entries in the configuration, 409 for fields that others own, 500 for what does not fit the type.
pub fn apply(resource: &Resource, options: &WriteOptions<'_>, current: Option<&Current>, config: &[u8]) -> Result<Decoded, ApiError> {
    let parsed: Value = serde_json::from_slice(config).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    check(resource, current, &parsed)?;
    let version = resource.api_version();
    let of = type_of(resource);
    let fields = fit(resource, of, config, &parsed)?;
    let mut entries = current.and_then(|c| Entries::decode(c.object.meta().managed_fields.as_deref().unwrap_or_default())).unwrap_or_default();
    let mut live = current.map_or_else(|| Ok(json!({})), |c| c.object.to_value()).map_err(ApiError::internal)?;
    if let Some(metadata) = live.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if current.is_some() && entries.managers.is_empty() {
        update(resource, options, BEFORE_FIRST_APPLY, &mut entries, (&json!({}), &live));
    }
    let applier = writer(resource, options, &options.field_manager, Operation::Apply);
    let run = |entries: &mut Entries, force: bool| {
        let ignored = reset::fields(resource, options.subresource);
        managed::apply(of, &live, (&parsed, &fields), &mut entries.managers, &applier, &version, ignored, force)
    };
    let mut attempt = entries.clone();
    let applied = match run(&mut attempt, options.force) {
        Ok(applied) => applied,
        Err(conflicts) => {
            let left = if applier.name == "kubectl" { beyond_last_applied(of, &live, conflicts) } else { conflicts };
            if !left.is_empty() {
                return Err(conflict(&left));
            }
            attempt = entries;
            run(&mut attempt, true).map_err(|conflicts| conflict(&conflicts))?
        }
    };
    attempt.times.insert(applier.clone(), meta::now());
    let applied = if applier.name == "kubectl" { with_last_applied(applied, &parsed) } else { applied };
    let mut decoded = decode(resource, &serde_json::to_vec(&applied).map_err(ApiError::internal)?, FieldValidation::Ignore)?;
    decoded.object.meta_mut().managed_fields = attempt.encode();
    Ok(decoded)
}

/// What a configuration must be, whatever its fields.
fn check(resource: &Resource, current: Option<&Current>, config: &Value) -> Result<(), ApiError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&config["apiVersion"]), text(&config["kind"]));
    if version.is_empty() || kind.is_empty() {
        let missing = if kind.is_empty() { "kind" } else { "apiVersion" };
        return Err(ApiError::bad_request(format!("Object '{missing}' is missing in '{config}'")));
    }
    if version != resource.api_version() || kind != resource.kind {
        return Err(ApiError::bad_request(format!("invalid object type: {version}, Kind={kind}")));
    }
    let metadata = &config["metadata"];
    if !metadata["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(uid) = metadata["uid"].as_str().filter(|uid| !uid.is_empty() && current.is_none()) {
        let text = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(ApiError::conflict(resource.group_resource(), &text_of(metadata, "name"), &text));
    }
    Ok(())
}

fn text_of(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// The fields that a configuration sets, if it fits the type.
fn fit(resource: &Resource, of: Type, config: &[u8], parsed: &Value) -> Result<Set, ApiError> {
    let findings = Findings::default();
    let mut problems = Vec::new();
    if let Err(error) = resource.ops.decode_with(config, &findings) {
        let path = findings.failed.take().map(|failed| managed::locate(of, parsed, &failed.path)).unwrap_or_default();
        problems.push(format!("{path}: {}", misfit(&error.to_string())));
    }
    problems.extend(findings.unknown.take().iter().map(|path| format!("{}: field not declared in schema", managed::locate(of, parsed, path))));
    let fields = managed::fields_of(of, parsed).map_err(|errors| problems.extend(errors)).unwrap_or_default();
    if problems.is_empty() {
        return Ok(fields);
    }
    let metadata = &parsed["metadata"];
    let (namespace, name) = (text_of(metadata, "namespace"), text_of(metadata, "name"));
    let list = match problems.as_slice() {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let kind = format!("{}, Kind={}", resource.api_version(), resource.kind);
    // Upstream gives no reason here.
    Err(ApiError::new(500, "", format!("failed to create typed patch object ({namespace}/{name}; {kind}): {list}")))
}

/// A decoder's complaint about a value's type, as upstream words it (`typed/validate.go`).
fn misfit(text: &str) -> String {
    let text = text.split(" at line ").next().unwrap_or(text);
    let Some((found, expected)) = text.strip_prefix("invalid type: ").and_then(|t| t.rsplit_once(", expected ")) else { return text.to_owned() };
    let expected = match expected {
        "a string" | "string" => "string",
        "a boolean" | "bool" => "boolean",
        "i32" | "i64" | "f64" => "numeric (int or float)",
        "a sequence" => "list",
        _ => "map",
    };
    let value = found.split_once(' ').map_or(found, |(_, value)| value.trim_matches(['`', '"']));
    format!("expected {expected}, got &value.valueUnstructured{{Value:{value}}}")
}

/// The conflicts that are not about what kubectl itself had applied from the client's side.
fn beyond_last_applied(of: Type, live: &Value, conflicts: Vec<Conflict>) -> Vec<Conflict> {
    let last = live["metadata"]["annotations"][LAST_APPLIED].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some((last, fields)) = last.and_then(|last| managed::fields_of(of, &last).ok().map(|fields| (last, fields))) else { return conflicts };
    let changes = managed::compare(of, &last, live);
    let allowed = fields.difference(&changes.modified).difference(&changes.added).difference(&changes.removed);
    let covered = |conflict: &Conflict| {
        let mut path = Set::default();
        path.insert(&conflict.path);
        path.difference(&allowed).is_empty()
    };
    conflicts.into_iter().filter(|conflict| !covered(conflict)).collect()
}

/// Keeps the annotation of client-side apply in step, where there is one.
fn with_last_applied(mut object: Value, config: &Value) -> Value {
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotations) = annotations.filter(|a| a.contains_key(LAST_APPLIED)) else { return object };
    let mut config = config.clone();
    if let Some(own) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    let text = format!("{config}\n");
    let others: usize = annotations.iter().filter(|(k, _)| *k != LAST_APPLIED).map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    let fits = others + LAST_APPLIED.len() + text.len() <= ANNOTATIONS_LIMIT;
    annotations.insert(LAST_APPLIED.into(), if fits { text } else { String::new() }.into());
    object
}

/// 409 with upstream's wording (`managedfields/internal/conflict.go`).
fn conflict(conflicts: &[Conflict]) -> ApiError {
    let path = |conflict: &Conflict| conflict.path.iter().map(ToString::to_string).collect::<String>();
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, path(one)),
        many => {
            let mut lines = Vec::new();
            let mut last = None;
            for conflict in many {
                if last.replace(&conflict.manager) != Some(&conflict.manager) {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                }
                lines.push(format!("- {}", path(conflict)));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    conflicts.iter().fold(ApiError::apply_conflict(message), |error, conflict| {
        error.cause("FieldManagerConflict", &path(conflict), &format!("conflict with {}", conflict.manager))
    })
}

#[cfg(test)]
mod tests;

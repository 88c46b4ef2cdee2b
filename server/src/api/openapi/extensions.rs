//! What upstream publishes beside the types: how lists and maps merge, and what fields are when nobody says
//! (`k8s.io/kube-openapi/pkg/generators`).
//!
//! Owns the decoration of schemas. The rules themselves are data of the patch engines, so that what is published is what is done.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use shared::{managed, patch::strategic};

use super::schemas::referred;
use crate::api::protobuf;

/// Fields with a default of their own (`+default` in the types).
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.LocalObjectReference", "name", ""),
    ("io.k8s.api.core.v1.ConfigMapEnvSource", "name", ""),
    ("io.k8s.api.core.v1.ConfigMapKeySelector", "name", ""),
    ("io.k8s.api.core.v1.ConfigMapProjection", "name", ""),
    ("io.k8s.api.core.v1.ConfigMapVolumeSource", "name", ""),
    ("io.k8s.api.core.v1.SecretEnvSource", "name", ""),
    ("io.k8s.api.core.v1.SecretKeySelector", "name", ""),
    ("io.k8s.api.core.v1.SecretProjection", "name", ""),
    ("io.k8s.api.core.v1.GRPCAction", "service", ""),
    ("io.k8s.api.core.v1.ISCSIVolumeSource", "iscsiInterface", "default"),
    ("io.k8s.api.core.v1.ISCSIPersistentVolumeSource", "iscsiInterface", "default"),
    ("io.k8s.api.core.v1.RBDVolumeSource", "pool", "rbd"),
    ("io.k8s.api.core.v1.RBDVolumeSource", "user", "admin"),
    ("io.k8s.api.core.v1.RBDVolumeSource", "keyring", "/etc/ceph/keyring"),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", "pool", "rbd"),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", "user", "admin"),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", "keyring", "/etc/ceph/keyring"),
    ("io.k8s.api.core.v1.ScaleIOVolumeSource", "storageMode", "ThinProvisioned"),
    ("io.k8s.api.core.v1.ScaleIOVolumeSource", "fsType", "xfs"),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "cachingMode", "ReadWrite"),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "fsType", "ext4"),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "kind", "Shared"),
];

/// Types of which one member says which other may be set (`+union`): type, discriminator, members with the discriminator's value.
type Union = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
const UNIONS: &[Union] = &[
    ("io.k8s.api.flowcontrol.v1.LimitResponse", "type", &[("queuing", "Queuing")]),
    ("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec", "type", &[("exempt", "Exempt"), ("limited", "Limited")]),
    ("io.k8s.api.flowcontrol.v1.Subject", "kind", &[("group", "Group"), ("serviceAccount", "ServiceAccount"), ("user", "User")]),
];

/// Where a walk begins: a schema's name, and the kind it is of.
pub(super) struct Root {
    pub name: String,
    pub api_version: String,
    pub kind: &'static str,
}

/// Marks how lists and maps below the roots merge.
pub(super) fn add_merge_rules(schemas: &mut Map<String, Value>, roots: impl IntoIterator<Item = Root>) {
    let mut open: Vec<(String, managed::Type, strategic::Type)> =
        roots.into_iter().map(|r| (r.name, managed::Type::of(&r.api_version, r.kind), strategic::Type::of(&r.api_version, r.kind))).collect();
    let mut seen = HashSet::new();
    while let Some((name, owned, patched)) = open.pop() {
        if !seen.insert((name.clone(), format!("{owned:?} {patched:?}"))) {
            continue;
        }
        let Some(schema) = schemas.get_mut(&name) else { continue };
        if owned.is_atomic() {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        let owned: Vec<_> = owned.published().collect();
        let patched: Vec<_> = patched.published().collect();
        for (field, schema) in fields {
            let (of_owned, of_patched) = (owned.iter().find(|o| o.0 == field), patched.iter().find(|p| p.0 == field));
            let extensions = of_owned.iter().flat_map(|o| &o.2).chain(of_patched.iter().flat_map(|p| &p.2));
            let Some(map) = schema.as_object_mut() else { continue };
            map.extend(extensions.map(|(name, value)| (name.clone(), value.clone())));
            if of_owned.is_some() || of_patched.is_some() {
                let types = (of_owned.map(|o| o.1).unwrap_or_default(), of_patched.map(|p| p.1).unwrap_or_default());
                open.extend(element(map).map(|name| (name, types.0, types.1)));
            }
        }
    }
}

/// The schema that a field, or the elements of a list or map, refer to.
fn element(field: &Map<String, Value>) -> Option<String> {
    let inner = ["items", "additionalProperties"].iter().find_map(|name| field.get(*name)).and_then(Value::as_object);
    referred(inner.unwrap_or(field)).map(str::to_owned)
}

/// Adds unions, and what fields are when nobody says: Go's zero value for what cannot be left out, and the few that types name.
pub(super) fn add_defaults(schemas: &mut Map<String, Value>) {
    let objects: HashSet<String> = schemas.iter().filter(|(_, s)| s["type"] == "object").map(|(name, _)| name.clone()).collect();
    for (name, schema) in schemas.iter_mut() {
        if let Some((_, discriminator, members)) = UNIONS.iter().find(|u| u.0 == name) {
            let members: Map<String, Value> = members.iter().map(|(field, value)| ((*field).to_owned(), (*value).into())).collect();
            schema["x-kubernetes-unions"] = json!([{"discriminator": discriminator, "fields-to-discriminateBy": members}]);
        }
        let required: HashSet<String> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let message = protobuf::message_of_schema(name);
        let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        for (field, schema) in fields {
            let Some(map) = schema.as_object_mut() else { continue };
            for inner in ["items", "additionalProperties"] {
                if let Some(inner) = map.get_mut(inner).and_then(Value::as_object_mut)
                    && let Some(zero) = zero(inner, &objects)
                {
                    inner.insert("default".into(), zero);
                }
            }
            // A struct that is no pointer is there even if it is empty; a selector is the one pointer that is required.
            let is_struct = referred(map).is_some();
            let there = match is_struct {
                true => field != "selector" && required.contains(field) || message.as_deref().is_some_and(|m| protobuf::is_struct(m, field)),
                false => required.contains(field),
            };
            if let Some(zero) = zero(map, &objects).filter(|_| there) {
                map.insert("default".into(), zero);
            }
            if let Some((_, _, default)) = DEFAULTS.iter().find(|d| d.0 == name && d.1 == field) {
                map.insert("default".into(), (*default).into());
            }
        }
    }
}

/// Go's zero value in JSON; `None` where it cannot be said.
fn zero(schema: &Map<String, Value>, objects: &HashSet<String>) -> Option<Value> {
    if let Some(name) = referred(schema) {
        return objects.contains(name).then(|| json!({}));
    }
    match (schema.get("type")?.as_str()?, schema.get("format").and_then(Value::as_str)) {
        ("string", None) => Some("".into()),
        ("integer" | "number", _) => Some(0.into()),
        ("boolean", _) => Some(false.into()),
        _ => None,
    }
}

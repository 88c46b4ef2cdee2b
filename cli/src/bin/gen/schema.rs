//! The table that manifests are checked against, from k8s-openapi's schemas: `cli/src/manifest/schema.txt`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use k8s_openapi::Resource;
use k8s_openapi::api::{apps, autoscaling, batch, core, networking, policy, rbac, scheduling, storage};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

const HEAD: &str = "\
# The fields of built-in kinds and their types; written by `make gen`.
# `+ VERSION KIND TYPE` is a kind that manifests hold, any other line a type and its fields. A field's type is another line's, `[` and the
# type of a list's items, `{` and that of a map's values, or one of: s text, b boolean, i4 and i8 integers of so many bytes, f number,
# t time, y Base64, q quantity, x integer or text, * anything.
";

/// What is written of a kind, and the types it needs.
struct Table {
    generator: SchemaGenerator,
    kinds: Vec<String>,
}

impl Table {
    fn add<T: JsonSchema + Resource>(&mut self) {
        self.generator.subschema_for::<T>();
        self.kinds.push(format!("+ {} {} {}", T::API_VERSION, T::KIND, short(&T::schema_name())));
    }
}

/// The whole file.
pub(super) fn file() -> Result<String> {
    let mut table = Table { generator: SchemaGenerator::default(), kinds: Vec::new() };
    table.add::<core::v1::Pod>();
    table.add::<core::v1::Service>();
    table.add::<core::v1::ConfigMap>();
    table.add::<core::v1::Secret>();
    table.add::<core::v1::Namespace>();
    table.add::<core::v1::Node>();
    table.add::<core::v1::ServiceAccount>();
    table.add::<core::v1::ResourceQuota>();
    table.add::<core::v1::LimitRange>();
    table.add::<core::v1::Endpoints>();
    table.add::<core::v1::PersistentVolume>();
    table.add::<core::v1::PersistentVolumeClaim>();
    table.add::<core::v1::ReplicationController>();
    table.add::<apps::v1::Deployment>();
    table.add::<apps::v1::ReplicaSet>();
    table.add::<apps::v1::DaemonSet>();
    table.add::<apps::v1::StatefulSet>();
    table.add::<batch::v1::Job>();
    table.add::<batch::v1::CronJob>();
    table.add::<autoscaling::v2::HorizontalPodAutoscaler>();
    table.add::<networking::v1::Ingress>();
    table.add::<networking::v1::NetworkPolicy>();
    table.add::<policy::v1::PodDisruptionBudget>();
    table.add::<rbac::v1::Role>();
    table.add::<rbac::v1::RoleBinding>();
    table.add::<rbac::v1::ClusterRole>();
    table.add::<rbac::v1::ClusterRoleBinding>();
    table.add::<scheduling::v1::PriorityClass>();
    table.add::<storage::v1::StorageClass>();
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    let definitions = table.generator.definitions().clone();
    // A type without fields is what it pleases to be.
    let has_fields = |name: &str| definitions.iter().any(|(known, schema)| short(known) == name && schema["properties"].is_object());
    for (name, schema) in &definitions {
        let Some(fields) = schema["properties"].as_object() else { continue };
        let fields: Vec<String> = fields.iter().map(|(field, schema)| format!(" {field}:{}", code(schema, &has_fields))).collect();
        if lines.insert(short(name).to_owned(), fields.concat()).is_some() {
            bail!("two types are called {}", short(name));
        }
    }
    let types: String = lines.iter().map(|(name, fields)| format!("{name}{fields}\n")).collect();
    Ok(format!("{HEAD}{}\n{types}", table.kinds.join("\n")))
}

/// `PodSpec` of `io.k8s.api.core.v1.PodSpec`
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn code(schema: &Value, has_fields: &dyn Fn(&str) -> bool) -> String {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(reference) = reference {
        return match short(reference.rsplit('/').next().unwrap_or(reference)) {
            "Quantity" => "q".into(),
            "IntOrString" => "x".into(),
            "Time" | "MicroTime" => "t".into(),
            name if has_fields(name) => name.to_owned(),
            _ => "*".into(),
        };
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("array"), _) => format!("[{}", code(&schema["items"], has_fields)),
        (Some("object"), _) if schema["additionalProperties"].is_object() => format!("{{{}", code(&schema["additionalProperties"], has_fields)),
        (Some("string"), Some("byte")) => "y".into(),
        (Some("string"), Some("date-time")) => "t".into(),
        (Some("string"), _) => "s".into(),
        (Some("boolean"), _) => "b".into(),
        (Some("integer"), Some("int32")) => "i4".into(),
        (Some("integer"), _) => "i8".into(),
        (Some("number"), _) => "f".into(),
        _ => "*".into(),
    }
}

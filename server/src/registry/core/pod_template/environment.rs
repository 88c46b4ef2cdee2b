//! Validation of environment variables and where they come from (`ValidateEnv`, `ValidateEnvFrom`), and of the downward API.

use k8s_openapi::api::core::v1::{Container, EnvVar, ObjectFieldSelector, ResourceFieldSelector};
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;
use shared::selector::qualified_name_errors;

use crate::registry::validation::{check, config_key, dns1123_subdomain, env_name};

/// Fields of a pod that a variable may show, besides subscripted labels and annotations.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that a file may show.
const FILE_FIELDS: [&str; 5] = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] =
    ["limits.cpu", "limits.memory", "limits.ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage"];

/// `env` and `envFrom` of a container.
pub fn environment(path: &Path, container: &Container, errors: &mut ErrorList) {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let path = path.child("env").index(index);
        match variable.name.as_str() {
            "" => errors.push(Error::required(&path.child("name"), "")),
            name => check(&path.child("name"), name, env_name(name), errors),
        }
        value_from(&path.child("valueFrom"), variable, errors);
    }
    let from = path.child("envFrom");
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let path = from.index(index);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            check(&path.child("prefix"), prefix, env_name(prefix), errors);
        }
        let names = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| r.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|r| r.name.as_str())),
        ];
        for (field, name) in names {
            match name {
                None => {}
                Some("") => errors.push(Error::required(&path.child(field).child("name"), "")),
                Some(name) => check(&path.child(field).child("name"), name, dns1123_subdomain(name), errors),
            }
        }
        match names.iter().filter(|(_, n)| n.is_some()).count() {
            0 => errors.push(Error::invalid(&from, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(Error::invalid(&from, "", "may not have more than one field specified at a time")),
        }
    }
}

fn value_from(path: &Path, variable: &EnvVar, errors: &mut ErrorList) {
    let Some(source) = &variable.value_from else { return };
    if let Some(field) = &source.field_ref {
        object_field(&path.child("fieldRef"), field, &ENV_FIELDS, errors);
    }
    if let Some(field) = &source.resource_field_ref {
        resource_field(&path.child("resourceFieldRef"), field, false, errors);
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|r| (&r.name, &r.key))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|r| (&r.name, &r.key))),
    ];
    for (field, name, key) in keys.iter().filter_map(|(field, r)| r.map(|(name, key)| (field, name, key))) {
        let path = path.child(field);
        check(&path.child("name"), name, dns1123_subdomain(name), errors);
        match key.as_str() {
            "" => errors.push(Error::required(&path.child("key"), "")),
            key => check(&path.child("key"), key, config_key(key), errors),
        }
    }
    let count = [source.field_ref.is_some(), source.resource_field_ref.is_some(), source.file_key_ref.is_some()]
        .into_iter()
        .chain(keys.iter().map(|(_, r)| r.is_some()))
        .filter(|set| *set)
        .count();
    let detail = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        _ if variable.value.as_ref().is_some_and(|v| !v.is_empty()) => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(path, "", detail));
}

/// A field of the pod in a file of a downward volume.
pub fn file_field(path: &Path, field: &ObjectFieldSelector, errors: &mut ErrorList) {
    object_field(path, field, &FILE_FIELDS, errors);
}

fn object_field(path: &Path, field: &ObjectFieldSelector, supported: &[&str], errors: &mut ErrorList) {
    let name = field.field_path.as_str();
    let path_field = path.child("fieldPath");
    if field.api_version.as_ref().is_none_or(String::is_empty) {
        return errors.push(Error::required(&path.child("apiVersion"), ""));
    }
    if name.is_empty() {
        return errors.push(Error::required(&path_field, ""));
    }
    if let Some((base, subscript)) = name.strip_suffix("']").and_then(|n| n.split_once("['")) {
        match base {
            "metadata.annotations" => check(path, subscript, qualified_name_errors(&subscript.to_lowercase()), errors),
            "metadata.labels" => check(path, subscript, qualified_name_errors(subscript), errors),
            base => errors.push(Error::invalid(path, base, "does not support subscript")),
        }
        return;
    }
    let known = ENV_FIELDS.contains(&name) || FILE_FIELDS.contains(&name) || name == "spec.schedulerName" || name == "spec.restartPolicy";
    if !known {
        let detail = format!("error converting fieldPath: field label not supported: {name}");
        errors.push(Error::invalid(&path_field, name, &detail));
    } else if !supported.contains(&name) {
        errors.push(Error::not_supported(&path_field, name, supported));
    }
}

/// A container's resource, shown in a variable or a file.
pub fn resource_field(path: &Path, field: &ResourceFieldSelector, in_file: bool, errors: &mut ErrorList) {
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| field.resource.starts_with(p));
    if in_file && field.container_name.as_ref().is_none_or(String::is_empty) {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if field.resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&field.resource.as_str()) && !huge {
        errors.push(Error::not_supported(&path.child("resource"), &field.resource, &RESOURCES));
    }
    divisor(path, field, errors);
}

fn divisor(path: &Path, field: &ResourceFieldSelector, errors: &mut ErrorList) {
    let divisor = field.divisor.as_ref().map_or_else(Quantity::zero, Quantity::of).to_string();
    if divisor == "0" {
        return;
    }
    let sizes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (good, what) = match field.resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (["1m", "1"].contains(&divisor.as_str()), "1m and 1 are supported with the cpu resource".to_owned()),
        name => {
            let what = match name {
                "memory" => "memory",
                "ephemeral-storage" => "local ephemeral storage",
                _ => "hugepages",
            };
            (sizes.contains(&divisor.as_str()), format!("{} are supported with the {what} resource", sizes.join(", ")))
        }
    };
    if !good {
        errors.push(Error::invalid(&path.child("divisor"), &field.resource, &format!("only divisor's values {what}")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn errors_of(container: Value) -> Vec<String> {
        let mut spec = serde_json::from_value(json!({"containers": [container]})).unwrap();
        super::super::default_spec(&mut spec);
        let mut errors = Vec::new();
        environment(&Path::new("c"), &spec.containers[0], &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_variable_has_a_name_and_at_most_one_source() {
        assert!(errors_of(json!({"env": [{"name": "java_home", "value": "/x"}, {"name": "with.dot"}]})).is_empty());
        for (variable, expected) in [
            (json!({"value": "x"}), "c.env[0].name: Required value"),
            (
                json!({"name": "A=B"}),
                "c.env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
            (
                json!({"name": "A", "valueFrom": {}}),
                "c.env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            ),
            (
                json!({"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
                "c.env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ),
            (
                json!({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}),
                "c.env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ),
        ] {
            assert_eq!(errors_of(json!({"env": [variable]})), [expected]);
        }
    }

    #[test]
    fn the_downward_api_shows_known_fields_only() {
        let of = |field: &str| errors_of(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": field}}}]}));
        for good in ["metadata.name", "status.podIP", "metadata.labels['a.b/c']", "metadata.annotations['x']", "spec.nodeName"] {
            assert_eq!(of(good), Vec::<String>::new(), "{good}");
        }
        assert_eq!(
            of("status.secret"),
            [
                "c.env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"status.secret\": error converting fieldPath: field label not supported: status.secret"
            ]
        );
        assert!(of("metadata.labels")[0].starts_with("c.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\""));
    }
}

//! Secrets (`pkg/registry/core/secret/strategy.go`, `ValidateSecret`). `stringData` is written only: it is merged into `data`.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use super::configmap::{FROZEN, MAX_SIZE};
use crate::registry::validation::{check, config_key, immutable};
use crate::registry::{Column, PrintContext, Strategy, print};

/// Annotation that names the service account of a token secret.
pub const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// Type of service-account tokens.
pub const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";

/// See the module.
pub struct Secrets;

impl Strategy for Secrets {
    type Object = Secret;
    const PLURAL: &'static str = "secrets";
    const SINGULAR: &'static str = "secret";
    const FIELDS: &'static [&'static str] = &["type"];
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Type"), Column::new("Data"), print::AGE];

    fn default(object: &mut Secret) {
        if object.type_.as_ref().is_none_or(String::is_empty) {
            object.type_ = Some("Opaque".into());
        }
        if let Some(text) = object.string_data.take() {
            object.data.get_or_insert_default().extend(text.into_iter().map(|(k, v)| (k, ByteString(v.into_bytes()))));
        }
    }

    fn validate(object: &Secret) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("data");
        let mut size = 0;
        for (key, value) in object.data.iter().flatten() {
            check(&path.key(key), key, config_key(key), &mut errors);
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(Error::too_long(&path, MAX_SIZE));
        }
        by_type(object, &mut errors);
        errors
    }

    fn validate_update(new: &Secret, old: &Secret) -> ErrorList {
        let mut errors = Vec::new();
        immutable(&Path::new("type"), &new.type_, &old.type_, &mut errors);
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                errors.push(Error::forbidden(&Path::new("immutable"), FROZEN));
            }
            if new.data != old.data {
                errors.push(Error::forbidden(&Path::new("data"), FROZEN));
            }
        }
        errors.extend(Self::validate(new));
        errors
    }

    fn cells(object: &Secret, context: &PrintContext) -> Vec<Value> {
        vec![
            print::name(&object.metadata),
            object.type_.clone().unwrap_or_default().into(),
            object.data.iter().flatten().count().into(),
            print::age(&object.metadata, context),
        ]
    }
}

/// What the well-known types ask for.
fn by_type(object: &Secret, errors: &mut ErrorList) {
    let path = Path::new("data");
    let value = |key: &str| object.data.as_ref().and_then(|d| d.get(key));
    let mut required = |keys: &[&str]| {
        errors.extend(keys.iter().filter(|k| value(k).is_none()).map(|k| Error::required(&path.key(k), "")));
    };
    match object.type_.as_deref().unwrap_or_default() {
        SERVICE_ACCOUNT_TOKEN => {
            let account = object.metadata.annotations.as_ref().and_then(|a| a.get(SERVICE_ACCOUNT_NAME));
            if account.is_none_or(String::is_empty) {
                errors.push(Error::required(&Path::new("metadata").child("annotations").key(SERVICE_ACCOUNT_NAME), ""));
            }
        }
        "kubernetes.io/dockercfg" => json(&path, ".dockercfg", value(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => json(&path, ".dockerconfigjson", value(".dockerconfigjson"), errors),
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => required(&["username", "password"]),
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(|v| v.0.is_empty()) => {
            errors.push(Error::required(&path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => required(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn json(path: &Path, key: &str, value: Option<&ByteString>, errors: &mut ErrorList) {
    let path = path.key(key);
    match value {
        None => errors.push(Error::required(&path, "")),
        Some(bytes) => {
            if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes.0) {
                errors.push(Error::invalid(&path, "<secret contents redacted>", &error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn text_is_merged_over_data_and_the_type_is_opaque() {
        assert_eq!(
            defaulted::<Secrets>(json!({"metadata": {}, "data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "z"}})),
            json!({"metadata": {}, "type": "Opaque", "data": {"a": "eA==", "b": "eg=="}})
        );
    }

    #[test]
    fn well_known_types_need_their_keys() {
        for (json, expected) in [
            (json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), vec!["data[tls.key]: Required value"]),
            (json!({"type": "kubernetes.io/basic-auth"}), vec!["data[username]: Required value", "data[password]: Required value"]),
            (json!({"type": "kubernetes.io/ssh-auth"}), vec!["data[ssh-privatekey]: Required value"]),
            (json!({"type": "kubernetes.io/dockerconfigjson"}), vec!["data[.dockerconfigjson]: Required value"]),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (json!({"type": "example.com/own"}), vec![]),
        ] {
            assert_eq!(errors::<Secrets>(json.clone()), expected, "{json}");
        }
        let errors = errors::<Secrets>(json!({"type": "kubernetes.io/dockercfg", "stringData": {".dockercfg": "hunter2"}}));
        assert!(errors[0].starts_with("data[.dockercfg]: Invalid value: \"<secret contents redacted>\""), "{errors:?}");
        assert!(!errors[0].contains("hunter2"));
    }

    #[test]
    fn the_type_never_changes() {
        assert_eq!(update_errors::<Secrets>(json!({"type": "a"}), json!({"type": "b"})), ["type: Invalid value: \"b\": field is immutable"]);
    }

    #[test]
    fn the_row_shows_type_and_count() {
        let row = cells::<Secrets>(json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "", "b": ""}}));
        assert_eq!(row, [json!("s"), json!("Opaque"), json!(2), json!("<unknown>")]);
    }
}

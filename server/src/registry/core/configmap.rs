//! ConfigMaps (`pkg/registry/core/configmap/strategy.go`, `ValidateConfigMap`).

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{check, config_key};
use crate::registry::{Column, PrintContext, Strategy, print};

/// Upstream's `MaxSecretSize`, which bounds ConfigMaps too: 1 MiB.
pub const MAX_SIZE: usize = 1024 * 1024;
/// The message for a change to what `immutable: true` freezes.
pub const FROZEN: &str = "field is immutable when `immutable` is set";

/// See the module.
pub struct ConfigMaps;

impl Strategy for ConfigMaps {
    type Object = ConfigMap;
    const PLURAL: &'static str = "configmaps";
    const SINGULAR: &'static str = "configmap";
    const SHORT_NAMES: &'static [&'static str] = &["cm"];
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Data"), print::AGE];

    fn validate(object: &ConfigMap) -> ErrorList {
        let mut errors = Vec::new();
        let mut size = 0;
        for (key, value) in object.data.iter().flatten() {
            let path = Path::new("data").key(key);
            check(&path, key, config_key(key), &mut errors);
            if object.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
                errors.push(Error::invalid(&path, key, "duplicate of key present in binaryData"));
            }
            size += value.len();
        }
        for (key, value) in object.binary_data.iter().flatten() {
            let path = Path::new("binaryData").key(key);
            check(&path, key, config_key(key), &mut errors);
            if object.data.as_ref().is_some_and(|d| d.contains_key(key)) {
                errors.push(Error::invalid(&path, key, "duplicate of key present in data"));
            }
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(Error::too_long(&Path::new(""), MAX_SIZE));
        }
        errors
    }

    fn validate_update(new: &ConfigMap, old: &ConfigMap) -> ErrorList {
        let mut errors = Vec::new();
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                errors.push(Error::forbidden(&Path::new("immutable"), FROZEN));
            }
            if new.data != old.data {
                errors.push(Error::forbidden(&Path::new("data"), FROZEN));
            }
            if new.binary_data != old.binary_data {
                errors.push(Error::forbidden(&Path::new("binaryData"), FROZEN));
            }
        }
        errors.extend(Self::validate(new));
        errors
    }

    fn cells(object: &ConfigMap, context: &PrintContext) -> Vec<Value> {
        let count = object.data.iter().flatten().count() + object.binary_data.iter().flatten().count();
        vec![print::name(&object.metadata), count.into(), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn keys_are_checked_and_unique_over_both_maps() {
        assert!(errors::<ConfigMaps>(json!({"data": {"a.b-c_D": ""}})).is_empty());
        assert!(errors::<ConfigMaps>(json!({"data": {"a/b": ""}}))[0].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must"));
        assert_eq!(
            errors::<ConfigMaps>(json!({"data": {"k": ""}, "binaryData": {"k": ""}})),
            [
                "data[k]: Invalid value: \"k\": duplicate of key present in binaryData",
                "binaryData[k]: Invalid value: \"k\": duplicate of key present in data"
            ]
        );
    }

    #[test]
    fn a_megabyte_is_the_limit() {
        let of = |size: usize| errors::<ConfigMaps>(json!({"data": {"k": "x".repeat(size)}}));
        assert!(of(MAX_SIZE).is_empty());
        assert_eq!(of(MAX_SIZE + 1), ["<nil>: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn an_immutable_config_map_stays_as_it_is() {
        let old = json!({"data": {"k": "v"}, "immutable": true});
        assert_eq!(
            update_errors::<ConfigMaps>(old.clone(), json!({"data": {"k": "w"}})),
            ["immutable: Forbidden: field is immutable when `immutable` is set", "data: Forbidden: field is immutable when `immutable` is set"]
        );
        assert!(update_errors::<ConfigMaps>(old.clone(), old).is_empty());
    }

    #[test]
    fn the_row_counts_both_maps() {
        assert_eq!(cells::<ConfigMaps>(json!({"metadata": {"name": "c"}, "data": {"a": ""}, "binaryData": {"b": "AA=="}}))[1], 2);
    }
}

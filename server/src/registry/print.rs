//! Table cells that several kinds share, after upstream's `pkg/printers/internalversion/printers.go`.
//!
//! Owns formatting only: a cell is computed from the object and the time, never from other objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::Value;
use shared::selector::Selector;

use super::{Column, PrintContext};

/// The `Age` column.
pub const AGE: Column = Column::new("Age");
/// The wide columns of every kind with a pod template.
pub const CONTAINERS: Column = Column::new("Containers").wide();
/// See [`CONTAINERS`].
pub const IMAGES: Column = Column::new("Images").wide();
/// See [`CONTAINERS`].
pub const SELECTOR: Column = Column::new("Selector").wide();
/// What stands for nothing.
pub const NONE: &str = "<none>";
/// What stands for an optional value that is not set.
pub const UNSET: &str = "<unset>";

/// The object's name.
pub fn name(meta: &ObjectMeta) -> Value {
    meta.name.clone().unwrap_or_default().into()
}

/// The object's age.
pub fn age(meta: &ObjectMeta, context: &PrintContext) -> Value {
    context.age(meta.creation_timestamp.as_ref()).into()
}

/// When the object was created, as RFC 3339: the cell of kinds that upstream has no printer for.
pub fn created_at(meta: &ObjectMeta) -> Value {
    let text = meta.creation_timestamp.as_ref().map(|t| t.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    text.unwrap_or_else(|| "<unknown>".into()).into()
}

/// The row of kinds that upstream has no printer for.
pub fn default_cells(meta: &ObjectMeta) -> Vec<Value> {
    vec![name(meta), created_at(meta)]
}

/// `text`, or `<none>` when it is empty or absent.
pub fn or_none(text: Option<&str>) -> Value {
    text.filter(|t| !t.is_empty()).unwrap_or(NONE).into()
}

/// `text` as it is, or `<none>` when it is absent.
pub fn or_none_keep_empty(text: Option<&str>) -> Value {
    text.unwrap_or(NONE).into()
}

/// `True`, `False` or `<unset>`.
pub fn optional_bool(value: Option<bool>) -> Value {
    match value {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
    .into()
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> Value {
    let text = labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    or_none(Some(&text))
}

/// A label selector as text, `<none>` when it selects all or nothing, `<error>` when it cannot be understood.
pub fn selector(selector: Option<&LabelSelector>) -> Value {
    match Selector::from_label_selector(selector) {
        Ok(selector) => or_none(Some(&selector.to_string())),
        Err(_) => "<error>".into(),
    }
}

/// Container names and images, each joined by commas.
pub fn containers(containers: &[Container]) -> [Value; 2] {
    let names = containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(",");
    let images = containers.iter().map(|c| c.image.as_deref().unwrap_or_default()).collect::<Vec<_>>().join(",");
    [names.into(), images.into()]
}

/// [`containers`] of a pod template.
pub fn template(template: &PodTemplateSpec) -> [Value; 2] {
    containers(template.spec.as_ref().map_or(&[], |s| &s.containers))
}

/// At most three items, then `a,b,c + 2 more...`; `<unset>` when there is none.
pub fn list_with_more<'a>(items: impl Iterator<Item = std::borrow::Cow<'a, str>>) -> String {
    const MAX: usize = 3;
    let items: Vec<_> = items.collect();
    let shown = items.iter().take(MAX).map(AsRef::as_ref).collect::<Vec<_>>().join(",");
    match items.len() {
        0 => UNSET.into(),
        count if count > MAX => format!("{shown} + {} more...", count - MAX),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_time_is_printed_as_rfc_3339() {
        let meta: ObjectMeta = serde_json::from_value(serde_json::json!({"name": "r", "creationTimestamp": "2024-01-02T03:04:05Z"})).unwrap();
        assert_eq!(default_cells(&meta), ["r", "2024-01-02T03:04:05Z"]);
    }

    #[test]
    fn long_lists_are_cut_after_three() {
        let list = |n: usize| list_with_more((0..n).map(|i| i.to_string().into()));
        assert_eq!(list(0), "<unset>");
        assert_eq!(list(3), "0,1,2");
        assert_eq!(list(5), "0,1,2 + 2 more...");
    }

    #[test]
    fn selectors_print_as_kubectl_shows_them() {
        let of = |json: serde_json::Value| selector(Some(&serde_json::from_value(json).unwrap()));
        assert_eq!(of(serde_json::json!({"matchLabels": {"b": "2", "a": "1"}})), "a=1,b=2");
        assert_eq!(of(serde_json::json!({"matchExpressions": [{"key": "t", "operator": "In", "values": ["y", "x"]}]})), "t in (x,y)");
        assert_eq!(of(serde_json::json!({})), "<none>");
        assert_eq!(selector(None), "<none>");
        assert_eq!(of(serde_json::json!({"matchExpressions": [{"key": "t", "operator": "Like"}]})), "<error>");
    }
}

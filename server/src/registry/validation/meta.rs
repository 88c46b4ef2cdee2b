//! Rules about `metadata`: labels, annotations, and the metadata of templates
//! (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`, `pkg/apis/meta/v1/validation/validation.go`).
//!
//! An object's own metadata is checked by the store, once for every kind.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shared::field::{Error, ErrorList, Path};
use shared::selector::{label_value_errors, qualified_name_errors};

use super::check;

/// Upstream's `TotalAnnotationSizeLimitB`: 256 KiB.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Label keys and values. The errors name the map, as upstream's do.
pub fn labels(path: &Path, labels: Option<&BTreeMap<String, String>>, errors: &mut ErrorList) {
    for (key, value) in labels.into_iter().flatten() {
        check(path, key, qualified_name_errors(key), errors);
        check(path, value, label_value_errors(value), errors);
    }
}

/// Annotation keys and total size.
pub fn annotations(path: &Path, annotations: Option<&BTreeMap<String, String>>, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        check(path, key, qualified_name_errors(&key.to_lowercase()), errors);
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(Error::too_long(path, ANNOTATIONS_LIMIT));
    }
}

/// What a template's metadata may hold: labels and annotations that are well formed.
pub fn template(path: &Path, meta: Option<&ObjectMeta>, errors: &mut ErrorList) {
    labels(&path.child("labels"), meta.and_then(|m| m.labels.as_ref()), errors);
    annotations(&path.child("annotations"), meta.and_then(|m| m.annotations.as_ref()), errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_labels_and_annotations_are_named() {
        let meta: ObjectMeta = serde_json::from_value(serde_json::json!({
            "labels": {"a b": "x", "ok": "no good"}, "annotations": {"/": ""}
        }))
        .unwrap();
        let mut errors = Vec::new();
        template(&Path::new("spec.template"), Some(&meta), &mut errors);
        let fields: Vec<_> = errors.into_iter().map(|e| e.field).collect();
        assert_eq!(fields[..2], ["spec.template.labels", "spec.template.labels"]);
        assert!(fields.len() > 2 && fields[2..].iter().all(|f| f == "spec.template.annotations"));
    }
}

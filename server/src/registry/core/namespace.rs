//! Namespaces (`pkg/registry/core/namespace/strategy.go`).

use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::DNS1123_LABEL;
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// The finalizer that holds a namespace until all in it is gone.
pub const FINALIZER: &str = "kubernetes";
/// The label that names each namespace.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// See the module.
pub struct Namespaces;

/// Everything but deletecollection.
const VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

impl Strategy for Namespaces {
    type Object = Namespace;
    const PLURAL: &'static str = "namespaces";
    const SINGULAR: &'static str = "namespace";
    const SHORT_NAMES: &'static [&'static str] = &["ns"];
    const NAMESPACED: bool = false;
    const VERBS: &'static [&'static str] = VERBS;
    const SUBRESOURCES: &'static [Subresource] =
        &[Subresource { name: "finalize", kind: "Namespace", group: "", version: "v1", verbs: &["update"] }, STATUS];
    const FIELDS: &'static [&'static str] = &["status.phase"];
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Status"), print::AGE];

    fn validate_name(name: &str) -> Result<(), String> {
        if shared::selector::is_dns1123_label(name) { Ok(()) } else { Err(DNS1123_LABEL.into()) }
    }

    fn default(object: &mut Namespace) {
        if let Some(name) = object.metadata.name.clone().filter(|n| !n.is_empty()) {
            object.metadata.labels.get_or_insert_default().insert(NAME_LABEL.into(), name);
        }
        object.status.get_or_insert_default().phase.get_or_insert_with(|| "Active".into());
        object.spec.get_or_insert_default();
    }

    fn prepare_for_create(object: &mut Namespace) {
        object.status = Some(Default::default());
        let finalizers = object.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        Self::default(object);
    }

    fn validate(object: &Namespace) -> ErrorList {
        let mut errors = Vec::new();
        finalizers(object, &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &Namespace, _old: &Namespace) -> ErrorList {
        let phase = new.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let path = Path::new("status").child("phase");
        match (new.metadata.deletion_timestamp.is_some(), phase) {
            (false, "Active") | (true, "Terminating") => Vec::new(),
            (false, _) => vec![Error::invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty")],
            (true, _) => vec![Error::invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")],
        }
    }

    /// Its contents go first: the namespace controller takes the finalizer away when nothing is left.
    fn holds_deletion(object: &Namespace) -> bool {
        object.spec.as_ref().is_some_and(|s| s.finalizers.as_ref().is_some_and(|f| !f.is_empty()))
    }

    fn begin_deletion(object: &mut Namespace) {
        object.status.get_or_insert_default().phase = Some("Terminating".into());
    }

    fn cells(object: &Namespace, context: &PrintContext) -> Vec<Value> {
        let phase = object.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        vec![print::name(&object.metadata), phase.into(), print::age(&object.metadata, context)]
    }
}

fn finalizers(object: &Namespace, errors: &mut ErrorList) {
    for finalizer in object.spec.iter().flat_map(|s| s.finalizers.iter().flatten()) {
        let path = Path::new("spec").child("finalizers");
        if finalizer != FINALIZER && !finalizer.contains('/') {
            errors.push(Error::invalid(&path, finalizer, "name is neither a standard finalizer name nor is it fully qualified"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn a_new_namespace_is_active_labelled_and_held_by_its_finalizer() {
        let stored = created::<Namespaces>(json!({"metadata": {"name": "team"}, "status": {"phase": "Terminating"}}));
        assert_eq!(
            serde_json::to_value(stored).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "team", "labels": {"kubernetes.io/metadata.name": "team"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}
            })
        );
    }

    #[test]
    fn an_update_cannot_drop_the_finalizer_and_the_label_comes_back() {
        let old = created::<Namespaces>(json!({"metadata": {"name": "team"}}));
        let mut new = object::<Namespaces>(json!({"metadata": {"name": "team", "labels": {"a": "b"}}}));
        Namespaces::default(&mut new);
        Namespaces::prepare_for_update(&mut new, &old);
        assert_eq!(new.spec, old.spec);
        assert_eq!(new.metadata.labels.unwrap()[NAME_LABEL], "team");
    }

    #[test]
    fn phase_follows_the_deletion_timestamp() {
        let old = created::<Namespaces>(json!({"metadata": {"name": "n"}}));
        let mut new = old.clone();
        new.status.as_mut().unwrap().phase = Some("Terminating".into());
        let errors = Namespaces::validate_status_update(&new, &old);
        assert_eq!(errors[0].to_string(), "status.phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty");
        new.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW.parse().unwrap()));
        assert!(Namespaces::validate_status_update(&new, &old).is_empty());
    }

    #[test]
    fn a_deleted_namespace_terminates_until_its_finalizers_are_gone() {
        let mut namespace = created::<Namespaces>(json!({"metadata": {"name": "n"}}));
        Namespaces::begin_deletion(&mut namespace);
        assert_eq!(namespace.status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
        assert!(Namespaces::holds_deletion(&namespace));
        namespace.spec.as_mut().unwrap().finalizers = Some(Vec::new());
        assert!(!Namespaces::holds_deletion(&namespace));
    }

    #[test]
    fn names_are_labels() {
        assert!(Namespaces::validate_name("a.b").is_err() && Namespaces::validate_name("a-b").is_ok());
        assert_eq!(
            cells::<Namespaces>(json!({"metadata": {"name": "n", "creationTimestamp": "2024-06-01T11:00:00Z"}, "status": {"phase": "Active"}})),
            ["n", "Active", "60m"]
        );
    }
}

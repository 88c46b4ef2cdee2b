//! IngressClasses (`pkg/registry/networking/ingressclass/strategy.go`).

use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{check, dns1123_label, dns1123_subdomain, immutable, path_segment, required_one_of};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct IngressClasses;

impl Strategy for IngressClasses {
    type Object = IngressClass;
    const PLURAL: &'static str = "ingressclasses";
    const SINGULAR: &'static str = "ingressclass";
    const NAMESPACED: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Controller"), Column::new("Parameters"), print::AGE];

    fn default(object: &mut IngressClass) {
        if let Some(parameters) = object.spec.get_or_insert_default().parameters.as_mut() {
            parameters.scope.get_or_insert_with(|| "Cluster".into());
        }
    }

    fn validate(object: &IngressClass) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let spec = object.spec.clone().unwrap_or_default();
        let controller = path.child("controller");
        match spec.controller.as_deref().unwrap_or_default() {
            "" => errors.push(Error::required(&controller, "")),
            value if value.len() > 250 => errors.push(Error::too_long(&controller, 250)),
            value => {
                let prefixed = value.split_once('/').is_some_and(|(domain, rest)| dns1123_subdomain(domain).is_empty() && !rest.is_empty());
                if !prefixed {
                    errors.push(Error::invalid(&controller, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"));
                }
            }
        }
        if let Some(reference) = &spec.parameters {
            parameters(&path.child("parameters"), reference, &mut errors);
        }
        errors
    }

    fn validate_update(new: &IngressClass, old: &IngressClass) -> ErrorList {
        let mut errors = Vec::new();
        let controller = |o: &IngressClass| o.spec.as_ref().and_then(|s| s.controller.clone());
        immutable(&Path::new("spec").child("controller"), &controller(new), &controller(old), &mut errors);
        errors.extend(Self::validate(new));
        errors
    }

    fn spec_changed(new: &IngressClass, old: &IngressClass) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &IngressClass, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.map(|p| match p.api_group {
            Some(group) => format!("{}.{group}/{}", p.kind, p.name),
            None => format!("{}/{}", p.kind, p.name),
        });
        vec![
            print::name(&object.metadata),
            spec.controller.unwrap_or_default().into(),
            print::or_none(parameters.as_deref()),
            print::age(&object.metadata, context),
        ]
    }
}

fn parameters(path: &Path, reference: &IngressClassParametersReference, errors: &mut ErrorList) {
    if let Some(group) = &reference.api_group {
        check(&path.child("apiGroup"), group, dns1123_subdomain(group), errors);
    }
    for (field, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        match value.as_str() {
            "" => errors.push(Error::required(&path.child(field), "")),
            value => check(&path.child(field), value, path_segment(value), errors),
        }
    }
    required_one_of(&path.child("scope"), reference.scope.as_deref(), &["Cluster", "Namespace"], errors);
    let namespace = path.child("namespace");
    match (reference.scope.as_deref(), &reference.namespace) {
        (Some("Namespace"), None) => errors.push(Error::required(&namespace, "`parameters.scope` is set to 'Namespace'")),
        (Some("Namespace"), Some(name)) => check(&namespace, name, dns1123_label(name), errors),
        (Some("Cluster"), Some(_)) => errors.push(Error::forbidden(&namespace, "`parameters.scope` is set to 'Cluster'")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn the_controller_is_named_once() {
        let class = |controller: &str| json!({"metadata": {"name": "c"}, "spec": {"controller": controller}});
        assert!(errors::<IngressClasses>(class("example.com/ingress")).is_empty());
        assert_eq!(errors::<IngressClasses>(class("")), ["spec.controller: Required value"]);
        assert_eq!(
            update_errors::<IngressClasses>(class("example.com/a"), class("example.com/b")),
            ["spec.controller: Invalid value: \"example.com/b\": field is immutable"]
        );
        let row = cells::<IngressClasses>(with(class("example.com/a"), json!({"spec": {"parameters": {"apiGroup": "g", "kind": "K", "name": "n"}}})));
        assert_eq!(row, ["c", "example.com/a", "K.g/n", "<unknown>"]);
    }
}

//! ResourceQuotas (`pkg/registry/core/resourcequota/strategy.go`, `ValidateResourceQuota`).

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;

use crate::registry::validation::{check, immutable, resources};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// Scopes a quota may name.
const SCOPES: [&str; 7] =
    ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity", "VolumeAttributesClass"];

/// See the module.
pub struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    type Object = ResourceQuota;
    const PLURAL: &'static str = "resourcequotas";
    const SINGULAR: &'static str = "resourcequota";
    const SHORT_NAMES: &'static [&'static str] = &["quota"];
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Request"), Column::new("Limit"), print::AGE];

    fn default(object: &mut ResourceQuota) {
        resources::default_list(&mut object.spec.get_or_insert_default().hard);
        let status = object.status.get_or_insert_default();
        resources::default_list(&mut status.hard);
        resources::default_list(&mut status.used);
    }

    fn prepare_for_create(object: &mut ResourceQuota) {
        object.status = Some(Default::default());
    }

    fn validate(object: &ResourceQuota) -> ErrorList {
        let mut errors = Vec::new();
        let none = ResourceQuotaSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        for (name, wire) in spec.hard.iter().flatten() {
            let path = path.child("hard").key(name);
            quota_resource_name(&path, name, &mut errors);
            resources::quantity(&path, name, wire, &mut errors);
        }
        for scope in spec.scopes.iter().flatten().filter(|s| !SCOPES.contains(&s.as_str())) {
            errors.push(Error::invalid(&path.child("scopes"), scope, "unsupported scope"));
        }
        selector_scopes(&path.child("scopeSelector").child("matchExpressions"), spec, &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut ResourceQuota, old: &ResourceQuota) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &ResourceQuota, old: &ResourceQuota) -> ErrorList {
        let mut errors = Self::validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&Path::new("spec").child("scopes"), &new.scopes, &old.scopes, &mut errors);
            immutable(&Path::new("spec").child("scopeSelector"), &new.scope_selector, &old.scope_selector, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(new: &mut ResourceQuota, old: &ResourceQuota) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &ResourceQuota, _old: &ResourceQuota) -> ErrorList {
        let mut errors = Vec::new();
        let Some(status) = &new.status else { return errors };
        for (field, list) in [("hard", &status.hard), ("used", &status.used)] {
            for (name, wire) in list.iter().flatten() {
                let path = Path::new("status").child(field).key(name);
                quota_resource_name(&path, name, &mut errors);
                resources::quantity(&path, name, wire, &mut errors);
            }
        }
        errors
    }

    fn cells(object: &ResourceQuota, context: &PrintContext) -> Vec<Value> {
        let status = object.status.clone().unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.hard.iter().flatten() {
            let used = status.used.as_ref().and_then(|u| u.get(name)).map_or_else(Quantity::zero, Quantity::of);
            let text = format!("{name}: {used}/{}", Quantity::of(hard));
            if name.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
        }
        vec![print::name(&object.metadata), requests.join(", ").into(), limits.join(", ").into(), print::age(&object.metadata, context)]
    }
}

/// Upstream's `ValidateResourceQuotaResourceName`.
fn quota_resource_name(path: &Path, name: &str, errors: &mut ErrorList) {
    check(path, name, shared::selector::qualified_name_errors(name), errors);
    let storage_class = name.contains(".storageclass.storage.k8s.io/");
    if !name.contains('/') && !storage_class && !name.starts_with("count/") {
        let standard = resources::is_standard(name) && name != "storage";
        if !standard {
            errors.push(Error::invalid(path, name, "must be a standard resource for quota"));
        }
    }
}

fn selector_scopes(path: &Path, spec: &ResourceQuotaSpec, errors: &mut ErrorList) {
    let expressions = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    for expression in expressions {
        let values = expression.values.iter().flatten().count();
        if !SCOPES.contains(&expression.scope_name.as_str()) {
            errors.push(Error::invalid(&path.child("scopeName"), &expression.scope_name, "unsupported scope"));
        }
        match expression.operator.as_str() {
            "In" | "NotIn" if values == 0 => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(Error::required(&path.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let detail = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                errors.push(Error::invalid(&path.child("values"), &expression.values, detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn rows_show_used_of_hard_with_limits_apart() {
        let row = cells::<ResourceQuotas>(json!({
            "metadata": {"name": "q"},
            "status": {"hard": {"pods": "10", "limits.cpu": "2", "requests.memory": "1Gi"}, "used": {"pods": "3", "limits.cpu": "500m"}}
        }));
        assert_eq!(row, ["q", "pods: 3/10, requests.memory: 0/1Gi", "limits.cpu: 500m/2", "<unknown>"]);
    }

    #[test]
    fn amounts_are_checked_and_become_canonical() {
        assert_eq!(
            defaulted::<ResourceQuotas>(json!({"metadata": {}, "spec": {"hard": {"cpu": "1000m", "pods": 4}}}))["spec"]["hard"],
            json!({"cpu": "1", "pods": "4"})
        );
        assert_eq!(
            errors::<ResourceQuotas>(json!({"spec": {"hard": {"gpus": "1", "pods": "1.5", "count/deployments.apps": "1"}}})),
            [
                "spec.hard[gpus]: Invalid value: \"gpus\": must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer"
            ]
        );
    }

    #[test]
    fn scopes_do_not_change() {
        let old = json!({"spec": {"scopes": ["BestEffort"]}});
        assert_eq!(update_errors::<ResourceQuotas>(old, json!({})), ["spec.scopes: Invalid value: null: field is immutable"]);
        assert_eq!(errors::<ResourceQuotas>(json!({"spec": {"scopes": ["Own"]}})), ["spec.scopes: Invalid value: \"Own\": unsupported scope"]);
    }
}

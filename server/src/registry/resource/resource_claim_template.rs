//! ResourceClaimTemplates (`pkg/registry/resource/resourceclaimtemplate/strategy.go`).

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::Value;
use shared::field::{ErrorList, Path};

use super::devices;
use crate::registry::validation::{immutable, meta};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct ResourceClaimTemplates;

impl Strategy for ResourceClaimTemplates {
    type Object = ResourceClaimTemplate;
    const PLURAL: &'static str = "resourceclaimtemplates";
    const SINGULAR: &'static str = "resourceclaimtemplate";
    const COLUMNS: &'static [Column] = &[Column::name(), print::AGE];

    fn default(object: &mut ResourceClaimTemplate) {
        devices::default_claim(object.spec.spec.devices.as_mut());
    }

    fn validate(object: &ResourceClaimTemplate) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        meta::template(&path.child("metadata"), object.spec.metadata.as_ref(), &mut errors);
        if let Some(claim) = &object.spec.spec.devices {
            devices::claim(&path.child("spec").child("devices"), claim, &mut errors);
        }
        errors
    }

    fn validate_update(new: &ResourceClaimTemplate, old: &ResourceClaimTemplate) -> ErrorList {
        let mut errors = Self::validate(new);
        immutable(&Path::new("spec"), &new.spec, &old.spec, &mut errors);
        errors
    }

    fn cells(object: &ResourceClaimTemplate, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn a_template_is_checked_as_a_claim_and_stays() {
        let of = |class: &str| {
            let request = json!({"name": "a", "exactly": {"deviceClassName": class}});
            json!({"metadata": {"name": "t"}, "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": [request]}}}})
        };
        assert!(errors::<ResourceClaimTemplates>(of("c")).is_empty());
        assert_eq!(errors::<ResourceClaimTemplates>(of("")), ["spec.spec.devices.requests[0].exactly.deviceClassName: Required value"]);
        assert!(update_errors::<ResourceClaimTemplates>(of("a"), of("b"))[0].ends_with("field is immutable"));
    }
}

//! RuntimeClasses (`pkg/registry/node/runtimeclass/strategy.go`, `pkg/apis/node/validation/validation.go`).

use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;
use shared::field::{ErrorList, Path};

use crate::registry::core::pod_template::validate_tolerations;
use crate::registry::validation::resources::{self, default_list};
use crate::registry::validation::{check, dns1123_label, immutable, meta};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    type Object = RuntimeClass;
    const PLURAL: &'static str = "runtimeclasses";
    const SINGULAR: &'static str = "runtimeclass";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Handler"), print::AGE];

    fn default(object: &mut RuntimeClass) {
        if let Some(overhead) = &mut object.overhead {
            default_list(&mut overhead.pod_fixed);
        }
    }

    fn validate(object: &RuntimeClass) -> ErrorList {
        let mut errors = Vec::new();
        check(&Path::new("handler"), &object.handler, dns1123_label(&object.handler), &mut errors);
        let overhead = object.overhead.as_ref().and_then(|o| o.pod_fixed.as_ref());
        resources::list(&Path::new("overhead").child("podFixed"), overhead, &mut errors);
        if let Some(scheduling) = &object.scheduling {
            let path = Path::new("scheduling");
            meta::labels(&path.child("nodeSelector"), scheduling.node_selector.as_ref(), &mut errors);
            validate_tolerations(&path.child("tolerations"), scheduling.tolerations.as_deref().unwrap_or_default(), &mut errors);
        }
        errors
    }

    fn validate_update(new: &RuntimeClass, old: &RuntimeClass) -> ErrorList {
        let mut errors = Self::validate(new);
        immutable(&Path::new("handler"), &new.handler, &old.handler, &mut errors);
        errors
    }

    fn cells(object: &RuntimeClass, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), object.handler.clone().into(), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn the_handler_is_a_label_that_stays() {
        let of = |handler: &str| json!({"metadata": {"name": "r"}, "handler": handler, "overhead": {"podFixed": {"cpu": "0.25"}}});
        assert_eq!(defaulted::<RuntimeClasses>(of("runc"))["overhead"]["podFixed"]["cpu"], "250m");
        assert!(errors::<RuntimeClasses>(of("runc")).is_empty());
        assert!(errors::<RuntimeClasses>(of("Run C"))[0].starts_with("handler: Invalid value: \"Run C\""));
        assert_eq!(update_errors::<RuntimeClasses>(of("a"), of("b")), ["handler: Invalid value: \"b\": field is immutable"]);
        assert_eq!(cells::<RuntimeClasses>(of("runc"))[..2], ["r", "runc"]);
    }
}

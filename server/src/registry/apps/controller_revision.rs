//! ControllerRevisions (`pkg/registry/apps/controllerrevision/strategy.go`).

use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{immutable, not_negative};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    type Object = ControllerRevision;
    const PLURAL: &'static str = "controllerrevisions";
    const SINGULAR: &'static str = "controllerrevision";
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Controller"), Column::new("Revision"), print::AGE];

    fn validate(object: &ControllerRevision) -> ErrorList {
        let mut errors = Vec::new();
        if object.data.is_none() {
            errors.push(Error::required(&Path::new("data"), "data is mandatory"));
        }
        not_negative(&Path::new("revision"), Some(object.revision), &mut errors);
        errors
    }

    fn validate_update(new: &ControllerRevision, old: &ControllerRevision) -> ErrorList {
        let mut errors = Self::validate(new);
        immutable(&Path::new("data"), &new.data, &old.data, &mut errors);
        errors
    }

    fn cells(object: &ControllerRevision, context: &PrintContext) -> Vec<Value> {
        let owner = object.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let controller = owner.map(|o| match o.api_version.split_once('/') {
            Some((group, _)) => format!("{}.{group}/{}", o.kind.to_lowercase(), o.name),
            None => format!("{}/{}", o.kind.to_lowercase(), o.name),
        });
        vec![print::name(&object.metadata), print::or_none(controller.as_deref()), object.revision.into(), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn data_is_mandatory_and_never_changes() {
        assert_eq!(errors::<ControllerRevisions>(json!({"revision": 1})), ["data: Required value: data is mandatory"]);
        let of = |data: Value| json!({"revision": 1, "data": data});
        assert!(update_errors::<ControllerRevisions>(of(json!({"a": 1})), with(of(json!({"a": 1})), json!({"revision": 2}))).is_empty());
        assert_eq!(
            update_errors::<ControllerRevisions>(of(json!({"a": 1})), of(json!({"a": 2}))),
            ["data: Invalid value: {\"a\":2}: field is immutable"]
        );
    }

    #[test]
    fn rows_name_the_controller() {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "u", "controller": true}]);
        let row = cells::<ControllerRevisions>(json!({"metadata": {"name": "s-1", "ownerReferences": owner}, "revision": 2}));
        assert_eq!(row, [json!("s-1"), json!("statefulset.apps/s"), json!(2), json!("<unknown>")]);
    }
}

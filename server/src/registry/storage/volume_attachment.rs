//! VolumeAttachments (`pkg/registry/storage/volumeattachment/strategy.go`).

use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::selector::qualified_name_errors;

use crate::registry::validation::{check, immutable};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct VolumeAttachments;

impl Strategy for VolumeAttachments {
    type Object = VolumeAttachment;
    const PLURAL: &'static str = "volumeattachments";
    const SINGULAR: &'static str = "volumeattachment";
    const NAMESPACED: bool = false;
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] =
        &[Column::name(), Column::new("Attacher"), Column::new("PV"), Column::new("Node"), Column::new("Attached").of("boolean"), print::AGE];

    fn prepare_for_create(object: &mut VolumeAttachment) {
        object.status = Some(Default::default());
    }

    fn validate(object: &VolumeAttachment) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let spec = &object.spec;
        match spec.attacher.as_str() {
            "" => errors.push(Error::required(&path.child("attacher"), "")),
            name => check(&path.child("attacher"), name, qualified_name_errors(&name.to_lowercase()), &mut errors),
        }
        let source = path.child("source");
        match (&spec.source.persistent_volume_name, &spec.source.inline_volume_spec) {
            (None, None) => errors.push(Error::required(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")),
            (Some(_), Some(_)) => errors.push(Error::forbidden(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")),
            (Some(name), None) if name.is_empty() => {
                errors.push(Error::required(&source.child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
            }
            _ => {}
        }
        if spec.node_name.is_empty() {
            errors.push(Error::required(&path.child("nodeName"), ""));
        }
        errors
    }

    fn prepare_for_update(new: &mut VolumeAttachment, old: &VolumeAttachment) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &VolumeAttachment, old: &VolumeAttachment) -> ErrorList {
        let mut errors = Self::validate(new);
        immutable(&Path::new("spec"), &new.spec, &old.spec, &mut errors);
        errors
    }

    fn prepare_for_status_update(new: &mut VolumeAttachment, old: &VolumeAttachment) {
        new.spec.clone_from(&old.spec);
    }

    fn cells(object: &VolumeAttachment, context: &PrintContext) -> Vec<Value> {
        vec![
            print::name(&object.metadata),
            object.spec.attacher.clone().into(),
            object.spec.source.persistent_volume_name.clone().unwrap_or_default().into(),
            object.spec.node_name.clone().into(),
            object.status.as_ref().is_some_and(|s| s.attached).into(),
            print::age(&object.metadata, context),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn an_attachment_names_all_three_sides_for_good() {
        let of =
            |node: &str| json!({"metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": node, "source": {"persistentVolumeName": "v"}}});
        assert!(errors::<VolumeAttachments>(of("n")).is_empty());
        assert_eq!(errors::<VolumeAttachments>(of("")), ["spec.nodeName: Required value"]);
        assert!(update_errors::<VolumeAttachments>(of("n"), of("m"))[0].ends_with("field is immutable"));
        assert_eq!(cells::<VolumeAttachments>(of("n")), [json!("a"), json!("d"), json!("v"), json!("n"), json!(false), json!("<unknown>")]);
    }
}

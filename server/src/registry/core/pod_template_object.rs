//! PodTemplates (`pkg/registry/core/podtemplate/strategy.go`).

use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;
use shared::field::{ErrorList, Path};

use super::pod_template;
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct PodTemplates;

impl Strategy for PodTemplates {
    type Object = PodTemplate;
    const PLURAL: &'static str = "podtemplates";
    const SINGULAR: &'static str = "podtemplate";
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Containers"), Column::new("Images"), Column::new("Pod Labels")];

    fn default(object: &mut PodTemplate) {
        pod_template::default_template(object.template.get_or_insert_default());
    }

    fn validate(object: &PodTemplate) -> ErrorList {
        let mut errors = Vec::new();
        let none = Default::default();
        pod_template::validate_template(&Path::new("template"), object.template.as_ref().unwrap_or(&none), &mut errors);
        errors
    }

    fn spec_changed(new: &PodTemplate, old: &PodTemplate) -> bool {
        new.template != old.template
    }

    fn cells(object: &PodTemplate, _: &PrintContext) -> Vec<Value> {
        let template = object.template.clone().unwrap_or_default();
        let [names, images] = print::template(&template);
        let labels = template.metadata.and_then(|m| m.labels);
        vec![print::name(&object.metadata), names, images, print::labels(labels.as_ref())]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn a_template_is_defaulted_and_checked_like_any_other() {
        let template = json!({"metadata": {"name": "t"}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}
        }});
        assert_eq!(defaulted::<PodTemplates>(template.clone())["template"]["spec"]["restartPolicy"], "Always");
        assert!(errors::<PodTemplates>(template.clone()).is_empty());
        assert_eq!(errors::<PodTemplates>(json!({})), ["template.spec.containers: Required value"]);
        assert_eq!(cells::<PodTemplates>(template), ["t", "c", "i", "a=b"]);
    }
}

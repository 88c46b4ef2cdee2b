//! An Ingress that names no class gets the default one (`plugin/pkg/admission/network/defaultingressclass/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, is, new_object, new_object_mut};

pub(super) struct DefaultIngressClass;

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is(attributes, "networking.k8s.io", "ingresses", &[Operation::Create])
    }

    async fn mutate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(ingress) = new_object::<Ingress>(attributes) else { return Ok(()) };
        let annotated = ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/ingress.class"));
        if annotated || ingress.spec.as_ref().is_some_and(|s| s.ingress_class_name.is_some()) {
            return Ok(());
        }
        let mut defaults = context.reader.list::<IngressClass>("")?;
        defaults.retain(|c| c.metadata.annotations.as_ref().and_then(|a| a.get(IS_DEFAULT)).is_some_and(|v| v == "true"));
        defaults.sort_by(|a, b| {
            let created = |c: &IngressClass| c.metadata.creation_timestamp.as_ref().map(|t| t.0);
            created(b).cmp(&created(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
        });
        let name = defaults.first().and_then(|c| c.metadata.name.clone());
        if let (Some(name), Some(ingress)) = (name, new_object_mut::<Ingress>(attributes)) {
            ingress.spec.get_or_insert_default().ingress_class_name = Some(name);
        }
        Ok(())
    }
}

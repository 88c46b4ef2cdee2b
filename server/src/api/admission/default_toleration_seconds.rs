//! A pod stays five minutes on a node that is not ready or not reachable, unless it says otherwise
//! (`plugin/pkg/admission/defaulttolerationseconds/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, is, new_object_mut};

pub(super) struct DefaultTolerationSeconds;

const SECONDS: i64 = 300;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is(attributes, "", "pods", &[Operation::Create, Operation::Update])
    }

    async fn mutate(&self, _: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(spec) = new_object_mut::<Pod>(attributes).and_then(|p| p.spec.as_mut()) else { return Ok(()) };
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerations = spec.tolerations.get_or_insert_default();
            let any = |given: Option<&str>, value: &str| given.is_none_or(|g| g.is_empty() || g == value);
            if !tolerations.iter().any(|t| any(t.key.as_deref(), key) && any(t.effect.as_deref(), "NoExecute")) {
                tolerations.push(Toleration {
                    key: Some(key.into()),
                    operator: Some("Exists".into()),
                    effect: Some("NoExecute".into()),
                    toleration_seconds: Some(SECONDS),
                    value: None,
                });
            }
        }
        Ok(())
    }
}

//! A new node gets no pods until it is seen to be ready (`plugin/pkg/admission/nodetaint/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Taint};
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, is, new_object_mut};

pub(super) struct TaintNodesByCondition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is(attributes, "", "nodes", &[Operation::Create])
    }

    async fn mutate(&self, _: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(node) = new_object_mut::<Node>(attributes) else { return Ok(()) };
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        if !taints.iter().any(|t| t.key == NOT_READY && t.effect == "NoSchedule") {
            taints.push(Taint { key: NOT_READY.into(), effect: "NoSchedule".into(), ..Taint::default() });
        }
        Ok(())
    }
}

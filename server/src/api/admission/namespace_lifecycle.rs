//! Nothing is made in a namespace that does not exist or is going away, and the system's namespaces stay
//! (`k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use shared::status::{ApiError, GroupResource};

use super::{Attributes, Context, Operation, Plugin, forbidden};

pub(super) struct NamespaceLifecycle;

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let is_namespace = attributes.resource.group.is_empty() && attributes.resource.plural == "namespaces";
        match attributes.operation {
            Operation::Delete => is_namespace && IMMORTAL.contains(&attributes.name),
            Operation::Create | Operation::Update => attributes.resource.namespaced && !attributes.namespace.is_empty(),
            Operation::Connect => false,
        }
    }

    async fn mutate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if attributes.operation == Operation::Delete {
            return Err(forbidden(attributes, "this namespace may not be deleted"));
        }
        let name = attributes.namespace;
        let Some(namespace) = context.reader.get_fresh::<Namespace>("", name).await? else {
            return Err(ApiError::not_found(GroupResource { group: "", resource: "namespaces" }, name));
        };
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        let terminating = phase == Some("Terminating") || namespace.metadata.deletion_timestamp.is_some();
        if attributes.operation == Operation::Create && terminating {
            let error = forbidden(attributes, &format!("unable to create new content in namespace {name} because it is being terminated"));
            return Err(error.cause("NamespaceTerminating", "metadata.namespace", &format!("namespace {name} is being terminated")));
        }
        Ok(())
    }
}

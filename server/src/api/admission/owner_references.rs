//! Who makes an object block its owner's deletion must be allowed to block it; who changes owners must be allowed to delete the object
//! (`plugin/pkg/admission/gc/gc_admission.go`).

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, forbidden};
use crate::api::authz::Access;
use crate::registry::RESOURCES;

pub(super) struct OwnerReferencesPermissionEnforcement;

fn owners(object: Option<&crate::registry::Object>) -> &[OwnerReference] {
    object.and_then(|o| o.meta().owner_references.as_deref()).unwrap_or_default()
}

fn blocking(owners: &[OwnerReference]) -> impl Iterator<Item = &OwnerReference> {
    owners.iter().filter(|o| o.block_owner_deletion == Some(true))
}

/// References that block and did not block before.
fn newly_blocking<'a>(new: &'a [OwnerReference], old: &'a [OwnerReference]) -> impl Iterator<Item = &'a OwnerReference> {
    blocking(new).filter(|n| !blocking(old).any(|o| o.uid == n.uid))
}

#[async_trait]
impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let (new, old) = (owners(attributes.object.as_deref()), owners(attributes.old));
        // Kubelets write the status of mirror pods, which their node owns, without the right to delete pods.
        let exempt = attributes.resource.plural == "pods" && attributes.subresource == "status";
        !exempt && matches!(attributes.operation, Operation::Create | Operation::Update) && new != old
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let (user, resource) = (attributes.user, attributes.resource);
        let (new, old) = (owners(attributes.object.as_deref()), owners(attributes.old));
        if attributes.operation == Operation::Update {
            let access = Access::resource("delete", resource.group, resource.plural, attributes.namespace, attributes.name);
            let decision = context.authorizer.authorize(user, &access);
            if !decision.allowed {
                let text = format!("cannot set an ownerRef on a resource you can't delete: {}", decision.reason);
                return Err(forbidden(attributes, text.trim_end_matches([' '])));
            }
        }
        for owner in newly_blocking(new, old) {
            let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
            let Some(kind) = RESOURCES.find_kind(group, version, &owner.kind) else {
                let text = format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}",
                    owner.api_version, owner.kind
                );
                return Err(forbidden(attributes, &text));
            };
            let namespace = if kind.namespaced { attributes.namespace } else { "" };
            let access = Access { subresource: "finalizers", ..Access::resource("update", group, kind.plural, namespace, &owner.name) };
            let decision = context.authorizer.authorize(user, &access);
            if !decision.allowed {
                let text = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: ";
                return Err(forbidden(attributes, &format!("{text}{}", decision.reason)));
            }
        }
        Ok(())
    }
}

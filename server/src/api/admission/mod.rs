//! Who may still change or refuse a write that authorization has let through: one list of plugins, in order.
//!
//! Owns nothing but the plugins. They read the cache and the authorizer; what they want written goes into the write's own transaction.

mod certificates;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod deny_service_external_ips;
pub(in crate::api) mod dynamic;
mod limit_ranger;
mod mutating_policy;
mod mutating_webhook;
mod namespace_lifecycle;
pub mod node_restriction;
mod owner_references;
mod pod_security;
mod priority;
mod rbac_escalation;
mod resource_quota;
mod service_account;
mod storage_object_in_use;
mod taint_nodes_by_condition;
mod validating_policy;
mod validating_webhook;
mod volume_resize;

use std::sync::Arc;

use async_trait::async_trait;
use shared::status::ApiError;

use super::authz::Authorizer;
use super::objects::Reader;
use crate::registry::ApiObject;
use crate::registry::admit::{Admit, Attributes, Operation};

/// What plugins decide with.
pub struct Context {
    /// Reads from the watch cache.
    pub reader: Reader,
    /// Who may do what.
    pub authorizer: Arc<Authorizer>,
}

/// One admission plugin. Upstream's name, one file.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Upstream's name, e.g. `LimitRanger`.
    fn name(&self) -> &'static str;
    /// Whether it has anything to say to this write; asked before either phase.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;
    /// May change the object.
    ///
    /// # Errors
    /// The refusal, in upstream's words.
    async fn mutate(&self, _context: &Context, _attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }
    /// May refuse the object as it will be stored, or add writes.
    ///
    /// # Errors
    /// The refusal, in upstream's words.
    async fn validate(&self, _context: &Context, _attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Every plugin, in order. One line each; ResourceQuota stays last, so that nothing refused by another is charged.
fn plugins() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(service_account::ServiceAccountPlugin),
        Box::new(limit_ranger::LimitRanger),
        Box::new(priority::Priority),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(taint_nodes_by_condition::TaintNodesByCondition),
        Box::new(node_restriction::NodeRestriction),
        Box::new(pod_security::PodSecurity),
        Box::new(default_storage_class::DefaultStorageClass),
        Box::new(storage_object_in_use::StorageObjectInUseProtection),
        Box::new(volume_resize::PersistentVolumeClaimResize),
        Box::new(default_ingress_class::DefaultIngressClass),
        Box::new(owner_references::OwnerReferencesPermissionEnforcement),
        Box::new(rbac_escalation::RbacEscalation),
        Box::new(certificates::Certificates),
        Box::new(deny_service_external_ips::DenyServiceExternalIps),
        Box::new(mutating_policy::MutatingAdmissionPolicyPlugin),
        Box::new(mutating_webhook::MutatingAdmissionWebhook::default()),
        Box::new(validating_policy::ValidatingAdmissionPolicyPlugin),
        Box::new(validating_webhook::ValidatingAdmissionWebhook::default()),
        Box::new(resource_quota::QuotaPlugin::default()),
    ]
}

/// The chain of all plugins.
pub struct Admission {
    context: Context,
    plugins: Vec<Box<dyn Plugin>>,
}

impl Admission {
    /// The chain over the cache and the authorizer.
    pub fn new(reader: Reader, authorizer: Arc<Authorizer>) -> Self {
        Admission { context: Context { reader, authorizer }, plugins: plugins() }
    }

    /// The plugins' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|p| p.name())
    }
}

#[async_trait]
impl Admit for Admission {
    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        // The second round is for what webhooks and policies have put in: the server's own plugins see it too, as do those that ask to.
        for second in [false, true] {
            if second && !attributes.reinvocation.wanted {
                break;
            }
            attributes.reinvocation.second = second;
            for plugin in &self.plugins {
                if plugin.handles(attributes) {
                    plugin.mutate(&self.context, attributes).await?;
                }
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            if plugin.handles(attributes) {
                plugin.validate(&self.context, attributes).await?;
            }
        }
        Ok(())
    }
}

/// How long webhooks took, in Prometheus' text.
pub fn metrics() -> String {
    dynamic::metrics::text()
}

/// 403 about the object of a write (`admission.NewForbidden`).
fn forbidden(attributes: &Attributes<'_>, detail: &str) -> ApiError {
    let meta = attributes.object.as_deref().or(attributes.old).map(crate::registry::Object::meta);
    let given = || meta.and_then(|m| m.name.as_deref().or(m.generate_name.as_deref()));
    let name = if attributes.name.is_empty() { given().unwrap_or("Unknown") } else { attributes.name };
    ApiError::forbidden(attributes.resource.group_resource(), name, detail)
}

/// The object to be stored, as its type.
fn new_object<'a, T: ApiObject>(attributes: &'a Attributes<'_>) -> Option<&'a T> {
    attributes.object.as_deref().and_then(|o| o.downcast_ref())
}

/// The object to be stored, to change.
fn new_object_mut<'a, T: ApiObject>(attributes: &'a mut Attributes<'_>) -> Option<&'a mut T> {
    attributes.object.as_deref_mut().and_then(|o| o.downcast_mut())
}

/// The object as it is stored.
fn old_object<'a, T: ApiObject>(attributes: &'a Attributes<'_>) -> Option<&'a T> {
    attributes.old.and_then(|o| o.downcast_ref())
}

/// Whether a write is about a kind itself, not a subresource, and does one of these.
fn is(attributes: &Attributes<'_>, group: &str, plural: &str, operations: &[Operation]) -> bool {
    attributes.resource.group == group
        && attributes.resource.plural == plural
        && attributes.subresource.is_empty()
        && operations.contains(&attributes.operation)
}

#[cfg(test)]
mod tests;

//! What a user may do: Node authorization for kubelets and RBAC for everyone, over indexes kept current by cache events.
//!
//! Owns those indexes. Must never read etcd, never change anything, and denies whatever nobody allows.

mod escalation;
mod follow;
mod graph;
mod node;
mod rbac;
pub mod rules;

use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule, SubjectRulesReviewStatus};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use parking_lot::RwLock;
use shared::status::{ApiError, GroupResource};

use super::objects::Objects;
use super::request_info::RequestInfo;
use super::user::User;
use crate::cache::{Entry, Event};
use crate::registry::store::from_json;
use crate::registry::{RESOURCES, Resource};

/// What is asked for. A resource request has a `resource`; any other has only `verb` and `path`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access<'a> {
    /// `get`, `list`, …; the lower-case HTTP method of a non-resource request.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural resource, empty for a non-resource request.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Object name, or empty. Lists and watches by `metadata.name=x` have it set to `x`.
    pub name: &'a str,
    /// Path of a non-resource request.
    pub path: &'a str,
    /// The field selector of a list or watch as it was sent, or empty.
    pub field_selector: &'a str,
}

impl<'a> Access<'a> {
    /// What a request asks for.
    pub fn of(info: &'a RequestInfo) -> Self {
        if !info.is_resource {
            return Access { verb: info.verb, path: &info.path, ..Access::default() };
        }
        let field_selector = info.param("fieldSelector").unwrap_or_default();
        let selected = || exact_name(field_selector).unwrap_or_default();
        let collection = matches!(info.verb, "list" | "watch" | "deletecollection");
        Access {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: if info.name.is_empty() && collection { selected() } else { &info.name },
            path: "",
            field_selector,
        }
    }

    /// Access to a resource, for checks the server makes on a user's behalf.
    pub fn resource(verb: &'a str, group: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Self {
        Access { verb, group, resource, namespace, name, ..Access::default() }
    }
}

/// The value of one requirement of a field selector, if it is an equality.
fn equality<'s>(selector: &'s str, field: &str) -> Option<&'s str> {
    selector.split(',').find_map(|term| {
        let (key, value) = term.split_once('=')?;
        (key.trim() == field).then(|| value.strip_prefix('=').unwrap_or(value).trim())
    })
}

/// The name a selector pins down with `metadata.name=x`.
fn exact_name(selector: &str) -> Option<&str> {
    equality(selector, "metadata.name").filter(|v| !v.is_empty())
}

/// The outcome of an authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether someone allowed it.
    pub allowed: bool,
    /// Why, or why not; may be empty.
    pub reason: String,
}

/// The two authorizers and what they know.
#[derive(Default)]
pub struct Authorizer {
    rbac: RwLock<rbac::Tables>,
    graph: RwLock<graph::Graph>,
}

impl Authorizer {
    /// One that knows no role yet, and so allows only `system:masters`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The kinds whose cache events [`Self::observe`] needs.
    pub fn kinds() -> Vec<&'static Resource> {
        let rows = [
            RESOURCES.of::<ClusterRole>(),
            RESOURCES.of::<ClusterRoleBinding>(),
            RESOURCES.of::<Role>(),
            RESOURCES.of::<RoleBinding>(),
            RESOURCES.of::<Pod>(),
            RESOURCES.of::<PersistentVolume>(),
            RESOURCES.of::<VolumeAttachment>(),
        ];
        rows.into_iter().flatten().collect()
    }

    /// Reads everything the cache holds now. Call it after subscribing to the events, before serving.
    ///
    /// # Errors
    /// 500 when a stored object cannot be read.
    pub fn load(&self, objects: &dyn Objects) -> Result<(), ApiError> {
        for resource in Self::kinds() {
            for entry in objects.list(resource, "")? {
                self.apply(resource, &entry, false);
            }
        }
        Ok(())
    }

    /// Takes in one change. Cheap for kinds it does not know.
    pub fn observe(&self, resource: &Resource, event: &Event) {
        self.apply(resource, &event.entry, event.deleted);
    }

    fn apply(&self, resource: &Resource, entry: &Entry, deleted: bool) {
        match (resource.group, resource.kind) {
            ("rbac.authorization.k8s.io", "ClusterRole") => {
                let role = live::<ClusterRole>(entry, deleted);
                self.rbac.write().set_cluster_role(&entry.name, role.map(|r| r.rules.unwrap_or_default()));
            }
            ("rbac.authorization.k8s.io", "Role") => {
                let role = live::<Role>(entry, deleted);
                self.rbac.write().set_role(&entry.namespace, &entry.name, role.map(|r| r.rules.unwrap_or_default()));
            }
            ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
                let binding = live::<ClusterRoleBinding>(entry, deleted);
                self.rbac.write().set_binding("", &entry.name, binding.map(|b| (b.role_ref, b.subjects.unwrap_or_default())));
            }
            ("rbac.authorization.k8s.io", "RoleBinding") => {
                let binding = live::<RoleBinding>(entry, deleted);
                self.rbac.write().set_binding(&entry.namespace, &entry.name, binding.map(|b| (b.role_ref, b.subjects.unwrap_or_default())));
            }
            ("", "Pod") => self.graph.write().set_pod(&entry.namespace, &entry.name, live::<graph::PodRefs>(entry, deleted)),
            ("", "PersistentVolume") => self.graph.write().set_volume(&entry.name, live::<PersistentVolume>(entry, deleted)),
            ("storage.k8s.io", "VolumeAttachment") => {
                let node = live::<VolumeAttachment>(entry, deleted).map(|a| a.spec.node_name);
                self.graph.write().set_attachment(&entry.name, node);
            }
            _ => {}
        }
    }

    /// Whether a user may do something.
    pub fn authorize(&self, user: &User, access: &Access<'_>) -> Decision {
        if user.in_group("system:masters") {
            return Decision { allowed: true, reason: String::new() };
        }
        let mut reasons = Vec::new();
        if let Some(name) = node::identity(user) {
            match node::authorize(&self.graph.read(), name, access) {
                Ok(()) => return Decision { allowed: true, reason: String::new() },
                Err(reason) if reason.is_empty() => {}
                Err(reason) => reasons.push(reason),
            }
        }
        match self.rbac.read().allowing(user, access) {
            Ok(binding) => return Decision { allowed: true, reason: format!("RBAC: allowed by {}", binding.describe(user)) },
            Err(reason) if reason.is_empty() => {}
            Err(reason) => reasons.push(reason),
        }
        Decision { allowed: false, reason: reasons.join("\n") }
    }

    /// Whether [`Self::authorize`] allows something.
    pub fn permits(&self, user: &User, access: &Access<'_>) -> bool {
        user.in_group("system:masters")
            || node::identity(user).is_some_and(|name| node::authorize(&self.graph.read(), name, access).is_ok())
            || self.rbac.read().allowing(user, access).is_ok()
    }

    /// [`Self::authorize`] as a result.
    ///
    /// # Errors
    /// 403 with upstream's message.
    pub fn require(&self, user: &User, access: &Access<'_>) -> Result<(), ApiError> {
        let decision = self.authorize(user, access);
        if decision.allowed { Ok(()) } else { Err(forbidden(user, access, &decision.reason)) }
    }

    /// Everything a user may do in a namespace, for SelfSubjectRulesReview.
    pub fn rules_for(&self, user: &User, namespace: &str) -> SubjectRulesReviewStatus {
        let mut status = SubjectRulesReviewStatus::default();
        let (found, errors) = self.rbac.read().rules_for(user, namespace);
        for rule in found {
            if let Some(urls) = rule.non_resource_urls.filter(|u| !u.is_empty()) {
                status.non_resource_rules.push(NonResourceRule { non_resource_urls: Some(urls), verbs: rule.verbs.clone() });
            }
            if rule.resources.as_ref().is_some_and(|r| !r.is_empty()) {
                let (api_groups, resources, resource_names) = (rule.api_groups, rule.resources, rule.resource_names);
                status.resource_rules.push(ResourceRule { api_groups, resources, resource_names, verbs: rule.verbs });
            }
        }
        let mut texts = errors;
        if node::identity(user).is_some() {
            status.incomplete = true;
            texts.push("node authorizer does not support user rule resolution".into());
        }
        status.evaluation_error = (!texts.is_empty()).then(|| texts.join("; "));
        status
    }
}

/// The node a user is, if it is one (`pkg/auth/nodeidentifier/default.go`).
pub fn node_identity(user: &User) -> Option<&str> {
    node::identity(user)
}

/// The sorts of API objects a pod refers to: `Secret`, `ConfigMap`, `Claim`, `ResourceClaim`.
pub fn pod_references(spec: &k8s_openapi::api::core::v1::PodSpec) -> std::collections::BTreeSet<&'static str> {
    graph::kinds_referenced(spec)
}

/// A live object's decoded form; `None` when it was deleted or cannot be decoded, which must never leave old rights in force.
fn live<T: serde::de::DeserializeOwned>(entry: &Entry, deleted: bool) -> Option<T> {
    if deleted {
        return None;
    }
    from_json(&entry.bytes, None)
        .inspect_err(|error| tracing::error!(namespace = %entry.namespace, name = %entry.name, %error, "stored object cannot be decoded"))
        .ok()
}

/// 403 in upstream's words (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`).
pub fn forbidden(user: &User, access: &Access<'_>, reason: &str) -> ApiError {
    let mut message = if access.resource.is_empty() {
        format!("User {:?} cannot {} path {:?}", user.name, access.verb, access.path)
    } else {
        let slash = if access.subresource.is_empty() { "" } else { "/" };
        let resource = format!("{}{slash}{}", access.resource, access.subresource);
        let scope = if access.namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace {:?}", access.namespace) };
        format!("User {:?} cannot {} resource {resource:?} in API group {:?} {scope}", user.name, access.verb, access.group)
    };
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    ApiError::forbidden(GroupResource { group: access.group, resource: access.resource }, access.name, &message)
}

#[cfg(test)]
mod tests;

//! The objects a cluster is born with: namespaces, default roles and bindings, priority classes, and the API server's own Service.
//!
//! Owns what they look like and their repair at start: what is missing is made, rules that were taken away come back (unless the object's
//! autoupdate annotation says no), and nothing a user added is touched. Must never run before the cache has caught up.

mod cluster_roles;
mod controller_roles;
mod initial;
mod namespace_roles;
mod policy;
mod reconcile;
mod rule;
mod writer;

use std::net::Ipv4Addr;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use shared::status::ApiError;

use super::{ApiObject, Object, RESOURCES, Resource};

pub use policy::{cluster_role_bindings, cluster_roles, node_rules, role_bindings, roles};

/// Where the API server is reached from inside the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// First address of the service range: the ClusterIP of `default/kubernetes`.
    pub service_ip: Ipv4Addr,
    /// This server's own address, as pods and nodes reach it.
    pub advertise_address: Ipv4Addr,
    /// Its port.
    pub port: u16,
}

/// The store, as far as the bootstrap needs it: the server's own reads and writes, past authorization.
#[async_trait]
pub trait Writer: Send + Sync {
    /// An object as it is stored now.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn read(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Option<Object>, ApiError>;
    /// Stores a new object.
    ///
    /// # Errors
    /// 409 `AlreadyExists` when it exists, or whatever the write fails with.
    async fn create(&self, resource: &'static Resource, object: Object) -> Result<(), ApiError>;
    /// Replaces an object at the resourceVersion it carries.
    ///
    /// # Errors
    /// 409 `Conflict` when it has changed, or whatever the write fails with.
    async fn update(&self, resource: &'static Resource, object: Object) -> Result<(), ApiError>;
}

/// Makes what is missing and repairs what was damaged. Idempotent; only reads when there is nothing to do.
/// Kinds that are not registered are left out.
///
/// # Errors
/// The first write that fails for another reason than that another server was quicker.
pub async fn ensure(writer: &dyn Writer, config: &Config) -> Result<(), ApiError> {
    for namespace in initial::namespaces() {
        ensure_one::<Namespace>(writer, namespace, reconcile::present).await?;
    }
    for class in initial::priority_classes() {
        ensure_one::<PriorityClass>(writer, class, reconcile::priority_class).await?;
    }
    for role in cluster_roles() {
        ensure_one::<ClusterRole>(writer, role, reconcile::cluster_role).await?;
    }
    for binding in cluster_role_bindings() {
        ensure_one::<ClusterRoleBinding>(writer, binding, reconcile::cluster_role_binding).await?;
    }
    for role in roles() {
        ensure_one::<Role>(writer, role, reconcile::role).await?;
    }
    for binding in role_bindings() {
        ensure_one::<RoleBinding>(writer, binding, reconcile::role_binding).await?;
    }
    ensure_one::<Service>(writer, initial::service(config), reconcile::service).await?;
    ensure_one::<Endpoints>(writer, initial::endpoints(config), reconcile::endpoints).await?;
    ensure_one::<EndpointSlice>(writer, initial::endpoint_slice(config), reconcile::endpoint_slice).await
}

/// How often a write that lost a race is decided anew.
const ATTEMPTS: u32 = 5;

async fn ensure_one<T: ApiObject>(writer: &dyn Writer, wanted: T, repair: fn(&T, T) -> Option<T>) -> Result<(), ApiError> {
    let Some(resource) = RESOURCES.of::<T>() else { return Ok(()) };
    let meta = wanted.metadata();
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    for _ in 0..ATTEMPTS {
        let stored = writer.read(resource, &namespace, &name).await?;
        let outcome = match stored {
            None => writer.create(resource, Object::new(wanted.clone())).await,
            Some(stored) => {
                let Some(stored) = stored.downcast_ref::<T>().cloned() else { return Ok(()) };
                match repair(&wanted, stored) {
                    None => return Ok(()),
                    Some(repaired) => writer.update(resource, Object::new(repaired)).await,
                }
            }
        };
        match outcome {
            // Another server did the same at the same time: look again.
            Err(error) if error.code() == 409 => {}
            other => return other,
        }
    }
    Err(ApiError::internal(format!("{} \"{name}\" keeps changing while it is set up", resource.group_resource())))
}

#[cfg(test)]
mod tests;

//! `describe`: an object and what belongs to it, in words (`k8s.io/kubectl/pkg/describe/describe.go`).
//!
//! Each kind is a function from typed objects to text; fetching what belongs to them is in [`related`]. Owns text only.

mod cluster;
mod config;
pub mod containers;
pub mod events;
pub mod format;
mod generic;
mod network_policy;
mod node;
mod pod;
mod policy;
pub mod related;
mod service;
mod storage;
mod workloads;
mod writer;

use anyhow::Result;
use serde_json::Value;

use crate::app::Ctx;
use crate::resource::Info;

pub use policy::rule_lines;
pub use writer::Writer;

type Typed<T> = Result<T, serde_json::Error>;

fn typed<T: serde::de::DeserializeOwned>(object: &Value) -> Typed<T> {
    serde_json::from_value(object.clone())
}

/// Describes one object; kinds without a description of their own are told field by field.
pub async fn describe(ctx: &Ctx, info: &Info, show_events: bool) -> Result<String> {
    let object = &info.object;
    let mut w = Writer::new();
    let group_kind = (info.kind.group.as_str(), info.kind.kind.as_str());
    match group_kind {
        ("", "Pod") => pod::describe(&mut w, &typed(object)?),
        ("apps", "Deployment") => workloads::deployment(&mut w, &typed(object)?, &related::replica_sets(ctx, info).await),
        ("apps", "ReplicaSet") => workloads::replica_set(&mut w, &typed(object)?, &related::pods(ctx, info).await),
        ("", "ReplicationController") => workloads::replication_controller(&mut w, &typed(object)?, &related::pods(ctx, info).await),
        ("apps", "DaemonSet") => workloads::daemon_set(&mut w, &typed(object)?, &related::pods(ctx, info).await),
        ("apps", "StatefulSet") => workloads::stateful_set(&mut w, &typed(object)?, &related::pods(ctx, info).await),
        ("batch", "Job") => workloads::job(&mut w, &typed(object)?),
        ("batch", "CronJob") => workloads::cron_job(&mut w, &typed(object)?),
        ("", "Service") => service::service(&mut w, &typed(object)?, &related::endpoint_slices(ctx, info).await),
        ("", "Endpoints") => service::endpoints(&mut w, &typed(object)?),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(&mut w, &typed(object)?),
        ("networking.k8s.io", "Ingress") => {
            let ingress = typed(object)?;
            let backends = related::backends(ctx, info, &ingress).await;
            service::ingress(&mut w, &ingress, &backends);
        }
        ("networking.k8s.io", "NetworkPolicy") => {
            network_policy::describe(&mut w, &typed(object)?);
            return Ok(w.finish());
        }
        ("", "Node") => {
            let node = typed(object)?;
            node::describe(&mut w, &node, related::lease(ctx, &info.name).await.as_ref(), related::pods_on_node(ctx, &info.name).await.as_deref());
        }
        ("", "Namespace") => {
            cluster::namespace(&mut w, &typed(object)?, &related::quotas(ctx, &info.name).await, &related::limit_ranges(ctx, &info.name).await);
            return Ok(w.finish());
        }
        ("", "ResourceQuota") => return Ok(cluster::quota(w, &typed(object)?)),
        ("", "LimitRange") => return Ok(cluster::limit_range(w, &typed(object)?)),
        ("", "ConfigMap") => config::config_map(&mut w, &typed(object)?),
        ("", "Secret") => return Ok(config::secret(w, &typed(object)?)),
        ("", "ServiceAccount") => config::service_account(&mut w, &typed(object)?),
        ("", "PersistentVolume") => storage::volume(&mut w, &typed(object)?),
        ("", "PersistentVolumeClaim") => storage::claim(&mut w, &typed(object)?, &related::users_of_claim(ctx, info).await),
        ("storage.k8s.io", "StorageClass") => storage::class(&mut w, &typed(object)?),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => return Ok(policy::role(w, object)),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => return Ok(policy::binding(w, object)),
        ("autoscaling", "HorizontalPodAutoscaler") => policy::autoscaler(&mut w, &typed(object)?),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(&mut w, &typed(object)?),
        ("scheduling.k8s.io", "PriorityClass") => policy::priority_class(&mut w, &typed(object)?),
        _ => generic::describe(&mut w, object),
    }
    if show_events {
        events::write(&mut w, related::events(ctx, info).await, jiff::Timestamp::now());
    }
    Ok(w.finish())
}

//! The node's heartbeat: a Lease in `kube-node-lease` (`component-helpers/apimachinery/lease/controller.go`).

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

/// How long a lease is good.
const DURATION: i32 = 40;
const NAMESPACE: &str = "kube-node-lease";

/// Renews a node's lease every `period` for as long as it is polled. `uid` is that of the Node, which may be made anew: a lease that
/// belongs to one that is gone would be deleted as garbage.
pub async fn run(client: Client, node: String, uid: watch::Receiver<String>, period: Duration) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The lease as last written: renewing it takes no read.
    let mut held: Option<Lease> = None;
    let mut uid = uid;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // At once: whoever made the Node anew may have deleted the lease with the old one.
            Ok(()) = uid.changed() => {}
        }
        let mut pause = Duration::from_millis(200);
        loop {
            let owner = uid.borrow().clone();
            match renew(&api, &node, &owner, held.take()).await {
                Ok(lease) => {
                    held = Some(lease);
                    break;
                }
                Err(error) => tracing::warn!(%node, %error, "node lease not renewed"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(7));
        }
    }
}

/// Writes the lease with the time of now; without `held` it is read, or made.
async fn renew(api: &Api<Lease>, node: &str, uid: &str, held: Option<Lease>) -> Result<Lease, kube::Error> {
    let present = match held {
        Some(lease) => Some(lease),
        None => api.get_opt(node).await?,
    };
    let owner = OwnerReference { api_version: "v1".into(), kind: "Node".into(), name: node.into(), uid: uid.into(), ..OwnerReference::default() };
    let exists = present.is_some();
    let mut lease = present.unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(node.into()), namespace: Some(NAMESPACE.into()), ..ObjectMeta::default() },
        ..Lease::default()
    });
    lease.metadata.owner_references = Some(vec![owner]);
    let spec = lease.spec.get_or_insert_default();
    *spec = LeaseSpec {
        holder_identity: Some(node.into()),
        lease_duration_seconds: Some(DURATION),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..spec.clone()
    };
    if exists { api.replace(node, &PostParams::default(), &lease).await } else { api.create(&PostParams::default(), &lease).await }
}

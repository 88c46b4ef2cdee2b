//! Claims go when no pod uses them any more (`pkg/controller/volume/pvcprotection/pvc_protection_controller.go`).

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::ListParams;

use super::{follow, is_of_interest, work};
use crate::controllers::ephemeral_volume::{claim_name, is_claim_of};
use crate::controllers::queue::{Key, Queue};
use crate::controllers::{Context, pods};
use crate::informers::Change;

const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// Starts the controller.
pub fn start(ctx: Context) {
    let (claims, all_pods) = (ctx.informers.get::<PersistentVolumeClaim>(), ctx.informers.get::<Pod>());
    let queue = Queue::new();
    follow(&ctx, &claims, &queue, FINALIZER);
    let (known, into) = (claims.clone(), queue.clone());
    ctx.on(&all_pods, move |change| {
        let pod = change.object();
        // A pod that is made uses more, not less; one that is shut down keeps no claim of its own any more.
        let freed = match &change {
            Change::Added(_) => false,
            Change::Updated { old, new } => old.metadata.uid != new.metadata.uid || !is_shut_down(old) && is_shut_down(new),
            Change::Deleted(_) => true,
        };
        if freed {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let names = names(pod).into_iter().filter(|name| known.get(namespace, name).is_some_and(|c| is_of_interest(&c.metadata, FINALIZER)));
            names.for_each(|name| into.add(Key::new(namespace, name)));
        }
    });
    let client = ctx.client.clone();
    let api = |ctx: &Context, key: &Key| Api::namespaced(ctx.client.clone(), &key.namespace);
    work(&ctx, claims, &queue, FINALIZER, api, move |claim| {
        let (client, all_pods) = (client.clone(), all_pods.clone());
        async move {
            let namespace = claim.metadata.namespace.clone().unwrap_or_default();
            if all_pods.list_namespaced(&namespace).iter().any(|pod| uses(pod, &claim)) {
                return Ok(true);
            }
            // The cache may lag behind a pod that has just been placed.
            let live: Api<Pod> = Api::namespaced(client, &namespace);
            Ok(live.list(&ListParams::default()).await?.items.iter().any(|pod| uses(pod, &claim)))
        }
    });
}

/// The claims a pod names or will have made for it.
fn names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let name = |v: &k8s_openapi::api::core::v1::Volume| match &v.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => v.ephemeral.as_ref().map(|_| claim_name(pod, v)),
    };
    volumes.filter_map(name).collect()
}

/// Its containers have ended and its grace with them: only other finalizers keep it.
fn is_shut_down(pod: &Pod) -> bool {
    pods::is_terminating(pod) && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Whether a pod uses a claim. One without a node does not: no kubelet starts a pod whose claim is being deleted.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if pods::node_name(pod).is_empty() {
        return false;
    }
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name == name,
        None => volume.ephemeral.is_some() && !is_shut_down(pod) && claim_name(pod, volume) == name && is_claim_of(pod, claim),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value, meta: Value) -> Pod {
        let mut metadata = json!({ "name": "p", "namespace": "ns", "uid": "u" });
        metadata.as_object_mut().unwrap().extend(meta.as_object().cloned().unwrap_or_default());
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn a_claim_is_used_by_placed_pods_that_name_it() {
        let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true }]);
        let claim = |name: &str, owners: &Value| -> PersistentVolumeClaim {
            serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "ns", "ownerReferences": owners } })).unwrap()
        };
        let named = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
        let own = json!([{ "name": "v", "ephemeral": {} }]);
        let down = json!({ "deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0 });
        for (volumes, node, meta, claim, expected) in [
            (&named, "n", json!({}), claim("c", &Value::Null), true),
            (&named, "", json!({}), claim("c", &Value::Null), false),
            (&named, "n", json!({}), claim("d", &Value::Null), false),
            (&named, "n", down.clone(), claim("c", &Value::Null), true),
            (&own, "n", json!({}), claim("p-v", &owner), true),
            (&own, "n", json!({}), claim("p-v", &Value::Null), false),
            (&own, "n", down, claim("p-v", &owner), false),
        ] {
            let pod = pod(json!({ "containers": [], "nodeName": node, "volumes": volumes }), meta);
            assert_eq!(uses(&pod, &claim), expected, "{pod:?}");
        }
    }
}

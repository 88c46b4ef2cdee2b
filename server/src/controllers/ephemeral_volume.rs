//! Makes the claims of generic ephemeral volumes, each owned by its pod (`pkg/controller/volume/ephemeral/controller.go`).
//!
//! Owns claims whose controller is the pod; they go with it through their owner reference. Must never hand a pod a claim of another.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::queue::{Key, Queue};
use super::{Context, Error, control, pods, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

const WORKERS: usize = 10;

/// The name of the claim of a pod's ephemeral volume.
pub fn claim_name(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", pods::name(pod), volume.name)
}

/// Whether a claim was made for this very pod.
pub fn is_claim_of(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    control::controller_of(&claim.metadata).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| v.ephemeral.is_some())
}

/// Starts the controller.
pub fn start(ctx: Context) {
    let (all_pods, claims) = (ctx.informers.get::<Pod>(), ctx.informers.get::<PersistentVolumeClaim>());
    let queue: Queue<Key> = Queue::new();
    let all = all_pods.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().filter(|p| volumes(p).next().is_some()).map(|p| Key::of(&**p)).collect());
    let into = queue.clone();
    ctx.on(&all_pods, move |change| {
        let pod = change.object();
        if matches!(change, Change::Added(_)) && volumes(pod).next().is_some() && !pods::is_terminating(pod) {
            into.add(Key::of(&**pod));
        }
    });
    // A claim that goes is made again, be it an old one that was in the way.
    let (known, into) = (all_pods.clone(), queue.clone());
    ctx.on(&claims, move |change| {
        if let Change::Deleted(gone) = &change {
            let (namespace, name) = (gone.metadata.namespace.as_deref().unwrap_or_default(), gone.metadata.name.as_deref().unwrap_or_default());
            let waiting = known.list_namespaced(namespace);
            waiting.iter().filter(|p| volumes(p).any(|v| claim_name(p, v) == name)).for_each(|p| into.add(Key::of(&**p)));
        }
    });
    let (client, recorder) = (ctx.client.clone(), ctx.recorder.clone());
    ctx.work(&queue, WORKERS, vec![synced(&all_pods), synced(&claims)], move |key| {
        let (client, recorder, all_pods, claims) = (client.clone(), recorder.clone(), all_pods.clone(), claims.clone());
        async move {
            let Some(pod) = all_pods.get(&key.namespace, &key.name).filter(|p| !pods::is_terminating(p)) else { return Ok(()) };
            for volume in volumes(&pod) {
                make(&client, &recorder, &claims, &pod, volume).await?;
            }
            Ok(())
        }
    });
}

async fn make(client: &kube::Client, recorder: &Recorder, claims: &Informer<PersistentVolumeClaim>, pod: &Pod, volume: &Volume) -> Result<(), Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = claim_name(pod, volume);
    if let Some(there) = claims.get(namespace, &name) {
        if is_claim_of(pod, &there) {
            return Ok(());
        }
        let text = format!("PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)", pods::name(pod));
        recorder.event(pod, Kind::Warning, "EphemeralClaimConflict", text.clone());
        return Err(Error::Other(text));
    }
    let Some(claim) = claim_of(pod, volume) else { return Ok(()) };
    match Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &claim).await.map_err(Error::from) {
        Ok(_) => Ok(()),
        Err(error) if error.is_namespace_terminating() => Ok(()),
        Err(error) => {
            let text = format!("create PVC {name}: {error}");
            recorder.event(pod, Kind::Warning, "EphemeralVolumeCreationFailed", format!("ephemeral volume controller failed: {text}"));
            Err(Error::Other(text))
        }
    }
}

fn claim_of(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
    let meta = template.metadata.unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(pod, volume)),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![control::controller_ref(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_named_after_pod_and_volume_and_belongs_to_the_pod() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u" }, "spec": { "containers": [], "volumes": [
            { "name": "plain", "emptyDir": {} },
            { "name": "scratch", "ephemeral": { "volumeClaimTemplate": { "metadata": { "labels": { "a": "b" } }, "spec": { "accessModes": ["ReadWriteOnce"] } } } },
        ] } }))
        .unwrap();
        let own: Vec<_> = volumes(&pod).filter_map(|v| claim_of(&pod, v)).collect();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].metadata.name.as_deref(), Some("p-scratch"));
        assert_eq!(own[0].metadata.labels.as_ref().unwrap()["a"], "b");
        assert!(is_claim_of(&pod, &own[0]));
        let mut other = pod.clone();
        other.metadata.uid = Some("later".into());
        assert!(!is_claim_of(&other, &own[0]));
    }
}

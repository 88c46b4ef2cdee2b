//! What the scheduler writes to the API, and nothing else.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};

use super::plugins::volume_binding::selected_node_patch;
use super::pod_info::PodInfo;
use crate::events::{Kind, Recorder};

/// Binds a pod through its `binding` subresource; claims that wait for a node learn it first.
///
/// # Errors
/// The API's refusal, or a time-out, after which the outcome is unknown and only the informer tells.
pub async fn bind(client: Client, pod: Arc<PodInfo>, node: Arc<str>, claims: Vec<Arc<PersistentVolumeClaim>>) -> Result<(), kube::Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), pod.namespace());
    for claim in claims {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        api.patch(name, &PatchParams::default(), &Patch::Merge(selected_node_patch(&node))).await?;
    }
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name().to_owned()),
            namespace: Some(pod.namespace().to_owned()),
            uid: Some(pod.uid().to_owned()),
            ..ObjectMeta::default()
        },
        target: ObjectReference { kind: Some("Node".into()), name: Some(node.to_string()), ..ObjectReference::default() },
    };
    let api: Api<Pod> = Api::namespaced(client, pod.namespace());
    api.create_subresource::<_, serde_json::Value>("binding", pod.name(), &PostParams::default(), &binding).await.map(|_| ())
}

/// The status patch that says why a pod waits; `None` when its status says so already.
/// `nominated` is `Some("")` to clear the nomination.
pub fn status_patch(pod: &PodInfo, reason: &str, message: &str, nominated: Option<&str>) -> Option<serde_json::Value> {
    let old = pod.condition("PodScheduled");
    let same = old.is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message));
    let nominated = nominated.filter(|n| pod.nominated_node().unwrap_or_default() != *n);
    if same && nominated.is_none() {
        return None;
    }
    let kept = old.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(kept.unwrap_or_else(|| Time(Timestamp::now()))),
        observed_generation: pod.pod.metadata.generation,
        ..PodCondition::default()
    };
    let mut status = serde_json::json!({ "conditions": [condition] });
    if let Some(node) = nominated {
        status["nominatedNodeName"] = if node.is_empty() { serde_json::Value::Null } else { node.into() };
    }
    Some(serde_json::json!({ "metadata": { "uid": pod.uid() }, "status": status }))
}

/// Applies a status patch; a pod that is gone meanwhile needs none.
pub async fn patch_status(client: Client, pod: Arc<PodInfo>, patch: serde_json::Value) {
    let api: Api<Pod> = Api::namespaced(client, pod.namespace());
    match api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => tracing::warn!(pod = %pod.key, %error, "status not updated"),
    }
}

/// Deletes preemption's victims, gracefully; true when all of them are going.
pub async fn evict(client: Client, recorder: Recorder, preemptor: Arc<PodInfo>, victims: Vec<Arc<PodInfo>>, node: Arc<str>) -> bool {
    let mut complete = true;
    for victim in victims.iter().filter(|v| !v.terminating()) {
        match evict_one(&client, &preemptor, victim).await {
            Ok(()) => recorder.event(&*victim.pod, Kind::Normal, "Preempted", format!("Preempted by pod {} on node {node}", preemptor.uid())),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::warn!(victim = %victim.key, preemptor = %preemptor.key, %error, "victim not deleted");
                complete = false;
            }
        }
    }
    complete
}

async fn evict_one(client: &Client, preemptor: &PodInfo, victim: &PodInfo) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), victim.namespace());
    let scheduler = preemptor.spec().and_then(|s| s.scheduler_name.as_deref()).unwrap_or("default-scheduler");
    let condition = PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("PreemptionByScheduler".into()),
        message: Some(format!("{scheduler}: preempting to accommodate a higher priority pod")),
        last_transition_time: Some(Time(Timestamp::now())),
        observed_generation: victim.pod.metadata.generation,
        ..PodCondition::default()
    };
    let patch = serde_json::json!({ "metadata": { "uid": victim.uid() }, "status": { "conditions": [condition] } });
    api.patch_status(victim.name(), &PatchParams::default(), &Patch::Strategic(patch)).await?;
    let same = Preconditions { uid: Some(victim.uid().to_owned()), resource_version: None };
    api.delete(victim.name(), &DeleteParams { preconditions: Some(same), ..DeleteParams::default() }).await.map(|_| ())
}

//! What the scheduler writes to the API, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource};

use super::plugins::volume_binding::{Plan, is_bound, selected_node, selected_node_patch};
use super::pod_info::PodInfo;
use crate::events::{Kind, Recorder};

/// On a volume: its binding was not the user's choice.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// How long the claims of a pod may take to get their volumes (upstream's `bindTimeoutSeconds`).
const VOLUMES_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a pod was not bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The API refused, or did not answer; after a time-out the outcome is unknown and only the informer tells.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// Its claims did not get their volumes.
    #[error("binding volumes: {0}")]
    Volumes(String),
}

/// Binds a pod through its `binding` subresource, once its claims have their volumes: a kubelet that saw it earlier could not start it.
///
/// # Errors
/// See [`BindError`].
pub async fn bind(client: Client, pod: Arc<PodInfo>, node: Arc<str>, volumes: Plan) -> Result<(), BindError> {
    if !volumes.is_empty() {
        bind_volumes(&client, &pod, &node, &volumes).await?;
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
    api.create_subresource::<_, serde_json::Value>("binding", pod.name(), &PostParams::default(), &binding).await?;
    Ok(())
}

async fn bind_volumes(client: &Client, pod: &PodInfo, node: &str, plan: &Plan) -> Result<(), BindError> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    for (claim, volume) in &plan.bind {
        // The volume names the claim; the binder does the rest. Fails if somebody else took it meanwhile.
        let mut promised = (**volume).clone();
        let mut reference = claim.object_ref(&());
        reference.resource_version = claim.metadata.resource_version.clone();
        promised.spec.get_or_insert_default().claim_ref = Some(reference);
        promised.metadata.annotations.get_or_insert_default().insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        volumes.replace(volume.metadata.name.as_deref().unwrap_or_default(), &PostParams::default(), &promised).await?;
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), pod.namespace());
    for claim in plan.provision.iter().filter(|c| selected_node(c) != Some(node)) {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        claims.patch(name, &PatchParams::default(), &Patch::Merge(selected_node_patch(node))).await?;
    }
    let wait = async {
        for claim in plan.bind.iter().map(|(claim, _)| claim) {
            await_bound(&claims, claim, |_| false).await?;
        }
        for claim in &plan.provision {
            // A provisioner that cannot serve the node takes the choice back.
            await_bound(&claims, claim, |c| selected_node(c) != Some(node)).await?;
        }
        Ok(())
    };
    let late = |_| Err(BindError::Volumes("timed out waiting for the condition".into()));
    tokio::time::timeout(VOLUMES_TIMEOUT, wait).await.unwrap_or_else(late)
}

/// Waits until a claim has its volume, is gone, or has `failed`.
async fn await_bound(
    api: &Api<PersistentVolumeClaim>,
    claim: &PersistentVolumeClaim,
    failed: impl Fn(&PersistentVolumeClaim) -> bool + Send + Sync,
) -> Result<(), BindError> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let same = |c: &PersistentVolumeClaim| c.metadata.uid == claim.metadata.uid;
    let over = |found: Option<&PersistentVolumeClaim>| found.is_none_or(|c| !same(c) || is_bound(c) || failed(c));
    let found = await_condition(api.clone(), name, over).await.map_err(|e| BindError::Volumes(e.to_string()))?;
    if found.is_some_and(|c| same(&c) && is_bound(&c)) { Ok(()) } else { Err(BindError::Volumes(format!("provisioning failed for PVC \"{name}\""))) }
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

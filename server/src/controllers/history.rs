//! The revisions of DaemonSets and StatefulSets: each template once had, as a ControllerRevision
//! (`pkg/controller/history/controller_history.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use shared::selector::Selector;

use super::control::{self, Namespaced};
use super::deployment::revision::{encode, fnv};
use super::error::found;
use super::{Error, control::controller_ref};
use crate::informers::Informer;

/// Names the revision of a pod, and of a DaemonSet's ControllerRevision.
pub const HASH: &str = "controller-revision-hash";

/// What a revision keeps of a template: a patch that puts it back.
pub fn patch_of(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".into(), json!("replace"));
    }
    json!({ "spec": { "template": template } })
}

/// The template a revision keeps.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_str(&template.to_string()).ok()
}

/// Whether a revision keeps this template.
pub fn keeps(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|kept| super::deployment::revision::same_template(&kept, template))
}

/// The number of a revision's own hash, as its name ends.
pub fn hash_of(revision: &ControllerRevision) -> &str {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    name.rsplit_once('-').map_or(name, |(_, hash)| hash)
}

/// The revisions of an owner: those it controls, and matching orphans, which it adopts. Oldest number first.
///
/// # Errors
/// When the API fails.
pub async fn list<O: Namespaced>(
    client: &Client,
    owner: &O,
    selector: &Selector,
    revisions: &Informer<ControllerRevision>,
) -> Result<Vec<Arc<ControllerRevision>>, Error> {
    let mut owned = control::claim(client, owner, selector, revisions, None).await?;
    owned.sort_by(|a, b| {
        let by_age = a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp);
        a.revision.cmp(&b.revision).then(by_age).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    Ok(owned)
}

/// The outcome of making a revision.
pub enum Made {
    /// It is there.
    Revision(Arc<ControllerRevision>),
    /// Its name belongs to another template; a count of collisions makes another name.
    Collision,
}

/// Makes the revision of a template.
///
/// # Errors
/// When the API fails.
pub async fn make<O: Namespaced>(
    client: &Client,
    owner: &O,
    template: &PodTemplateSpec,
    number: i64,
    collisions: i32,
    label: &str,
) -> Result<Made, Error> {
    let data = patch_of(template);
    let hash = encode(fnv(&data.to_string(), Some(collisions)));
    let meta = owner.metadata();
    let (namespace, owner_name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let kept: String = owner_name.chars().take(223).collect();
    let mut labels: BTreeMap<String, String> = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(label.to_owned(), hash.clone());
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{kept}-{hash}")),
            namespace: Some(namespace.clone()),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    };
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &namespace);
    match api.create(&PostParams::default(), &revision).await.map_err(Error::from) {
        Ok(made) => Ok(Made::Revision(Arc::new(made))),
        Err(error) if error.is_already_exists() => {
            // Made by an earlier sync that the cache does not show yet, or a stranger's.
            let there = api.get(revision.metadata.name.as_deref().unwrap_or_default()).await?;
            let ours = control::controller_of(&there.metadata).is_some_and(|r| Some(&r.uid) == meta.uid.as_ref());
            Ok(if ours && keeps(&there, template) { Made::Revision(Arc::new(there)) } else { Made::Collision })
        }
        Err(error) => Err(error),
    }
}

/// Gives a revision a new number: its template is the newest again.
///
/// # Errors
/// When the API fails.
pub async fn renumber(client: &Client, revision: &ControllerRevision, number: i64) -> Result<Arc<ControllerRevision>, Error> {
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), revision.metadata.namespace.as_deref().unwrap_or_default());
    let patch = json!({ "metadata": { "uid": revision.metadata.uid, "resourceVersion": revision.metadata.resource_version }, "revision": number });
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    Ok(Arc::new(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?))
}

/// Removes the oldest of the revisions nobody uses beyond `limit`.
///
/// # Errors
/// When the API fails.
pub async fn truncate(client: &Client, unused: &[Arc<ControllerRevision>], limit: i32) -> Result<(), Error> {
    let excess = unused.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    for revision in unused.iter().take(excess) {
        let api: Api<ControllerRevision> = Api::namespaced(client.clone(), revision.metadata.namespace.as_deref().unwrap_or_default());
        found(api.delete(revision.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await)?;
    }
    Ok(())
}

//! Owning objects: adoption and release of what matches a selector, creation and deletion of pods with their events, and batches that
//! start slowly (`pkg/controller/controller_ref_manager.go`, `controller_utils.go`).

use std::future::Future;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client};
use serde_json::json;
use shared::selector::Selector;

use super::error::found;
use super::expectations::Expectations;
use super::queue::Key;
use super::{Error, pods};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer, Watchable};

/// A kind that lives in namespaces and can be watched.
pub trait Namespaced: Watchable + kube::Resource<Scope = NamespaceResourceScope> {}
impl<K: Watchable + kube::Resource<Scope = NamespaceResourceScope>> Namespaced for K {}

/// The reference that makes `owner` the controller of what carries it.
pub fn controller_ref<K: Watchable>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owner that controls an object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|r| r.controller == Some(true))
}

/// The key of the controlling owner if it is of kind `K`, by reference only: the uid is to be compared with what is found there.
pub fn owner_key<K: Watchable>(meta: &ObjectMeta) -> Option<Key> {
    let owner = controller_of(meta)?;
    // Upstream compares the group too, not the version.
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    (owner.kind == K::kind(&()) && group == K::group(&())).then(|| Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// The controlling owner of kind `K`, if the cache holds that very object.
pub fn resolve_owner<K: Watchable>(informer: &Informer<K>, meta: &ObjectMeta) -> Option<Arc<K>> {
    let key = owner_key::<K>(meta)?;
    let uid = &controller_of(meta)?.uid;
    informer.get(&key.namespace, &key.name).filter(|owner| owner.metadata().uid.as_ref() == Some(uid))
}

/// The owners of kind `K` that a change of a child concerns, past and present.
pub fn owners_concerned<K: Watchable, C: Watchable>(owners: &Informer<K>, change: &Change<C>) -> Vec<Key> {
    let mut keys = Vec::new();
    if let Change::Updated { old, new } = change
        && controller_of(old.metadata()).map(|r| &r.uid) != controller_of(new.metadata()).map(|r| &r.uid)
    {
        keys.extend(resolve_owner(owners, old.metadata()).map(|o| Key::of(&*o)));
    }
    keys.extend(resolve_owner(owners, change.object().metadata()).map(|o| Key::of(&*o)));
    keys
}

/// The owners of kind `K` that might adopt a child without a controller: those of its namespace whose selector matches it.
pub fn possible_owners<K: Watchable, C: Watchable>(owners: &Informer<K>, change: &Change<C>, selector: impl Fn(&K) -> Option<Selector>) -> Vec<Key> {
    let meta = change.object().metadata();
    let looked_at_before = |old: &ObjectMeta| controller_of(old).is_none() && old.labels == meta.labels;
    let stale = match change {
        Change::Deleted(_) => true,
        Change::Updated { old, .. } => looked_at_before(old.metadata()),
        Change::Added(_) => false,
    };
    if stale || controller_of(meta).is_some() || meta.labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
        return Vec::new();
    }
    let candidates = owners.list_namespaced(meta.namespace.as_deref().unwrap_or_default());
    candidates.iter().filter(|o| selector(o).is_some_and(|s| !s.is_everything() && s.matches(&meta.labels))).map(|o| Key::of(&**o)).collect()
}

/// Fulfils the expectations that a change of a pod fulfils.
pub fn observe<K: Watchable>(expectations: &Expectations, change: &Change<Pod>) {
    let pod = change.object();
    let Some(owner) = owner_key::<K>(&pod.metadata) else { return };
    expectations.creation_observed(&owner, pods::name(pod));
    if matches!(change, Change::Deleted(_)) || pods::is_terminating(pod) {
        expectations.deletion_observed(&owner, pods::name(pod));
    }
}

/// Decides which of the objects around belong to `owner`: matching orphans are adopted, owned ones that no longer match are released.
/// Returns what belongs to it. `finalizer`, if given, is added at adoption and removed at release.
///
/// # Errors
/// When the API fails, or the owner was deleted and made again meanwhile.
pub async fn claim<O: Namespaced, K: Namespaced>(
    client: &Client,
    owner: &O,
    selector: &Selector,
    children: &Informer<K>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<K>>, Error> {
    claim_members(client, owner, selector, children, finalizer, &|_| true).await
}

/// As [`claim`], for owners to whom not everything that they select may belong.
///
/// # Errors
/// As [`claim`].
pub async fn claim_members<O: Namespaced, K: Namespaced>(
    client: &Client,
    owner: &O,
    selector: &Selector,
    children: &Informer<K>,
    finalizer: Option<&str>,
    is_member: &(dyn Fn(&K) -> bool + Send + Sync),
) -> Result<Vec<Arc<K>>, Error> {
    let belongs = |child: &K| selector.matches(&child.metadata().labels) && is_member(child);
    let meta = owner.metadata();
    let (namespace, uid) = (meta.namespace.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default());
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let deleting = meta.deletion_timestamp.is_some();
    let (mut claimed, mut errors) = (Vec::new(), Vec::new());
    for child in children.controlled(namespace, uid) {
        if belongs(&child) {
            claimed.push(child);
        } else if !deleting && let Err(error) = release(&api, child.metadata(), uid, finalizer).await {
            errors.push(error);
        }
    }
    if !deleting {
        let orphans: Vec<Arc<K>> =
            children.orphans(namespace).into_iter().filter(|o| o.metadata().deletion_timestamp.is_none() && belongs(o)).collect();
        if !orphans.is_empty() {
            ensure_alive::<O>(client, namespace, meta).await?;
        }
        for orphan in orphans {
            match adopt(&api, orphan.metadata(), controller_ref(owner), finalizer).await {
                Ok(true) => claimed.push(orphan),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
    }
    super::error::aggregate(errors)?;
    Ok(claimed)
}

/// Before the first adoption the owner is read again: the cache may show one that has been deleted.
async fn ensure_alive<O: Namespaced>(client: &Client, namespace: &str, meta: &ObjectMeta) -> Result<(), Error> {
    let name = meta.name.as_deref().unwrap_or_default();
    let fresh = found(Api::<O>::namespaced(client.clone(), namespace).get(name).await)?;
    let kind = O::kind(&());
    match fresh.as_ref().map(k8s_openapi::Metadata::metadata) {
        None => Err(Error::Other(format!("original {kind} {namespace}/{name} is gone"))),
        Some(fresh) if fresh.uid != meta.uid => Err(Error::Other(format!(
            "original {kind} {namespace}/{name} is gone: got uid {}, wanted {}",
            fresh.uid.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default()
        ))),
        Some(fresh) if fresh.deletion_timestamp.is_some() => Err(Error::Other(format!("{namespace}/{name} has just been deleted"))),
        Some(_) => Ok(()),
    }
}

async fn adopt<K: Namespaced>(api: &Api<K>, child: &ObjectMeta, owner: OwnerReference, finalizer: Option<&str>) -> Result<bool, Error> {
    let mut owners = child.owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != owner.uid);
    owners.push(owner);
    let mut patch = json!({ "metadata": { "uid": child.uid, "resourceVersion": child.resource_version, "ownerReferences": owners } });
    if let Some(finalizer) = finalizer {
        let mut finalizers = child.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
        patch["metadata"]["finalizers"] = json!(finalizers);
    }
    let patched = api.patch(child.name.as_deref().unwrap_or_default(), &PatchParams::default(), &Patch::Merge(patch)).await;
    Ok(found(patched)?.is_some())
}

async fn release<K: Namespaced>(api: &Api<K>, child: &ObjectMeta, uid: &str, finalizer: Option<&str>) -> Result<(), Error> {
    let owners: Vec<_> = child.owner_references.iter().flatten().filter(|o| o.uid != uid).collect();
    let mut patch = json!({ "metadata": { "uid": child.uid, "resourceVersion": child.resource_version, "ownerReferences": owners } });
    if let Some(finalizer) = finalizer {
        let kept: Vec<_> = child.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        patch["metadata"]["finalizers"] = json!(kept);
    }
    match api.patch(child.name.as_deref().unwrap_or_default(), &PatchParams::default(), &Patch::Merge(patch)).await.map_err(Error::from) {
        Ok(_) => Ok(()),
        // Gone, or its owner reference is: what was wanted.
        Err(error) if error.is_not_found() || error.is_invalid() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Runs `count` calls in batches of 1, 2, 4, …; a batch with a failure is the last, so that a quota or a bad template costs a few
/// requests, not thousands. Returns how many succeeded, and the first failure.
pub async fn slow_start<F, Fut>(count: usize, call: F) -> (usize, Result<(), Error>)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let (mut started, mut succeeded, mut batch) = (0, 0, 1.min(count));
    while batch > 0 {
        let results = join_all((started..started + batch).map(&call)).await;
        started += batch;
        succeeded += results.iter().filter(|r| r.is_ok()).count();
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return (succeeded, Err(error));
        }
        batch = (batch * 2).min(count - started);
    }
    (succeeded, Ok(()))
}

/// A name that starts with `base` and that nothing has, made as the API server makes names for `generateName`.
pub fn generate_name(base: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let suffix: String = (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect();
    let kept: String = base.chars().take(58).collect();
    format!("{kept}{suffix}")
}

/// A pod from a template: its labels, annotations and finalizers, controlled by `owner`. The name is chosen here (see [`Expectations`]).
pub fn pod_from_template(namespace: &str, base: &str, template: &PodTemplateSpec, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(generate_name(base)),
            generate_name: Some(base.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone().unwrap_or_default()),
        status: None,
    }
}

/// Creates and deletes pods for a controller, telling users through events and [`Expectations`].
#[derive(Clone)]
pub struct PodControl {
    /// Acts as the controller.
    pub client: Client,
    /// Speaks as the controller.
    pub recorder: Recorder,
    /// What has been asked for.
    pub expectations: Expectations,
}

impl PodControl {
    /// Creates pods in slowly growing batches. Returns how many were made, and the first failure.
    pub async fn create_batch<O: Namespaced>(&self, owner: &O, pods: Vec<Pod>) -> (usize, Result<(), Error>) {
        let key = Key::of(owner);
        self.expectations.expect_creations(&key, pods.iter().map(|p| pods::name(p).to_owned()));
        let (made, result) = slow_start(pods.len(), |i| self.create(owner, &key, &pods[i])).await;
        if result.is_err() {
            // Those the last batch never reached; the ones without an answer stay expected.
            let doubtful = self.expectations.doubtful(&key);
            let attempted = attempted(pods.len(), made, &result);
            for pod in pods.iter().skip(attempted) {
                if !doubtful.iter().any(|d| d == pods::name(pod)) {
                    self.expectations.creation_observed(&key, pods::name(pod));
                }
            }
        }
        (made, result)
    }

    async fn create<O: Namespaced>(&self, owner: &O, key: &Key, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.create(&PostParams::default(), pod).await.map_err(Error::from) {
            Ok(_) => {
                self.recorder.event(owner, Kind::Normal, "SuccessfulCreate", format!("Created pod: {}", pods::name(pod)));
                Ok(())
            }
            Err(error) => {
                if error.is_unknown_outcome() {
                    self.expectations.creation_doubtful(key, pods::name(pod));
                } else {
                    self.expectations.creation_observed(key, pods::name(pod));
                }
                if !error.is_namespace_terminating() {
                    self.recorder.event(owner, Kind::Warning, "FailedCreate", format!("Error creating: {error}"));
                }
                Err(error)
            }
        }
    }

    /// Looks for the pods whose creation got no answer. What is not there is no longer expected.
    ///
    /// # Errors
    /// When the API does not answer this time either.
    pub async fn settle(&self, key: &Key) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        for name in self.expectations.doubtful(key) {
            // Upstream's roles allow these controllers to list pods, not to get one.
            let only = ListParams::default().fields(&format!("metadata.name={name}"));
            if api.list_metadata(&only).await?.items.is_empty() {
                self.expectations.creation_observed(key, &name);
            }
        }
        Ok(())
    }

    /// Deletes pods at once. Each must still be the one that was looked at.
    ///
    /// # Errors
    /// The first failure; pods that are gone already are none.
    pub async fn delete_batch<O: Namespaced>(&self, owner: &O, victims: &[Arc<Pod>]) -> Result<(), Error> {
        let key = Key::of(owner);
        self.expectations.expect_deletions(&key, victims.iter().map(|p| pods::name(p).to_owned()));
        let results = join_all(victims.iter().map(|pod| async {
            let result = self.delete(owner, pod).await;
            if result.is_err() || matches!(result, Ok(false)) {
                self.expectations.deletion_observed(&key, pods::name(pod));
            }
            result.map(|_| ())
        }));
        results.await.into_iter().collect()
    }

    /// Deletes a pod, if it is still that pod. Returns whether it was there.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn delete<O: Namespaced>(&self, owner: &O, pod: &Pod) -> Result<bool, Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams::default().preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match api.delete(pods::name(pod), &params).await.map_err(Error::from) {
            Ok(_) => {
                self.recorder.event(owner, Kind::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pods::name(pod)));
                Ok(true)
            }
            // A conflict is the uid's: another pod has the name by now.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
            Err(error) => {
                self.recorder.event(owner, Kind::Warning, "FailedDelete", format!("Error deleting: {error}"));
                Err(error)
            }
        }
    }
}

/// How many calls [`slow_start`] had begun when its last batch failed, given how many succeeded.
fn attempted(count: usize, succeeded: usize, result: &Result<(), Error>) -> usize {
    if result.is_ok() {
        return count;
    }
    let (mut started, mut batch) = (0, 1.min(count));
    // The batch that failed is the first whose end lies beyond what succeeded.
    while batch > 0 {
        started += batch;
        if started > succeeded {
            break;
        }
        batch = (batch * 2).min(count - started);
    }
    started
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn batches_double_and_stop_at_the_first_failing_one() {
        for (count, fail_from, calls, made) in [(10, 99, 10, 10), (10, 0, 1, 0), (10, 1, 3, 1), (10, 2, 3, 2), (10, 3, 7, 3), (0, 0, 0, 0)] {
            let counter = AtomicUsize::new(0);
            let (succeeded, result) = slow_start(count, |i| {
                counter.fetch_add(1, Ordering::SeqCst);
                async move { if i >= fail_from { Err(Error::other("no")) } else { Ok(()) } }
            })
            .await;
            assert_eq!((counter.load(Ordering::SeqCst), succeeded), (calls, made), "{count} {fail_from}");
            assert_eq!(attempted(count, succeeded, &result), calls);
        }
    }

    #[test]
    fn generated_names_keep_to_63_characters() {
        assert_eq!(generate_name(&"a".repeat(80)).len(), 63);
        assert!(generate_name("web-").starts_with("web-"));
        assert_ne!(generate_name("web-"), generate_name("web-"));
    }
}

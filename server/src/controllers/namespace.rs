//! Empties namespaces that are being deleted, then lets them go (`pkg/controller/namespace/deletion/namespaced_resources_deleter.go`).
//!
//! Owns the `kubernetes` finalizer of namespaces and their deletion conditions. Must never finalize a namespace it could not look
//! through completely.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Api, Client};

use super::error::{aggregate, found};
use super::metadata::{Discovered, Resource, discover};
use super::queue::{Key, Queue};
use super::{Context, Error, elapsed, now, synced};
use crate::informers::{Change, Informer};

const WORKERS: usize = 10;
/// How long to wait for somebody else's finalizers before looking again.
const FINALIZER_ESTIMATE: Duration = Duration::from_secs(15);
const FINALIZER: &str = "kubernetes";

/// Starts the controller.
pub fn start(ctx: Context) {
    let (namespaces, pods) = (ctx.informers.get::<Namespace>(), ctx.informers.get::<Pod>());
    let queue = Queue::new();
    let all = namespaces.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().filter(|n| is_deleting(n)).map(|n| Key::of(&**n)).collect());
    let (into, delay) = (queue.clone(), ctx.config.namespace_deletion_delay);
    ctx.on(&namespaces, move |change| {
        // Only the first sight of the deletion starts the work; later changes are mostly our own conditions.
        let already = matches!(&change, Change::Updated { old, .. } if is_deleting(old));
        let namespace = change.object();
        if is_deleting(namespace) && !already && !matches!(change, Change::Deleted(_)) {
            into.add_after(Key::of(&**namespace), delay);
        }
    });
    // The last pod is what most deletions wait for.
    let (known, into) = (namespaces.clone(), queue.clone());
    ctx.on(&pods, move |change| {
        if let Change::Deleted(pod) = &change {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            if known.get("", namespace).is_some_and(|n| is_deleting(&n)) {
                into.add_after(Key::new("", namespace), Duration::from_millis(100));
            }
        }
    });
    let controller = Arc::new(Controller { client: ctx.client.clone(), namespaces: namespaces.clone(), queue: queue.clone(), delay });
    ctx.work(&queue, WORKERS, vec![synced(&namespaces), synced(&pods)], move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

fn is_deleting(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

fn is_finalized(namespace: &Namespace) -> bool {
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_none_or(|f| !f.iter().any(|f| f == FINALIZER))
}

struct Controller {
    client: Client,
    namespaces: Informer<Namespace>,
    queue: Queue<Key>,
    delay: Duration,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        if self.namespaces.get("", &key.name).is_none_or(|n| !is_deleting(&n)) {
            return Ok(());
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let Some(mut namespace) = found(api.get(&key.name).await)? else { return Ok(()) };
        let Some(since) = namespace.metadata.deletion_timestamp.clone() else { return Ok(()) };
        if is_finalized(&namespace) {
            return Ok(());
        }
        // API servers may go on admitting objects for a moment; a pod's end must not cut this short.
        let waited = elapsed(&since, &now());
        if waited < self.delay {
            self.queue.add_after(key.clone(), self.delay.saturating_sub(waited).max(Duration::from_millis(100)));
            return Ok(());
        }
        if namespace.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating") {
            namespace.status.get_or_insert_default().phase = Some("Terminating".into());
            namespace = api.replace_status(&key.name, &PostParams::default(), &namespace).await?;
        }
        let report = self.empty(&key.name).await;
        if report.describe(&mut namespace, &now()) {
            namespace = api.replace_status(&key.name, &PostParams::default(), &namespace).await?;
        }
        aggregate(report.errors)?;
        if !report.remaining.is_empty() {
            // Upstream's wait, with a pod's end or the next finalizer to shorten it.
            self.queue.add_after(key.clone(), report.estimate / 2 + Duration::from_secs(1));
            return Ok(());
        }
        self.finalize(&api, namespace).await
    }

    async fn finalize(&self, api: &Api<Namespace>, mut namespace: Namespace) -> Result<(), Error> {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
            finalizers.retain(|f| f != FINALIZER);
        }
        found(api.replace_subresource("finalize", &name, &PostParams::default(), &namespace).await)?;
        Ok(())
    }

    /// Deletes all there is in a namespace: pods first, everything else when they are gone.
    async fn empty(&self, namespace: &str) -> Report {
        let mut report = Report::default();
        let discovered = match discover(&self.client).await {
            Ok(discovered) => discovered,
            Err(error) => {
                report.discovery.push(error.to_string());
                report.errors.push(error);
                return report;
            }
        };
        report.note_failures(&discovered);
        let deletable = discovered.resources.into_iter().filter(|r| r.namespaced && r.supports("delete"));
        let (pods, rest): (Vec<_>, Vec<_>) = deletable.partition(|r| r.api.group.is_empty() && r.api.plural == "pods");
        for stage in [pods, rest] {
            // What could not be discovered only keeps the namespace from being finalized: all that can be seen goes.
            let before = report.errors.len();
            for resource in stage {
                if let Err(error) = self.empty_of(namespace, &resource, &mut report).await {
                    report.content.push(error.to_string());
                    report.errors.push(error);
                }
            }
            if !report.remaining.is_empty() || report.errors.len() > before {
                break;
            }
        }
        report
    }

    async fn empty_of(&self, namespace: &str, resource: &Resource, report: &mut Report) -> Result<(), Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource.api);
        if !resource.supports("list") {
            return self.delete_collection(&api, resource).await;
        }
        // Most kinds have nothing here: one cheap list instead of a deletion and a list.
        let one = ListParams::default().limit(1);
        if found(api.list_metadata(&one).await)?.is_none_or(|list| list.items.is_empty()) {
            return Ok(());
        }
        if resource.supports("deletecollection") {
            self.delete_collection(&api, resource).await?;
        } else {
            for object in api.list_metadata(&ListParams::default()).await?.items {
                found(api.delete(&object.metadata.name.unwrap_or_default(), &DeleteParams::background()).await)?;
            }
        }
        let left: Vec<ObjectMeta> = api.list_metadata(&ListParams::default()).await?.items.into_iter().map(|o| o.metadata).collect();
        report.note_remaining(resource, &left);
        Ok(())
    }

    async fn delete_collection(&self, api: &Api<DynamicObject>, resource: &Resource) -> Result<(), Error> {
        if !resource.supports("deletecollection") {
            return Ok(());
        }
        match api.delete_collection(&DeleteParams::background(), &ListParams::default()).await.map_err(Error::from) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// What an attempt to empty a namespace found.
#[derive(Debug, Default)]
struct Report {
    discovery: Vec<String>,
    content: Vec<String>,
    remaining: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    estimate: Duration,
    errors: Vec<Error>,
}

impl Report {
    fn note_failures(&mut self, discovered: &Discovered) {
        for (version, error) in &discovered.failed {
            let text = format!("unable to retrieve the complete list of server APIs: {version}: {error}");
            self.discovery.push(text.clone());
            self.errors.push(Error::Other(text));
        }
    }

    fn note_remaining(&mut self, resource: &Resource, left: &[ObjectMeta]) {
        if left.is_empty() {
            return;
        }
        self.remaining.insert(group_resource(resource), left.len());
        for object in left {
            let own: BTreeSet<&String> = object.finalizers.iter().flatten().collect();
            for finalizer in own {
                *self.finalizers.entry(finalizer.clone()).or_default() += 1;
                self.estimate = self.estimate.max(FINALIZER_ESTIMATE);
            }
            let grace = object.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or_default();
            self.estimate = self.estimate.max(Duration::from_secs(grace));
        }
    }

    /// Writes the findings into the conditions. Returns whether any of them changed.
    fn describe(&self, namespace: &mut Namespace, now: &Time) -> bool {
        let remaining = self.remaining.iter().map(|(kind, n)| format!("{kind} has {n} resource instances")).collect::<Vec<_>>().join(", ");
        let finalizers = self.finalizers.iter().map(|(name, n)| format!("{name} in {n} resource instances")).collect::<Vec<_>>().join(", ");
        let remaining = if remaining.is_empty() { remaining } else { format!("Some resources are remaining: {remaining}") };
        let finalizers =
            if finalizers.is_empty() { finalizers } else { format!("Some content in the namespace has finalizers remaining: {finalizers}") };
        let rows = [
            (
                "NamespaceDeletionDiscoveryFailure",
                self.discovery.join(", "),
                "DiscoveryFailed",
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                String::new(),
                "GroupVersionParsingFailed",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            (
                "NamespaceDeletionContentFailure",
                self.failure(),
                "ContentDeletionFailed",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            ("NamespaceContentRemaining", remaining, "SomeResourcesRemain", "ContentRemoved", "All content successfully removed"),
            (
                "NamespaceFinalizersRemaining",
                finalizers,
                "SomeFinalizersRemain",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ];
        let conditions = namespace.status.get_or_insert_default().conditions.get_or_insert_default();
        let mut changed = false;
        for (type_, problem, bad, good, fine) in rows {
            let (status, reason, message) = if problem.is_empty() { ("False", good, fine.to_owned()) } else { ("True", bad, problem) };
            let new = NamespaceCondition {
                type_: type_.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_transition_time: Some(now.clone()),
            };
            match conditions.iter_mut().find(|c| c.type_ == type_) {
                Some(old) if old.status == new.status && old.reason == new.reason && old.message == new.message => {}
                Some(old) => {
                    let since = if old.status == new.status { old.last_transition_time.clone() } else { new.last_transition_time.clone() };
                    *old = NamespaceCondition { last_transition_time: since, ..new };
                    changed = true;
                }
                None => {
                    conditions.push(new);
                    changed = true;
                }
            }
        }
        changed
    }

    fn failure(&self) -> String {
        if self.content.is_empty() {
            String::new()
        } else {
            format!("Failed to delete all resource types, {} remaining: {}", self.content.len(), self.content.join(", "))
        }
    }
}

/// `pods.` in the core group, `deployments.apps` elsewhere, as upstream's message has it.
fn group_resource(resource: &Resource) -> String {
    format!("{}.{}", resource.api.plural, resource.api.group)
}

#[cfg(test)]
mod tests {
    use kube::core::ApiResource;

    use super::*;

    fn resource() -> Resource {
        Resource { api: ApiResource::erase::<Pod>(&()), namespaced: true, verbs: Vec::new() }
    }

    fn message(namespace: &Namespace, type_: &str) -> String {
        let conditions = namespace.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let condition = conditions.iter().find(|c| c.type_ == type_).unwrap();
        format!("{} {} {}", condition.status, condition.reason.as_ref().unwrap(), condition.message.as_ref().unwrap())
    }

    #[test]
    fn conditions_tell_what_is_left_in_upstreams_words() {
        let mut report = Report::default();
        let object = |finalizer: Option<&str>| ObjectMeta {
            finalizers: finalizer.map(|f| vec![f.to_owned()]),
            deletion_grace_period_seconds: Some(30),
            ..ObjectMeta::default()
        };
        report.note_remaining(&resource(), &[object(None), object(Some("x.io/y"))]);
        assert_eq!(report.estimate, Duration::from_secs(30));
        let mut namespace = Namespace::default();
        assert!(report.describe(&mut namespace, &now()));
        assert!(!report.describe(&mut namespace, &now()));
        assert_eq!(
            message(&namespace, "NamespaceContentRemaining"),
            "True SomeResourcesRemain Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            message(&namespace, "NamespaceFinalizersRemaining"),
            "True SomeFinalizersRemain Some content in the namespace has finalizers remaining: x.io/y in 1 resource instances"
        );
        assert!(Report::default().describe(&mut namespace, &now()));
        assert_eq!(message(&namespace, "NamespaceContentRemaining"), "False ContentRemoved All content successfully removed");
    }
}

//! Delete and deletecollection (`Store.Delete`, `rest.BeforeDelete`).

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::SignedDuration;
use shared::field;
use shared::status::{ApiError, GroupResource};
use tokio::time::Instant;

use super::meta::{FOREGROUND, ORPHAN, now};
use super::write::{Committed, Extra, PATIENCE, Pending, attributes, prepare};
use super::{Current, DeleteOptions, Deleted, ListOptions, Listed, Propagation, Store, WriteOptions, errors};
use crate::api::user::User;
use crate::registry::admit::{Admit, Operation};
use crate::registry::{Object, Resource};
use crate::storage::Expect;

/// Deletions of a collection that are under way at a time.
const WORKERS: usize = 16;

/// What a deletion does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// It is waiting for its deletion already.
    Wait,
    /// It is to be stored as changed, and waits.
    Mark,
    /// It goes.
    Remove,
}

impl Store {
    /// Deletes an object, or marks it for deletion when finalizers or a grace period hold it.
    ///
    /// # Errors
    /// 404; 409 when a precondition fails; 403 and others from admission; 503 and 504 from etcd.
    pub async fn delete(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        user: &User,
        admit: &dyn Admit,
    ) -> Result<Deleted, ApiError> {
        validate(options)?;
        let key = resource.key(namespace, name);
        let deadline = Instant::now() + PATIENCE;
        let mut current = self.cached(resource, namespace, name).await?;
        let mut fresh = false;
        loop {
            if current.is_none() && !fresh {
                (current, fresh) = (self.read(resource, &key).await?, true);
            }
            let Some(found) = &current else { return Err(ApiError::not_found(resource.group_resource(), name)) };
            match self.attempt_delete(resource, (namespace, name), options, user, admit, found).await {
                Ok(Attempt::Done(deleted)) => return Ok(deleted),
                Ok(Attempt::Waits(deleted)) if fresh => return Ok(deleted),
                // An old copy may be of an object that is gone, with a new one in its place.
                Ok(Attempt::Waits(deleted)) => {
                    let now = self.read(resource, &key).await?;
                    if now.as_ref().map(|c| c.entry.revision) == Some(deleted.entry.revision) {
                        return Ok(deleted);
                    }
                    (current, fresh) = (now, true);
                }
                Ok(Attempt::Changed(now)) => (current, fresh) = (now, true),
                Ok(Attempt::Again) => {}
                Err(error) if fresh || errors::outcome_unknown(&error) => return Err(error),
                Err(error) => {
                    let now = self.read(resource, &key).await?;
                    if now.as_ref().map(|c| c.entry.revision) == Some(found.entry.revision) {
                        return Err(error);
                    }
                    (current, fresh) = (now, true);
                }
            }
            if Instant::now() >= deadline {
                return Err(ApiError::timeout("the object could not be deleted because others kept changing it", 1));
            }
        }
    }

    async fn attempt_delete(
        &self,
        resource: &'static Resource,
        (namespace, name): (&str, &str),
        options: &DeleteOptions,
        user: &User,
        admit: &dyn Admit,
        current: &Current,
    ) -> Result<Attempt, ApiError> {
        preconditions(resource, name, options, current)?;
        let (mut extra, mut warnings) = (Extra::default(), Vec::new());
        let write = WriteOptions { dry_run: options.dry_run, ..WriteOptions::new(user) };
        for validate in [false, true] {
            let target = (None, Some(&current.object));
            let mut attempt = attributes(Operation::Delete, resource, (namespace, name), &write, target, (&mut extra, &mut warnings));
            let asked = if validate { admit.validate(&mut attempt).await } else { admit.mutate(&mut attempt).await };
            asked.map_err(|error| error.warned(std::mem::take(&mut warnings)))?;
        }
        let mut object = current.object.clone();
        object.meta_mut().resource_version = None;
        let mut plan = plan(resource, &mut object, options);
        if plan == Plan::Mark && prepare(resource, &object)?.at(current.entry.revision).bytes == current.entry.bytes {
            plan = Plan::Wait;
        }
        let done = |entry, gone| Ok(Attempt::Done(Deleted { entry, gone, warnings: warnings.clone() }));
        if plan == Plan::Wait {
            return Ok(Attempt::Waits(Deleted { entry: current.entry.clone(), gone: false, warnings }));
        }
        if options.dry_run {
            return done(prepare(resource, &object)?.at(current.entry.revision), plan == Plan::Remove);
        }
        let pending = Pending {
            resource,
            key: resource.key(namespace, name),
            expect: Expect::Revision(current.entry.revision),
            new: (plan == Plan::Mark).then_some(&object),
            old: Some(&current.object),
            extra,
        };
        match self.commit(pending).await? {
            Committed::Done(_, Some(entry)) => done(entry, false),
            Committed::Done(revision, None) => done(std::sync::Arc::new(current.entry.at(revision)), true),
            Committed::Changed(kv) => Ok(Attempt::Changed(self.current(resource, kv).await?)),
            Committed::Taken(_) | Committed::Again => Ok(Attempt::Again),
        }
    }

    /// Deletes every object that the options select, several at a time. What has gone meanwhile is not an error.
    ///
    /// # Errors
    /// The first deletion's that fails; others may have happened.
    pub async fn delete_collection(
        &self,
        resource: &'static Resource,
        list: &ListOptions,
        options: &DeleteOptions,
        user: &User,
        admit: &dyn Admit,
    ) -> Result<Listed, ApiError> {
        let mut listed = self.list(resource, list).await?;
        let items = std::mem::take(&mut listed.items);
        let deletions = items.into_iter().map(|entry| async move {
            match self.delete(resource, &entry.namespace, &entry.name, options, user, admit).await {
                Ok(deleted) => Ok(Some(deleted.entry)),
                Err(error) if error.code() == 404 => Ok(None),
                Err(error) => Err(error),
            }
        });
        let gone: Vec<_> = futures::stream::iter(deletions).buffered(WORKERS).try_collect().await?;
        listed.items = gone.into_iter().flatten().collect();
        Ok(listed)
    }
}

enum Attempt {
    Done(Deleted),
    /// The copy it was made from is on its way out already.
    Waits(Deleted),
    Changed(Option<Current>),
    Again,
}

fn validate(options: &DeleteOptions) -> Result<(), ApiError> {
    if let (Some(policy), Some(_)) = (options.propagation_policy, options.orphan_dependents) {
        let path = field::Path::new("propagationPolicy");
        let error = field::Error::invalid(&path, format!("{policy:?}"), "orphanDependents and deletionPropagation cannot be both set");
        return Err(ApiError::invalid(GroupResource { group: "meta.k8s.io", resource: "DeleteOptions" }, "", &[error]));
    }
    Ok(())
}

fn preconditions(resource: &Resource, name: &str, options: &DeleteOptions, current: &Current) -> Result<(), ApiError> {
    let uid = current.object.meta().uid.as_deref().unwrap_or_default();
    let version = current.entry.revision.to_string();
    for (what, wanted, actual) in [("UID", &options.uid, uid), ("ResourceVersion", &options.resource_version, version.as_str())] {
        if let Some(wanted) = wanted
            && wanted != actual
        {
            let text = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}");
            return Err(ApiError::conflict(resource.group_resource(), name, &text));
        }
    }
    Ok(())
}

/// Decides what becomes of the object and changes it accordingly.
fn plan(resource: &Resource, object: &mut Object, options: &DeleteOptions) -> Plan {
    let requested = options.grace_period_seconds.map(|s| if s < 0 { 1 } else { s });
    let graceful = match grace(resource, object, requested) {
        Grace::Pending => return Plan::Wait,
        Grace::Seconds(seconds) => Some(seconds),
        Grace::None => None,
    };
    let meta = object.meta_mut();
    let finalizers = finalizers_for(meta, options);
    meta.finalizers = (!finalizers.is_empty()).then_some(finalizers);
    let held = object.meta().finalizers.is_some() || resource.ops.holds_deletion(object);
    match graceful {
        Some(0) | None if !held => return Plan::Remove,
        Some(_) => {}
        None => mark(object.meta_mut()),
    }
    resource.ops.begin_deletion(object);
    Plan::Mark
}

enum Grace {
    /// The kind or the object's state knows none.
    None,
    /// It is waiting already, and not for longer than asked.
    Pending,
    /// It waits this long from the deletion on; the metadata says so now.
    Seconds(i64),
}

fn grace(resource: &Resource, object: &mut Object, requested: Option<i64>) -> Grace {
    let meta = object.meta();
    if let Some(due) = &meta.deletion_timestamp {
        let Some(period) = meta.deletion_grace_period_seconds.filter(|p| *p > 0) else { return Grace::None };
        let Some(shorter) = requested.filter(|r| *r < period) else { return Grace::Pending };
        let earlier = due.0.checked_sub(SignedDuration::from_secs(period - shorter)).unwrap_or(due.0);
        let meta = object.meta_mut();
        meta.deletion_timestamp = Some(Time(earlier));
        meta.deletion_grace_period_seconds = Some(shorter);
        return Grace::Seconds(shorter);
    }
    let Some(seconds) = resource.ops.grace_period(object, requested) else { return Grace::None };
    let seconds = seconds.max(0);
    let now = now().0;
    let meta = object.meta_mut();
    meta.deletion_timestamp = Some(Time(now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now)));
    meta.deletion_grace_period_seconds = Some(seconds);
    bump(meta);
    Grace::Seconds(seconds)
}

/// Shows that an object without a grace period is being deleted.
fn mark(meta: &mut ObjectMeta) {
    let now = now();
    if meta.deletion_timestamp.is_none() {
        bump(meta);
    }
    if meta.deletion_timestamp.as_ref().is_none_or(|t| t.0 > now.0) {
        meta.deletion_timestamp = Some(now);
    }
    meta.deletion_grace_period_seconds = Some(0);
}

fn bump(meta: &mut ObjectMeta) {
    if let Some(generation) = meta.generation.filter(|g| *g > 0) {
        meta.generation = Some(generation + 1);
    }
}

/// The finalizers with the garbage collector's two as the options, or else the object itself, ask for.
fn finalizers_for(meta: &ObjectMeta, options: &DeleteOptions) -> Vec<String> {
    let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(policy)) => (policy == Propagation::Orphan, policy == Propagation::Foreground),
        (None, None) => (has(ORPHAN), !has(ORPHAN) && has(FOREGROUND)),
    };
    let others = meta.finalizers.iter().flatten().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned();
    let own = [(orphan, ORPHAN), (foreground, FOREGROUND)].into_iter().filter(|(wanted, _)| *wanted).map(|(_, f)| f.to_owned());
    others.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(finalizers: &[&str]) -> ObjectMeta {
        ObjectMeta { finalizers: Some(finalizers.iter().map(|f| (*f).to_owned()).collect()), ..ObjectMeta::default() }
    }

    #[test]
    fn the_policy_decides_over_the_collectors_finalizers() {
        let with = |propagation_policy, orphan_dependents| DeleteOptions { propagation_policy, orphan_dependents, ..DeleteOptions::default() };
        let cases: &[(&[&str], DeleteOptions, &[&str])] = &[
            (&[], with(None, None), &[]),
            (&[], with(Some(Propagation::Foreground), None), &[FOREGROUND]),
            (&[], with(Some(Propagation::Orphan), None), &[ORPHAN]),
            (&["x/y", FOREGROUND], with(Some(Propagation::Background), None), &["x/y"]),
            (&[FOREGROUND], with(None, None), &[FOREGROUND]),
            (&[ORPHAN], with(None, None), &[ORPHAN]),
            (&[ORPHAN], with(Some(Propagation::Foreground), None), &[FOREGROUND]),
            (&[ORPHAN, "x/y"], with(None, Some(false)), &["x/y"]),
            (&[], with(None, Some(true)), &[ORPHAN]),
        ];
        for (before, options, after) in cases {
            assert_eq!(finalizers_for(&meta(before), options), *after, "{before:?} {options:?}");
        }
    }

    #[test]
    fn marking_twice_changes_nothing_the_second_time() {
        let mut object = ObjectMeta { generation: Some(3), ..meta(&["x/y"]) };
        mark(&mut object);
        assert_eq!((object.generation, object.deletion_grace_period_seconds), (Some(4), Some(0)));
        let once = object.clone();
        mark(&mut object);
        assert_eq!(object, once);
    }
}

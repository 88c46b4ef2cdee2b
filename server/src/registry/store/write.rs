//! What every write ends with: claims, one conditional transaction, and what its answer means.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shared::field;
use shared::status::ApiError;

use super::{Current, Store, WriteOptions, errors};
use crate::cache::{CacheError, Entry, Prepared};
use crate::registry::admit::{Attributes, Held, Operation};
use crate::registry::{Claim, Object, Resource};
use crate::storage::{Expect, Kv, Outcome, StorageError, Write};

/// How long a write is retried when others keep being faster, before the client is told.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// An object on its way into a transaction.
pub(super) struct Pending<'a> {
    pub resource: &'static Resource,
    /// Its etcd key.
    pub key: String,
    pub expect: Expect,
    /// The new object; `None` deletes.
    pub new: Option<&'a Object>,
    /// The stored one.
    pub old: Option<&'a Object>,
    /// Admission's writes.
    pub extra: Extra,
}

/// How a transaction ended.
pub(super) enum Committed {
    /// Everything is written, at this revision; the entry is the new object's.
    Done(i64, Option<Arc<Entry>>),
    /// The object is not what it was taken for; this is what is stored.
    Changed(Option<Kv>),
    /// Somebody else owns a value that the object claims.
    Taken(Claim),
    /// Something that admission relied on has changed.
    Again,
}

/// What a single request has learnt in earlier attempts.
#[derive(Default)]
pub(super) struct Learnt {
    /// Claims that turned out to be somebody else's, whatever the cache says.
    pub taken: BTreeSet<Claim>,
}

impl Store {
    /// Lets the strategy choose the values that the server allocates.
    pub(super) fn allocate(&self, resource: &Resource, key: &str, new: &mut Object, old: Option<&Object>, learnt: &Learnt) -> Result<(), ApiError> {
        let cache = &self.inner.cache;
        let taken = |claim: &Claim| learnt.taken.contains(claim) || cache.claim_owner(claim).is_some_and(|owner| owner != key);
        resource
            .ops
            .allocate(new, old, &self.inner.config.ranges, &taken)
            .map_err(|error| ApiError::invalid(resource.group_kind(), new.name(), &[error]))?;
        // What is still claimed although it is known to be taken was asked for by the client.
        match resource.ops.claims(new).into_iter().find(|claim| learnt.taken.contains(claim)) {
            Some(claim) => Err(already_allocated(resource, new.name(), &claim)),
            None => Ok(()),
        }
    }

    /// Writes the object, its claims and admission's writes in one transaction.
    pub(super) async fn commit(&self, pending: Pending<'_>) -> Result<Committed, ApiError> {
        let Pending { resource, key, expect, new, old, extra } = pending;
        let prepared = match new {
            Some(object) => Some(Arc::new(prepare_stored(resource, object).await?)),
            None => None,
        };
        // The answer is in the version that was written, made before anything is: nothing may fail once it is stored.
        let answer = match (new, &resource.custom) {
            (Some(object), Some(_)) => Some(Arc::new(prepare(resource, object)?)),
            _ => None,
        };
        let lease = match (new, ttl(self, resource)) {
            (Some(_), Some(ttl)) => self.inner.storage.lease(ttl).await.map_err(errors::storage)?,
            _ => 0,
        };
        let claims = Claims::between(resource, new, old);
        let mut writes = vec![Write { key: key.clone(), expect, value: prepared.as_ref().map(|p| p.stored().clone()), lease }];
        claims.write(&key, &mut writes);
        writes.extend(extra.writes);
        let announced = prepared.as_ref().map(|p| self.inner.cache.announce(key.clone(), p.clone()));
        match self.inner.storage.commit(&writes).await {
            Ok(Outcome::Committed { revision }) => {
                if let Some(announced) = announced {
                    announced.written(revision);
                }
                extra.held.into_iter().for_each(|held| held.committed(revision));
                Ok(Committed::Done(revision, answer.or(prepared).map(|p| p.at(revision))))
            }
            Ok(Outcome::Conflict { current, .. }) => Ok(claims.explain(&writes, current)),
            Err(StorageError::LeaseGone) => {
                self.inner.storage.forget_lease(lease);
                Ok(Committed::Again)
            }
            Err(error) => Err(errors::storage(error)),
        }
    }

    /// The object under a key as etcd has it now.
    pub(super) async fn read(&self, resource: &'static Resource, key: &str) -> Result<Option<Current>, ApiError> {
        let kv = self.inner.storage.get(key).await.map_err(errors::storage)?;
        self.current(resource, kv).await
    }

    /// What a failed transaction found.
    pub(super) async fn current(&self, resource: &'static Resource, kv: Option<Kv>) -> Result<Option<Current>, ApiError> {
        let Some(kv) = kv else { return Ok(None) };
        let undecodable = |reason: String| errors::undecodable(crate::cache::Undecodable { key: kv.key.clone(), reason });
        let value = kv.value.as_ref().map_err(|e| undecodable(e.clone()))?;
        let entry = Entry::parse(resource, value, kv.revision).map_err(|e| undecodable(e.to_string()))?;
        self.decode_stored(resource, Arc::new(entry)).await.map(Some)
    }

    /// The object as the cache has it, which may be a little old; `None` when it is not there, or the cache is not ready.
    pub(super) async fn cached(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Option<Current>, ApiError> {
        match self.inner.cache.get(resource, namespace, name) {
            Ok(Some(entry)) => self.decode_stored(resource, entry).await.map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(errors::cache(CacheError::Undecodable(error))),
        }
    }

    /// Warnings that the kind has for its clients.
    pub(super) fn warnings(resource: &Resource, object: &Object, warnings: &mut Vec<String>) {
        warnings.extend(resource.ops.warnings(object));
    }
}

/// What admission adds to one attempt: further writes, and what must live until their outcome is known.
#[derive(Default)]
pub(super) struct Extra {
    pub writes: Vec<Write>,
    pub held: Vec<Box<dyn Held>>,
}

/// The attributes of one attempt, for admission.
pub(super) fn attributes<'a>(
    operation: Operation,
    resource: &'static Resource,
    (namespace, name): (&'a str, &'a str),
    options: &'a WriteOptions<'a>,
    objects: (Option<&'a mut Object>, Option<&'a Object>),
    (extra, warnings): (&'a mut Extra, &'a mut Vec<String>),
) -> Attributes<'a> {
    let namespace = if resource.namespaced { namespace } else { "" };
    let (object, old) = objects;
    let (user, dry_run, subresource) = (options.user, options.dry_run, options.subresource);
    let Extra { writes, held } = extra;
    Attributes {
        operation,
        resource,
        subresource,
        namespace,
        name,
        user,
        dry_run,
        field_manager: &options.field_manager,
        options: None,
        object,
        old,
        writes,
        held,
        warnings,
        reinvocation: Default::default(),
    }
}

/// Encodes an object for storage: without its resourceVersion.
pub(super) fn prepare(resource: &Resource, object: &Object) -> Result<Prepared, ApiError> {
    debug_assert!(object.meta().resource_version.is_none(), "the store clears it");
    let bytes = object.encode().map_err(ApiError::internal)?;
    Prepared::new(resource, super::shared_bytes(bytes)).map_err(ApiError::internal)
}

/// Encodes an object for storage, in the version that its kind is stored in.
async fn prepare_stored(resource: &Resource, object: &Object) -> Result<Prepared, ApiError> {
    match &resource.custom {
        None => prepare(resource, object),
        Some(slot) => Prepared::new(resource, slot.stored(object).await?).map_err(ApiError::internal),
    }
}

/// How long objects of a kind live.
fn ttl(store: &Store, resource: &Resource) -> Option<Duration> {
    (resource.prefix == "/registry/events/").then_some(store.inner.config.event_ttl)
}

/// The claims that a write takes and gives back.
struct Claims {
    taken: Vec<Claim>,
    released: Vec<Claim>,
}

impl Claims {
    fn between(resource: &Resource, new: Option<&Object>, old: Option<&Object>) -> Self {
        let of = |object: Option<&Object>| object.map(|o| resource.ops.claims(o)).unwrap_or_default();
        let (new, old) = (of(new), of(old));
        let same = |a: &Claim, b: &Claim| a.space == b.space && a.value == b.value;
        let without =
            |list: &[Claim], other: &[Claim]| -> Vec<Claim> { list.iter().filter(|c| !other.iter().any(|o| same(c, o))).cloned().collect() };
        Claims { taken: without(&new, &old), released: without(&old, &new) }
    }

    /// What is given back needs no condition: it goes with its owner, whose revision is compared.
    fn write(&self, owner: &str, writes: &mut Vec<Write>) {
        for claim in &self.taken {
            let value = Some(super::shared_bytes(owner.as_bytes().to_vec()));
            writes.push(Write { key: claim.key(), expect: Expect::Absent, value, lease: 0 });
        }
        for claim in &self.released {
            writes.push(Write { key: claim.key(), expect: Expect::Any, value: None, lease: 0 });
        }
    }

    /// Which of the conditions did not hold; the object's own counts first.
    fn explain(&self, writes: &[Write], mut current: Vec<Option<Kv>>) -> Committed {
        let failed = |i: usize, current: &[Option<Kv>]| match (writes[i].expect, &current[i]) {
            (Expect::Any, _) | (Expect::Absent, None) => false,
            (Expect::Revision(revision), Some(kv)) => kv.revision != revision,
            (Expect::Absent, Some(_)) | (Expect::Revision(_), None) => true,
        };
        if failed(0, &current) {
            return Committed::Changed(current.swap_remove(0));
        }
        match self.taken.iter().enumerate().find(|(i, _)| failed(i + 1, &current)) {
            Some((_, claim)) => Committed::Taken(claim.clone()),
            None => Committed::Again,
        }
    }
}

/// Upstream's error for an address or port that has an owner (`pkg/registry/core/service/storage/alloc.go`).
fn already_allocated(resource: &Resource, name: &str, claim: &Claim) -> ApiError {
    let path = field::Path::new(claim.field);
    let error = if let Ok(port) = claim.value.parse::<u16>() {
        field::Error::invalid(&path, port, "provided port is already allocated")
    } else {
        let text = format!("failed to allocate IP {}: provided IP is already allocated", claim.value);
        field::Error::invalid(&path, [&claim.value], &text)
    };
    ApiError::invalid(resource.group_kind(), name, &[error])
}

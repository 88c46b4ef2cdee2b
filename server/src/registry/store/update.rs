//! Update, which PUT and every kind of PATCH go through (`Store.Update`, `rest.BeforeUpdate`, `GuaranteedUpdate`).
//!
//! The first attempt works on the cache's copy, because it is nearly always right; the transaction compares its revision. No error is
//! given on the ground of a copy that may be old.

use shared::field;
use shared::status::ApiError;
use tokio::time::Instant;

use super::write::{Committed, Extra, Learnt, PATIENCE, Pending, attributes, prepare};
use super::{Change, Current, Decoded, Store, WriteOptions, Written, errors, managed, meta};
use crate::registry::admit::{Admit, Operation};
use crate::registry::{Object, Resource};
use crate::storage::Expect;

/// What an update comes to, once the new object is ready.
enum Plan {
    /// It is what is stored already.
    Nothing,
    /// It replaces what is stored.
    Put(Object, Extra),
    /// It has lost the last thing that held its deletion up.
    Remove(Object, Extra),
}

impl Store {
    /// Replaces an object by what `change` makes of it. Conflicts with other writers are retried, unless the new object carries a
    /// resourceVersion that is not the stored one.
    ///
    /// # Errors
    /// 404 when there is none and the kind is not created so; 409 for a stale resourceVersion or UID; 422, 400, 403 from checks and
    /// admission; 503 and 504 from etcd.
    pub async fn update(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &WriteOptions<'_>,
        change: Change<'_>,
        admit: &dyn Admit,
    ) -> Result<Written, ApiError> {
        let key = resource.key(namespace, name);
        let deadline = Instant::now() + PATIENCE;
        let mut learnt = Learnt::default();
        let mut current = self.cached(resource, namespace, name).await?;
        let mut fresh = false;
        if current.is_none() {
            (current, fresh) = (self.read(resource, &key).await?, true);
        }
        loop {
            if Instant::now() >= deadline {
                return Err(ApiError::timeout("the object could not be updated because others were faster", 1));
            }
            let attempt = self.attempt_update(resource, (namespace, name), options, change, admit, current.as_ref(), &mut learnt).await;
            match attempt {
                Ok(Attempt::Done(written)) => return Ok(written),
                Ok(Attempt::Unchanged(written)) if fresh => return Ok(written),
                // What an old copy has already may be what somebody has just taken away.
                Ok(Attempt::Unchanged(written)) => {
                    let now = self.read(resource, &key).await?;
                    if now.as_ref().map(|c| c.entry.revision) == Some(written.entry.revision) {
                        return Ok(written);
                    }
                    (current, fresh) = (now, true);
                }
                Ok(Attempt::Changed(now)) => (current, fresh) = (now, true),
                Ok(Attempt::Again) => {}
                // What may have been done already must not be done again.
                Err(error) if fresh || errors::outcome_unknown(&error) => return Err(error),
                Err(error) => {
                    let now = self.read(resource, &key).await?;
                    let revision = |c: &Option<Current>| c.as_ref().map(|c| c.entry.revision);
                    if revision(&now) == revision(&current) {
                        return Err(error);
                    }
                    (current, fresh) = (now, true);
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn attempt_update(
        &self,
        resource: &'static Resource,
        (namespace, name): (&str, &str),
        options: &WriteOptions<'_>,
        change: Change<'_>,
        admit: &dyn Admit,
        current: Option<&Current>,
        learnt: &mut Learnt,
    ) -> Result<Attempt, ApiError> {
        let may_create = options.subresource.is_empty() && (resource.create_on_update || options.create);
        if current.is_none() && !may_create {
            return Err(ApiError::not_found(resource.group_resource(), name));
        }
        let Decoded { object: mut new, mut warnings } = change(current)?;
        check_name(resource, (namespace, name), &new)?;
        meta::match_namespace(resource, namespace, &mut new)?;
        let Some(current) = current else {
            return self.create_on_update(resource, namespace, new, warnings, options, admit, learnt).await;
        };
        check_version(resource, name, &mut new, current)?;
        let ready = self.ready_for_update(resource, (namespace, name), options, new, current, admit, learnt, &mut warnings).await;
        let plan = ready.map_err(|error| error.warned(std::mem::take(&mut warnings)))?;
        let key = resource.key(namespace, name);
        let expect = Expect::Revision(current.entry.revision);
        let old = Some(&current.object);
        let (committed, removed) = match plan {
            Plan::Nothing => return Ok(Attempt::Unchanged(Written { entry: current.entry.clone(), warnings, created: false })),
            Plan::Put(object, _) | Plan::Remove(object, _) if options.dry_run => {
                let entry = prepare(resource, &object)?.at(current.entry.revision);
                return Ok(Attempt::Done(Written { entry, warnings, created: false }));
            }
            Plan::Put(object, extra) => (self.commit(Pending { resource, key, expect, new: Some(&object), old, extra }).await?, None),
            Plan::Remove(object, extra) => (self.commit(Pending { resource, key, expect, new: None, old, extra }).await?, Some(object)),
        };
        Ok(match (committed, removed) {
            (Committed::Done(_, Some(entry)), _) => Attempt::Done(Written { entry, warnings, created: false }),
            (Committed::Done(revision, None), Some(object)) => {
                Attempt::Done(Written { entry: prepare(resource, &object)?.at(revision), warnings, created: false })
            }
            (Committed::Changed(kv), _) => Attempt::Changed(self.current(resource, kv).await?),
            (Committed::Taken(claim), _) => {
                learnt.taken.insert(claim);
                Attempt::Again
            }
            (Committed::Done(_, None) | Committed::Again, _) => Attempt::Again,
        })
    }

    #[allow(clippy::too_many_arguments)]
    async fn create_on_update(
        &self,
        resource: &'static Resource,
        namespace: &str,
        mut new: Object,
        mut warnings: Vec<String>,
        options: &WriteOptions<'_>,
        admit: &dyn Admit,
        learnt: &mut Learnt,
    ) -> Result<Attempt, ApiError> {
        new.meta_mut().resource_version = None;
        let ready = self.ready_for_create(resource, namespace, &mut new, options, admit, learnt, &mut warnings).await;
        let extra = ready.map_err(|error| error.warned(std::mem::take(&mut warnings)))?;
        if options.dry_run {
            return Ok(Attempt::Done(Written { entry: prepare(resource, &new)?.unsaved(), warnings, created: true }));
        }
        let key = resource.key(new.namespace(), new.name());
        let pending = Pending { resource, key, expect: Expect::Absent, new: Some(&new), old: None, extra };
        Ok(match self.commit(pending).await? {
            Committed::Done(_, Some(entry)) => Attempt::Done(Written { entry, warnings, created: true }),
            Committed::Changed(kv) => Attempt::Changed(self.current(resource, kv).await?),
            Committed::Taken(claim) => {
                learnt.taken.insert(claim);
                Attempt::Again
            }
            Committed::Done(_, None) | Committed::Again => Attempt::Again,
        })
    }

    /// Brings the new object into the form it is stored in.
    #[allow(clippy::too_many_arguments)]
    async fn ready_for_update(
        &self,
        resource: &'static Resource,
        (namespace, name): (&str, &str),
        options: &WriteOptions<'_>,
        mut new: Object,
        current: &Current,
        admit: &dyn Admit,
        learnt: &Learnt,
        warnings: &mut Vec<String>,
    ) -> Result<Plan, ApiError> {
        let (ops, old) = (&resource.ops, &current.object);
        let mode = Mode::of(options.subresource);
        let mut extra = Extra::default();
        meta::fill_for_update(new.meta_mut(), old.meta());
        ops.default(&mut new);
        managed::track(resource, options, Some(old), &mut new)?;
        mode.prepare(resource, &mut new, old);
        let id = (namespace, name);
        let mut attempt = attributes(Operation::Update, resource, id, options, (Some(&mut new), Some(old)), (&mut extra, warnings));
        admit.mutate(&mut attempt).await?;
        ops.default(&mut new);
        if mode == Mode::Main {
            self.allocate(resource, &resource.key(namespace, name), &mut new, Some(old), learnt)?;
        }
        if resource.generation && mode != Mode::Status && ops.spec_changed(&new, old) {
            new.meta_mut().generation = Some(old.meta().generation.unwrap_or(0) + 1);
        }
        let mut errors = meta::validate_update(resource, new.meta(), old.meta());
        errors.extend(mode.validate(resource, &new, old));
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource.group_kind(), new.name(), &errors));
        }
        if mode == Mode::Main {
            Self::warnings(resource, &new, warnings);
        }
        let mut attempt = attributes(Operation::Update, resource, id, options, (Some(&mut new), Some(old)), (&mut extra, warnings));
        admit.validate(&mut attempt).await?;
        new.meta_mut().resource_version = None;
        if deletes(resource, &new, old) {
            return Ok(Plan::Remove(new, extra));
        }
        if extra.writes.is_empty() && !current.outdated && self.unchanged(resource, &mut new, current)? {
            return Ok(Plan::Nothing);
        }
        Ok(Plan::Put(new, extra))
    }

    /// Whether storing the object would change nothing, or only when its fields were last written.
    fn unchanged(&self, resource: &Resource, new: &mut Object, current: &Current) -> Result<bool, ApiError> {
        let same = |new: &Object| Ok::<_, ApiError>(prepare(resource, new)?.at(current.entry.revision).bytes == current.entry.bytes);
        let (entries, old) = (&new.meta().managed_fields, &current.object.meta().managed_fields);
        if entries == old || !managed::differ_in_times_only(entries.as_deref(), old.as_deref()) {
            return same(new);
        }
        let entries = std::mem::replace(&mut new.meta_mut().managed_fields, old.clone());
        let unchanged = same(new)?;
        new.meta_mut().managed_fields = entries;
        Ok(unchanged)
    }
}

enum Attempt {
    Done(Written),
    /// The copy it was made from says the same already.
    Unchanged(Written),
    /// Somebody else was faster; this is what is stored now.
    Changed(Option<Current>),
    /// A claim or something of admission's was taken; the object itself is as it was.
    Again,
}

/// Which part of the object an update is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// All of it but the status.
    Main,
    /// The status alone.
    Status,
    /// Whatever the subresource's own change lets through (`binding`, `finalize`, `ephemeralcontainers`, …).
    Special,
}

impl Mode {
    fn of(subresource: &str) -> Self {
        match subresource {
            "" | "scale" => Mode::Main,
            "status" => Mode::Status,
            _ => Mode::Special,
        }
    }
    fn prepare(self, resource: &Resource, new: &mut Object, old: &Object) {
        match self {
            Mode::Main => resource.ops.prepare_for_update(new, old),
            Mode::Status => resource.ops.prepare_for_status_update(new, old),
            Mode::Special => {}
        }
    }
    fn validate(self, resource: &Resource, new: &Object, old: &Object) -> field::ErrorList {
        match self {
            Mode::Main => resource.ops.validate_update(new, old),
            Mode::Status => resource.ops.validate_status_update(new, old),
            Mode::Special => Vec::new(),
        }
    }
}

/// The object must be the one that the URL names (`k8s.io/apiserver/pkg/endpoints/handlers/rest.go`, `checkName`).
fn check_name(resource: &Resource, (namespace, name): (&str, &str), new: &Object) -> Result<(), ApiError> {
    if new.name() != name {
        return Err(ApiError::bad_request(format!("the name of the object ({}) does not match the name on the URL ({name})", new.name())));
    }
    if resource.namespaced && !new.namespace().is_empty() && new.namespace() != namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({}) does not match the namespace on the request ({namespace})",
            new.namespace()
        )));
    }
    Ok(())
}

/// UID and resourceVersion of the new object are preconditions.
fn check_version(resource: &Resource, name: &str, new: &mut Object, current: &Current) -> Result<(), ApiError> {
    let old = current.object.meta();
    let stored_uid = old.uid.as_deref().unwrap_or_default();
    if let Some(uid) = new.meta().uid.as_deref().filter(|u| !u.is_empty() && *u != stored_uid) {
        let text = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored_uid}");
        return Err(ApiError::conflict(resource.group_resource(), name, &text));
    }
    match new.meta().resource_version.as_deref() {
        None | Some("" | "0") if resource.unconditional_update => {}
        None | Some("" | "0") => {
            let path = field::Path::new("metadata").child("resourceVersion");
            let error = field::Error::invalid(&path, 0, "must be specified for an update");
            return Err(ApiError::invalid(resource.group_resource(), name, &[error]));
        }
        Some(version) if version == current.entry.revision.to_string() => {}
        Some(_) => return Err(ApiError::modified(resource.group_resource(), name)),
    }
    new.meta_mut().resource_version.clone_from(&old.resource_version);
    Ok(())
}

/// Whether an update takes away the last thing that held a deletion up (`ShouldDeleteDuringUpdate`).
fn deletes(resource: &Resource, new: &Object, old: &Object) -> bool {
    let (new_meta, old_meta) = (new.meta(), old.meta());
    new_meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && old_meta.deletion_timestamp.is_some()
        && old_meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !resource.ops.holds_deletion(new)
}

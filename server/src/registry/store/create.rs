//! Create (`Store.Create`, `rest.BeforeCreate`).

use shared::status::ApiError;
use tokio::time::Instant;

use super::write::{Committed, Extra, Learnt, PATIENCE, Pending, attributes, prepare};
use super::{Decoded, Store, WriteOptions, Written, errors, managed, meta};
use crate::registry::admit::{Admit, Operation};
use crate::registry::{Object, Resource};
use crate::storage::{Expect, Kv};

/// How many names are tried for a generateName (upstream's `MaxNameGenerationCreateAttempts`).
const NAMES: usize = 8;

impl Store {
    /// Stores a new object.
    ///
    /// # Errors
    /// 409 when the name is taken; 422 when it is invalid; 400, 403 and others from checks and admission; 503 and 504 from etcd.
    pub async fn create(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: impl Into<Decoded>,
        options: &WriteOptions<'_>,
        admit: &dyn Admit,
    ) -> Result<Written, ApiError> {
        let Decoded { mut object, warnings } = object.into();
        meta::match_namespace(resource, namespace, &mut object)?;
        let version = object.meta_mut().resource_version.take();
        if version.is_some_and(|v| !v.is_empty() && v != "0") {
            // Upstream gives no reason here.
            return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        let generated = object.name().is_empty() && object.meta().generate_name.as_deref().is_some_and(|b| !b.is_empty());
        let deadline = Instant::now() + PATIENCE;
        let (mut learnt, mut names) = (Learnt::default(), 1);
        loop {
            let mut candidate = object.clone();
            let mut written_warnings = warnings.clone();
            let ready = self.ready_for_create(resource, namespace, &mut candidate, options, admit, &learnt, &mut written_warnings).await;
            let extra = ready.map_err(|error| error.warned(std::mem::take(&mut written_warnings)))?;
            let key = resource.key(candidate.namespace(), candidate.name());
            if options.dry_run {
                if self.inner.cache.get(resource, candidate.namespace(), candidate.name()).map_err(errors::undecodable)?.is_some() {
                    return Err(ApiError::already_exists(resource.group_resource(), candidate.name()).warned(written_warnings));
                }
                return Ok(Written { entry: prepare(resource, &candidate)?.unsaved(), warnings: written_warnings, created: true });
            }
            let pending = Pending { resource, key, expect: Expect::Absent, new: Some(&candidate), old: None, extra };
            match self.commit(pending).await? {
                Committed::Done(_, Some(entry)) => return Ok(Written { entry, warnings: written_warnings, created: true }),
                Committed::Changed(_) if generated && names < NAMES => names += 1,
                Committed::Changed(existing) => {
                    return Err(exists(resource, candidate.name(), existing.as_ref(), generated).warned(written_warnings));
                }
                Committed::Taken(claim) => drop(learnt.taken.insert(claim)),
                Committed::Done(_, None) | Committed::Again => {}
            }
            if Instant::now() >= deadline {
                return Err(ApiError::timeout("the object could not be created because others were faster", 1));
            }
        }
    }

    /// Brings a new object into the form it is stored in. Returns admission's writes.
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn ready_for_create(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: &mut Object,
        options: &WriteOptions<'_>,
        admit: &dyn Admit,
        learnt: &Learnt,
        warnings: &mut Vec<String>,
    ) -> Result<Extra, ApiError> {
        let ops = &resource.ops;
        let mut extra = Extra::default();
        meta::fill_for_create(resource, object);
        ops.default(object);
        managed::track(resource, options, None, object)?;
        ops.prepare_for_create(object);
        let name = object.name().to_owned();
        let mut attempt = attributes(Operation::Create, resource, (namespace, &name), options, (Some(object), None), (&mut extra, warnings));
        admit.mutate(&mut attempt).await?;
        // Admission may have added what has defaults of its own.
        ops.default(object);
        self.allocate(resource, &resource.key(object.namespace(), &name), object, None, learnt)?;
        let mut errors = meta::validate(resource, object.meta());
        errors.extend(ops.validate(object));
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource.group_kind(), object.name(), &errors));
        }
        Self::warnings(resource, object, warnings);
        let mut attempt = attributes(Operation::Create, resource, (namespace, &name), options, (Some(object), None), (&mut extra, warnings));
        admit.validate(&mut attempt).await?;
        Ok(extra)
    }
}

/// 409, saying whether the one that is in the way is about to go.
fn exists(resource: &Resource, name: &str, existing: Option<&Kv>, generated: bool) -> ApiError {
    let mut error = ApiError::already_exists(resource.group_resource(), name);
    let message = error.0.message.get_or_insert_default();
    if generated {
        message.push_str(", the server was not able to generate a unique name for the object");
        return error.retry_after(1);
    }
    let old = existing.and_then(|kv| kv.value.as_ref().ok()).and_then(|value| resource.ops.decode(value).ok());
    if old.is_some_and(|o| o.meta().deletion_timestamp.is_some()) {
        *message = format!("object is being deleted: {message}");
    }
    error
}

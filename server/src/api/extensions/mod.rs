//! Brings CustomResourceDefinitions into force: accepts their names, serves their kinds, and clears up after them
//! (`k8s.io/apiextensions-apiserver/pkg/{apiserver,controller}`).
//!
//! Owns which run-time rows there are. Follows the cache, so that every server serves the same; what it writes are conditions, which come
//! out the same whoever writes them. Must never touch an object of a kind but to delete it with its definition.

mod cleanup;
pub(super) mod conversion;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
};
use parking_lot::Mutex;
use shared::status::ApiError;

use super::chain::Call;
use super::negotiate;
use super::user::User;
use crate::cache::{Cache, Event, Gone, Interest, Watcher};
use crate::registry::admit::AdmitAll;
use crate::registry::apiextensions::{Convert, Definition, conditions, definition, row};
use crate::registry::store::{Current, Decoded, Store, WriteOptions, from_json};
use crate::registry::{Object, RESOURCES, Resource};
use crate::tasks::Tasks;

/// Pause before something that failed is tried again.
const BACKOFF: Duration = Duration::from_secs(1);

/// Makes what converts a definition's objects; `None` when only the version's name changes.
pub type Converters = Arc<dyn Fn(&CustomResourceDefinition) -> Option<Arc<dyn Convert>> + Send + Sync>;

/// What a served definition was made from; the same again changes nothing.
#[derive(PartialEq)]
struct Made {
    spec: CustomResourceDefinitionSpec,
    names: Option<CustomResourceDefinitionNames>,
}

struct Served {
    made: Made,
    /// The rows of all versions, served or not.
    rows: Vec<&'static Resource>,
}

/// What a request for a kind that was defined at run time may not do. Returns the definition in force, if the kind is such a one.
///
/// # Errors
/// 405 for creating objects of a definition that is being deleted; 415 for strategic merge patches, which need a Rust type.
pub fn permit(call: &Call<'_>, row: &Resource) -> Result<Option<Arc<Definition>>, ApiError> {
    let Some(slot) = &row.custom else { return Ok(None) };
    let verb = call.info.verb;
    if verb == "create" && slot.terminating() {
        let mut error = ApiError::method_not_supported(row.group_resource(), verb);
        error.0.message = Some(format!("{verb} not allowed while custom resource definition is terminating"));
        return Err(error);
    }
    if verb == "patch" && negotiate::media_type(&call.parts.headers) == "application/strategic-merge-patch+json" {
        const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        let text = format!("the body of the request was in an unknown format - accepted media types include: {ACCEPTED}");
        return Err(ApiError::unsupported_media_type(text));
    }
    Ok(Some(slot.current()))
}

struct Extensions {
    store: Store,
    tasks: Tasks,
    user: User,
    converters: Converters,
    crds: &'static Resource,
    served: Mutex<BTreeMap<String, Served>>,
    /// Definitions whose objects are being deleted just now.
    cleaning: Mutex<BTreeSet<String>>,
}

/// Serves what is established already, then follows the definitions in a task of `tasks`.
///
/// # Errors
/// 500 when a stored definition cannot be read: a server that serves only some of its kinds must not start.
pub async fn start(store: Store, converters: Converters, tasks: &Tasks) -> Result<(), ApiError> {
    let crds = RESOURCES.of::<CustomResourceDefinition>().ok_or_else(|| ApiError::internal("customresourcedefinitions are not served"))?;
    let cache = store.cache().clone();
    cache.loaded().await;
    let extensions = Arc::new(Extensions {
        store,
        tasks: tasks.clone(),
        user: User::apiserver(),
        converters,
        crds,
        served: Mutex::default(),
        cleaning: Mutex::default(),
    });
    let watcher = extensions.resync(&cache).await?;
    tasks.spawn("extensions", extensions.run(cache, watcher));
    Ok(())
}

impl Extensions {
    /// Looks at every definition, and starts to watch from there.
    async fn resync(self: &Arc<Self>, cache: &Cache) -> Result<Watcher, ApiError> {
        let snapshot = cache.snapshot(self.crds, "", "", None).map_err(ApiError::internal)?;
        let watcher = cache.watch(self.crds, Interest::All, snapshot.revision).map_err(ApiError::internal)?;
        let mut names: BTreeSet<String> = snapshot.objects.iter().map(|e| e.name.to_string()).collect();
        names.extend(self.served.lock().keys().cloned());
        for name in names {
            self.sync(&name).await?;
        }
        Ok(watcher)
    }

    async fn run(self: Arc<Self>, cache: Cache, mut watcher: Watcher) {
        let mut due: BTreeSet<String> = BTreeSet::new();
        loop {
            match self.drain(&mut watcher, &mut due) {
                Ok(()) => {}
                Err(gone) => {
                    tracing::debug!(%gone, "definitions are read anew");
                    watcher = loop {
                        match self.resync(&cache).await {
                            Ok(watcher) => break watcher,
                            Err(error) => tracing::error!(%error, "definitions of custom resources cannot be read"),
                        }
                        tokio::time::sleep(BACKOFF).await;
                    };
                }
            }
            let mut failed = BTreeSet::new();
            for name in std::mem::take(&mut due) {
                if let Err(error) = self.sync(&name).await {
                    tracing::warn!(name, %error, "a definition of custom resources could not be brought into force, will be tried again");
                    failed.insert(name);
                }
            }
            due = failed;
            if due.is_empty() {
                watcher.changed().await;
            } else {
                let _ = tokio::time::timeout(BACKOFF, watcher.changed()).await;
            }
        }
    }

    fn drain(&self, watcher: &mut Watcher, due: &mut BTreeSet<String>) -> Result<(), Gone> {
        let mut batch: Vec<Arc<Event>> = Vec::new();
        loop {
            batch.clear();
            watcher.ready(&mut batch)?;
            if batch.is_empty() {
                return Ok(());
            }
            for event in &batch {
                due.insert(event.entry.name.to_string());
                // Names that it gives up may be what another of its group waits for.
                let group = event.entry.name.split_once('.').map_or("", |(_, group)| group);
                due.extend(self.waiting_in(group));
            }
        }
    }

    /// Definitions of a group whose names are not all accepted.
    fn waiting_in(&self, group: &str) -> Vec<String> {
        let waits = |crd: &CustomResourceDefinition| crd.spec.group == group && !conditions::is_true(crd, conditions::NAMES_ACCEPTED);
        self.all().unwrap_or_default().iter().filter(|crd| waits(crd)).filter_map(|crd| crd.metadata.name.clone()).collect()
    }

    fn all(&self) -> Result<Vec<CustomResourceDefinition>, ApiError> {
        let entries = self.store.cache().list(self.crds, "").map_err(ApiError::internal)?;
        entries.iter().map(|e| from_json(&e.bytes, None).map_err(ApiError::internal)).collect()
    }

    fn find(&self, name: &str) -> Result<Option<CustomResourceDefinition>, ApiError> {
        let entry = self.store.cache().get(self.crds, "", name).map_err(ApiError::internal)?;
        entry.map(|e| from_json(&e.bytes, None).map_err(ApiError::internal)).transpose()
    }

    /// Brings one definition as far as it can be now.
    async fn sync(self: &Arc<Self>, name: &str) -> Result<(), ApiError> {
        let Some(crd) = self.find(name)? else {
            self.retire(name);
            return Ok(());
        };
        let others = self.all()?;
        let decided = |crd: &CustomResourceDefinition| {
            let mut decided = crd.clone();
            names::decide(&mut decided, &others);
            decided
        };
        let mut current = decided(&crd);
        if current.status != crd.status {
            // The event of this write leads here again.
            current = self.write_status(name, &decided).await?.unwrap_or(current);
        }
        if conditions::is_true(&current, conditions::ESTABLISHED) {
            self.serve(name, &current).await?;
        }
        if current.metadata.deletion_timestamp.is_some() {
            self.clean(name, &current);
        }
        Ok(())
    }

    /// Puts a definition's kinds in force.
    async fn serve(&self, name: &str, crd: &CustomResourceDefinition) -> Result<(), ApiError> {
        let terminating = crd.metadata.deletion_timestamp.is_some();
        let made = Made { spec: crd.spec.clone(), names: crd.status.as_ref().and_then(|s| s.accepted_names.clone()) };
        let announce = |rows: &[&'static Resource]| rows.iter().filter_map(|r| r.custom.as_ref()).for_each(|slot| slot.set_terminating(terminating));
        if let Some(served) = self.served.lock().get(name).filter(|s| s.made == made) {
            announce(&served.rows);
            return Ok(());
        }
        let (schemas, conversion) = (definition::schemas(crd), (self.converters)(crd));
        let rows: Vec<&'static Resource> =
            crd.spec.versions.iter().map(|v| row::publish(crd, v, Definition::new(crd, v, schemas.clone(), conversion.clone()))).collect();
        announce(&rows);
        for row in &rows {
            self.store.cache().add(row).await.map_err(|e| ApiError::unavailable(e.to_string()))?;
        }
        let served = rows.iter().zip(&crd.spec.versions).filter(|(_, v)| v.served).map(|(row, _)| *row).collect();
        self.served.lock().insert(name.to_owned(), Served { made, rows });
        RESOURCES.publish(name, served);
        Ok(())
    }

    /// Ends what a definition that is gone had in force.
    fn retire(&self, name: &str) {
        let Some(served) = self.served.lock().remove(name) else { return };
        RESOURCES.publish(name, Vec::new());
        for row in served.rows {
            self.store.cache().remove(row);
        }
    }

    /// Writes what `change` makes of a definition's status; `None` when the definition is gone.
    async fn write_status(
        &self,
        name: &str,
        change: &(dyn Fn(&CustomResourceDefinition) -> CustomResourceDefinition + Send + Sync),
    ) -> Result<Option<CustomResourceDefinition>, ApiError> {
        let options = WriteOptions { subresource: "status", ..WriteOptions::new(&self.user) };
        let changed = |current: Option<&Current>| {
            let old: Option<&CustomResourceDefinition> = current.and_then(|c| c.object.downcast_ref());
            let old = old.ok_or_else(|| ApiError::not_found(self.crds.group_resource(), name))?;
            Ok(Decoded::from(Object::new(change(old))))
        };
        match self.store.update(self.crds, "", name, &options, &changed, &AdmitAll).await {
            Ok(written) => from_json(&written.entry.bytes, None).map(Some).map_err(ApiError::internal),
            Err(error) if error.code() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

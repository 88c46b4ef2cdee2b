//! The writes of slices, and what of them the cache has not shown yet.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;

use super::reconcile::Plan;
use crate::controllers::Error;
use crate::controllers::error::{aggregate, found};
use crate::controllers::queue::Key;
use crate::informers::{Change, Informer};

/// The resource versions this controller wrote and the cache has not shown yet, so that nothing is planned on stale slices
/// (`EndpointSliceTracker`).
#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<HashMap<Key, Expected>>>);

/// Resource versions by the names of slices; `None` for those deleted.
type Expected = HashMap<String, Option<u64>>;

impl Written {
    fn version(meta: &ObjectMeta) -> u64 {
        meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
    }

    fn wrote(&self, service: &Key, meta: &ObjectMeta) {
        self.0.lock().entry(service.clone()).or_default().insert(meta.name.clone().unwrap_or_default(), Some(Self::version(meta)));
    }

    fn deleted(&self, service: &Key, name: &str) {
        self.0.lock().entry(service.clone()).or_default().insert(name.to_owned(), None);
    }

    /// The Service is gone.
    pub fn forget(&self, service: &Key) {
        self.0.lock().remove(service);
    }

    /// Whether the cache shows everything that was written.
    pub fn is_fresh(&self, service: &Key, slices: &Informer<EndpointSlice>) -> bool {
        let mut all = self.0.lock();
        let Some(names) = all.get_mut(service) else { return true };
        names.retain(|name, version| {
            let cached = slices.get(&service.namespace, name).map(|s| Self::version(&s.metadata));
            match version {
                Some(version) => cached.is_none_or(|c| c < *version),
                None => cached.is_some(),
            }
        });
        let fresh = names.is_empty();
        if fresh {
            all.remove(service);
        }
        fresh
    }

    /// Notes a change. Returns whether somebody else made it, or the Service waits for it.
    pub fn observe(&self, service: &Key, change: &Change<EndpointSlice>) -> bool {
        let mut all = self.0.lock();
        let meta = &change.object().metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let Some(names) = all.get_mut(service) else { return !matches!(change, Change::Added(_)) };
        let expected = match (names.get(name), change) {
            (Some(None), Change::Deleted(_)) => true,
            // It went before the cache showed what was written to it.
            (Some(Some(_)), Change::Deleted(_)) => {
                names.remove(name);
                return true;
            }
            (Some(Some(version)), _) => Self::version(meta) >= *version,
            _ => return true,
        };
        if expected {
            names.remove(name);
        }
        names.is_empty() && expected
    }

    /// Carries a plan out and notes what it wrote.
    ///
    /// # Errors
    /// All failures together; a namespace that is going is none.
    pub async fn carry_out(&self, client: &Client, service: &Key, plan: Plan) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &service.namespace);
        let mut errors = Vec::new();
        for slice in plan.create {
            match api.create(&PostParams::default(), &slice).await.map_err(Error::from) {
                Ok(created) => self.wrote(service, &created.metadata),
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => errors.push(error),
            }
        }
        for slice in plan.update {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            match api.replace(name, &PostParams::default(), &slice).await.map_err(Error::from) {
                Ok(updated) => self.wrote(service, &updated.metadata),
                Err(error) => errors.push(error),
            }
        }
        for slice in plan.delete {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let same = Preconditions { uid: slice.metadata.uid.clone(), resource_version: None };
            match found(api.delete(name, &DeleteParams::default().preconditions(same)).await) {
                Ok(Some(_)) => self.deleted(service, name),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        aggregate(errors)
    }
}

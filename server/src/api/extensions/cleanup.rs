//! Deletes the objects of a definition that is being deleted, then lets it go (`apiextensions-apiserver/pkg/controller/finalizer`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use shared::status::ApiError;

use super::{BACKOFF, Extensions};
use crate::cache::Interest;
use crate::registry::admit::AdmitAll;
use crate::registry::apiextensions::conditions::{self, ESTABLISHED, TERMINATING};
use crate::registry::apiextensions::custom_resource_definition::CLEANUP;
use crate::registry::store::{Current, Decoded, DeleteOptions, ListOptions, WriteOptions};
use crate::registry::{Object, Resource};

/// How long objects with finalizers are waited for before the definition says so.
const PATIENCE: Duration = Duration::from_secs(10);

impl Extensions {
    /// Starts to clear up after a definition, unless that is under way.
    pub(super) fn clean(self: &Arc<Self>, name: &str, crd: &CustomResourceDefinition) {
        let waits = crd.metadata.finalizers.iter().flatten().any(|f| f == CLEANUP);
        if !waits || !self.cleaning.lock().insert(name.to_owned()) {
            return;
        }
        let (extensions, name) = (self.clone(), name.to_owned());
        self.tasks.spawn("extensions/cleanup", async move {
            while let Err(error) = extensions.clean_up(&name).await {
                tracing::debug!(name, %error, "the objects of a definition are not all gone yet");
                tokio::time::sleep(BACKOFF).await;
            }
            extensions.cleaning.lock().remove(&name);
        });
    }

    async fn clean_up(&self, name: &str) -> Result<(), ApiError> {
        let Some(crd) = self.find(name)? else { return Ok(()) };
        if conditions::is_true(&crd, ESTABLISHED) {
            self.say(name, true, "InstanceDeletionInProgress", "CustomResource deletion is in progress").await?;
            let row = self.served.lock().get(name).and_then(|s| s.rows.first().copied());
            if let Some(row) = row
                && let Err(error) = self.delete_all(row).await
            {
                let text = format!("could not confirm zero CustomResources remaining: {error}");
                self.say(name, true, "InstanceDeletionCheck", &text).await?;
                return Err(error);
            }
            self.say(name, false, "InstanceDeletionCompleted", "removed all instances").await?;
        } else {
            self.say(name, false, "NeverEstablished", "resource was never established").await?;
        }
        self.release(name).await
    }

    async fn say(&self, name: &str, terminating: bool, reason: &str, message: &str) -> Result<(), ApiError> {
        let change = |old: &CustomResourceDefinition| {
            let mut new = old.clone();
            conditions::set(&mut new, TERMINATING, terminating, reason, message);
            new
        };
        self.write_status(name, &change).await.map(drop)
    }

    /// Deletes every object of a kind and waits until none is left.
    async fn delete_all(&self, row: &'static Resource) -> Result<(), ApiError> {
        let cache = self.store.cache();
        let mut watcher = cache.watch(row, Interest::All, cache.revision()).map_err(ApiError::internal)?;
        self.store.delete_collection(row, &ListOptions::default(), &DeleteOptions::default(), &self.user, &AdmitAll).await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while cache.count(row) > 0 {
            if tokio::time::timeout_at(deadline, watcher.changed()).await.is_err() {
                return Err(ApiError::timeout("timed out waiting for the condition", 1));
            }
            seen.clear();
            watcher.ready(&mut seen).map_err(ApiError::internal)?;
        }
        Ok(())
    }

    /// Lets the definition go.
    async fn release(&self, name: &str) -> Result<(), ApiError> {
        let options = WriteOptions::new(&self.user);
        let change = |current: Option<&Current>| {
            let old: Option<&CustomResourceDefinition> = current.and_then(|c| c.object.downcast_ref());
            let mut new = old.cloned().ok_or_else(|| ApiError::not_found(self.crds.group_resource(), name))?;
            if let Some(finalizers) = &mut new.metadata.finalizers {
                finalizers.retain(|f| f != CLEANUP);
            }
            Ok(Decoded::from(Object::new(new)))
        };
        match self.store.update(self.crds, "", name, &options, &change, &AdmitAll).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

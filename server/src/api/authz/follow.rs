//! Keeps the authorizer's tables current from the watch cache.

use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use shared::status::ApiError;

use super::Authorizer;
use crate::cache::{Cache, Event, Gone, Interest, Watcher};
use crate::registry::Resource;
use crate::tasks::Tasks;

/// Pause before the tables are read anew after that failed.
const BACKOFF: Duration = Duration::from_secs(1);

type Watched = (&'static Resource, Watcher);

impl Authorizer {
    /// Reads the tables from the cache and follows its events in a task of `tasks`. Returns once the tables are complete.
    ///
    /// # Errors
    /// 500 when a stored role, binding or pod cannot be read: a server that knows only some of its rules must not start.
    pub async fn follow(self: &Arc<Self>, cache: &Cache, tasks: &Tasks) -> Result<(), ApiError> {
        cache.loaded().await;
        let watched = self.rebuild(cache)?;
        let (authorizer, cache) = (self.clone(), cache.clone());
        tasks.spawn("authorizer", async move { authorizer.run(cache, watched).await });
        Ok(())
    }

    /// Replaces the tables by what the cache holds, and starts to watch from there.
    fn rebuild(&self, cache: &Cache) -> Result<Vec<Watched>, ApiError> {
        let fresh = Authorizer::new();
        let mut watched = Vec::new();
        for resource in Self::kinds() {
            let snapshot = cache.snapshot(resource, "", "", None).map_err(ApiError::internal)?;
            let watcher = cache.watch(resource, Interest::All, snapshot.revision).map_err(ApiError::internal)?;
            for entry in &snapshot.objects {
                fresh.apply(resource, entry, false);
            }
            watched.push((resource, watcher));
        }
        *self.rbac.write() = fresh.rbac.into_inner();
        *self.graph.write() = fresh.graph.into_inner();
        Ok(watched)
    }

    async fn run(&self, cache: Cache, mut watched: Vec<Watched>) {
        loop {
            while self.drain(&mut watched).is_ok() {
                select_all(watched.iter_mut().map(|(_, watcher)| Box::pin(watcher.changed()))).await;
            }
            // The tables stay as they were until they can be read as a whole.
            watched = loop {
                match self.rebuild(&cache) {
                    Ok(watched) => break watched,
                    Err(error) => tracing::error!(%error, "authorization rules cannot be read"),
                }
                tokio::time::sleep(BACKOFF).await;
            };
        }
    }

    fn drain(&self, watched: &mut [Watched]) -> Result<(), Gone> {
        let mut batch: Vec<Arc<Event>> = Vec::new();
        for (resource, watcher) in watched {
            loop {
                watcher.ready(&mut batch)?;
                if batch.is_empty() {
                    break;
                }
                for event in batch.drain(..) {
                    self.observe(resource, &event);
                }
            }
        }
        Ok(())
    }
}

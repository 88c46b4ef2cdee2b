//! Named background tasks that can be stopped and are never lost in silence.
//!
//! Owns every long-lived task of the process. A task that panics ends the process's main loop on purpose (see [`Tasks::failed`]).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A group of tasks that stop together. Clones share the group.
#[derive(Clone)]
pub struct Tasks {
    token: CancellationToken,
    shared: Arc<Shared>,
}

struct Shared {
    tracker: TaskTracker,
    /// Names of the tasks that are running, for the shutdown log.
    names: Mutex<Vec<Arc<str>>>,
    /// Name of the first task that panicked.
    failed: watch::Sender<Option<Arc<str>>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        let shared = Shared { tracker: TaskTracker::new(), names: Mutex::default(), failed: watch::Sender::new(None) };
        Tasks { token: CancellationToken::new(), shared: Arc::new(shared) }
    }

    /// A group that stops with this one and can also be stopped alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Tasks { token: self.token.child_token(), shared: self.shared.clone() }
    }

    /// Cancelled when the group is to stop.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs a task that may be dropped at any await when the group stops.
    pub fn spawn(&self, name: impl Into<Arc<str>>, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.spawn_draining(name, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Runs a task that watches [`Self::token`] itself and finishes its work before it ends.
    pub fn spawn_draining(&self, name: impl Into<Arc<str>>, task: impl Future<Output = ()> + Send + 'static) {
        self.track(name.into(), Box::pin(task));
    }

    /// Boxed, so that the machinery below is compiled once and not once for every task.
    fn track(&self, name: Arc<str>, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.shared.names.lock().push(name.clone());
        let shared = self.shared.clone();
        let span = tracing::info_span!("task", %name);
        self.shared.tracker.spawn(async move {
            let outcome = tokio::spawn(task.instrument(span)).await;
            let mut names = shared.names.lock();
            if let Some(at) = names.iter().position(|n| *n == name) {
                names.swap_remove(at);
            }
            drop(names);
            if let Err(error) = outcome
                && error.is_panic()
            {
                tracing::error!(task = %name, "task panicked");
                shared.failed.send_if_modified(|f| f.is_none() && f.replace(name).is_none());
            }
        });
    }

    /// Waits until a task has panicked and returns its name.
    pub async fn failed(&self) -> Arc<str> {
        let mut receiver = self.shared.failed.subscribe();
        loop {
            if let Some(name) = receiver.borrow_and_update().clone() {
                return name;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops the group without waiting.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Stops the group and waits for its tasks; logs the ones still running at the deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        self.token.cancel();
        self.shared.tracker.close();
        if tokio::time::timeout(deadline, self.shared.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = ?self.shared.names.lock(), "tasks did not stop in time");
        }
    }
}

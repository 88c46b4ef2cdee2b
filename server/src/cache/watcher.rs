//! One client's place in the history.

use std::sync::Arc;

use tokio::sync::watch;

use super::history::Ring;
use super::table::{Interest, Joined, Table};
use super::{Event, Inner, Undecodable};

/// Events handed out at a time.
const BATCH: usize = 512;

/// The history does not reach back to where the watcher is: it must list again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Gone {
    /// Too old, or the watcher was too slow.
    #[error("too old resource version: {wanted} ({oldest})")]
    TooOld {
        /// The revision asked for.
        wanted: i64,
        /// The oldest one that could have been.
        oldest: i64,
    },
    /// An object of the kind cannot be read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
}

/// A position in a kind's history; see [`super::Cache::watch`].
pub struct Watcher {
    inner: Arc<Inner>,
    table: Arc<Table>,
    interest: Interest,
    ring: Arc<Ring>,
    end: watch::Receiver<u64>,
    position: u64,
    /// Everything up to here was handed out.
    delivered: i64,
}

impl Watcher {
    pub(super) fn new(inner: Arc<Inner>, table: Arc<Table>, interest: Interest, after: i64) -> Result<Self, Gone> {
        let namespace = match &interest {
            Interest::Namespace(n) | Interest::Object(n, _) => n,
            Interest::All | Interest::Field(..) => "",
        };
        if let Some(bad) = table.undecodable(namespace) {
            return Err(bad.into());
        }
        let Some(Joined { ring, end, position }) = table.join(&interest, after) else {
            return Err(Gone::TooOld { wanted: after, oldest: table.floor() });
        };
        Ok(Watcher { inner, table, interest, ring, end, position, delivered: after })
    }

    /// Appends events that are there now, in order. To be called until it appends none before [`Self::changed`] is waited for.
    ///
    /// # Errors
    /// The watcher was too slow.
    pub fn ready(&mut self, into: &mut Vec<Arc<Event>>) -> Result<(), Gone> {
        self.end.mark_unchanged();
        match self.ring.read(self.position, BATCH, into) {
            Some(position) => {
                self.position = position;
                if let Some(last) = into.last() {
                    self.delivered = self.delivered.max(last.revision());
                }
                Ok(())
            }
            None => Err(Gone::TooOld { wanted: self.delivered, oldest: self.table.floor() }),
        }
    }

    /// Waits until [`Self::ready`] may have something. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        // The ring, with its sender, lives as long as this watcher.
        let _ = self.end.changed().await;
    }

    /// A revision up to which everything was handed out, for a bookmark; `None` when events are waiting.
    pub fn progress(&mut self) -> Option<i64> {
        let revision = self.inner.latest.load(std::sync::atomic::Ordering::Acquire);
        let mut waiting = Vec::new();
        let end = self.ring.read(self.position, 1, &mut waiting)?;
        if end != self.position || revision < self.delivered {
            return None;
        }
        self.delivered = revision;
        Some(revision)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.table.leave(&self.interest, &self.ring);
    }
}

//! The one watch over everything: batches of changes, in order, until something breaks.
//!
//! Never reconnects by itself: whoever holds it knows from which revision to go on.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};

use super::pool::{MAX_MESSAGE, Pool};
use super::{Opened, PREFIX, StorageError, Transform};

/// One change of one key.
pub struct Change<'a> {
    /// Full etcd key.
    pub key: &'a str,
    /// Its new value; `None` when it was deleted.
    pub value: Option<Opened>,
    /// The revision of the change.
    pub revision: i64,
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// History from the wanted revision on is gone: everything must be read anew.
    #[error("revision is compacted up to {0}")]
    Compacted(i64),
    /// Etcd has not come to that revision yet: it was restored from an older state.
    #[error("etcd cancelled the watch: {0}")]
    Cancelled(String),
    /// The connection broke, or the member lost its leader.
    #[error("{0}")]
    Lost(StorageError),
}

/// An open watch.
pub struct Watch {
    stream: WatchStream,
    transform: Arc<dyn Transform>,
    /// The member it is connected to.
    member: usize,
    pool: Arc<Pool>,
}

/// Changes that arrived together: always whole revisions.
pub struct Batch {
    response: WatchResponse,
    transform: Arc<dyn Transform>,
}

impl Batch {
    /// The changes, in order. Keys that are not UTF-8 are not ours and are left out.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.response.events().iter().filter_map(|event| {
            let kv = event.kv()?;
            let key = kv.key_str().ok()?;
            let value = (event.event_type() == EventType::Put).then(|| self.transform.open(key, kv.value()));
            Some(Change { key, value, revision: kv.mod_revision() })
        })
    }
}

pub(super) async fn open(pool: &Arc<Pool>, transform: Arc<dyn Transform>, from: i64, deadline: Duration) -> Result<Watch, StorageError> {
    let member = pool.preferred();
    let mut client = pool.watch_client(member).watch_client().max_decoding_message_size(MAX_MESSAGE);
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let opened = tokio::time::timeout(deadline, client.watch(PREFIX, Some(options))).await;
    match opened {
        Ok(Ok(stream)) => Ok(Watch { stream, transform, member, pool: pool.clone() }),
        Ok(Err(error)) => {
            pool.failed(member);
            Err(error.into())
        }
        Err(_) => {
            pool.failed(member);
            Err(StorageError::Unavailable("opening the watch timed out".into()))
        }
    }
}

impl Watch {
    /// The next changes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The watch has ended and must be opened again.
    pub async fn next(&mut self) -> Result<Batch, WatchError> {
        loop {
            let response = match self.stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return Err(self.lost(StorageError::Unavailable("etcd closed the watch".into()))),
                Err(error) => {
                    let error = error.into();
                    return Err(self.lost(error));
                }
            };
            if response.compact_revision() > 0 {
                return Err(WatchError::Compacted(response.compact_revision()));
            }
            if response.canceled() {
                return Err(WatchError::Cancelled(response.cancel_reason().to_owned()));
            }
            if !response.events().is_empty() {
                return Ok(Batch { response, transform: self.transform.clone() });
            }
        }
    }

    fn lost(&self, error: StorageError) -> WatchError {
        self.pool.failed(self.member);
        WatchError::Lost(error)
    }
}

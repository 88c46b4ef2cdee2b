//! Throws etcd's history away every five minutes, in one server of several
//! (`k8s.io/apiserver/pkg/storage/etcd3/compact.go`).
//!
//! Each server tries to move one record on; who succeeds compacts up to where the record stood before, so that watches and pages may
//! lag by at least one interval.

use std::time::Duration;

use bytes::Bytes;

use super::{Expect, OWN_PREFIX, Outcome, Storage, StorageError, Write};

/// Upstream's `--etcd-compaction-interval`.
pub const INTERVAL: Duration = Duration::from_secs(300);

/// Compacts until it is dropped.
pub async fn run(storage: Storage, interval: Duration) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(interval).await;
        match step(&storage, seen).await {
            Ok(now) => seen = now,
            Err(error) => tracing::warn!(%error, "compaction failed, will be tried again"),
        }
    }
}

/// Moves the record on from the revision it was last seen at (0: never) and compacts up to there.
/// Returns where the record stands now.
pub(crate) async fn step(storage: &Storage, seen: i64) -> Result<i64, StorageError> {
    let key = format!("{OWN_PREFIX}compact-revision");
    let expect = if seen == 0 { Expect::Absent } else { Expect::Revision(seen) };
    let write = Write { key, expect, value: Some(Bytes::from(seen.to_string())), lease: 0 };
    match storage.commit(&[write]).await? {
        Outcome::Committed { revision } => {
            if seen > 0 {
                storage.compact(seen).await?;
                tracing::debug!(revision = seen, "compacted");
            }
            Ok(revision)
        }
        Outcome::Conflict { current, .. } => Ok(current.into_iter().flatten().next().map_or(0, |kv| kv.revision)),
    }
}

//! Leases for objects that expire. Granting one an object would drown etcd, so objects of the same minute share one
//! (`k8s.io/apiserver/pkg/storage/etcd3/lease_manager.go`).

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::StorageError;
use super::pool::Pool;

/// How long a lease is given out; it lives this much longer than asked, so that no object dies early.
const REUSE: Duration = Duration::from_secs(60);
/// Objects that may share a lease.
const OBJECTS: u32 = 1000;

struct Granted {
    id: i64,
    at: Instant,
    objects: u32,
}

#[derive(Default)]
pub(super) struct Leases {
    /// The lease given out now for each time to live.
    current: Mutex<HashMap<Duration, Granted>>,
}

impl Leases {
    pub(super) async fn get(&self, pool: &Pool, ttl: Duration, deadline: Instant) -> Result<i64, StorageError> {
        if let Some(id) = self.reuse(ttl) {
            return Ok(id);
        }
        let seconds = i64::try_from((ttl + REUSE).as_secs()).unwrap_or(i64::MAX);
        let mut client = pool.client();
        let granted = match tokio::time::timeout_at(deadline, client.lease_grant(seconds, None)).await {
            Ok(response) => response?,
            Err(_) => return Err(StorageError::Unavailable("granting a lease timed out".into())),
        };
        // A concurrent caller may have been granted one too; the later simply replaces the earlier.
        self.current.lock().insert(ttl, Granted { id: granted.id(), at: Instant::now(), objects: 1 });
        Ok(granted.id())
    }

    fn reuse(&self, ttl: Duration) -> Option<i64> {
        let mut current = self.current.lock();
        let granted = current.get_mut(&ttl)?;
        if granted.at.elapsed() >= REUSE || granted.objects >= OBJECTS {
            return None;
        }
        granted.objects += 1;
        Some(granted.id)
    }

    pub(super) fn forget(&self, id: i64) {
        self.current.lock().retain(|_, granted| granted.id != id);
    }
}

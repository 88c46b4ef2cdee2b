//! What a controller has asked for and not yet seen happen. A controller that creates must not look at its cache again before the
//! cache shows what it did, or it does it twice (`pkg/controller/controller_utils.go`, UIDTrackingControllerExpectations).
//!
//! Unlike upstream's counters, creations are expected by name: names are chosen here before the request is sent, so an event about
//! any other object never fulfils an expectation, and after a time-out the object can be looked for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::queue::Key;

/// After this long without a sign the expectation is dropped and the cache is believed.
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Entry {
    creations: HashSet<String>,
    deletions: HashSet<String>,
    /// Creations that got no answer.
    doubtful: HashSet<String>,
    since: Option<Instant>,
}

/// The expectations of a controller, by the key of the owning object. Clones share them.
#[derive(Clone, Default)]
pub struct Expectations(Arc<Mutex<HashMap<Key, Entry>>>);

impl Expectations {
    /// Whether the cache shows everything that was done for `owner`, or it has taken too long.
    pub fn satisfied(&self, owner: &Key) -> bool {
        let mut entries = self.0.lock();
        let Some(entry) = entries.get(owner) else { return true };
        let fulfilled = entry.creations.is_empty() && entry.deletions.is_empty();
        if fulfilled || entry.since.is_none_or(|since| since.elapsed() > TIMEOUT) {
            entries.remove(owner);
            return true;
        }
        false
    }

    /// These names are about to be created.
    pub fn expect_creations(&self, owner: &Key, names: impl IntoIterator<Item = String>) {
        let mut entries = self.0.lock();
        let entry = entries.entry(owner.clone()).or_default();
        entry.creations.extend(names);
        entry.since = Some(Instant::now());
    }

    /// These names are about to be deleted.
    pub fn expect_deletions(&self, owner: &Key, names: impl IntoIterator<Item = String>) {
        let mut entries = self.0.lock();
        let entry = entries.entry(owner.clone()).or_default();
        entry.deletions.extend(names);
        entry.since = Some(Instant::now());
    }

    /// The creation is in the cache, or will never be.
    pub fn creation_observed(&self, owner: &Key, name: &str) {
        if let Some(entry) = self.0.lock().get_mut(owner) {
            entry.creations.remove(name);
            entry.doubtful.remove(name);
        }
    }

    /// The deletion is in the cache, or will never be.
    pub fn deletion_observed(&self, owner: &Key, name: &str) {
        if let Some(entry) = self.0.lock().get_mut(owner) {
            entry.deletions.remove(name);
        }
    }

    /// Nobody knows whether this creation happened.
    pub fn creation_doubtful(&self, owner: &Key, name: &str) {
        if let Some(entry) = self.0.lock().get_mut(owner)
            && entry.creations.contains(name)
        {
            entry.doubtful.insert(name.to_owned());
        }
    }

    /// Creations that got no answer and have not been seen.
    pub fn doubtful(&self, owner: &Key) -> Vec<String> {
        self.0.lock().get(owner).map(|entry| entry.doubtful.iter().cloned().collect()).unwrap_or_default()
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.0.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_named_object_fulfils_an_expectation() {
        let (expectations, owner) = (Expectations::default(), Key::new("ns", "rs"));
        assert!(expectations.satisfied(&owner));
        expectations.expect_creations(&owner, ["a".to_owned(), "b".to_owned()]);
        expectations.creation_observed(&owner, "other");
        expectations.creation_observed(&owner, "a");
        expectations.creation_observed(&owner, "a");
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner, "b");
        assert!(expectations.satisfied(&owner));
        expectations.expect_deletions(&owner, ["a".to_owned()]);
        assert!(!expectations.satisfied(&owner));
        expectations.deletion_observed(&owner, "a");
        assert!(expectations.satisfied(&owner));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expectation_is_dropped_after_five_minutes() {
        let (expectations, owner) = (Expectations::default(), Key::new("ns", "rs"));
        expectations.expect_creations(&owner, ["a".to_owned()]);
        tokio::time::advance(Duration::from_secs(299)).await;
        assert!(!expectations.satisfied(&owner));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(expectations.satisfied(&owner));
    }
}

//! What this server has been told by etcd: where nobody else writes, a reader need not ask for more.
//!
//! Owns the newest revision that anybody can have seen, and whether a write may have happened that nobody was told of.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

#[derive(Default)]
pub(super) struct Known {
    /// The newest revision that an answer of etcd's or the cache has shown.
    revision: AtomicI64,
    /// Writes that ended without an answer, and how many of them a later look at etcd has made up for.
    unanswered: AtomicU64,
    settled: AtomicU64,
}

impl Known {
    pub(super) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Something of this revision was shown.
    pub(super) fn at_least(&self, revision: i64) {
        self.revision.fetch_max(revision, Ordering::AcqRel);
    }

    /// Etcd has been put back to this revision.
    pub(super) fn at_most(&self, revision: i64) {
        self.revision.fetch_min(revision, Ordering::AcqRel);
    }

    /// A write that counts as unanswered until its outcome is known.
    pub(super) fn pending(&self) -> Pending<'_> {
        Pending(Some(self))
    }

    /// How many writes have ended without an answer, if any has since etcd was last asked.
    pub(super) fn unanswered(&self) -> Option<u64> {
        let unanswered = self.unanswered.load(Ordering::Acquire);
        (unanswered > self.settled.load(Ordering::Acquire)).then_some(unanswered)
    }

    /// Etcd was asked after so many writes had ended without an answer.
    pub(super) fn settle(&self, unanswered: u64) {
        self.settled.fetch_max(unanswered, Ordering::AcqRel);
    }
}

/// See [`Known::pending`].
pub(super) struct Pending<'a>(Option<&'a Known>);

impl Pending<'_> {
    /// It is known whether the write happened.
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(known) = self.0 {
            known.unanswered.fetch_add(1, Ordering::AcqRel);
        }
    }
}

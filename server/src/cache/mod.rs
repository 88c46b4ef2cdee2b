//! Every object in memory, fed by one etcd watch over `/registry/`, encoded once and shared as bytes by reads, lists and watches.
//!
//! Owns the copies and the event history. Must never write.

use std::sync::Arc;

use bytes::Bytes;

/// One object at one revision. Immutable and shared.
#[derive(Debug)]
pub struct Entry {
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Etcd mod_revision: the object's resourceVersion.
    pub revision: i64,
    /// Labels, sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the kind's selectable fields, in the order of `Resource::fields`; absent ones are empty.
    pub fields: Box<[Box<str>]>,
    /// The object's JSON, with its resourceVersion.
    pub bytes: Bytes,
}

impl shared::selector::Labels for Entry {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|i| &*self.labels[i].1)
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub struct Event {
    /// The object after the change; for a deletion its last state, at the deletion's revision.
    pub entry: Arc<Entry>,
    /// The object before the change, if it existed.
    pub previous: Option<Arc<Entry>>,
    /// Whether it was deleted.
    pub deleted: bool,
}

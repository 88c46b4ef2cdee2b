//! The only module that knows etcd: conditional transactions, reads, one watch, leases, compaction.
//!
//! Owns the connections. Must never interpret an object.

use bytes::Bytes;

/// What must hold of a key for a transaction to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key's mod_revision is this one.
    Revision(i64),
}

/// One conditional change of a transaction.
#[derive(Clone, Debug)]
pub struct Write {
    /// Full etcd key, below `/registry/`.
    pub key: String,
    /// The condition.
    pub expect: Expect,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
    /// Etcd lease that the key dies with; 0 is none.
    pub lease: i64,
}

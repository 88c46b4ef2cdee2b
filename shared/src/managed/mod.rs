//! Who owns which field: the pure part of server-side apply (`sigs.k8s.io/structured-merge-diff`).
//!
//! Owns the sets of fields that `metadata.managedFields` carries, what a write changes of them, and how an applied configuration is merged
//! into an object. Which manager writes, and when, is its caller's business.

mod atomics;
mod compare;
mod merge;
mod path;
mod schema;
mod set;
#[cfg(test)]
mod tests;
mod updater;
mod walk;

pub use atomics::atomics;
pub use compare::{Comparison, compare};
pub use merge::{merge, remove};
pub use path::{Atom, Path, PathElement};
pub use schema::Type;
pub use set::{BadFields, Set};
pub use updater::{Conflict, Manager, Managers, Operation, Owned, apply, update};
pub use walk::{fields_of, locate};

//! The patches that an object can be changed by: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch.
//!
//! Owns pure functions over JSON values. Which patch a request carries, and what may be patched, is its caller's business.

pub mod json;
pub mod strategic;

/// Why a patch cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is not a patch of its kind (400).
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object (422).
    #[error("{0}")]
    Rejected(String),
}

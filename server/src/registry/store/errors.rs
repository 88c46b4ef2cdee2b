//! What etcd and the cache answer, as Kubernetes `Status` objects (`k8s.io/apiserver/pkg/registry/generic/registry/storage_factory.go`,
//! `k8s.io/apiserver/pkg/storage/errors.go`).

use shared::status::ApiError;

use crate::cache::{CacheError, Gone, Undecodable};
use crate::storage::StorageError;

pub(super) fn storage(error: StorageError) -> ApiError {
    match error {
        StorageError::Unavailable(_) => ApiError::unavailable(error.to_string()).retry_after(1),
        StorageError::Unknown(_) => ApiError::timeout(format!("request did not complete within the allotted time: {error}"), 1),
        StorageError::TooLarge(_) => ApiError::new(413, "RequestEntityTooLarge", format!("Request entity too large: {error}")),
        StorageError::NoSpace(_) | StorageError::Other(_) | StorageError::LeaseGone => ApiError::internal(error),
        StorageError::Compacted => ApiError::expired("The resourceVersion for the provided list is too old."),
    }
}

/// Whether an error leaves open what has become of a write.
pub(super) fn outcome_unknown(error: &ApiError) -> bool {
    error.code() == 504
}

pub(super) fn cache(error: CacheError) -> ApiError {
    match error {
        CacheError::Storage(error) => storage(error),
        CacheError::Behind { .. } => ApiError::timeout(error.to_string(), 1),
        CacheError::Undecodable(error) => undecodable(error),
    }
}

/// A resourceVersion that etcd has not come to yet.
pub(super) fn future_revision(error: CacheError) -> ApiError {
    match error {
        CacheError::Behind { current, wanted } => {
            let text = format!("Too large resource version: {wanted}, current: {current}");
            ApiError::timeout(text, 1).cause("ResourceVersionTooLarge", "", "Too large resource version")
        }
        other => cache(other),
    }
}

pub(super) fn undecodable(error: Undecodable) -> ApiError {
    tracing::error!(key = error.key, reason = error.reason, "a stored object cannot be read");
    ApiError::internal(format!("unable to decode {}: {}", error.key, error.reason))
}

pub(super) fn gone(error: Gone) -> ApiError {
    match error {
        Gone::TooOld { .. } => ApiError::expired(error.to_string()),
        Gone::Undecodable(error) => undecodable(error),
    }
}

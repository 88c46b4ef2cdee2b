//! What can go wrong with a call to etcd, reduced to what callers do differently.

use std::error::Error as _;

use etcd_client::Error;
use tonic::Code;

use super::channel::NotSent;

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// Etcd cannot be reached, or has no leader; the call was not carried out.
    #[error("etcd is unavailable: {0}")]
    Unavailable(String),
    /// No answer in time; a write may or may not have happened.
    #[error("no answer from etcd: {0}")]
    Unknown(String),
    /// More than etcd takes in one request.
    #[error("etcd: {0}")]
    TooLarge(String),
    /// Etcd's quota is used up (`mvcc: database space exceeded`).
    #[error("etcd: {0}")]
    NoSpace(String),
    /// The revision asked for is compacted.
    #[error("etcd: the required revision has been compacted")]
    Compacted,
    /// The lease is gone.
    #[error("etcd: the lease is not found")]
    LeaseGone,
    /// Anything else.
    #[error("etcd: {0}")]
    Other(String),
}

impl StorageError {
    /// Whether another attempt may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, StorageError::Unavailable(_) | StorageError::Unknown(_))
    }
}

impl From<Error> for StorageError {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => classify(&status),
            Error::IoError(error) => StorageError::Unknown(error.to_string()),
            other => StorageError::Other(other.to_string()),
        }
    }
}

fn classify(status: &tonic::Status) -> StorageError {
    let message = status.message();
    match status.code() {
        Code::OutOfRange if message.contains("compacted") => StorageError::Compacted,
        Code::ResourceExhausted if message.contains("database space") => StorageError::NoSpace(message.to_owned()),
        Code::ResourceExhausted if message.contains("too many requests") => StorageError::Unavailable(message.to_owned()),
        Code::ResourceExhausted if message.contains("larger than") => StorageError::TooLarge(message.to_owned()),
        Code::InvalidArgument if message.contains("too large") || message.contains("too many operations") => {
            StorageError::TooLarge(message.to_owned())
        }
        Code::NotFound if message.contains("lease not found") => StorageError::LeaseGone,
        Code::Unavailable | Code::Unknown if never_sent(status) => StorageError::Unavailable(root(status)),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal | Code::Aborted | Code::ResourceExhausted => {
            StorageError::Unknown(root(status))
        }
        _ => StorageError::Other(message.to_owned()),
    }
}

/// Whether the request cannot have reached a member that would carry it out.
fn never_sent(status: &tonic::Status) -> bool {
    status.message().contains("no leader") || std::iter::successors(status.source(), |&error| error.source()).any(|error| error.is::<NotSent>())
}

/// The innermost reason, which is what a person wants to read.
fn root(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_messages_become_the_cases_callers_tell_apart() {
        let of = |code, message: &str| StorageError::from(Error::GRpcStatus(tonic::Status::new(code, message)));
        assert!(matches!(of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"), StorageError::Compacted));
        assert!(matches!(of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"), StorageError::NoSpace(_)));
        assert!(matches!(of(Code::InvalidArgument, "etcdserver: request is too large"), StorageError::TooLarge(_)));
        assert!(matches!(of(Code::Unavailable, "etcdserver: no leader"), StorageError::Unavailable(_)));
        assert!(matches!(of(Code::Unavailable, "etcdserver: request timed out"), StorageError::Unknown(_)));
        assert!(matches!(of(Code::Unavailable, "etcdserver: leader changed"), StorageError::Unknown(_)));
        assert!(matches!(of(Code::NotFound, "etcdserver: requested lease not found"), StorageError::LeaseGone));
        assert!(matches!(of(Code::PermissionDenied, "etcdserver: permission denied"), StorageError::Other(_)));
    }
}

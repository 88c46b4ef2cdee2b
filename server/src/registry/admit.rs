//! The seam between the store and admission: what a write is, and who may still change or refuse it.
//!
//! The store calls it inside its compare-and-retry loop, so it may run more than once for one request and must not have
//! side effects of its own: what it wants written goes into [`Attributes::writes`], in the same transaction as the object.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde_json::Value;
use shared::status::ApiError;

use super::{Object, Resource};
use crate::api::user::User;
use crate::storage::Write;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object, by PUT or PATCH.
    Update,
    /// A deletion; `object` is `None` and `old` is what is to go.
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

/// One write, as admission sees it.
pub struct Attributes<'a> {
    /// What it does.
    pub operation: Operation,
    /// The kind.
    pub resource: &'static Resource,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Name; may still be empty with generateName before the store has made one up.
    pub name: &'a str,
    /// Who asks.
    pub user: &'a User,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// Under whose name changed fields are owned.
    pub field_manager: &'a str,
    /// What a connection is asked for (`PodExecOptions`, …), in JSON.
    pub options: Option<&'a Value>,
    /// The object to be stored.
    pub object: Option<&'a mut Object>,
    /// The object as it is stored now.
    pub old: Option<&'a Object>,
    /// Further conditional writes for the same transaction, such as a quota's use. If one's condition fails, all is tried anew.
    pub writes: &'a mut Vec<Write>,
    /// What is to live until the transaction's outcome is known. The store starts every attempt with an empty list, calls
    /// [`Held::committed`] on each once the transaction went through, and drops them otherwise, before it tries anew.
    pub held: &'a mut Vec<Box<dyn Held>>,
    /// Texts for `Warning:` headers.
    pub warnings: &'a mut Vec<String>,
    /// What mutation by others than the server's own plugins has come to.
    pub reinvocation: Reinvocation,
}

/// Whether plugins are to see the object again, because a webhook or policy changed it after they had
/// (`k8s.io/apiserver/pkg/admission/reinvocation.go`).
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// This is the second time.
    pub second: bool,
    /// Something was changed, so there is to be a second time.
    pub wanted: bool,
    /// Who has been asked, and wants to be asked again.
    pub asked: BTreeSet<String>,
    /// Those among them after whom something was changed.
    pub due: BTreeSet<String>,
    /// The object as the last webhook, or policy, left it.
    pub left: BTreeMap<&'static str, Value>,
}

/// Something that admission holds while a transaction is under way, such as the lock on a namespace's quota.
pub trait Held: Send + Sync {
    /// The transaction went through at this revision.
    fn committed(self: Box<Self>, revision: i64);
}

/// Decides on writes.
#[async_trait]
pub trait Admit: Send + Sync {
    /// May change the object. Runs after defaulting and before validation.
    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError>;
    /// May only refuse, or add writes. Runs after validation.
    async fn validate(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError>;
}

/// Admits everything: for the server's own bootstrap and for tests of the store.
pub struct AdmitAll;

#[async_trait]
impl Admit for AdmitAll {
    async fn mutate(&self, _: &mut Attributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }
    async fn validate(&self, _: &mut Attributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

//! ServiceAccounts (`pkg/registry/core/serviceaccount/strategy.go`).

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use crate::registry::{Column, PrintContext, Strategy, Subresource, print};

/// See the module.
pub struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    type Object = ServiceAccount;
    const PLURAL: &'static str = "serviceaccounts";
    const SINGULAR: &'static str = "serviceaccount";
    const SHORT_NAMES: &'static [&'static str] = &["sa"];
    const SUBRESOURCES: &'static [Subresource] =
        &[Subresource { name: "token", kind: "TokenRequest", group: "authentication.k8s.io", version: "v1", verbs: &["create"] }];
    const COLUMNS: &'static [Column] = &[Column::name(), print::AGE];

    fn cells(object: &ServiceAccount, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), print::age(&object.metadata, context)]
    }
}

//! The authorizer's functions (`k8s.io/apiserver/pkg/cel/library/authz.go`). Each of its values answers by itself, as an
//! [`Opaque`](crate::cel::Opaque); what arrives here is a call on something else.

use super::{Function, no_overload};

const NAMES: &[&str] = &[
    "path",
    "group",
    "serviceAccount",
    "resource",
    "subresource",
    "namespace",
    "name",
    "fieldSelector",
    "labelSelector",
    "check",
    "allowed",
    "errored",
    "error",
    "reason",
];

pub(super) fn find(name: &str) -> Option<Function> {
    NAMES.contains(&name).then_some((|_, _| no_overload()) as Function)
}

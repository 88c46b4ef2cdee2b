//! Dynamic admission: what webhooks and policies, which users add at run time, have in common
//! (`k8s.io/apiserver/pkg/admission/plugin/webhook`, `…/plugin/policy`).
//!
//! Owns matching, the request as it is shown to them, CEL's view of it, and the connections to webhooks. The plugins are files of their own
//! beside this directory. Must never call anybody about the objects that configure it.

pub(super) mod authorizer;
pub(super) mod client;
pub(super) mod conditions;
pub(super) mod environment;
pub(super) mod matching;
pub(super) mod metrics;
pub(super) mod params;
pub(super) mod policy;
pub(super) mod request;
pub(super) mod review;
pub(super) mod transport;

//! CertificateSigningRequests: approval of what nodes may have, and an end for what is over (`pkg/controller/certificates`).
//!
//! Owns the `Approved` condition it gives itself.

use std::future::Future;
use std::sync::Arc;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::queue::{Key, Queue};
use super::{Context, Error, now, synced};
use crate::informers::{Change, Informer};

pub mod approver;
pub mod cleaner;
pub(super) mod request;

/// Kubelets as clients of the API server.
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Kubelets as servers.
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

fn conditions(request: &CertificateSigningRequest) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    request.status.iter().flat_map(|s| s.conditions.iter().flatten())
}

fn condition<'a>(request: &'a CertificateSigningRequest, type_: &str) -> Option<&'a CertificateSigningRequestCondition> {
    conditions(request).find(|c| c.type_ == type_)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

/// Adds a condition.
fn add_condition(request: &mut CertificateSigningRequest, type_: &str, reason: &str, message: &str) {
    let at = now();
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: type_.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(at.clone()),
        last_transition_time: Some(at),
    });
}

/// Works on every request that is new or changes.
fn follow<F, Fut>(ctx: &Context, queue: &Queue<Key>, handler: F)
where
    F: Fn(Arc<CertificateSigningRequest>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send,
{
    let requests: Informer<CertificateSigningRequest> = ctx.informers.get();
    let all = requests.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().map(|r| Key::of(&**r)).collect());
    let into = queue.clone();
    ctx.on(&requests, move |change| {
        if !matches!(change, Change::Deleted(_)) {
            into.add(Key::of(&**change.object()));
        }
    });
    let handler = Arc::new(handler);
    ctx.work(queue, 2, vec![synced(&requests)], move |key| {
        let (requests, handler) = (requests.clone(), handler.clone());
        async move {
            match requests.get("", &key.name) {
                Some(request) => handler(request).await,
                None => Ok(()),
            }
        }
    });
}

//! postStart and preStop hooks (`pkg/kubelet/lifecycle/handlers.go`).
//!
//! Runs one hook; when and with what consequence is the caller's.

use std::time::Duration;

use k8s_openapi::api::core::v1::{LifecycleHandler, TCPSocketAction};

use crate::kubelet::probes::check::{self, Outcome, Target};

/// Runs a hook to its end: it has no time limit of its own. The error is for the user.
pub async fn run(target: &Target, handler: &LifecycleHandler) -> Result<(), String> {
    let outcome = if let Some(action) = &handler.exec {
        check::exec(target, action, None).await
    } else if let Some(action) = &handler.http_get {
        // Whatever the server answers, it has been told.
        check::http_hook(target, action, "kube-lifecycle/1.36").await
    } else if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
        Outcome::Success
    } else if let Some(TCPSocketAction { .. }) = &handler.tcp_socket {
        // Upstream never implemented it either: validation accepts it, running it is an error.
        Outcome::Error("invalid handler: tcpSocket lifecycle hooks cannot be run".into())
    } else {
        Outcome::Error("invalid handler: nothing to run".into())
    };
    match outcome {
        Outcome::Success => Ok(()),
        Outcome::Failure(text) | Outcome::Error(text) => Err(text),
    }
}

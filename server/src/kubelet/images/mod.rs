//! Makes sure that a container's image is present: pull policy, credentials, backoff, events (`pkg/kubelet/images/image_manager.go`).
//!
//! Owns the pull backoff of every pod and image, and bounds how many pulls run at once.

pub mod credentials;
pub mod gc;
pub mod import;
pub mod name;
pub mod pause;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Secret};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::pods::backoff::{self, Backoff};
use super::runtime::{Runtime, RuntimeError};
use crate::events::Kind;

/// How long a failed pull shows as `ErrImagePull` before it shows as `ImagePullBackOff`.
const SHOWN: Duration = Duration::from_secs(2);
/// Pulls that may run at once.
const PARALLEL_PULLS: usize = 4;

/// Why a container has to wait for its image: reason and message as in `state.waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName` or `ImageInspectError`.
    pub reason: &'static str,
    /// What to tell the user.
    pub message: String,
    /// When to try again.
    pub retry_in: Duration,
}

/// What happens while an image is made available, for the event recorder.
pub trait Report: Send + Sync {
    /// Records an event on the container.
    fn event(&self, kind: Kind, reason: &'static str, message: String);
}

/// The images of a node.
pub struct Images {
    runtime: Runtime,
    pulls: Semaphore,
    backoff: Mutex<HashMap<(String, String), Failure>>,
}

struct Failure {
    backoff: Backoff,
    /// Unix nanoseconds.
    failed_at: i64,
    message: String,
}

/// Whether the policy asks for a pull.
fn should_pull(policy: &str, present: bool) -> bool {
    match policy {
        "Never" => false,
        "Always" => true,
        _ => !present,
    }
}

/// The policy of a container; absent means Always for `:latest` and IfNotPresent otherwise, as the API server defaults it.
fn policy(container: &Container) -> &str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if name::is_latest(container.image.as_deref().unwrap_or_default()) => "Always",
        _ => "IfNotPresent",
    }
}

impl Images {
    /// No pull has failed yet.
    pub fn new(runtime: Runtime) -> Self {
        Images { runtime, pulls: Semaphore::new(PARALLEL_PULLS), backoff: Mutex::default() }
    }

    /// Makes the image of a container present and returns the reference to create the container with.
    pub async fn ensure(
        &self,
        pod_uid: &str,
        container: &Container,
        secrets: &[std::sync::Arc<Secret>],
        sandbox: &cri::PodSandboxConfig,
        report: &dyn Report,
    ) -> Result<String, Unavailable> {
        let wanted = container.image.clone().unwrap_or_default();
        let Some(image) = name::with_tag(&wanted) else {
            let message = format!("Failed to apply default image tag \"{wanted}\": couldn't parse image name \"{wanted}\": invalid reference format");
            report.event(Kind::Warning, "InspectFailed", message.clone());
            return Err(Unavailable { reason: "InvalidImageName", message, retry_in: Duration::from_secs(300) });
        };
        let present = self.inspect(&image, &wanted, report).await?;
        let policy = policy(container);
        if !should_pull(policy, present.is_some()) {
            return match present {
                Some(found) => {
                    let text = format!("Container image \"{wanted}\" already present on machine and can be accessed by the pod");
                    report.event(Kind::Normal, "Pulled", text);
                    Ok(found.id)
                }
                None => {
                    let message = format!("Container image \"{wanted}\" is not present with pull policy of Never");
                    report.event(Kind::Warning, "ErrImageNeverPull", message.clone());
                    Err(Unavailable { reason: "ErrImageNeverPull", message, retry_in: Duration::from_secs(10) })
                }
            };
        }
        self.pull(pod_uid, &wanted, &image, secrets, sandbox, report).await
    }

    async fn inspect(&self, image: &str, wanted: &str, report: &dyn Report) -> Result<Option<cri::Image>, Unavailable> {
        self.runtime.image_status(image).await.map_err(|error| {
            let message = format!("Failed to inspect image \"{wanted}\": {error}");
            report.event(Kind::Warning, "InspectFailed", message.clone());
            Unavailable { reason: "ImageInspectError", message, retry_in: Duration::from_secs(10) }
        })
    }

    async fn pull(
        &self,
        pod_uid: &str,
        wanted: &str,
        image: &str,
        secrets: &[std::sync::Arc<Secret>],
        sandbox: &cri::PodSandboxConfig,
        report: &dyn Report,
    ) -> Result<String, Unavailable> {
        let key = (pod_uid.to_owned(), wanted.to_owned());
        if let Some(refused) = self.in_backoff(&key, wanted) {
            report.event(Kind::Normal, "BackOff", format!("Back-off pulling image \"{wanted}\""));
            return Err(refused);
        }
        report.event(Kind::Normal, "Pulling", format!("Pulling image \"{wanted}\""));
        let asked = Instant::now();
        let permit = self.pulls.acquire().await;
        let started = Instant::now();
        let result = self.pull_with_credentials(image, secrets, sandbox).await;
        drop(permit);
        match result {
            Ok(reference) => {
                self.backoff.lock().remove(&key);
                let size = self.runtime.image_status(image).await.ok().flatten().map_or(0, |i| i.size);
                let (alone, all) = (go_duration(started.elapsed()), go_duration(asked.elapsed()));
                let text = format!("Successfully pulled image \"{wanted}\" in {alone} ({all} including waiting). Image size: {size} bytes.");
                report.event(Kind::Normal, "Pulled", text);
                Ok(reference)
            }
            Err(error) => {
                report.event(Kind::Warning, "Failed", format!("Failed to pull image \"{wanted}\": {error}"));
                let mut failures = self.backoff.lock();
                let failure = failures.entry(key).or_insert_with(|| Failure { backoff: Backoff::default(), failed_at: 0, message: String::new() });
                let now = backoff::now();
                failure.backoff.next(now, now);
                failure.failed_at = now;
                failure.message = error.to_string();
                Err(Unavailable { reason: "ErrImagePull", message: failure.message.clone(), retry_in: SHOWN })
            }
        }
    }

    fn in_backoff(&self, key: &(String, String), wanted: &str) -> Option<Unavailable> {
        let failures = self.backoff.lock();
        let failure = failures.get(key)?;
        let retry_in = failure.backoff.remaining(failure.failed_at, backoff::now())?;
        let message = format!("Back-off pulling image \"{wanted}\": ErrImagePull: {}", failure.message);
        Some(Unavailable { reason: "ImagePullBackOff", message, retry_in })
    }

    async fn pull_with_credentials(
        &self,
        image: &str,
        secrets: &[std::sync::Arc<Secret>],
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let mut found = credentials::for_image(secrets, image);
        if found.is_empty() {
            return self.runtime.pull_image(image, None, sandbox.clone()).await;
        }
        let last = found.pop();
        for auth in found {
            if let Ok(reference) = self.runtime.pull_image(image, Some(auth), sandbox.clone()).await {
                return Ok(reference);
            }
        }
        self.runtime.pull_image(image, last, sandbox.clone()).await
    }

    /// Forgets the backoff of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.backoff.lock().retain(|(uid, _), _| uid != pod_uid);
    }
}

/// A duration as Go prints it when rounded to milliseconds: `835ms`, `1.503s`, `1m2s`.
pub fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let seconds = |millis: u128| {
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
    };
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds(rest),
        (0, m) => format!("{m}m{}", seconds(rest)),
        (h, m) => format!("{h}h{m}m{}", seconds(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_decides_with_presence() {
        for (policy, present, pull) in
            [("Always", true, true), ("Always", false, true), ("IfNotPresent", true, false), ("IfNotPresent", false, true), ("Never", false, false)]
        {
            assert_eq!(should_pull(policy, present), pull, "{policy} {present}");
        }
    }

    #[test]
    fn latest_and_untagged_images_default_to_always() {
        let container = |image: &str| Container { image: Some(image.into()), ..Container::default() };
        for (image, expected) in [("busybox", "Always"), ("a/b:latest", "Always"), ("busybox:1.36", "IfNotPresent"), ("r:5000/x", "Always")] {
            assert_eq!(policy(&container(image)), expected, "{image}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (millis, text) in [(5, "5ms"), (1503, "1.503s"), (10_000, "10s"), (62_000, "1m2s"), (300_000, "5m0s"), (3_600_000, "1h0m0s")] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}

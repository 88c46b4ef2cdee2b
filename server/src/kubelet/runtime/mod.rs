//! The CRI v1 client: every call to containerd's runtime and image services, with a deadline on each.
//!
//! Owns the connection (one lazily connected unix-socket channel that reconnects by itself). Must not know pods' specs or the API.

pub mod events;
pub mod labels;
pub mod observe;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{self as cri};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// Deadline of an ordinary call (upstream: `runtimeRequestTimeout`, 2 minutes).
const CALL: Duration = Duration::from_secs(120);
/// Deadline of `RunPodSandbox`, twice the ordinary one as upstream.
const SANDBOX: Duration = Duration::from_secs(240);
/// Longest time that means anything. Beyond some centuries containerd's arithmetic overflows and gRPC's deadlines cannot be written.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Largest answer taken from containerd; a node's list of images and containers can exceed tonic's 4 MiB default.
const MAX_MESSAGE: usize = 32 << 20;

/// A failed CRI call. Prints as Go's gRPC errors do, because users read it in events.
#[derive(Debug, thiserror::Error)]
#[error("rpc error: code = {:?} desc = {}", .status.code(), .status.message())]
pub struct RuntimeError {
    /// Name of the CRI call.
    pub call: &'static str,
    /// What containerd answered.
    pub status: Box<tonic::Status>,
}

impl RuntimeError {
    /// The object that the call names does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status.code() == Code::NotFound
    }
    /// The runtime does not know the call.
    pub fn is_unimplemented(&self) -> bool {
        self.status.code() == Code::Unimplemented
    }
    /// The deadline passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self.status.code(), Code::DeadlineExceeded | Code::Cancelled)
    }
    /// The runtime is not up yet.
    fn is_starting(&self) -> bool {
        self.status.code() == Code::Unavailable || self.message().contains("server is not initialized yet")
    }
    /// containerd's message, without the code.
    pub fn message(&self) -> &str {
        self.status.message()
    }
}

/// Result of a CRI call.
pub type Result<T> = std::result::Result<T, RuntimeError>;

/// Client of one container runtime. Clones share the connection.
#[derive(Clone)]
pub struct Runtime {
    socket: PathBuf,
    /// Node whose sandboxes and containers are listed.
    node: String,
    channel: Channel,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

macro_rules! call {
    ($client:expr, $name:literal, $method:ident, $timeout:expr, $request:expr) => {{
        let mut request = Request::new($request);
        let limit: Duration = $timeout;
        let limit = limit.min(LONGEST);
        // Both ends know the deadline: containerd cancels the work, and we stop waiting if it hangs.
        request.set_timeout(limit);
        let mut client = $client.clone();
        match tokio::time::timeout(limit, client.$method(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(RuntimeError { call: $name, status: Box::new(status) }),
            Err(_) => Err(RuntimeError { call: $name, status: Box::new(tonic::Status::deadline_exceeded("context deadline exceeded")) }),
        }
    }};
}

impl Runtime {
    /// A client of the socket for one node's kubelet; the first call connects.
    pub fn new(socket: &Path, node: &str) -> Self {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Runtime {
            socket: socket.to_owned(),
            node: node.to_owned(),
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            channel,
        }
    }

    /// The socket given at creation.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The gRPC channel, for containerd's own services on the same socket.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<cri::VersionResponse> {
        call!(self.runtime, "Version", version, CALL, cri::VersionRequest { version: "0.1.0".into() })
    }

    /// Waits until the runtime answers: its socket accepts connections some time before CRI is initialized.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut pause = Duration::from_millis(5);
        loop {
            match self.list_sandboxes(None).await {
                Err(error) if error.is_starting() && tokio::time::Instant::now() < deadline => {}
                other => return other.map(drop),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Runtime and network readiness.
    pub async fn status(&self) -> Result<cri::RuntimeStatus> {
        let answer = call!(self.runtime, "Status", status, CALL, cri::StatusRequest { verbose: false })?;
        Ok(answer.status.unwrap_or_default())
    }

    /// Creates and starts a sandbox; returns its id.
    pub async fn run_sandbox(&self, config: cri::PodSandboxConfig) -> Result<String> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        Ok(call!(self.runtime, "RunPodSandbox", run_pod_sandbox, SANDBOX, request)?.pod_sandbox_id)
    }

    /// Kills what runs in a sandbox and tears its network down. A sandbox that is gone counts as stopped.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        ignore_missing(call!(self.runtime, "StopPodSandbox", stop_pod_sandbox, CALL, request).map(drop))
    }

    /// Removes a sandbox with its containers.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        ignore_missing(call!(self.runtime, "RemovePodSandbox", remove_pod_sandbox, CALL, request).map(drop))
    }

    /// State and addresses of a sandbox.
    pub async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        Ok(call!(self.runtime, "PodSandboxStatus", pod_sandbox_status, CALL, request)?.status.unwrap_or_default())
    }

    /// Every sandbox of the node, or those of one pod.
    pub async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<cri::PodSandbox>> {
        let filter = cri::PodSandboxFilter { label_selector: labels::selector(pod_uid, &self.node), ..Default::default() };
        Ok(call!(self.runtime, "ListPodSandbox", list_pod_sandbox, CALL, cri::ListPodSandboxRequest { filter: Some(filter) })?.items)
    }

    /// Creates a container; returns its id.
    pub async fn create_container(&self, sandbox: &str, config: cri::ContainerConfig, sandbox_config: cri::PodSandboxConfig) -> Result<String> {
        let request = cri::CreateContainerRequest { pod_sandbox_id: sandbox.into(), config: Some(config), sandbox_config: Some(sandbox_config) };
        Ok(call!(self.runtime, "CreateContainer", create_container, CALL, request)?.container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        call!(self.runtime, "StartContainer", start_container, CALL, cri::StartContainerRequest { container_id: id.into() }).map(drop)
    }

    /// Sends the stop signal, waits `grace` and kills. A container that is gone counts as stopped.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let grace = grace.min(LONGEST);
        let request = cri::StopContainerRequest { container_id: id.into(), timeout: whole_seconds(grace) };
        ignore_missing(call!(self.runtime, "StopContainer", stop_container, grace + CALL, request).map(drop))
    }

    /// Changes what a running container is held to.
    pub async fn update_resources(&self, id: &str, resources: cri::LinuxContainerResources) -> Result<()> {
        let request = cri::UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(resources), ..Default::default() };
        call!(self.runtime, "UpdateContainerResources", update_container_resources, CALL, request).map(drop)
    }

    /// Removes a container and its log link.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: id.into() };
        ignore_missing(call!(self.runtime, "RemoveContainer", remove_container, CALL, request).map(drop))
    }

    /// Every container of the node, or those of one pod.
    pub async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<cri::Container>> {
        let filter = cri::ContainerFilter { label_selector: labels::selector(pod_uid, &self.node), ..Default::default() };
        Ok(call!(self.runtime, "ListContainers", list_containers, CALL, cri::ListContainersRequest { filter: Some(filter) })?.containers)
    }

    /// Every container of the runtime, whoever made it.
    pub async fn list_all_containers(&self) -> Result<Vec<cri::Container>> {
        Ok(call!(self.runtime, "ListContainers", list_containers, CALL, cri::ListContainersRequest { filter: None })?.containers)
    }

    /// The full state of a container.
    pub async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        Ok(call!(self.runtime, "ContainerStatus", container_status, CALL, request)?.status.unwrap_or_default())
    }

    /// Runs a command and collects its output; without `timeout` for as long as it takes.
    pub async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Option<Duration>) -> Result<cri::ExecSyncResponse> {
        // CRI counts whole seconds, 0 being none, and containerd needs a moment to report that the time is over.
        let deadline = timeout.map_or(LONGEST, |t| t.min(LONGEST) + Duration::from_secs(5));
        let timeout = timeout.map_or(0, |t| whole_seconds(t.min(LONGEST)));
        let request = cri::ExecSyncRequest { container_id: id.into(), cmd: command, timeout };
        call!(self.runtime, "ExecSync", exec_sync, deadline, request)
    }

    /// Prepares a streaming exec; returns its one-use URL.
    pub async fn exec(&self, request: cri::ExecRequest) -> Result<String> {
        Ok(call!(self.runtime, "Exec", exec, CALL, request)?.url)
    }

    /// Prepares an attach; returns its one-use URL.
    pub async fn attach(&self, request: cri::AttachRequest) -> Result<String> {
        Ok(call!(self.runtime, "Attach", attach, CALL, request)?.url)
    }

    /// Prepares a port forward; returns its one-use URL.
    pub async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String> {
        Ok(call!(self.runtime, "PortForward", port_forward, CALL, request)?.url)
    }

    /// Makes the runtime open the container's log path anew, after the file was renamed.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        call!(self.runtime, "ReopenContainerLog", reopen_container_log, CALL, cri::ReopenContainerLogRequest { container_id: id.into() }).map(drop)
    }

    /// The image of a name, if it is present.
    pub async fn image_status(&self, image: &str) -> Result<Option<cri::Image>> {
        let request = cri::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(call!(self.images, "ImageStatus", image_status, CALL, request)?.image)
    }

    /// Pulls an image; returns its reference. Has no deadline of its own: the caller drops it to cancel.
    pub async fn pull_image(&self, image: &str, auth: Option<cri::AuthConfig>, sandbox: cri::PodSandboxConfig) -> Result<String> {
        let request = cri::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: Some(sandbox) };
        let answer = self.images.clone().pull_image(request).await;
        answer.map(|a| a.into_inner().image_ref).map_err(|status| RuntimeError { call: "PullImage", status: Box::new(status) })
    }

    /// Every image.
    pub async fn list_images(&self) -> Result<Vec<cri::Image>> {
        Ok(call!(self.images, "ListImages", list_images, CALL, cri::ListImagesRequest { filter: None })?.images)
    }

    /// Removes an image with all its names.
    pub async fn remove_image(&self, id: &str) -> Result<()> {
        call!(self.images, "RemoveImage", remove_image, CALL, cri::RemoveImageRequest { image: Some(image_spec(id)) }).map(drop)
    }

    /// Where images are kept, if the runtime tells.
    pub async fn image_directory(&self) -> Result<Option<PathBuf>> {
        let answer = call!(self.images, "ImageFsInfo", image_fs_info, CALL, cri::ImageFsInfoRequest {})?;
        let first = answer.image_filesystems.into_iter().next().and_then(|f| f.fs_id);
        Ok(first.map(|id| PathBuf::from(id.mountpoint)).filter(|p| p.is_absolute()))
    }
}

/// The image spec of a name.
pub fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.into(), user_specified_image: image.into(), ..Default::default() }
}

/// Whole seconds, rounded up: a grace period of which some milliseconds have passed is not a second shorter.
fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).saturating_add(i64::from(duration.subsec_nanos() > 0))
}

fn ignore_missing(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, seconds) in [(0, 0), (1, 1), (1000, 1), (29_999, 30)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
        assert_eq!(whole_seconds(Duration::MAX), i64::MAX);
    }

    #[tokio::test]
    async fn a_grace_period_without_end_is_no_panic() {
        let runtime = Runtime::new(Path::new("/nonexistent/containerd.sock"), "n");
        assert!(runtime.stop_container("c", Duration::MAX).await.is_err());
        assert!(runtime.exec_sync("c", vec![], Some(Duration::MAX)).await.is_err());
    }
}

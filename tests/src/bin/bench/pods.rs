//! A pod's start through the whole of Kubernetes, beside the same CRI calls alone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{Row, median};
use tests::client::Target;

/// Pods a measurement starts, one after the other.
const ROUNDS: usize = 10;

pub async fn run(data: &Path) -> Result<Vec<Row>> {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("instance.json"))?)?;
    let socket = Path::new(record["run"].as_str().context("no run directory")?).join("containerd/containerd.sock");
    let target = Target::of(data)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut runtime = connect(socket).await?;
    for round in 0..ROUNDS {
        theirs.push(bare(&mut runtime, data, round).await?);
        ours.push(pod(&target, round).await?);
    }
    let row = Row::ratio(
        "a pod, from create to Running, beside its CRI calls alone",
        (median(ours).as_secs_f64() * 1e3, median(theirs).as_secs_f64() * 1e3),
        "ms",
    );
    Ok(vec![row])
}

async fn connect(socket: std::path::PathBuf) -> Result<RuntimeServiceClient<Channel>> {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
    });
    Ok(RuntimeServiceClient::new(Endpoint::from_static("http://localhost").connect_with_connector(connector).await?))
}

/// Sandbox, container, start: what containerd itself takes.
async fn bare(runtime: &mut RuntimeServiceClient<Channel>, data: &Path, round: usize) -> Result<Duration> {
    let log_directory = data.join("bench-logs");
    std::fs::create_dir_all(&log_directory)?;
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { name: format!("bare-{round}"), uid: format!("bare-{round}"), namespace: "bench".into(), attempt: 0 }),
        log_directory: log_directory.to_string_lossy().into_owned(),
        linux: Some(LinuxPodSandboxConfig { cgroup_parent: "/kserver-bench".into(), ..Default::default() }),
        ..Default::default()
    };
    let begun = Instant::now();
    let sandbox = runtime
        .run_pod_sandbox(RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() })
        .await?
        .into_inner()
        .pod_sandbox_id;
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "docker.io/library/busybox:1".into(), ..Default::default() }),
        command: vec!["sleep".into(), "3600".into()],
        log_path: format!("{round}.log"),
        ..Default::default()
    };
    let request = CreateContainerRequest { pod_sandbox_id: sandbox.clone(), config: Some(container), sandbox_config: Some(config) };
    let id = runtime.create_container(request).await?.into_inner().container_id;
    runtime.start_container(StartContainerRequest { container_id: id }).await?;
    let took = begun.elapsed();
    runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() }).await?;
    runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await?;
    Ok(took)
}

/// From sending the create to the watch event that says Running; the pod is gone again when this returns.
async fn pod(target: &Target, round: usize) -> Result<Duration> {
    let mut connection = target.connect().await?;
    let name = format!("bench-{round}");
    let mut watch = connection
        .open("GET", &format!("/api/v1/namespaces/default/pods?watch=1&fieldSelector=metadata.name%3D{name}"), Bytes::new())
        .await?
        .into_body();
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"terminationGracePeriodSeconds":0,"containers":[{{"name":"main","image":"busybox:1","command":["sleep","3600"]}}]}}}}"#
    );
    let begun = Instant::now();
    connection.call("POST", "/api/v1/namespaces/default/pods", body.into()).await?;
    wait_for(&mut watch, |event| event["object"]["status"]["phase"] == "Running").await?;
    let took = begun.elapsed();
    connection.call("DELETE", &format!("/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0"), Bytes::new()).await?;
    // The sandbox's removal must not run into the next round: kserver frees its address last.
    tokio::time::timeout(Duration::from_secs(30), wait_for(&mut watch, |event| event["type"] == "DELETED")).await??;
    Ok(took)
}

async fn wait_for(watch: &mut hyper::body::Incoming, wanted: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
    let mut buffer = Vec::new();
    while let Some(frame) = watch.frame().await {
        buffer.extend_from_slice(frame?.data_ref().map_or(&[][..], |d| d));
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if wanted(&serde_json::from_slice(&line)?) {
                return Ok(());
            }
        }
    }
    anyhow::bail!("the watch ended early")
}

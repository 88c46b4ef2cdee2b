//! The private containerd: its configuration, its start, and its readiness.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::child::{Child, Spec};
use super::instance::{Instance, write_atomically};

/// The configuration, as measured to work on containerd 1.6 and 1.7.
///
/// `restrict_oom_score_adj` because root may lack CAP_SYS_RESOURCE; the network namespaces lie under the state directory so
/// that `down` finds them.
pub fn config(instance: &Instance, pause_image: &str, cni_bin_dir: &Path) -> String {
    let data = instance.data.display();
    let run = instance.run.display();
    let cni = cni_bin_dir.display();
    format!(
        r#"version = 2
root = "{data}/containerd/root"
state = "{run}/containerd"
oom_score = 0
[grpc]
  address = "{run}/containerd/containerd.sock"
[debug]
  level = "warn"
[plugins."io.containerd.internal.v1.opt"]
  path = "{data}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{data}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{run}/runc"
"#
    )
}

/// Writes the configuration and starts containerd. It answers a moment later.
///
/// # Errors
/// The configuration cannot be written, or the program not started.
pub fn start(instance: &Instance, program: &Path, pause_image: &str, cni_bin_dir: &Path) -> Result<Child> {
    let file = instance.data.join("containerd.toml");
    std::fs::create_dir_all(instance.data.join("cni"))?;
    write_atomically(&file, config(instance, pause_image, cni_bin_dir).as_bytes(), 0o600).with_context(|| format!("write {}", file.display()))?;
    let args = vec!["--config".into(), file.into_os_string()];
    Child::start(Spec { name: "containerd", program: program.to_owned(), args, log: instance.logs().join("containerd.log") })
}

/// Waits until containerd's socket accepts connections.
///
/// # Errors
/// It does not within `limit`; the text has its last log lines.
pub async fn wait(child: &Child, socket: &Path, limit: Duration) -> Result<()> {
    super::progress::until(limit, || async move { tokio::net::UnixStream::connect(socket).await.is_ok() })
        .await
        .with_context(|| format!("containerd does not answer; its last words: {}", child.log_tail()))
}

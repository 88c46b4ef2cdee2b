//! The private etcd: a real one from PATH, on loopback, with mutual TLS.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::child::{Child, Spec};
use super::instance::Instance;

/// Files of its certificates, all PEM.
#[derive(Clone, Debug)]
pub struct Certificates<'a> {
    /// CA of clients, members and the server.
    pub ca: &'a Path,
    /// Serving and peer certificate.
    pub cert: &'a Path,
    /// Its key.
    pub key: &'a Path,
}

/// Where clients reach it.
pub fn endpoint(client_port: u16) -> String {
    format!("https://127.0.0.1:{client_port}")
}

/// Starts etcd. It answers a moment later.
///
/// # Errors
/// It cannot be started.
pub fn start(instance: &Instance, program: &Path, (client, peer): (u16, u16), certificates: &Certificates<'_>) -> Result<Child> {
    let client_url = endpoint(client);
    let peer_url = format!("https://127.0.0.1:{peer}");
    let data = instance.data.join("etcd");
    let mut args = vec![
        "--name=kserver".to_owned(),
        format!("--listen-client-urls={client_url}"),
        format!("--advertise-client-urls={client_url}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=kserver={peer_url}"),
        "--initial-cluster-token=kserver".into(),
        "--client-cert-auth".into(),
        "--peer-client-cert-auth".into(),
        "--quota-backend-bytes=8589934592".into(),
        "--logger=zap".into(),
        "--log-level=warn".into(),
    ];
    for (flag, path) in [
        ("data-dir", data.as_path()),
        ("trusted-ca-file", certificates.ca),
        ("cert-file", certificates.cert),
        ("key-file", certificates.key),
        ("peer-trusted-ca-file", certificates.ca),
        ("peer-cert-file", certificates.cert),
        ("peer-key-file", certificates.key),
    ] {
        args.push(format!("--{flag}={}", path.display()));
    }
    Child::start(Spec {
        name: "etcd",
        program: program.to_owned(),
        args: args.into_iter().map(Into::into).collect(),
        log: instance.logs().join("etcd.log"),
    })
}

/// Waits until something listens on etcd's client port.
///
/// # Errors
/// It does not within `limit`, or keeps ending; the text has its last log lines.
pub async fn wait(child: &Child, client_port: u16, limit: Duration) -> Result<()> {
    super::progress::until(limit, || async move { tokio::net::TcpStream::connect(("127.0.0.1", client_port)).await.is_ok() }).await.with_context(
        || format!("etcd does not answer{}; its last words: {}", child.last_exit().map(|e| format!(" ({e})")).unwrap_or_default(), child.log_tail()),
    )
}

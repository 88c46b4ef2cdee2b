//! Builds the API server of an instance: etcd, cache, store, security, the filter chain, the listener.
//!
//! Owns the seams between them, and how values are sealed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::net::TcpListener;

use super::options::Cidr;
use super::renewal::Live;
use crate::api::build::{Parts, build};
use crate::api::chain::Chain;
use crate::api::listener::{self, ApiServer};
use crate::cache::Cache;
use crate::pki::{self, LiveCertificate, Pki, encryption};
use crate::registry::store::{self, Store};
use crate::registry::{RESOURCES, Ranges, bootstrap};
use crate::storage::{self, Storage, Transform};
use crate::tasks::Tasks;

/// Longest wait for etcd to answer and for the cache to load.
const LOAD_LIMIT: Duration = Duration::from_secs(30);
/// Time between compactions (upstream's `--etcd-compaction-interval`).
const COMPACTION: Duration = Duration::from_secs(300);
/// How long Events live (upstream's `--event-ttl`).
const EVENT_TTL: Duration = Duration::from_secs(3600);
/// Node ports (upstream's `--service-node-port-range`).
const NODE_PORTS: (u16, u16) = (30000, 32767);

/// What the API server is built from.
pub struct Config<'a> {
    /// Keys and certificates.
    pub pki: &'a Pki,
    /// How to reach etcd.
    pub etcd: storage::Config,
    /// Where to listen.
    pub bind: SocketAddr,
    /// This machine's address, as pods and nodes reach it.
    pub advertise: IpAddr,
    /// Addresses of Services.
    pub services: Cidr,
    /// Where the audit log goes, if anywhere.
    pub audit_log: Option<PathBuf>,
}

/// Starts the API server. It serves when this returns; the certificates it shows can be replaced.
///
/// # Errors
/// The first part that does not come up.
pub async fn start(config: Config<'_>, tasks: &Tasks) -> Result<(Chain, Live)> {
    let storage = Storage::connect(&config.etcd, tasks).await.context("connect to etcd")?;
    let cache = Cache::start(&RESOURCES, storage.clone(), tasks);
    tokio::time::timeout(LOAD_LIMIT, cache.loaded()).await.context("etcd does not let itself be read; the log says why")?;
    let ranges = Ranges { service_network: config.services.network, service_prefix: config.services.prefix, node_ports: NODE_PORTS };
    let store = Store::new(&RESOURCES, storage.clone(), cache.clone(), store::Config { ranges, event_ttl: EVENT_TTL });
    tasks.spawn("etcd/compaction", storage::compact_periodically(storage, COMPACTION));

    let advertise = match config.advertise {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::LOCALHOST,
    };
    let born = bootstrap::Config { service_ip: config.services.nth(1), advertise_address: advertise, port: config.bind.port() };
    bootstrap::ensure(&store, &born).await.context("create the objects that a cluster is born with")?;

    let issuer = Arc::new(config.pki.token_issuer()?);
    let kubelet_client = LiveCertificate::new(&config.pki.apiserver_kubelet_client)?;
    let kubelet_tls = pki::live_client_config(config.pki.kubelet.certificate(), kubelet_client.clone())?;
    let parts = Parts { store, issuer: issuer.clone(), kubelet_tls: Some(Arc::new(kubelet_tls)), audit_log: config.audit_log };
    let chain = build(parts, tasks).await?;
    let apiserver = LiveCertificate::new(&config.pki.apiserver)?;
    let tls = pki::server_config(apiserver.clone(), config.pki.cluster.certificate(), false)?;
    let listener = TcpListener::bind(config.bind).await.with_context(|| format!("listen on {}", config.bind))?;
    tasks.spawn_draining("api", listener::serve(ApiServer { listener, tls }, chain.clone(), tasks.clone()));
    Ok((chain, Live { apiserver, kubelet_client, tokens: issuer }))
}

/// Secrets at rest, under the instance's keys.
pub struct Sealed(pub encryption::Keys);

impl Transform for Sealed {
    fn seal(&self, key: &str, plain: Bytes) -> Result<Bytes, String> {
        <encryption::Keys as encryption::Transform>::seal(&self.0, key, plain).map_err(|e| e.to_string())
    }
    fn open(&self, key: &str, stored: &[u8]) -> Result<Bytes, String> {
        let opened = <encryption::Keys as encryption::Transform>::open(&self.0, key, Bytes::copy_from_slice(stored));
        opened.map(|(plain, _)| plain).map_err(|e| e.to_string())
    }
}

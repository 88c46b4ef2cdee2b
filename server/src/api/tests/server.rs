//! A whole server on a real etcd: certificates, RBAC, admission, TLS on a port of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::api::build::{Parts, build};
use crate::api::chain::Chain;
use crate::api::client::in_process_client;
use crate::api::listener::{ApiServer, serve};
use crate::api::user::User;
use crate::cache::Cache;
use crate::pki::{self, Pki};
use crate::pki::{ServingCertificate, client_config, server_config};
use crate::registry::store::{Config, Store};
use crate::registry::{RESOURCES, Ranges, bootstrap};
use crate::storage::testing::Etcd;
use crate::tasks::Tasks;

pub(super) struct TestServer {
    pub(super) chain: Chain,
    pub(super) address: SocketAddr,
    pub(super) pki: Pki,
    /// A certificate of `system:masters`, who need no role.
    pub(super) master: pki::Pair,
    pub(super) dir: tempfile::TempDir,
    tasks: Tasks,
    _etcd: Etcd,
}

impl TestServer {
    pub(super) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (etcd, tasks, dir) = (Etcd::start().await, Tasks::new(), tempfile::tempdir().unwrap());
        let storage = etcd.storage(&tasks).await;
        let cache = Cache::start(&RESOURCES, storage.clone(), &tasks);
        let ranges = Ranges { service_network: Ipv4Addr::new(10, 96, 0, 0), service_prefix: 12, node_ports: (30000, 32767) };
        let store = Store::new(&RESOURCES, storage, cache.clone(), Config { ranges, event_ttl: Duration::from_secs(3600) });
        cache.loaded().await;
        let config = pki::Config {
            dir: dir.path().join("pki"),
            node: "test".into(),
            names: Vec::new(),
            ips: vec![Ipv4Addr::LOCALHOST.into()],
            service_ip: Ipv4Addr::new(10, 96, 0, 1),
            domain: "cluster.local".into(),
        };
        let pki = Pki::load_or_create(&config).unwrap();
        let master = pki.cluster.issue(&pki::Subject::client("master", &["system:masters"]), jiff::Timestamp::now()).unwrap();
        let kubelet_tls = client_config(pki.kubelet.certificate(), Some(&pki.apiserver_kubelet_client)).unwrap();
        let audit_log = Some(dir.path().join("audit.log"));
        let parts =
            Parts { store: store.clone(), issuer: Arc::new(pki.token_issuer().unwrap()), kubelet_tls: Some(Arc::new(kubelet_tls)), audit_log };
        let chain = build(parts, &tasks).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = bootstrap::Config { service_ip: config.service_ip, advertise_address: Ipv4Addr::new(10, 0, 0, 1), port: address.port() };
        bootstrap::ensure(&store, &own).await.unwrap();
        let tls = server_config(ServingCertificate::new(&pki.apiserver).unwrap(), pki.cluster.certificate(), false).unwrap();
        tasks.spawn_draining("listener", serve(ApiServer { listener, tls }, chain.clone(), tasks.clone()));
        TestServer { chain, address, pki, master, dir, tasks, _etcd: etcd }
    }

    /// A client of this process.
    pub(super) fn client(&self, name: &str, groups: &[&str]) -> kube::Client {
        in_process_client(self.chain.clone(), User::new(name, groups))
    }

    pub(super) fn admin(&self) -> kube::Client {
        self.client("admin", &["system:masters"])
    }

    /// An HTTPS client with the administrator's certificate, over HTTP/2 or 1.1.
    pub(super) fn https(&self, http2: bool) -> Https {
        self.https_as(http2, Some(&self.master))
    }

    /// An HTTPS client with a certificate of its own, or none.
    pub(super) fn https_as(&self, http2: bool, own: Option<&pki::Pair>) -> Https {
        let tls = client_config(self.pki.cluster.certificate(), own).unwrap();
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        let connector = if http2 { builder.enable_http2().build() } else { builder.enable_http1().build() };
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).http2_only(http2).build(connector);
        Https { client, root: self.url("") }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// A kubeconfig of the administrator.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let context = pki::kubeconfig::Context { name: "test", server: &self.url(""), ca: self.pki.cluster.certificate(), client: &self.master };
        std::fs::write(&path, context.document()).unwrap();
        path
    }

    /// Stops everything; the directory lives as long as what is returned.
    pub(super) async fn stop(self) -> tempfile::TempDir {
        self.tasks.shutdown(Duration::from_secs(15)).await;
        self.dir
    }
}

/// A plain HTTP client.
pub(super) struct Https {
    client: hyper_util::client::legacy::Client<hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>, Full<Bytes>>,
    root: String,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Https {
    pub(super) async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> http::Response<Incoming> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.root));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }
    pub(super) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }
    pub(super) async fn json(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_string()).await
    }
}

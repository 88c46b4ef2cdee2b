//! What is handed on to a kubelet, with a small one at the other end.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::server::TestServer;
use crate::pki::{ServingCertificate, client_config, server_config};
use crate::tasks::Tasks;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A kubelet that demands a client certificate, keeps the heads of requests, answers logs and echoes upgraded streams.
struct Kubelet {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: Tasks,
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, heads: &Mutex<Vec<String>>) {
    let head = head(&mut stream).await;
    let upgrade = head.to_lowercase().contains("upgrade: websocket");
    heads.lock().push(head);
    if upgrade {
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\n")
            .await
            .unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    } else {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\n\r\n0\r\n\r\n")
            .await
            .unwrap();
    }
}

impl Kubelet {
    async fn start(server: &TestServer) -> Self {
        let pair = server.pki.kubelet_serving("n1", &[], &["127.0.0.1".parse().unwrap()]).unwrap();
        let tls = server_config(ServingCertificate::new(&pair).unwrap(), server.pki.cluster.certificate(), true).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, heads) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let (seen, connections) = (heads.clone(), tasks.clone());
        tasks.spawn("kubelet", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                connections.spawn("connection", async move {
                    serve(acceptor.accept(stream).await.expect("the API server shows its certificate"), &seen).await;
                });
            }
        });
        Kubelet { address, heads, _tasks: tasks }
    }

    /// Registers the node and a pod of two containers on it.
    async fn register(&self, server: &TestServer) {
        let client = server.https(true);
        let node = json!({"metadata": {"name": "n1"}});
        assert_eq!(client.json("POST", "/api/v1/nodes", node).await.status, 201);
        let addresses = json!([{"type": "InternalIP", "address": "127.0.0.1"}]);
        let status = json!({"status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": self.address.port()}}}});
        let media = [("content-type", "application/merge-patch+json")];
        assert_eq!(client.send("PATCH", "/api/v1/nodes/n1/status", &media, status.to_string()).await.status, 200);
        client.json("POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        let containers: Value = ["a", "b"].iter().map(|name| json!({"name": name, "image": "x"})).collect();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": containers}});
        let created = client.json("POST", PODS, pod).await;
        assert_eq!(created.status, 201, "{}", created.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_from_the_kubelet_and_the_container_must_be_clear() {
    let server = TestServer::start().await;
    let kubelet = Kubelet::start(&server).await;
    kubelet.register(&server).await;
    let client = server.https(true);
    let log = client.send("GET", &format!("{PODS}/p/log?container=a&tailLines=5&follow=true"), &[("x-mine", "1")], "").await;
    assert_eq!((log.status.as_u16(), log.text()), (200, "hello\n"));
    let head = kubelet.heads.lock().pop().unwrap();
    assert!(head.starts_with("GET /containerLogs/default/p/a?follow=true&tailLines=5 HTTP/1.1\r\n"), "{head}");
    let unclear = client.get(&format!("{PODS}/p/log")).await;
    assert_eq!(
        (unclear.status.as_u16(), unclear.json()["message"].as_str()),
        (400, Some("a container name must be specified for pod p, choose one of: [a b]"))
    );
    let wrong = client.get(&format!("{PODS}/p/log?container=z")).await;
    assert_eq!(wrong.json()["message"], "container z is not valid for pod p");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_passes_raw_bytes_both_ways_and_no_credentials() {
    let server = TestServer::start().await;
    let kubelet = Kubelet::start(&server).await;
    kubelet.register(&server).await;
    let plain = server.https(false).get(&format!("{PODS}/p/exec?container=a&command=ls")).await;
    assert_eq!((plain.status.as_u16(), plain.json()["message"].as_str()), (400, Some("Upgrade request required")));

    let tls = client_config(server.pki.cluster.certificate(), Some(&server.master)).unwrap();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
    let request = format!(
        "GET {PODS}/p/exec?container=a&command=sh&command=-c%20x&stdin=true&stdout=true HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0\r\nAuthorization: Bearer secret\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.to_lowercase().contains("sec-websocket-accept: yes"), "{answer}");
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
    let seen = kubelet.heads.lock().pop().unwrap();
    assert!(seen.starts_with("GET /exec/default/p/a?input=1&output=1&command=sh&command=-c%20x HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("secret") && !seen.contains("c2VjcmV0"), "{seen}");
    assert_eq!(server.chain.server().metrics.open_streams(), 1);
    drop(stream);
    crate::storage::testing::eventually("the stream is closed", || server.chain.server().metrics.open_streams() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_to_a_node_keeps_the_path_and_one_to_a_loopback_pod_is_refused() {
    let server = TestServer::start().await;
    let kubelet = Kubelet::start(&server).await;
    kubelet.register(&server).await;
    let client = server.https(true);
    let stats = client.get("/api/v1/nodes/n1/proxy/stats/summary?only=a%20b").await;
    assert_eq!((stats.status.as_u16(), stats.text()), (200, "hello\n"));
    let head = kubelet.heads.lock().pop().unwrap();
    assert!(head.starts_with("GET /stats/summary?only=a%20b HTTP/1.1\r\n"), "{head}");
    let media = [("content-type", "application/merge-patch+json")];
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    client.send("PATCH", &format!("{PODS}/p/status"), &media, status.to_string()).await;
    let refused = client.get(&format!("{PODS}/p:80/proxy/")).await;
    assert_eq!((refused.status.as_u16(), refused.json()["message"].as_str()), (400, Some("address not allowed")));
    let traversal = client.get("/api/v1/nodes/n1/proxy/a/%2e%2e/b").await;
    assert_eq!(traversal.status, 400);
    let other_port = client.get("/api/v1/nodes/n1:22/proxy/").await;
    assert_eq!(other_port.status, 400, "only the kubelet's own port may be on this machine");
    server.stop().await;
}

//! A bare HTTP/2 client with the administrator's certificate: where load comes from, with as little cost of its own as can be.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use bytes::Bytes;
use http::HeaderValue;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

/// Where and as whom to connect.
#[derive(Clone)]
pub struct Target {
    address: String,
    tls: tokio_rustls::TlsConnector,
}

/// One connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    accept: HeaderValue,
    content: HeaderValue,
}

fn pem(user: &serde_yaml::Value, field: &str) -> Result<Vec<u8>> {
    let text = user[field].as_str().with_context(|| format!("admin.kubeconfig has no {field}"))?;
    Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
}

impl Target {
    /// The cluster of a data directory.
    ///
    /// # Errors
    /// Its kubeconfig cannot be read.
    pub fn of(data: &Path) -> Result<Self> {
        let config: serde_yaml::Value = serde_yaml::from_slice(&std::fs::read(data.join("admin.kubeconfig"))?)?;
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let mut roots = rustls::RootCertStore::empty();
        for cert in rustls_pemfile::certs(&mut pem(cluster, "certificate-authority-data")?.as_slice()) {
            roots.add(cert?)?;
        }
        let certs: Vec<CertificateDer<'static>> =
            rustls_pemfile::certs(&mut pem(user, "client-certificate-data")?.as_slice()).collect::<Result<_, _>>()?;
        let key: PrivateKeyDer<'static> = rustls_pemfile::private_key(&mut pem(user, "client-key-data")?.as_slice())?.context("no client key")?;
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(certs, key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let address = cluster["server"].as_str().and_then(|s| s.strip_prefix("https://")).context("no server")?.to_owned();
        Ok(Target { address, tls: tokio_rustls::TlsConnector::from(Arc::new(tls)) })
    }

    /// The same user at another server whose certificate the cluster's CA has signed.
    pub fn at(&self, address: &str) -> Self {
        Target { address: address.to_owned(), tls: self.tls.clone() }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Nobody listens, or not with the cluster's certificate.
    pub async fn connect(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let tls = self.tls.connect(ServerName::try_from("127.0.0.1")?, tcp).await?;
        let (send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(64 << 20)
            .max_concurrent_reset_streams(1024)
            .handshake(TokioIo::new(tls))
            .await?;
        tokio::spawn(connection);
        let json = HeaderValue::from_static("application/json");
        Ok(Connection { sender: send, accept: json.clone(), content: json })
    }
}

impl Connection {
    /// The same connection, for answers of another media type.
    pub fn accept(&self, media: &'static str) -> Self {
        Connection { accept: HeaderValue::from_static(media), ..self.clone() }
    }

    /// The same connection, for bodies of another media type.
    pub fn content(&self, media: &'static str) -> Self {
        Connection { content: HeaderValue::from_static(media), ..self.clone() }
    }

    /// Sends a request and returns the response, whatever its status, with its body unread.
    ///
    /// # Errors
    /// The connection broke: the server may or may not have done what was asked.
    pub async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<http::Response<hyper::body::Incoming>> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header("content-type", &self.content)
            .header("accept", &self.accept)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and returns the response with its body unread.
    ///
    /// # Errors
    /// The connection broke, or the status is no success.
    pub async fn open(&mut self, method: &str, path: &str, body: Bytes) -> Result<http::Response<hyper::body::Incoming>> {
        let response = self.send(method, path, body).await?;
        ensure!(response.status().is_success(), "{method} {path}: {}", response.status());
        Ok(response)
    }

    /// Sends a request and returns the whole body.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn call(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
        Ok(self.open(method, path, body).await?.into_body().collect().await?.to_bytes())
    }
}

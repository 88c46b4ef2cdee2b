//! A bare HTTPS server that answers from memory: what the protocol alone costs on this machine, with the same client.
//!
//! A process of its own, as kserver is one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;

use super::Bench;
use tests::client::Target;

/// Longest body it can be asked for.
const LONGEST: usize = 256 << 20;

/// The server's process; it ends with this value.
pub struct Floor {
    child: Child,
    /// How to reach it.
    pub target: Target,
}

impl Floor {
    /// Starts one with the cluster's certificate.
    pub fn start(bench: &Bench) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?).arg("floor").arg(&bench.data).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        Ok(Floor { child, target: bench.target.at(line.trim()) })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves `GET /N` with a body of N bytes, until the process is ended. Prints its address.
pub async fn serve(data: &Path) -> Result<()> {
    let pem = |name: &str| std::fs::read(data.join("pki").join(name)).with_context(|| name.to_owned());
    let certificate = pem("apiserver.crt")?;
    let chain: Vec<CertificateDer<'static>> = rustls_pemfile::certs(&mut certificate.as_slice()).collect::<Result<_, _>>()?;
    let key = rustls_pemfile::private_key(&mut pem("apiserver.key")?.as_slice())?.context("no key")?;
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    // Zero pages: they cost nothing before they are sent.
    let content = Bytes::from(vec![0; LONGEST]);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, content) = (acceptor.clone(), content.clone());
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await?;
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let length = request.uri().path()[1..].parse().unwrap_or(0).min(LONGEST);
                let body = content.slice(..length);
                async move { Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(body))) }
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http2().initial_stream_window_size(1 << 20).initial_connection_window_size(16 << 20).max_send_buf_size(1 << 20);
            builder.serve_connection(TokioIo::new(stream), service).await.map_err(|error| anyhow::anyhow!(error))
        });
    }
}

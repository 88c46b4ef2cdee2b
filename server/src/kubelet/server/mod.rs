//! The kubelet's HTTPS server: logs, exec, attach, port forward, stats (`pkg/kubelet/server/server.go`).
//!
//! Mutual TLS: only clients whose certificate is signed by the configured CA and bears an allowed name get in; the API server's
//! proxy is the one that does. Owns its listener and connections. Must not change pods.

pub mod logs;
pub mod stats;
pub mod streams;
pub mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Kubelet;
use super::runtime::observe::{Observed, State};

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time for a request's headers.
const HEADERS: Duration = Duration::from_secs(10);

/// Body of every answer.
pub type Body = BoxBody<Bytes, Infallible>;

/// An answer that is an error: its status and text.
#[derive(Debug)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    fn not_found(text: impl Into<String>) -> Self {
        Refusal(StatusCode::NOT_FOUND, text.into())
    }
    fn bad_request(text: impl Into<String>) -> Self {
        Refusal(StatusCode::BAD_REQUEST, text.into())
    }
    fn internal(error: impl std::fmt::Display) -> Self {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

/// A whole text as a body.
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

/// A stream as a body.
pub fn streamed(stream: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Body {
    use futures::StreamExt;
    BodyExt::boxed(StreamBody::new(stream.map(|chunk| Ok(Frame::data(chunk)))))
}

/// Accepts connections for as long as it is polled.
pub async fn run(kubelet: Arc<Kubelet>, listener: TcpListener, tls: TlsAcceptor) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(pair) => pair,
            Err(error) => {
                // Usually out of file descriptors: connections have to end first.
                tracing::warn!(%error, "kubelet connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (kubelet, tls) = (kubelet.clone(), tls.clone());
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "kubelet TLS handshake failed"),
                Err(_) => return,
            };
            let name = tls::client_name(stream.get_ref().1);
            let allowed = kubelet.config.allowed_clients.is_empty() || name.as_ref().is_some_and(|n| kubelet.config.allowed_clients.contains(n));
            let service = hyper::service::service_fn(move |request| {
                let kubelet = kubelet.clone();
                async move { Ok::<_, Infallible>(if allowed { answer(kubelet, request).await } else { forbidden() }) }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
            if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
                tracing::debug!(%peer, %error, "kubelet connection ended");
            }
        });
    }
}

fn forbidden() -> Response<Body> {
    text(StatusCode::FORBIDDEN, "Forbidden: this client certificate may not use the kubelet API")
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

async fn answer(kubelet: Arc<Kubelet>, request: Request<Incoming>) -> Response<Body> {
    match route(kubelet, request).await {
        Ok(response) => response,
        Err(Refusal(status, message)) => text(status, message),
    }
}

async fn route(kubelet: Arc<Kubelet>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().trim_matches('/').to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let method = request.method().clone();
    match (method, parts.as_slice()) {
        (Method::GET, ["healthz" | "livez" | "readyz"]) => Ok(text(StatusCode::OK, "ok")),
        (Method::GET, ["pods"]) => pods(&kubelet),
        (Method::GET, ["stats", "summary"]) => json(&stats::summary(&kubelet).await),
        (Method::GET, ["metrics", "resource"]) => Ok(text(StatusCode::OK, stats::metrics(&kubelet).await)),
        (Method::GET, ["containerLogs", namespace, pod, container]) => logs::serve(&kubelet, namespace, pod, container, &query).await,
        (Method::GET | Method::POST, ["exec", namespace, pod, container]) => {
            let url = streams::exec_url(&kubelet, namespace, pod, container, &query).await?;
            streams::forward(&kubelet, request, &url).await
        }
        (Method::GET | Method::POST, ["attach", namespace, pod, container]) => {
            let url = streams::attach_url(&kubelet, namespace, pod, container, &query).await?;
            streams::forward(&kubelet, request, &url).await
        }
        (Method::GET | Method::POST, ["portForward", namespace, pod]) => {
            let url = streams::port_forward_url(&kubelet, namespace, pod, &query).await?;
            streams::forward(&kubelet, request, &url).await
        }
        (Method::POST, ["run", namespace, pod, container]) => streams::run(&kubelet, namespace, pod, container, &query).await,
        _ => Err(Refusal::not_found("404 page not found")),
    }
}

fn json(value: &impl serde::Serialize) -> Result<Response<Body>, Refusal> {
    let bytes = serde_json::to_vec(value).map_err(Refusal::internal)?;
    let mut response = Response::new(full(bytes));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn pods(kubelet: &Kubelet) -> Result<Response<Body>, Refusal> {
    let items = kubelet.pods.list().iter().map(|p| (**p).clone()).collect();
    json(&List::<Pod> { items, ..List::default() })
}

/// A pod of this node and what the runtime has of it.
pub(super) fn find(kubelet: &Kubelet, namespace: &str, pod: &str) -> Result<(Arc<Pod>, Arc<super::pods::mailbox::Mailbox>), Refusal> {
    let missing = || Refusal::not_found(format!("pod \"{pod}_{namespace}\" not found"));
    let found = kubelet.pods.get(namespace, pod).ok_or_else(missing)?;
    let mailbox = kubelet.workers.get(super::pods::spec::uid(&found)).ok_or_else(missing)?;
    Ok((found, mailbox))
}

/// Id of a running container.
pub(super) fn running(observed: &Observed, pod: &str, container: &str) -> Result<String, Refusal> {
    let found = observed.container(container).filter(|c| c.state == State::Running);
    found.map(|c| c.id.clone()).ok_or_else(|| Refusal::not_found(format!("container not found (\"{container}\" in pod \"{pod}\")")))
}

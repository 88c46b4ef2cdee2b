//! The listener: TCP, TLS, HTTP/1.1 and HTTP/2, and the one warp filter that hands every request to the chain.
//!
//! Owns connections and their end. Must never look into a request: that is the chain's, and a warp rejection is never control flow.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use futures::StreamExt;
use http::{HeaderMap, Method, Uri, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;
use warp::{Filter, Reply};

use super::authn::{ClientCertificate, Peer};
use super::chain::Chain;
use super::{Body, Connection, Request, Response};
use crate::cork::Corked;
use crate::tasks::Tasks;

/// A client that has not finished its TLS handshake by then is cut.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A client that has not finished its request's headers by then is cut; also how long an idle HTTP/1.1 connection is kept.
const HEADER_LIMIT: Duration = Duration::from_secs(60);
/// How long connections may take to finish what they are at when the server stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const STREAMS_PER_CONNECTION: u32 = 1000;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const SEND_BUFFER: usize = 1024 * 1024;
const HEADER_LIST: u32 = 256 * 1024;

/// What the listener needs.
pub struct ApiServer {
    /// Where clients connect.
    pub listener: TcpListener,
    /// Certificates and client CA. Renewed certificates come through its resolver.
    pub tls: Arc<ServerConfig>,
}

/// Serves until `tasks` are cancelled, then lets connections finish, watches first ended by the chain.
pub async fn serve(server: ApiServer, chain: Chain, tasks: Tasks) {
    let stop = tasks.token().clone();
    let protocols = Arc::new(Protocols::new());
    let tls = TlsAcceptor::from(server.tls);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = server.listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    connections.spawn(connection(stream, remote, tls.clone(), protocols.clone(), chain.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(server.listener);
    chain.stop();
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_LIMIT, drained).await.is_err() {
        tracing::warn!("connections did not finish in time and were cut");
    }
}

/// How each protocol is served. TLS has settled which one it is: to find out from the first bytes would let a client that sends none
/// hold its connection for ever.
struct Protocols {
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
}

impl Protocols {
    fn new() -> Self {
        Protocols { http1: connection_builder().http1_only(), http2: connection_builder().http2_only() }
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST);
    builder
}

async fn connection(
    stream: TcpStream,
    remote: std::net::SocketAddr,
    tls: TlsAcceptor,
    protocols: Arc<Protocols>,
    chain: Chain,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%remote, %error, "connection is gone already");
        return;
    }
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%remote, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%remote, "TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(ClientCertificate::parse).transpose();
    let peer = match certificate {
        Ok(certificate) => Peer::Tls(certificate.map(Arc::new)),
        Err(error) => return tracing::debug!(%remote, %error, "client certificate refused"),
    };
    let service = Arrivals { connection: Arc::new(Connection { remote, peer }), inner: warp::service(filter(chain)) };
    let service = TowerToHyperService::new(service);
    // HTTP/1.1 where the client named none.
    let result = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let connection = protocols.http2.serve_connection_with_upgrades(TokioIo::new(Corked::new(stream)), service);
        until_stopped(connection, |connection| connection.graceful_shutdown(), &stop).await
    } else {
        let connection = protocols.http1.serve_connection_with_upgrades(TokioIo::new(stream), service);
        until_stopped(connection, |connection| connection.graceful_shutdown(), &stop).await
    };
    if let Err(error) = result {
        tracing::debug!(%remote, error, "connection ended");
    }
}

/// Runs a connection to its end; from when the server stops, to that of what it is at.
async fn until_stopped<C: Future>(connection: C, finish: impl FnOnce(Pin<&mut C>), stop: &CancellationToken) -> C::Output {
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            finish(connection.as_mut());
            connection.await
        }
    }
}

/// What warp's filters cannot see by themselves.
#[derive(Clone)]
struct Arrival {
    uri: Uri,
    connection: Arc<Connection>,
}

/// Puts an [`Arrival`] into each request's extensions before warp gets it.
#[derive(Clone)]
struct Arrivals<S> {
    connection: Arc<Connection>,
    inner: S,
}

impl<S> Service<http::Request<Incoming>> for Arrivals<S>
where
    S: Service<http::Request<Incoming>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Incoming>) -> Self::Future {
        let arrival = Arrival { uri: request.uri().clone(), connection: self.connection.clone() };
        request.extensions_mut().insert(arrival);
        self.inner.call(request)
    }
}

/// The catch-all: everything is the chain's.
fn filter(chain: Chain) -> impl Filter<Extract = (warp::reply::Response,), Error = warp::Rejection> + Clone {
    warp::method()
        .and(warp::ext::get::<Arrival>())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |method, arrival, upgrade, headers, body| answer(chain.clone(), method, arrival, upgrade, headers, body))
}

fn answer<S, D>(
    chain: Chain,
    method: Method,
    arrival: Arrival,
    upgrade: Option<OnUpgrade>,
    headers: HeaderMap,
    body: S,
) -> impl Future<Output = warp::reply::Response> + Send
where
    S: futures::Stream<Item = Result<D, warp::Error>> + Send + 'static,
    D: Buf,
{
    let has_body = headers.contains_key(header::CONTENT_LENGTH) || !matches!(method, Method::GET | Method::HEAD);
    let body = if has_body {
        Body::stream(body.map(|frame| frame.map(|mut data| data.copy_to_bytes(data.remaining())).map_err(Into::into)))
    } else {
        Body::empty()
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = arrival.uri;
    *request.headers_mut() = headers;
    request.extensions_mut().insert(arrival.connection.peer.clone());
    request.extensions_mut().insert(arrival.connection);
    if let Some(upgrade) = upgrade {
        request.extensions_mut().insert(upgrade);
    }
    async move { reply(chain.handle(request).await) }
}

/// The chain's response as warp's.
fn reply(response: Response) -> warp::reply::Response {
    let (mut parts, body) = response.into_parts();
    let length = body.length();
    let mut reply = match body.as_full() {
        Some(bytes) => warp::reply::Response::new(bytes.clone().into()),
        None if length == Some(0) => warp::reply::Response::default(),
        None => warp::reply::stream(body).into_response(),
    };
    if let Some(length) = length
        && !parts.status.is_informational()
        && parts.status != http::StatusCode::NO_CONTENT
        && !parts.headers.contains_key(header::CONTENT_LENGTH)
    {
        parts.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    *reply.status_mut() = parts.status;
    *reply.headers_mut() = parts.headers;
    reply
}

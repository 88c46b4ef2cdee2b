//! Requests that are handed on to a kubelet, a pod or a service: headers cleaned, bodies streamed, upgrades passed through as raw bytes.
//!
//! Owns the outgoing connection. Must never let a client's credentials or a hop's own headers through, nor read what flows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use shared::status::ApiError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::api::chain::Call;
use crate::api::{Body, Connection, Response};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Headers that are about one hop only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// Where a request goes.
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, for kubelets and `https:` names.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Whether the server may be made to connect to an address: what only this machine could reach is refused
/// (`k8s.io/kubernetes/pkg/proxy/util.IsProxyableIP`).
///
/// # Errors
/// 400.
pub fn proxyable(host: &str) -> Result<(), ApiError> {
    let refuse = || Err(ApiError::bad_request("address not allowed"));
    let address: IpAddr = match host.parse() {
        Ok(address) => address,
        Err(_) => return Err(ApiError::bad_request(format!("{host:?} is not an address"))),
    };
    let address = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local { refuse() } else { Ok(()) }
}

/// Hands the request on to `target` under another path and streams the answer back. An answer of 101 joins the two connections.
///
/// # Errors
/// 503 when the target cannot be reached.
pub async fn forward(call: &Call<'_>, target: &Target, path_and_query: &str, body: Body) -> Result<Response, ApiError> {
    let reach = |e: &dyn std::fmt::Display| ApiError::unavailable(format!("error trying to reach service: {e}"));
    let wants_upgrade = call.parts.headers.contains_key(header::UPGRADE);
    let mut request = http::Request::new(body);
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = path_and_query.parse::<Uri>().map_err(|e| ApiError::bad_request(e.to_string()))?;
    *request.headers_mut() = outgoing(call, target, wants_upgrade)?;
    let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((target.host.as_str(), target.port))).await;
    let stream = stream.map_err(|_| reach(&format!("dial tcp {}:{}: i/o timeout", target.host, target.port)))?;
    let stream = stream.map_err(|e| reach(&format!("dial tcp {}:{}: {e}", target.host, target.port)))?;
    stream.set_nodelay(true).map_err(|e| reach(&e))?;
    let response = match &target.tls {
        None => send(call, stream, request).await,
        Some(config) => {
            let name = ServerName::try_from(target.host.clone()).map_err(|e| reach(&e))?;
            let handshake = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream);
            let stream = tokio::time::timeout(CONNECT_LIMIT, handshake).await.map_err(|_| reach(&"TLS handshake timeout"))?;
            send(call, stream.map_err(|e| reach(&e))?, request).await
        }
    };
    let mut response = response.map_err(|e| reach(&e))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return join(call, response);
    }
    for name in &HOP_BY_HOP {
        response.headers_mut().remove(name);
    }
    Ok(response.map(Body::wrap))
}

async fn send<S>(call: &Call<'_>, stream: S, request: http::Request<Body>) -> Result<http::Response<hyper::body::Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    call.server.tasks.spawn("api/forward", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a forwarded request's connection ended");
        }
    });
    sender.send_request(request).await
}

/// The client's headers without what is for us alone.
fn outgoing(call: &Call<'_>, target: &Target, wants_upgrade: bool) -> Result<HeaderMap, ApiError> {
    let mut headers = call.parts.headers.clone();
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::AUTHORIZATION);
    let impersonation: Vec<HeaderName> = headers.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    strip_bearer_protocol(&mut headers);
    if wants_upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        headers.remove(header::UPGRADE);
    }
    let host = if target.host.contains(':') { format!("[{}]:{}", target.host, target.port) } else { format!("{}:{}", target.host, target.port) };
    headers.insert(header::HOST, HeaderValue::from_str(&host).map_err(ApiError::internal)?);
    if let Some(connection) = call.parts.extensions.get::<Arc<Connection>>()
        && let Ok(address) = HeaderValue::from_str(&connection.remote.ip().to_string())
    {
        headers.append("x-forwarded-for", address);
    }
    Ok(headers)
}

/// Browsers carry their bearer token as a WebSocket subprotocol; it must not reach the target.
fn strip_bearer_protocol(headers: &mut HeaderMap) {
    const BEARER: &str = "base64url.bearer.authorization.k8s.io.";
    let Some(offered) = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok()) else { return };
    if !offered.contains(BEARER) {
        return;
    }
    let kept: Vec<&str> = offered.split(',').map(str::trim).filter(|p| !p.starts_with(BEARER)).collect();
    if let Ok(value) = HeaderValue::from_str(&kept.join(", ")) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

/// Answers 101 and, once both sides have switched, carries bytes both ways until one side ends.
fn join(call: &Call<'_>, response: http::Response<hyper::body::Incoming>) -> Result<Response, ApiError> {
    let Some(client) = call.parts.extensions.get::<OnUpgrade>().cloned() else {
        return Err(ApiError::bad_request("this connection cannot be upgraded"));
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = response.headers().clone();
    let labels = crate::api::route::Route::of(call.info).labels(call.info);
    let server = call.server.clone();
    call.server.tasks.spawn("api/stream", async move {
        server.metrics.long_running(labels, 1);
        match tokio::try_join!(client, hyper::upgrade::on(response)) {
            Ok((client, upstream)) => {
                crate::relay::both_ways(TokioIo::new(client), TokioIo::new(upstream)).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
        }
        server.metrics.long_running(labels, -1);
    });
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_this_machine_reaches_are_refused() {
        for bad in [
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
            "::ffff:127.0.0.1",
            "255.255.255.255",
            "localhost",
            "",
        ] {
            assert_eq!(proxyable(bad).unwrap_err().code(), 400, "{bad}");
        }
        for good in ["10.244.0.7", "192.168.1.1", "2001:db8::7"] {
            assert!(proxyable(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_bearer_token_among_the_subprotocols_stays_here() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"));
        strip_bearer_protocol(&mut headers);
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "v4.channel.k8s.io");
    }
}

//! Upgrades to WebSocket and SPDY over the same TLS, credentials and proxy as every other request.

use anyhow::{Context, Result, bail};
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{Method, StatusCode, Upgraded};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Client, server_error};

/// An open WebSocket and the subprotocol the server chose.
pub struct Socket {
    /// The frames.
    pub stream: WebSocketStream<Upgraded>,
    /// Such as `v5.channel.k8s.io`.
    pub protocol: String,
}

pub(super) async fn connect(client: &Client, http: &reqwest::Client, path: &str, protocols: &str) -> Result<Socket> {
    let key = generate_key();
    let url = format!("{}{path}", client.base);
    let request = http
        .request(Method::GET, &url)
        .headers(client.headers.clone())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, protocols);
    let response = request.send().await.map_err(|e| client.connect_error(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        if status.is_success() {
            bail!("unable to upgrade connection: the server answered {status} instead of switching protocols");
        }
        return Err(server_error(status, &body).into());
    }
    let accepted = response.headers().get("sec-websocket-accept").and_then(|v| v.to_str().ok());
    if accepted != Some(derive_accept_key(key.as_bytes()).as_str()) {
        bail!("unable to upgrade connection: the server's Sec-WebSocket-Accept does not answer our key");
    }
    let protocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let upgraded = response.upgrade().await.context("unable to upgrade connection")?;
    Ok(Socket { stream: WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await, protocol })
}

/// Upgrades to SPDY/3.1, which servers before WebSockets of version 5 speak.
pub(super) async fn spdy(client: &Client, http: &reqwest::Client, path: &str, protocol: &str) -> Result<Upgraded> {
    let url = format!("{}{path}", client.base);
    let request = http
        .request(Method::POST, &url)
        .headers(client.headers.clone())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", protocol);
    let response = request.send().await.map_err(|e| client.connect_error(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        return Err(server_error(status, &response.bytes().await.unwrap_or_default()).into());
    }
    response.upgrade().await.context("unable to upgrade connection")
}

//! A log over a WebSocket (`k8s.io/apimachinery/pkg/util/httpstream/wsstream/stream.go`): what the kubelet sends, as messages.
//!
//! Owns the handshake and the frames of this direction. What the client sends is read only to notice that it has left.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use shared::status::ApiError;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::api::chain::Call;
use crate::api::{Body, Response};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protocol {
    /// Name in `Sec-WebSocket-Protocol`; empty when the client named none.
    name: &'static str,
    base64: bool,
}

const PROTOCOLS: [Protocol; 3] = [
    Protocol { name: "", base64: false },
    Protocol { name: "binary.k8s.io", base64: false },
    Protocol { name: "base64.binary.k8s.io", base64: true },
];

/// Whether a request asks for a WebSocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The request's headers without the handshake, for whoever is asked for the log.
pub fn without_handshake(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [
        header::UPGRADE,
        header::CONNECTION,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_EXTENSIONS,
    ] {
        headers.remove(name);
    }
    headers
}

/// The first protocol offered that is known; none offered is one as well.
fn choose(headers: &HeaderMap) -> Result<Protocol, ApiError> {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .collect();
    if offered.is_empty() {
        return Ok(PROTOCOLS[0]);
    }
    let known = offered.iter().find_map(|name| PROTOCOLS.iter().find(|p| p.name == *name));
    known.copied().ok_or_else(|| {
        ApiError::bad_request(format!("requested protocol(s) are not supported: {offered:?}; supports binary.k8s.io, base64.binary.k8s.io"))
    })
}

/// One whole unmasked frame.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=65_535 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

impl Protocol {
    fn message(self, bytes: &Bytes) -> Vec<u8> {
        if self.base64 { frame(TEXT, STANDARD.encode(bytes).as_bytes()) } else { frame(BINARY, bytes) }
    }
}

/// Answers 101 and sends the log's text as messages until it ends or the client leaves.
///
/// # Errors
/// 400 when the handshake is not one.
pub fn answer(call: &Call<'_>, log: Response) -> Result<Response, ApiError> {
    let headers = &call.parts.headers;
    let protocol = choose(headers)?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| ApiError::bad_request("Sec-WebSocket-Key is missing"))?;
    let Some(client) = call.parts.extensions.get::<OnUpgrade>().cloned() else {
        return Err(ApiError::bad_request("this connection cannot be upgraded"));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(ApiError::internal)?);
    if !protocol.name.is_empty() {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name));
    }
    let labels = crate::api::route::Route::of(call.info).labels(call.info);
    let server = call.server.clone();
    call.server.tasks.spawn("api/stream", async move {
        server.metrics.long_running(labels, 1);
        match client.await {
            Ok(client) => {
                let (mut reader, mut writer) = tokio::io::split(TokioIo::new(client));
                tokio::select! {
                    sent = send(log.into_body(), protocol, &mut writer) => if let Err(error) = sent {
                        tracing::debug!(%error, "a log's WebSocket broke off");
                    },
                    () = left(&mut reader) => {}
                }
            }
            Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
        }
        server.metrics.long_running(labels, -1);
    });
    Ok(response)
}

async fn send(mut log: Body, protocol: Protocol, client: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    // Upstream's first message is empty: it tells the client that the server is there.
    client.write_all(&protocol.message(&Bytes::new())).await?;
    client.flush().await?;
    while let Some(Ok(part)) = log.frame().await {
        if let Ok(bytes) = part.into_data()
            && !bytes.is_empty()
        {
            client.write_all(&protocol.message(&bytes)).await?;
            client.flush().await?;
        }
    }
    // 1000: a normal end.
    client.write_all(&frame(CLOSE, &1000_u16.to_be_bytes())).await?;
    client.shutdown().await
}

/// Waits until the client has closed its side. What it says is of no interest.
async fn left(client: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut buffer = [0; 1024];
    while client.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_protocol_is_taken() {
        let chosen = |offer: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(offer) = offer {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
            }
            choose(&headers).map(|p| p.name).ok()
        };
        assert_eq!(chosen(None), Some(""));
        assert_eq!(chosen(Some("x, base64.binary.k8s.io, binary.k8s.io")), Some("base64.binary.k8s.io"));
        assert_eq!(chosen(Some("v4.channel.k8s.io")), None);
    }

    #[tokio::test]
    async fn a_log_becomes_messages_and_a_close() {
        let mut out = Vec::new();
        send(Body::from("hi\n"), PROTOCOLS[1], &mut out).await.unwrap();
        assert_eq!(out, [0x82, 0, 0x82, 3, b'h', b'i', b'\n', 0x88, 2, 3, 0xe8]);
        assert_eq!(PROTOCOLS[2].message(&Bytes::from("hi\n")), b"\x81\x04aGkK");
        assert_eq!(frame(BINARY, &[0; 200])[..4], [0x82, 126, 0, 200]);
        assert_eq!(frame(BINARY, &[0; 70_000])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }
}

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

/// The answer to a client's key (RFC 6455, section 4.2.2).
fn accept(key: &HeaderValue) -> String {
    let mut text = key.as_bytes().to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1(&text))
}

/// SHA-1 (RFC 3174), which the handshake wants and nothing here relies on for security.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (f, k) = match i {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
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
    out.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept(key)).map_err(ApiError::internal)?);
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
    fn the_handshake_is_that_of_the_rfc() {
        assert_eq!(accept(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==")), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let hex = |bytes: [u8; 20]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(sha1(b"")), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(hex(sha1(&[b'a'; 63])), "03f09f5b158a7a8cdad920bddc29b81c18a551f5");
        assert_eq!(hex(sha1(&[b'a'; 56])), "c2db330f6083854c99d4b5bfb6e8f29f201be699");
    }

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

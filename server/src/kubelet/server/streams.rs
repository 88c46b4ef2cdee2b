//! exec, attach and port forward: the runtime gives a one-use URL, and the upgraded connection is passed through raw, be it
//! SPDY or WebSocket (`pkg/kubelet/server/server.go`, `apimachinery/pkg/util/proxy`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use tokio::net::TcpStream;

use super::{Body, Refusal, find, full, running};
use crate::kubelet::Kubelet;
use crate::kubelet::logs::pairs;
use crate::kubelet::runtime::RuntimeError;
use crate::relay;

/// Longest time until the runtime's streaming server answers.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest time a command of `/run` may take.
const RUN: Duration = Duration::from_secs(120);
const V5: &str = "v5.channel.k8s.io";

/// Which streams a client wants. The kubelet's own names and those of the API's options both count.
#[derive(Debug, Default, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    command: Vec<String>,
    ports: Vec<i32>,
}

fn parse(query: &str) -> Streams {
    let mut streams = Streams::default();
    for (key, value) in pairs(query) {
        let on = matches!(value.as_str(), "1" | "true");
        match key.as_str() {
            "input" | "stdin" => streams.stdin = on,
            "output" | "stdout" => streams.stdout = on,
            "error" | "stderr" => streams.stderr = on,
            "tty" => streams.tty = on,
            "command" => streams.command.push(value),
            "port" | "ports" => streams.ports.extend(value.split(',').filter_map(|p| p.parse::<i32>().ok())),
            _ => {}
        }
    }
    // With a terminal there is one output; the runtime refuses a separate one.
    streams.stderr &= !streams.tty;
    streams
}

fn runtime(error: RuntimeError) -> Refusal {
    let status = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
    Refusal(status, error.to_string())
}

fn container_id(kubelet: &Kubelet, namespace: &str, pod: &str, container: &str) -> Result<String, Refusal> {
    let (_, mailbox) = find(kubelet, namespace, pod)?;
    let observed = mailbox.observed().borrow().clone();
    running(&observed, pod, container)
}

/// Where to exec.
pub async fn exec_url(kubelet: &Kubelet, namespace: &str, pod: &str, container: &str, query: &str) -> Result<String, Refusal> {
    let streams = parse(query);
    if streams.command.is_empty() {
        return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr and a command"));
    }
    let request = cri::ExecRequest {
        container_id: container_id(kubelet, namespace, pod, container)?,
        cmd: streams.command,
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    kubelet.runtime.exec(request).await.map_err(runtime)
}

/// Where to attach.
pub async fn attach_url(kubelet: &Kubelet, namespace: &str, pod: &str, container: &str, query: &str) -> Result<String, Refusal> {
    let streams = parse(query);
    let request = cri::AttachRequest {
        container_id: container_id(kubelet, namespace, pod, container)?,
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    kubelet.runtime.attach(request).await.map_err(runtime)
}

/// Where to forward ports.
pub async fn port_forward_url(kubelet: &Kubelet, namespace: &str, pod: &str, query: &str) -> Result<String, Refusal> {
    let (_, mailbox) = find(kubelet, namespace, pod)?;
    let observed = mailbox.observed().borrow().clone();
    let sandbox = observed.sandbox().filter(|s| s.ready).ok_or_else(|| Refusal::not_found(format!("pod not found (\"{pod}\")")))?;
    let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port: parse(query).ports };
    kubelet.runtime.port_forward(request).await.map_err(runtime)
}

/// `/run`: a command and its whole output.
pub async fn run(kubelet: &Kubelet, namespace: &str, pod: &str, container: &str, query: &str) -> Result<Response<Body>, Refusal> {
    let id = container_id(kubelet, namespace, pod, container)?;
    let command = pairs(query).into_iter().find(|(k, _)| k == "cmd").map(|(_, v)| v).unwrap_or_default();
    let words: Vec<String> = command.split_whitespace().map(Into::into).collect();
    if words.is_empty() {
        return Err(Refusal::bad_request("cmd is required"));
    }
    let answer = kubelet.runtime.exec_sync(&id, words, Some(RUN)).await.map_err(runtime)?;
    let mut output = answer.stdout;
    output.extend(answer.stderr);
    let mut response = Response::new(full(output));
    if answer.exit_code != 0 {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

/// Sends the client's upgrade on to the runtime and joins the two connections.
pub async fn forward(kubelet: &Arc<Kubelet>, request: Request<Incoming>, url: &str) -> Result<Response<Body>, Refusal> {
    if !request.headers().contains_key(header::UPGRADE) {
        return Err(Refusal::bad_request("Upgrade request required"));
    }
    let uri: http::Uri = url.parse().map_err(|e| Refusal::internal(format!("the runtime sent a bad streaming URL: {e}")))?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = uri.path_and_query().map_or_else(|| "/".into(), ToString::to_string);
    let unreachable = |e: String| Refusal(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server: {e}"));
    let connect = async {
        let stream = TcpStream::connect(&authority).await.map_err(|e| e.to_string())?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        kubelet.tasks.spawn("stream", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "stream to the runtime ended");
            }
        });
        let mut builder = Request::builder().method(request.method().clone()).uri(path);
        if let Some(headers) = builder.headers_mut() {
            *headers = upstream_headers(request.headers(), &authority);
        }
        let outgoing = builder.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        sender.send_request(outgoing).await.map_err(|e| e.to_string())
    };
    let answer = tokio::time::timeout(CONNECT, connect).await.map_err(|_| unreachable("no answer in time".into()))?.map_err(unreachable)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.map_err(Refusal::internal)?.to_bytes();
        return Err(Refusal(parts.status, String::from_utf8_lossy(&bytes).into_owned()));
    }
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().clone_from(answer.headers());
    kubelet.tasks.spawn("stream-copy", async move {
        let (client, server) = match tokio::try_join!(hyper::upgrade::on(request), hyper::upgrade::on(answer)) {
            Ok(pair) => pair,
            Err(error) => return tracing::debug!(%error, "stream not upgraded"),
        };
        relay::both_ways(TokioIo::new(client), TokioIo::new(server)).await;
    });
    Ok(response)
}

/// The client's headers as the runtime can use them: its own host, and no WebSocket protocol that containerd 1.6 would refuse
/// where the client offers an older one as well.
fn upstream_headers(given: &HeaderMap, authority: &str) -> HeaderMap {
    let mut headers = given.clone();
    for name in [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::AUTHORIZATION, header::ORIGIN] {
        headers.remove(name);
    }
    if let Ok(host) = HeaderValue::from_str(authority) {
        headers.insert(header::HOST, host);
    }
    let protocols: Vec<String> = given
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .filter(|p| !p.is_empty())
        .collect();
    if protocols.iter().any(|p| p == V5) && protocols.iter().any(|p| p != V5) {
        let older = protocols.iter().filter(|p| *p != V5).cloned().collect::<Vec<_>>().join(", ");
        if let Ok(value) = HeaderValue::from_str(&older) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_options_count() {
        let expected =
            Streams { stdin: true, stdout: true, stderr: false, tty: true, command: vec!["sh".into(), "-c".into(), "a b".into()], ports: vec![] };
        assert_eq!(parse("command=sh&command=-c&command=a+b&input=1&output=1&error=1&tty=1"), expected);
        assert_eq!(parse("command=sh&command=-c&command=a%20b&stdin=true&stdout=true&tty=true"), expected);
        assert_eq!(parse("ports=80&ports=81").ports, [80, 81]);
    }

    #[test]
    fn the_newest_websocket_protocol_is_offered_only_alone() {
        for (given, expected) in [("v5.channel.k8s.io, v4.channel.k8s.io", "v4.channel.k8s.io"), ("v5.channel.k8s.io", "v5.channel.k8s.io")] {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(given));
            headers.insert(header::HOST, HeaderValue::from_static("node:10250"));
            let sent = upstream_headers(&headers, "127.0.0.1:9");
            assert_eq!(sent[header::SEC_WEBSOCKET_PROTOCOL], expected);
            assert_eq!(sent[header::HOST], "127.0.0.1:9");
        }
    }
}

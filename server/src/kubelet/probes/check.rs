//! One probe or hook: HTTP, TCP, gRPC or a command in the container (`pkg/probe`).
//!
//! Wording follows Go's network errors, because users read it in events.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tonic_prost::ProstCodec;

use super::place::{Place, authority};
use crate::kubelet::images::go_duration;
use crate::kubelet::runtime::Runtime;

/// Most of an answer that is read, in bytes.
const MAX_BODY: usize = 10 << 10;
const MAX_REDIRECTS: usize = 10;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Success,
    /// The container is not well; why.
    Failure(String),
    /// The probe itself could not be made.
    Error(String),
}

/// The container that is probed.
#[derive(Clone)]
pub struct Target {
    /// For commands.
    pub runtime: Runtime,
    /// The runtime's id.
    pub container_id: String,
    /// Its spec, for named ports.
    pub container: Arc<Container>,
    /// The pod's address.
    pub ip: IpAddr,
}

/// Makes one probe.
pub async fn probe(target: &Target, probe: &Probe, timeout: Duration) -> Outcome {
    if let Some(action) = &probe.exec {
        exec(target, action, Some(timeout)).await
    } else if let Some(action) = &probe.http_get {
        http_get(target, action, timeout, "kube-probe/1.36").await
    } else if let Some(action) = &probe.tcp_socket {
        tcp(target, action, timeout).await
    } else if let Some(action) = &probe.grpc {
        grpc(target, action, timeout).await
    } else {
        Outcome::Error(format!("missing probe handler for {}", target.container.name))
    }
}

/// Runs a command; its exit code decides. Without `timeout` it may take as long as it likes.
pub async fn exec(target: &Target, action: &ExecAction, timeout: Option<Duration>) -> Outcome {
    let command = action.command.clone().unwrap_or_default();
    let text = command.join(" ");
    match target.runtime.exec_sync(&target.container_id, command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(MAX_BODY);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.is_timeout() => {
            Outcome::Failure(format!("command \"{text}\" timed out after {}", go_duration(timeout.unwrap_or_default())))
        }
        Err(error) => Outcome::Error(error.to_string()),
    }
}

/// The number of a port given by number or name.
pub fn port(container: &Container, wanted: &IntOrString) -> Result<u16, String> {
    let number = match wanted {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| format!("invalid port: {wanted:?}"))
}

pub(super) fn host_of(given: Option<&str>, ip: IpAddr) -> String {
    given.filter(|h| !h.is_empty()).map_or_else(|| ip.to_string(), Into::into)
}

/// Go's words for a failed connection.
fn dial_error(address: &str, error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let what = match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused",
        ErrorKind::TimedOut => "i/o timeout",
        ErrorKind::HostUnreachable => "connect: no route to host",
        ErrorKind::NetworkUnreachable => "connect: network is unreachable",
        ErrorKind::ConnectionReset => "connect: connection reset by peer",
        _ => return format!("dial tcp {address}: {error}"),
    };
    format!("dial tcp {address}: {what}")
}

async fn dial(host: &str, port: u16) -> std::io::Result<TcpStream> {
    match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect(SocketAddr::new(ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    }
}

async fn tcp(target: &Target, action: &TCPSocketAction, timeout: Duration) -> Outcome {
    let port = match port(&target.container, &action.port) {
        Ok(port) => port,
        Err(error) => return Outcome::Error(error),
    };
    let host = host_of(action.host.as_deref(), target.ip);
    let address = authority(&host, port);
    match tokio::time::timeout(timeout, dial(&host, port)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(dial_error(&address, &error)),
        Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

/// Gets a URL; a status from 200 to 399 is a success. Redirects on the same host are followed.
pub async fn http_get(target: &Target, action: &HTTPGetAction, timeout: Duration, agent: &str) -> Outcome {
    let place = match Place::of(target, action) {
        Ok(place) => place,
        Err(error) => return Outcome::Error(error),
    };
    let url = place.url();
    match tokio::time::timeout(timeout, get(action, place, agent)).await {
        Ok(Ok(status)) if (200..400).contains(&status) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(error)) => Outcome::Failure(format!("Get \"{url}\": {error}")),
        Err(_) => Outcome::Failure(format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

/// Gets a URL for a hook: any answer will do, and it may take as long as it likes.
pub async fn http_hook(target: &Target, action: &HTTPGetAction, agent: &str) -> Outcome {
    let place = match Place::of(target, action) {
        Ok(place) => place,
        Err(error) => return Outcome::Error(error),
    };
    let url = place.url();
    match get(action, place, agent).await {
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::Failure(format!("Get \"{url}\": {error}")),
    }
}

async fn get(action: &HTTPGetAction, place: Place, agent: &str) -> Result<u16, String> {
    let mut place = place;
    for _ in 0..MAX_REDIRECTS {
        let (status, location) = get_once(action, &place, agent).await?;
        match location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)).and_then(|l| place.redirected(&l)) {
            Some(next) => place = next,
            None => return Ok(status),
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

async fn get_once(action: &HTTPGetAction, place: &Place, agent: &str) -> Result<(u16, Option<String>), String> {
    let Place { tls, host, port, path } = place;
    let address = authority(host, *port);
    let stream = dial(host, *port).await.map_err(|e| dial_error(&address, &e))?;
    let request = request(action, &address, path, agent)?;
    if *tls {
        let connector = tokio_rustls::TlsConnector::from(trust_all());
        let name = rustls::pki_types::ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
        send(connector.connect(name, stream).await.map_err(|e| e.to_string())?, request).await
    } else {
        send(stream, request).await
    }
}

fn request(action: &HTTPGetAction, address: &str, path: &str, agent: &str) -> Result<http::Request<Empty<bytes::Bytes>>, String> {
    let mut headers: HashMap<String, String> = HashMap::from([("user-agent".into(), agent.into()), ("accept".into(), "*/*".into())]);
    headers.insert("host".into(), address.into());
    for header in action.http_headers.iter().flatten() {
        headers.insert(header.name.to_lowercase(), header.value.clone());
    }
    let mut builder = http::Request::get(path).header("connection", "close");
    for (name, value) in headers.iter().filter(|(_, v)| !v.is_empty()) {
        builder = builder.header(name, value);
    }
    builder.body(Empty::new()).map_err(|e| e.to_string())
}

async fn send<S>(stream: S, request: http::Request<Empty<bytes::Bytes>>) -> Result<(u16, Option<String>), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| if e.is_incomplete_message() { "EOF".into() } else { e.to_string() })?;
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(Into::into);
        let status = response.status().as_u16();
        // What is longer than the limit is not needed.
        let _ = Limited::new(response.into_body(), MAX_BODY).collect().await;
        Ok((status, location))
    };
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        // The answer may still be in the channel when the connection has ended.
        _ = connection => exchange.await,
    }
}

/// Probes do not verify certificates, as documented for `scheme: HTTPS`.
fn trust_all() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(NoVerification(provider.clone()));
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("ring supports the default versions").dangerous().with_custom_certificate_verifier(verifier);
    Arc::new(config.with_no_client_auth())
}

#[derive(Debug)]
struct NoVerification(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`; 1 is SERVING.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn grpc(target: &Target, action: &GRPCAction, timeout: Duration) -> Outcome {
    let Ok(port) = u16::try_from(action.port) else { return Outcome::Error(format!("invalid port: {}", action.port)) };
    let address = authority(&target.ip.to_string(), port);
    let late =
        || Outcome::Failure(format!("timeout: failed to connect service \"{address}\" within {}: context deadline exceeded", go_duration(timeout)));
    let work = async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).map_err(|e| Outcome::Error(e.to_string()))?;
        // Go's client keeps trying until the time is over.
        let channel = endpoint.connect().await.map_err(|_| late())?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|e| Outcome::Failure(e.to_string()))?;
        let request = tonic::Request::new(HealthCheckRequest { service: action.service.clone().unwrap_or_default() });
        let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        client.unary(request, path, codec).await.map_err(|status| match status.code() {
            tonic::Code::Unimplemented => Outcome::Failure("this server does not implement the grpc health protocol (grpc.health.v1.Health)".into()),
            tonic::Code::DeadlineExceeded => Outcome::Failure(format!("timeout: health rpc did not complete within {}", go_duration(timeout))),
            code => Outcome::Failure(format!("error: health rpc probe failed: rpc error: code = {code:?} desc = {}", status.message())),
        })
    };
    match tokio::time::timeout(timeout, work).await {
        Err(_) => late(),
        Ok(Err(outcome)) => outcome,
        Ok(Ok(answer)) => match answer.into_inner().status {
            1 => Outcome::Success,
            other => {
                let name = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"].get(usize::try_from(other).unwrap_or(9)).unwrap_or(&"UNKNOWN");
                Outcome::Failure(format!("service unhealthy (responded with \"{name}\")"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn target() -> Target {
        let container: Container =
            serde_json::from_value(serde_json::json!({ "name": "a", "ports": [{ "name": "web", "containerPort": 81 }] })).unwrap();
        let runtime = Runtime::new(std::path::Path::new("/nonexistent"), "n");
        Target { runtime, container_id: "c".into(), container: Arc::new(container), ip: "127.0.0.1".parse().unwrap() }
    }

    /// Answers one connection after the other with the given texts; returns its port.
    async fn server(answers: Vec<&'static str>) -> i32 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        i32::from(port)
    }

    async fn get_from(answers: Vec<&'static str>) -> Outcome {
        let action = HTTPGetAction { port: IntOrString::Int(server(answers).await), ..Default::default() };
        http_get(&target(), &action, Duration::from_secs(5), "kube-probe/1.36").await
    }

    #[tokio::test]
    async fn the_status_code_decides_an_http_probe() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(get_from(vec![ok]).await, Outcome::Success);
        let bad = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(get_from(vec![bad]).await, Outcome::Failure("HTTP probe failed with statuscode: 503".into()));
        let moved = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(get_from(vec![moved, bad]).await, Outcome::Failure("HTTP probe failed with statuscode: 503".into()));
        let elsewhere = "HTTP/1.1 302 Found\r\nlocation: http://other.example/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(get_from(vec![elsewhere]).await, Outcome::Success);
    }

    #[tokio::test]
    async fn refused_connections_are_told_in_gos_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = listener.local_addr().unwrap().port();
        drop(listener);
        let action = TCPSocketAction { host: None, port: IntOrString::Int(i32::from(free)) };
        let expected = Outcome::Failure(format!("dial tcp 127.0.0.1:{free}: connect: connection refused"));
        assert_eq!(tcp(&target(), &action, Duration::from_secs(5)).await, expected);
        let action = HTTPGetAction { port: IntOrString::Int(i32::from(free)), path: Some("/x".into()), ..Default::default() };
        let Outcome::Failure(text) = http_get(&target(), &action, Duration::from_secs(5), "a").await else { panic!("no failure") };
        assert_eq!(text, format!("Get \"http://127.0.0.1:{free}/x\": dial tcp 127.0.0.1:{free}: connect: connection refused"));
    }

    #[tokio::test]
    async fn ports_are_found_by_number_and_name() {
        let container = target().container;
        assert_eq!(port(&container, &IntOrString::Int(80)), Ok(80));
        assert_eq!(port(&container, &IntOrString::String("web".into())), Ok(81));
        assert!(port(&container, &IntOrString::String("none".into())).is_err());
    }
}

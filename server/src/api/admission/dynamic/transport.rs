//! Connections to webhooks: where a service's endpoints are, whom TLS trusts, and connections that are kept for the next call
//! (`k8s.io/apiserver/pkg/util/webhook/client.go`, `serviceresolver.go`).
//!
//! Owns the pool. Must never know what is sent. Every connection is either in use by one call or idle here; how many calls there are at a
//! time is bounded by the server's limit on requests in flight.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use rand::seq::IndexedRandom;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::client::tls_config;
use crate::api::objects::Reader;

/// Idle connections kept for one webhook.
const IDLE: usize = 8;
/// Webhooks whose connections and trust are kept; past this many all are dropped.
const KEPT: usize = 256;
/// Longest answer that is read.
const ANSWER: usize = 16 * 1024 * 1024;

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::api::admission) struct Address {
    /// The service, with its namespace; otherwise the host is dialled as it is.
    service: Option<(String, String)>,
    /// As TLS checks it.
    host: String,
    port: u16,
    path: String,
    bundle: Vec<u8>,
}

impl Address {
    /// Where a client configuration points.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::api::admission) fn of(config: &WebhookClientConfig) -> Result<Self, String> {
        let bundle = config.ca_bundle.as_ref().map(|b| b.0.clone()).unwrap_or_default();
        if let Some(service) = &config.service {
            let path = service.path.as_deref().unwrap_or_default();
            return Ok(Address {
                service: Some((service.namespace.clone(), service.name.clone())),
                host: format!("{}.{}.svc", service.name, service.namespace),
                port: service.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
                path: format!("/{}", path.trim_start_matches('/')),
                bundle,
            });
        }
        let url = config.url.as_deref().unwrap_or_default();
        let uri: http::Uri = url.parse().map_err(|_| format!("Unparsable URL: {url}"))?;
        let host = uri.host().ok_or_else(|| format!("Unparsable URL: {url}"))?.trim_matches(['[', ']']).to_owned();
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::path).to_owned();
        Ok(Address { service: None, host, port: uri.port_u16().unwrap_or(443), path, bundle })
    }

    /// As Go's client names it in errors.
    pub(in crate::api::admission) fn url(&self, timeout: u64) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        // Services are named with their port, URLs only where one is written.
        let port = if self.service.is_some() || self.port != 443 { format!(":{}", self.port) } else { String::new() };
        format!("https://{host}{port}{}?timeout={timeout}s", self.path)
    }
}

/// The trust of one webhook, and its idle connections.
struct Peer {
    tls: Arc<ClientConfig>,
    idle: Vec<SendRequest<Full<Bytes>>>,
}

/// Connections by address. Clones share them.
#[derive(Clone, Default)]
pub(in crate::api::admission) struct Pool(Arc<Mutex<HashMap<Address, Peer>>>);

/// An answer, read to its end.
pub(in crate::api::admission) struct Answer {
    pub(in crate::api::admission) status: http::StatusCode,
    pub(in crate::api::admission) body: Bytes,
}

impl Pool {
    /// Posts a body and reads the answer. There is no time-out here: the caller drops the call.
    ///
    /// # Errors
    /// In Go's words, as far as they are known.
    pub(in crate::api::admission) async fn post(&self, reader: &Reader, address: &Address, timeout: u64, body: Bytes) -> Result<Answer, String> {
        if let Some(sender) = self.idle(address) {
            // A connection that was idle may have been closed at the other end just now: then nothing was done, and a new one is tried.
            match self.exchange(address, sender, timeout, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let sender = self.connect(reader, address).await?;
        self.exchange(address, sender, timeout, body).await.map_err(|e| e.to_string())
    }

    fn idle(&self, address: &Address) -> Option<SendRequest<Full<Bytes>>> {
        let mut peers = self.0.lock();
        let peer = peers.get_mut(address)?;
        while let Some(sender) = peer.idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn tls(&self, address: &Address) -> Result<Arc<ClientConfig>, String> {
        let mut peers = self.0.lock();
        if let Some(peer) = peers.get(address) {
            return Ok(peer.tls.clone());
        }
        let tls = tls_config(&address.bundle)?;
        if peers.len() >= KEPT {
            peers.clear();
        }
        peers.insert(address.clone(), Peer { tls: tls.clone(), idle: Vec::new() });
        Ok(tls)
    }

    async fn connect(&self, reader: &Reader, address: &Address) -> Result<SendRequest<Full<Bytes>>, String> {
        let tls = self.tls(address)?;
        let (host, port) = match &address.service {
            Some((namespace, name)) => endpoint(reader, namespace, name, address.port)?,
            None => (address.host.clone(), address.port),
        };
        let dial = TcpStream::connect((host.as_str(), port)).await;
        let stream = dial.map_err(|e| format!("dial tcp {}: {}", shown(&host, port), go_words(&e)))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let name = ServerName::try_from(address.host.clone()).map_err(|e| e.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.map_err(|e| tls_words(&e))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        // Lives as long as its sender, which is here or in a call.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a webhook's connection ended");
            }
        });
        Ok(sender)
    }

    async fn exchange(&self, address: &Address, mut sender: SendRequest<Full<Bytes>>, timeout: u64, body: Bytes) -> hyper::Result<Answer> {
        sender.ready().await?;
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = format!("{}?timeout={timeout}s", address.path).parse().unwrap_or_default();
        let host = format!("{}:{}", address.host, address.port);
        for (name, value) in [
            (http::header::HOST, host.as_str()),
            (http::header::CONTENT_TYPE, "application/json"),
            (http::header::ACCEPT, "application/json, */*"),
            (http::header::USER_AGENT, "kube-apiserver-admission"),
        ] {
            if let Ok(value) = http::HeaderValue::from_str(value) {
                request.headers_mut().insert(name, value);
            }
        }
        let response = sender.send_request(request).await?;
        let status = response.status();
        // An answer that is too long is cut: what is left of it is no JSON, and is refused as such.
        let whole = Limited::new(response.into_body(), ANSWER).collect().await;
        let body = whole.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if !sender.is_closed() && !body.is_empty() {
            let mut peers = self.0.lock();
            if let Some(peer) = peers.get_mut(address)
                && peer.idle.len() < IDLE
            {
                peer.idle.push(sender);
            }
        }
        Ok(Answer { status, body })
    }
}

/// One ready endpoint of a service's port.
fn endpoint(reader: &Reader, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
    let service = reader.get::<Service>(namespace, name).map_err(|e| e.to_string())?;
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok((spec.external_name.unwrap_or_default(), port));
    }
    let wanted = spec.ports.iter().flatten().find(|p| p.port == i32::from(port));
    let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?.name.clone().unwrap_or_default();
    let slices = reader.list::<EndpointSlice>(namespace).map_err(|e| e.to_string())?;
    let own = |slice: &&Arc<EndpointSlice>| slice.metadata.labels.iter().flatten().any(|(k, v)| k == "kubernetes.io/service-name" && v == name);
    let mut ready = Vec::new();
    for slice in slices.iter().filter(own) {
        let port = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == wanted).and_then(|p| p.port);
        let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else { continue };
        let endpoints = slice.endpoints.iter().flatten().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        ready.extend(endpoints.flat_map(|e| &e.addresses).map(|a| (a.clone(), port)));
    }
    ready.choose(&mut rand::rng()).cloned().ok_or_else(|| format!("no endpoints available for service {name:?}"))
}

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn go_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        std::io::ErrorKind::TimedOut => "i/o timeout".into(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        _ => error.to_string(),
    }
}

fn tls_words(error: &std::io::Error) -> String {
    use rustls::{CertificateError, Error};
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    let why = match inner {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => "certificate signed by unknown authority".to_owned(),
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "certificate has expired or is not yet valid".to_owned()
        }
        Some(Error::InvalidCertificate(other)) => other.to_string(),
        _ => return error.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::ServiceReference;

    use super::*;

    #[test]
    fn urls_are_written_as_go_does() {
        let url = |config: &WebhookClientConfig| Address::of(config).map(|a| a.url(10));
        let service = ServiceReference { name: "s".into(), namespace: "n".into(), path: Some("mutate".into()), port: Some(8443) };
        let config = WebhookClientConfig { service: Some(service), ..WebhookClientConfig::default() };
        assert_eq!(url(&config), Ok("https://s.n.svc:8443/mutate?timeout=10s".into()));
        let config = WebhookClientConfig { url: Some("https://127.0.0.1:9443/x".into()), ..WebhookClientConfig::default() };
        assert_eq!(url(&config), Ok("https://127.0.0.1:9443/x?timeout=10s".into()));
        let config = WebhookClientConfig { url: Some("https://hooks.example.com".into()), ..WebhookClientConfig::default() };
        assert_eq!(url(&config), Ok("https://hooks.example.com/?timeout=10s".into()));
    }
}

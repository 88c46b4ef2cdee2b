//! Talks HTTP to the API server: requests, watches, upgrades.
//!
//! Owns the connection (TLS, credentials, proxies), request logging (`-v`) and the mapping of failures to [`crate::errors`].
//! Knows nothing of kinds or commands.

mod auth;
pub mod config;
mod exec_plugin;
pub mod kubeconfig;
mod upgrade;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Certificate, Identity, Method, Response, StatusCode};
use serde_json::Value;

use crate::errors::{ConnectError, ServerError};
pub use config::Settings;
pub use upgrade::Socket;

/// A connection to one API server as one user.
pub struct Client {
    http: reqwest::Client,
    settings: Settings,
    base: String,
    headers: HeaderMap,
    verbosity: u8,
    warnings: std::cell::Cell<usize>,
}

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// `application/json`
    Json,
    /// `application/json-patch+json`
    JsonPatch,
    /// `application/merge-patch+json`
    MergePatch,
    /// `application/strategic-merge-patch+json`
    StrategicPatch,
    /// `application/apply-patch+yaml`
    Apply,
}

impl Body {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Body::Json => "application/json",
            Body::JsonPatch => "application/json-patch+json",
            Body::MergePatch => "application/merge-patch+json",
            Body::StrategicPatch => "application/strategic-merge-patch+json",
            Body::Apply => "application/apply-patch+yaml",
        }
    }
}

/// Asks for the server's table form of objects, or the objects where it has none.
pub const ACCEPT_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

impl Client {
    /// Connects nothing yet; reads credentials and prepares TLS.
    pub async fn new(settings: Settings, verbosity: u8) -> Result<Client> {
        let credentials = auth::credentials(&settings).await?;
        let http = build(&settings, &credentials, false)?;
        let mut headers = auth::headers(&settings, &credentials)?;
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("kctl/", env!("CARGO_PKG_VERSION"), " (linux)")));
        let base = settings.base_url()?;
        Ok(Client { http, settings, base, headers, verbosity, warnings: std::cell::Cell::new(0) })
    }

    /// The server's address as `host:port`, as messages name it.
    pub fn host(&self) -> &str {
        let rest = self.base.split_once("://").map_or(self.base.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }
    /// The server's URL without a trailing slash.
    pub fn url(&self) -> &str {
        &self.settings.server
    }
    /// The settings it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// How many warnings the server sent so far.
    pub fn warnings(&self) -> usize {
        self.warnings.get()
    }

    /// Sends a request and returns the response whatever its status.
    pub async fn send(&self, method: Method, path: &str, accept: &str, body: Option<(&str, Vec<u8>)>) -> Result<Response> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method.clone(), &url).headers(self.headers.clone()).header(ACCEPT, accept);
        if let Some(timeout) = self.settings.request_timeout {
            request = request.timeout(timeout);
        }
        if self.verbosity >= 8
            && let Some((_, bytes)) = &body
        {
            crate::print::note(&format!("Request Body: {}", truncated(bytes, self.verbosity)));
        }
        if let Some((content_type, bytes)) = body {
            request = request.header(CONTENT_TYPE, content_type).body(bytes);
        }
        let started = Instant::now();
        let response = request.send().await.map_err(|e| self.connect_error(&e))?;
        if self.verbosity >= 6 {
            let took = started.elapsed().as_millis();
            crate::print::note(&format!(
                "\"Response\" verb={:?} url={url:?} status={:?} milliseconds={took}",
                method.as_str(),
                response.status().to_string()
            ));
        }
        if self.verbosity >= 8 {
            for (name, value) in response.headers() {
                crate::print::note(&format!("    {name}: {}", value.to_str().unwrap_or_default()));
            }
        }
        self.warn(response.headers());
        Ok(response)
    }

    /// Sends a request and returns the body of a successful response.
    pub async fn bytes(&self, method: Method, path: &str, accept: &str, body: Option<(&str, Vec<u8>)>) -> Result<Vec<u8>> {
        let response = self.send(method, path, accept, body).await?;
        let response = self.success(response).await?;
        let bytes = response.bytes().await.map_err(|e| self.connect_error(&e))?;
        if self.verbosity >= 8 {
            crate::print::note(&format!("Response Body: {}", truncated(&bytes, self.verbosity)));
        }
        Ok(bytes.to_vec())
    }

    /// Sends a request and decodes the JSON body of a successful response.
    pub async fn json(&self, method: Method, path: &str, body: Option<(Body, Vec<u8>)>) -> Result<Value> {
        let body = body.map(|(kind, bytes)| (kind.content_type(), bytes));
        let bytes = self.bytes(method, path, "application/json", body).await?;
        serde_json::from_slice(&bytes).context("the server's answer is not JSON")
    }

    /// GET as JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, None).await
    }

    /// GET as a Kubernetes type. By way of a [`Value`], as everywhere: reading bytes into the types as well would double their code.
    pub async fn get_as<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_value(self.get(path).await?).with_context(|| format!("unable to decode the server's answer to {path}"))
    }

    /// Opens a stream of bytes: logs and watches.
    pub async fn stream(&self, path: &str, accept: &str) -> Result<Response> {
        let response = self.send(Method::GET, path, accept, None).await?;
        self.success(response).await
    }

    /// Upgrades a connection to a WebSocket speaking one of the given subprotocols.
    pub async fn socket(&self, path: &str, protocols: &str) -> Result<Socket> {
        let credentials = auth::credentials(&self.settings).await?;
        let http = build(&self.settings, &credentials, true)?;
        upgrade::connect(self, &http, path, protocols).await
    }

    /// Upgrades a connection to SPDY/3.1 whose streams follow the given protocol.
    pub async fn spdy(&self, path: &str, protocol: &str) -> Result<reqwest::Upgraded> {
        let credentials = auth::credentials(&self.settings).await?;
        let http = build(&self.settings, &credentials, true)?;
        upgrade::spdy(self, &http, path, protocol).await
    }

    async fn success(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.unwrap_or_default();
        if self.verbosity >= 8 {
            crate::print::note(&format!("Response Body: {}", truncated(&bytes, self.verbosity)));
        }
        Err(server_error(status, &bytes).into())
    }

    fn warn(&self, headers: &HeaderMap) {
        for value in headers.get_all("warning") {
            let text = value.to_str().unwrap_or_default();
            // 299 - "text"
            if let Some(start) = text.find('"') {
                let rest = text[start + 1..].trim_end();
                let quoted = rest.strip_suffix('"').unwrap_or(rest).replace("\\\"", "\"").replace("\\\\", "\\");
                crate::print::warn(&quoted);
                self.warnings.set(self.warnings.get() + 1);
            }
        }
    }

    /// Tells a broken connection in kubectl's words.
    pub fn connect_error(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut source: Option<&dyn std::error::Error> = Some(error);
        let mut last = error.to_string();
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::ConnectionRefused
            {
                return ConnectError::Refused(self.host().to_owned()).into();
            }
            last = cause.to_string();
            source = cause.source();
        }
        if last == "invalid peer certificate: UnknownIssuer" {
            last = "tls: failed to verify certificate: x509: certificate signed by unknown authority".into();
        }
        if error.is_timeout() {
            last = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into();
        }
        ConnectError::Other(last).into()
    }
}

fn truncated(bytes: &[u8], verbosity: u8) -> String {
    let limit = match verbosity {
        0..=8 => 1024,
        9 => 10240,
        _ => usize::MAX,
    };
    let text = String::from_utf8_lossy(bytes);
    let cut: String = text.chars().take(limit).collect();
    let left = text.len() - cut.len();
    if left == 0 { cut } else { format!("{cut} [truncated {left} chars]") }
}

/// The `Status` of a failed response; one is made up where the body is none.
pub fn server_error(status: StatusCode, body: &[u8]) -> ServerError {
    if let Ok(parsed) = serde_json::from_slice::<Value>(body).and_then(serde_json::from_value::<Status>)
        && parsed.message.as_deref().is_some_and(|m| !m.is_empty())
    {
        return ServerError(Box::new(parsed));
    }
    let text = String::from_utf8_lossy(body).trim().to_owned();
    let (reason, message) = match status.as_u16() {
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => ("Forbidden", if text.is_empty() { "unknown".into() } else { text.clone() }),
        404 => ("NotFound", "the server could not find the requested resource".to_owned()),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".to_owned()),
        406 => (
            "NotAcceptable",
            if text.is_empty() { "the server was unable to respond with a content type that the client supports".into() } else { text.clone() },
        ),
        415 => ("UnsupportedMediaType", "the body of the request was in an unknown format".to_owned()),
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later".to_owned()),
        500 => ("InternalError", format!("an error on the server ({text:?}) has prevented the request from succeeding")),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        504 => ("Timeout", "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned()),
        code => (
            "",
            format!(
                "the server responded with the status code {code} but did not return more information{}",
                if text.is_empty() { String::new() } else { format!(": {text}") }
            ),
        ),
    };
    ServerError(Box::new(Status {
        code: Some(i32::from(status.as_u16())),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..Status::default()
    }))
}

fn build(settings: &Settings, credentials: &auth::Credentials, http1_only: bool) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).tcp_keepalive(Duration::from_secs(30));
    if http1_only {
        builder = builder.http1_only();
    }
    match &settings.proxy {
        Some(proxy) => builder = builder.proxy(reqwest::Proxy::all(proxy).with_context(|| format!("invalid proxy-url {proxy:?}"))?),
        None => {
            if let Some(proxy) = environment_proxy(settings)? {
                builder = builder.no_proxy().proxy(proxy);
            } else {
                builder = builder.no_proxy();
            }
        }
    }
    if settings.insecure {
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else if let Some(pem) = &settings.ca {
        let certificates = Certificate::from_pem_bundle(pem).map_err(|e| anyhow!("unable to load root certificates: {e}"))?;
        builder = builder.tls_certs_only(certificates);
    } else if settings.server.starts_with("http://") {
        builder = builder.tls_certs_only([]);
    }
    if let Some((certificate, key)) = &credentials.certificate {
        let mut pem = certificate.clone();
        pem.push(b'\n');
        pem.extend_from_slice(key);
        builder = builder.identity(Identity::from_pem(&pem).map_err(|e| anyhow!("tls: failed to find any PEM data in certificate input: {e}"))?);
    }
    if let Some(addresses) = settings.resolve()? {
        builder = builder.resolve_to_addrs(&addresses.0, &addresses.1);
    }
    builder.build().context("cannot set up TLS")
}

/// `HTTPS_PROXY`, unless `NO_PROXY` names the host.
fn environment_proxy(settings: &Settings) -> Result<Option<reqwest::Proxy>> {
    let names: [&str; 2] = if settings.server.starts_with("https") { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    let Some(url) = names.iter().find_map(|n| std::env::var(n).ok()).filter(|u| !u.is_empty()) else { return Ok(None) };
    let host = settings.host_name();
    if matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1") {
        return Ok(None);
    }
    let proxy = reqwest::Proxy::all(&url).with_context(|| format!("invalid proxy {url:?}"))?;
    Ok(Some(proxy.no_proxy(reqwest::NoProxy::from_env())))
}

pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    Ok((
        name.parse().with_context(|| format!("invalid header name {name:?}"))?,
        HeaderValue::from_str(value).with_context(|| format!("invalid header value for {name}"))?,
    ))
}

pub(crate) fn bearer(token: &str) -> Result<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).context("the token holds characters a header cannot carry")?;
    value.set_sensitive(true);
    Ok((AUTHORIZATION, value))
}

//! Subresources that lead to a node or a pod: log, exec, attach, portforward and the proxies
//! (`pkg/registry/core/pod/strategy.go`, `pkg/registry/core/pod/rest/subresources.go`, `pkg/registry/core/{node,service}/strategy.go`).
//!
//! Owns where such a request goes. Must never carry the bytes itself: that is `forward`'s.

mod log_socket;

use std::sync::Arc;

use http::header;
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::seq::IndexedRandom;
use shared::status::ApiError;

use super::forward::{Target, forward, proxyable};
use super::typed;
use crate::api::authz::Access;
use crate::api::chain::Call;
use crate::api::{Body, Response, respond};

/// What a node is reached by, in the order of preference (`--kubelet-preferred-address-types`).
const ADDRESS_TYPES: [&str; 5] = ["InternalIP", "Hostname", "InternalDNS", "ExternalDNS", "ExternalIP"];
const KUBELET_PORT: u16 = 10250;
/// So much of a kubelet's refusal is passed on, in bytes.
const LONGEST_REFUSAL: usize = 50_000;

/// Parameters of a log request that kubelets know.
const LOG_PARAMETERS: [&str; 9] = ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream", "pretty"];

/// `pods/log`
pub async fn log(call: &Call<'_>) -> Result<Response, ApiError> {
    let pod = typed::<Pod>(call, &call.info.namespace, &call.info.name).await?;
    let spec = pod.spec.unwrap_or_default();
    let container = choose_container(&call.info.name, &spec, call.info.param("container").unwrap_or_default())?;
    let by_socket = log_socket::is_wanted(&call.parts.headers);
    let Some(node) = spec.node_name.filter(|n| !n.is_empty()) else {
        // Nothing has run, so nothing was said.
        let nothing = respond::text(http::StatusCode::OK, "");
        return if by_socket { log_socket::answer(call, nothing) } else { Ok(nothing) };
    };
    let mut query = Query::default();
    for name in LOG_PARAMETERS {
        if let Some(value) = call.info.param(name) {
            query.add(name, value);
        }
    }
    let path = format!("/containerLogs/{}/{}/{container}{query}", call.info.namespace, call.info.name);
    let target = kubelet(call, &node).await?;
    if by_socket {
        let mut parts = call.parts.clone();
        parts.headers = log_socket::without_handshake(&parts.headers);
        let plain = Call { server: call.server, info: call.info, user: call.user, parts: &parts };
        let log = accepted(call, forward(&plain, &target, &path, Body::empty()).await?).await?;
        return log_socket::answer(call, log);
    }
    let mut response = accepted(call, forward(call, &target, &path, Body::empty()).await?).await?;
    response.headers_mut().entry(header::CONTENT_TYPE).or_insert(header::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The kubelet's answer; one that is a refusal becomes an error.
async fn accepted(call: &Call<'_>, response: Response) -> Result<Response, ApiError> {
    let code = response.status();
    if code.is_success() {
        return Ok(response);
    }
    let text = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Err(refusal(&call.info.name, code.as_u16(), &String::from_utf8_lossy(&text)))
}

/// What a kubelet refuses is told as a Status (`pkg/registry/generic/rest/response_checker.go` in `k8s.io/apiserver`).
fn refusal(pod: &str, code: u16, text: &str) -> ApiError {
    match code {
        400 => ApiError::bad_request(text),
        500 => ApiError::internal(text),
        404 => ApiError::new(404, "NotFound", format!("the server could not find the requested resource ( pods/log {pod})")),
        _ => {
            ApiError::new(code, "", format!("the server responded with the status code {code} but did not return more information ( pods/log {pod})"))
        }
    }
}

/// `pods/exec` and `pods/attach`
pub async fn run(call: &Call<'_>) -> Result<Response, ApiError> {
    upgrade_only(call)?;
    let pod = typed::<Pod>(call, &call.info.namespace, &call.info.name).await?;
    let spec = pod.spec.unwrap_or_default();
    let container = choose_container(&call.info.name, &spec, call.info.param("container").unwrap_or_default())?;
    let node = assigned(&call.info.name, &spec)?;
    let mut query = Query::default();
    // Kubelets call the streams by other names than the API.
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.info.flag(ours) {
            query.add(theirs, "1");
        }
    }
    for command in call.info.params("command") {
        query.add("command", command);
    }
    let path = format!("/{}/{}/{}/{container}{query}", call.info.subresource, call.info.namespace, call.info.name);
    forward(call, &kubelet(call, node).await?, &path, Body::empty()).await
}

/// `pods/portforward`
pub async fn port_forward(call: &Call<'_>) -> Result<Response, ApiError> {
    upgrade_only(call)?;
    let pod = typed::<Pod>(call, &call.info.namespace, &call.info.name).await?;
    let spec = pod.spec.unwrap_or_default();
    let node = assigned(&call.info.name, &spec)?;
    let mut query = Query::default();
    for port in call.info.params("ports") {
        query.add("port", port);
    }
    let path = format!("/portForward/{}/{}{query}", call.info.namespace, call.info.name);
    forward(call, &kubelet(call, node).await?, &path, Body::empty()).await
}

/// `nodes/proxy`, `pods/proxy` and `services/proxy`
pub async fn proxy(call: &Call<'_>, body: Body) -> Result<Response, ApiError> {
    let (scheme, name, port) = split_name(&call.info.name)?;
    let target = match call.info.resource.as_str() {
        "nodes" => {
            let mut target = kubelet(call, name).await?;
            if let Some(port) = port {
                proxyable(&target.host)?;
                target.port = port.parse().map_err(|_| ApiError::bad_request(format!("invalid node request {:?}", call.info.name)))?;
            }
            if scheme == "http" {
                target.tls = None;
            }
            target
        }
        "pods" => pod_target(call, scheme, name, port).await?,
        _ => service_target(call, scheme, name, port).await?,
    };
    let rest = if call.info.rest.is_empty() { "/" } else { &call.info.rest };
    let query = call.parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    forward(call, &target, &format!("{}{query}", encode_path(rest)), body).await
}

/// A stream needs a connection of its own, and whoever opens one must be allowed to create, whatever the method.
fn upgrade_only(call: &Call<'_>) -> Result<(), ApiError> {
    if call.info.verb == "get" {
        call.authorize(&Access { verb: "create", ..Access::of(call.info) })?;
    }
    if call.parts.headers.contains_key(header::UPGRADE) { Ok(()) } else { Err(ApiError::bad_request("Upgrade request required")) }
}

fn assigned<'a>(name: &str, spec: &'a PodSpec) -> Result<&'a str, ApiError> {
    let node = spec.node_name.as_deref().filter(|n| !n.is_empty());
    node.ok_or_else(|| ApiError::bad_request(format!("pod {name} does not have a host assigned")))
}

/// The container that is meant, with upstream's words when that is not clear.
fn choose_container(pod: &str, spec: &PodSpec, asked: &str) -> Result<String, ApiError> {
    let names: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let ephemeral: Vec<&str> = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    if !asked.is_empty() {
        let known = [&names, &init, &ephemeral].iter().any(|list| list.contains(&asked));
        return if known { Ok(asked.to_owned()) } else { Err(ApiError::bad_request(format!("container {asked} is not valid for pod {pod}"))) };
    }
    if let [only] = names[..] {
        return Ok(only.to_owned());
    }
    let mut text = format!("a container name must be specified for pod {pod}, choose one of: [{}]", names.join(" "));
    if !init.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(ApiError::bad_request(text))
}

/// How a node's kubelet is reached.
///
/// # Errors
/// 404 without the node, 503 when it or this server cannot be reached so.
pub(in crate::api) async fn kubelet(call: &Call<'_>, name: &str) -> Result<Target, ApiError> {
    let tls = call.server.kubelet_tls.clone();
    let tls = Some(tls.ok_or_else(|| ApiError::unavailable("this server has no certificate to show to kubelets"))?);
    let node = typed::<Node>(call, "", name).await?;
    let status = node.status.unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default();
    let host = ADDRESS_TYPES.iter().find_map(|wanted| addresses.iter().find(|a| a.type_ == *wanted)).map(|a| a.address.clone());
    let host = host.ok_or_else(|| ApiError::internal(format!("no preferred addresses found; known addresses: {:?}", addresses)))?;
    let port = status.daemon_endpoints.and_then(|e| e.kubelet_endpoint).and_then(|e| u16::try_from(e.port).ok()).unwrap_or(KUBELET_PORT);
    Ok(Target { host, port, tls })
}

/// `[scheme:]name[:port]`
fn split_name(name: &str) -> Result<(&str, &str, Option<&str>), ApiError> {
    let invalid = || ApiError::bad_request(format!("invalid request {name:?}"));
    match name.split(':').collect::<Vec<_>>()[..] {
        [name] => Ok(("", name, None)),
        [name, port] => Ok(("", name, Some(port))),
        [scheme @ ("" | "http" | "https"), name, port] => Ok((scheme, name, (!port.is_empty()).then_some(port))),
        _ => Err(invalid()),
    }
}

async fn pod_target(call: &Call<'_>, scheme: &str, name: &str, port: Option<&str>) -> Result<Target, ApiError> {
    let pod = typed::<Pod>(call, &call.info.namespace, name).await?;
    let host = pod.status.and_then(|s| s.pod_ip).unwrap_or_default();
    proxyable(&host)?;
    let first = || pod.spec.iter().flat_map(|s| &s.containers).flat_map(|c| c.ports.iter().flatten()).next().map(|p| p.container_port.to_string());
    let port = port.map(str::to_owned).or_else(first).unwrap_or_else(|| "80".into());
    let port = port.parse().map_err(|_| ApiError::bad_request(format!("invalid pod request {:?}", call.info.name)))?;
    Ok(Target { host, port, tls: plain_or_tls(scheme)? })
}

/// TLS to a pod or service is not offered: its certificate could not be checked against anything.
fn plain_or_tls(scheme: &str) -> Result<Option<Arc<rustls::ClientConfig>>, ApiError> {
    if scheme == "https" { Err(ApiError::bad_request("https to pods and services is not supported by this server's proxy")) } else { Ok(None) }
}

async fn service_target(call: &Call<'_>, scheme: &str, name: &str, port: Option<&str>) -> Result<Target, ApiError> {
    let service = typed::<Service>(call, &call.info.namespace, name).await?;
    let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
    let wanted = match port {
        None if ports.len() == 1 => ports.first(),
        None => None,
        Some(port) => ports.iter().find(|p| p.name.as_deref() == Some(port) || p.port.to_string() == port),
    };
    let gone = || ApiError::unavailable(format!("no service port {:?} found for service {name:?}", port.unwrap_or_default()));
    let wanted = wanted.ok_or_else(gone)?;
    let wanted_name = wanted.name.as_deref().unwrap_or_default();
    let slices = super::list_typed::<EndpointSlice>(call, &call.info.namespace)?;
    let mut endpoints: Vec<(String, u16)> = Vec::new();
    for slice in slices.iter().filter(|s| s.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name")).is_some_and(|n| n == name)) {
        let port = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == wanted_name).and_then(|p| p.port);
        let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else { continue };
        let ready = slice.endpoints.iter().flatten().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        endpoints.extend(ready.flat_map(|e| &e.addresses).map(|a| (a.clone(), port)));
    }
    let (host, port) =
        endpoints.choose(&mut rand::rng()).cloned().ok_or_else(|| ApiError::unavailable(format!("no endpoints available for service {name:?}")))?;
    proxyable(&host)?;
    Ok(Target { host, port, tls: plain_or_tls(scheme)? })
}

/// A query, encoded.
#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        encode(value, &mut self.0, false);
    }
}

impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn encode(text: &str, out: &mut String, path: bool) {
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || path && b"/:@!$&'()*+,;=".contains(&byte);
        if plain { out.push(char::from(byte)) } else { out.push_str(&format!("%{byte:02X}")) }
    }
}

fn encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    encode(path, &mut out, true);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Container;

    fn spec(names: &[&str], init: &[&str]) -> PodSpec {
        let containers = |names: &[&str]| names.iter().map(|n| Container { name: (*n).into(), ..Container::default() }).collect::<Vec<_>>();
        PodSpec { containers: containers(names), init_containers: Some(containers(init)), ..PodSpec::default() }
    }

    #[test]
    fn the_container_must_be_clear() {
        let choose = |spec: &PodSpec, asked: &str| choose_container("x", spec, asked).map_err(|e| e.to_string());
        assert_eq!(choose(&spec(&["a"], &["i"]), ""), Ok("a".into()));
        assert_eq!(choose(&spec(&["a", "b"], &[]), "b"), Ok("b".into()));
        assert_eq!(choose(&spec(&["a"], &["i"]), "i"), Ok("i".into()));
        assert_eq!(choose(&spec(&["a", "b"], &[]), ""), Err("a container name must be specified for pod x, choose one of: [a b]".into()));
        let both = "a container name must be specified for pod x, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(choose(&spec(&["a", "b"], &["i"]), ""), Err(both.into()));
        assert_eq!(choose(&spec(&["a"], &[]), "z"), Err("container z is not valid for pod x".into()));
    }

    #[test]
    fn what_a_kubelet_refuses_is_told_in_its_own_words_where_upstream_does_so() {
        let told = |code| {
            let error = refusal("x", code, "why");
            (error.code(), error.reason().to_owned(), error.to_string())
        };
        assert_eq!(told(400), (400, "BadRequest".into(), "why".into()));
        assert_eq!(told(500), (500, "InternalError".into(), "Internal error occurred: why".into()));
        assert_eq!(told(404), (404, "NotFound".into(), "the server could not find the requested resource ( pods/log x)".into()));
        assert_eq!(told(502).0, 502);
    }

    #[test]
    fn proxied_names_have_an_optional_scheme_and_port() {
        assert_eq!(split_name("web").unwrap(), ("", "web", None));
        assert_eq!(split_name("web:80").unwrap(), ("", "web", Some("80")));
        assert_eq!(split_name("https:web:metrics").unwrap(), ("https", "web", Some("metrics")));
        assert_eq!(split_name("http:web:").unwrap(), ("http", "web", None));
        assert!(split_name("ftp:web:1").is_err() && split_name("a:b:c:d").is_err());
    }

    #[test]
    fn queries_and_paths_are_encoded_once() {
        let mut query = Query::default();
        query.add("command", "sh -c 'a&b'");
        query.add("input", "1");
        assert_eq!(query.to_string(), "?command=sh%20-c%20%27a%26b%27&input=1");
        assert_eq!(encode_path("/a b/c%d/é"), "/a%20b/c%25d/%C3%A9");
    }
}

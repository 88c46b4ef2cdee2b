//! The filter chain: what every request goes through, however it came in.
//!
//! Order: panic → request info → deadline → authn → audit → impersonation → in-flight → authz → dispatch.
//! Owns that order and nothing else: each filter is a module of its own. Must never know what a kind means.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use http::Method;
use http::request::Parts;
use shared::status::ApiError;
use tokio_util::sync::CancellationToken;

use super::audit::{Annotations, Audit, Record};
use super::authn::Peer;
use super::authz::{self, Access};
use super::inflight::{InFlight, Lane};
use super::metrics::Metrics;
use super::negotiate::Accepted;
use super::request_info::RequestInfo;
use super::route::Route;
use super::user::User;
use super::{Authenticate, Authorize, Body, IssueTokens, Request, Response};
use super::{dispatch, impersonation, respond};
use crate::registry::admit::Admit;
use crate::registry::store::Store;
use crate::tasks::Tasks;

/// Requests that do not stream end by then (`--request-timeout`).
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a chain is made of.
pub struct Config {
    /// The objects.
    pub store: Store,
    /// Who makes a request.
    pub authn: Arc<dyn Authenticate>,
    /// Who may do what.
    pub authz: Arc<dyn Authorize>,
    /// Decides on writes.
    pub admit: Arc<dyn Admit>,
    /// Service-account tokens; without it `serviceaccounts/token` and the OpenID documents are not served.
    pub tokens: Option<Arc<dyn IssueTokens>>,
    /// How the server shows itself to kubelets and checks them; without it logs, exec and the like answer 503.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// Where the audit log goes.
    pub audit_log: Option<PathBuf>,
    /// Reading requests in flight (400).
    pub max_reading: usize,
    /// Mutating requests in flight (200).
    pub max_mutating: usize,
    /// Whether clients on this machine get compressed answers too; for them it mostly costs time.
    pub compress_loopback: bool,
}

/// The chain; clones share it.
#[derive(Clone)]
pub struct Chain(Arc<Inner>);

/// What handlers may use.
pub struct Inner {
    /// The objects.
    pub store: Store,
    /// Who makes a request.
    pub authn: Arc<dyn Authenticate>,
    /// Who may do what.
    pub authz: Arc<dyn Authorize>,
    /// Decides on writes.
    pub admit: Arc<dyn Admit>,
    /// Service-account tokens.
    pub tokens: Option<Arc<dyn IssueTokens>>,
    /// See [`Config::kubelet_tls`].
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Requests under way.
    pub in_flight: InFlight,
    /// Where streams that outlive their request run.
    pub tasks: Tasks,
    /// Cancelled when watches are to end.
    pub stopping: CancellationToken,
    audit: Option<Audit>,
    compress_loopback: bool,
}

/// One request, as handlers see it.
pub struct Call<'a> {
    /// The server.
    pub server: &'a Arc<Inner>,
    /// The parsed line.
    pub info: &'a RequestInfo,
    /// Who asks, after impersonation.
    pub user: &'a User,
    /// Headers and extensions.
    pub parts: &'a Parts,
}

impl Call<'_> {
    /// Whether the user may do something else as well; for requests that imply further ones.
    ///
    /// # Errors
    /// 403.
    pub fn authorize(&self, access: &Access<'_>) -> Result<(), ApiError> {
        if self.server.authz.permits(self.user, access) {
            return Ok(());
        }
        let decision = self.server.authz.authorize(self.user, access);
        if decision.allowed { Ok(()) } else { Err(authz::forbidden(self.user, access, &decision.reason)) }
    }
}

/// Who a request turned out to be from; kept for the audit line whatever becomes of the request.
#[derive(Default)]
struct Identity {
    user: Option<User>,
    impersonated: Option<User>,
}

impl Chain {
    /// Builds the chain. Its long-lived parts run in `tasks`.
    ///
    /// # Errors
    /// When the audit log cannot be opened.
    pub fn new(config: Config, tasks: &Tasks) -> std::io::Result<Self> {
        let audit = config.audit_log.as_deref().map(|path| Audit::open(path, tasks)).transpose()?;
        Ok(Chain(Arc::new(Inner {
            store: config.store,
            authn: config.authn,
            authz: config.authz,
            admit: config.admit,
            tokens: config.tokens,
            kubelet_tls: config.kubelet_tls,
            metrics: Arc::default(),
            in_flight: InFlight::new(config.max_reading, config.max_mutating),
            tasks: tasks.clone(),
            stopping: CancellationToken::new(),
            audit,
            compress_loopback: config.compress_loopback,
        })))
    }

    /// Ends watches and makes `/readyz` fail; for the listener when it drains.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// The server behind the filters.
    pub fn server(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Answers a request. Never fails: whatever goes wrong is a `Status`.
    pub async fn handle(&self, request: Request) -> Response {
        let (started, received) = (Instant::now(), SystemTime::now());
        let (parts, body) = request.into_parts();
        let info = match RequestInfo::parse(&parts.method, &parts.uri) {
            Ok(info) => info,
            Err(error) => return respond::error(&error),
        };
        let route = Route::of(&info);
        let mut identity = Identity::default();
        let annotations = Annotations::default();
        let answering = AssertUnwindSafe(self.0.within_deadline(&parts, &info, route, body, &mut identity)).catch_unwind();
        let answer = annotations.gather(answering).await;
        let answer = answer.unwrap_or_else(|_| {
            tracing::error!(method = %parts.method, path = info.path, "a request's handler panicked");
            Err(ApiError::new(500, "InternalError", "This request caused apiserver to panic. Look in the logs for details."))
        });
        let response = answer.unwrap_or_else(|error| respond::error_for(Accepted::choose(&parts.headers, &info).ok(), &error));
        let response = self.0.compressed(&parts, response).await;
        let response = if parts.method == Method::HEAD { without_body(response) } else { response };
        self.0.metrics.request(route.labels(&info), response.status().as_u16(), started.elapsed());
        self.0.audit(&parts, &info, &identity, received, response.status().as_u16(), &annotations.take());
        response
    }
}

impl Inner {
    async fn within_deadline(
        self: &Arc<Self>,
        parts: &Parts,
        info: &RequestInfo,
        route: Route,
        body: Body,
        identity: &mut Identity,
    ) -> Result<Response, ApiError> {
        let filtered = Box::pin(self.filtered(parts, info, route, body, identity));
        if info.long_running() {
            return filtered.await;
        }
        match tokio::time::timeout(deadline(info)?, filtered).await {
            Ok(answer) => answer,
            Err(_) => {
                self.metrics.timeouts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Err(ApiError::timeout("request did not complete within the allotted timeout", 0))
            }
        }
    }

    async fn filtered(
        self: &Arc<Self>,
        parts: &Parts,
        info: &RequestInfo,
        route: Route,
        body: Body,
        identity: &mut Identity,
    ) -> Result<Response, ApiError> {
        let user = match parts.extensions.get::<Peer>() {
            Some(Peer::Process(user)) => User::clone(user),
            _ => self.authn.authenticate(parts).await?,
        };
        let user = &*identity.user.insert(user);
        let impersonated = impersonation::requested(&*self.authz, user, &parts.headers)?;
        let user = match impersonated {
            Some(other) => &*identity.impersonated.insert(other),
            None => user,
        };
        let _place = match Lane::of(info, user) {
            None => None,
            Some(lane) => Some(self.in_flight.enter(lane).ok_or_else(|| {
                self.metrics.rejected.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                ApiError::too_many_requests("Too many requests, please try again later.", 1)
            })?),
        };
        let call = Call { server: self, info, user, parts };
        call.authorize(&Access::of(info))?;
        dispatch::dispatch(&call, route, body).await
    }

    async fn compressed(&self, parts: &Parts, response: Response) -> Response {
        let remote = parts.extensions.get::<Arc<super::Connection>>().is_some_and(|c| !c.remote.ip().is_loopback());
        if remote || self.compress_loopback { respond::compress(&parts.headers, response).await } else { response }
    }

    fn audit(&self, parts: &Parts, info: &RequestInfo, identity: &Identity, received: SystemTime, code: u16, annotations: &BTreeMap<String, String>) {
        let Some(audit) = &self.audit else { return };
        let anonymous = User::anonymous();
        let user = identity.user.as_ref().unwrap_or(&anonymous);
        let record = Record { parts, info, user, impersonated: identity.impersonated.as_ref(), received, code, annotations };
        if !audit.record(&record) {
            self.metrics.audit_dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// `?timeout=30s`, at most [`DEADLINE`].
fn deadline(info: &RequestInfo) -> Result<Duration, ApiError> {
    let Some(text) = info.param("timeout").filter(|t| !t.is_empty()) else { return Ok(DEADLINE) };
    let asked = go_duration(text)
        .ok_or_else(|| ApiError::bad_request(format!("invalid timeout specified in the request URL - time: invalid duration {text:?}")))?;
    Ok(if asked.is_zero() { DEADLINE } else { asked.min(DEADLINE) })
}

/// A duration as Go writes it: `1m30s`, `500ms`, or plain `0`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.length() {
        parts.headers.insert(http::header::CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_timeout_is_a_go_duration_of_at_most_a_minute() {
        let of = |uri: &str| deadline(&RequestInfo::parse(&Method::GET, &uri.parse().unwrap()).unwrap());
        for (query, seconds) in
            [("", 60.0), ("timeout=10s", 10.0), ("timeout=1.5s", 1.5), ("timeout=1h2m", 60.0), ("timeout=250ms", 0.25), ("timeout=0", 60.0)]
        {
            assert_eq!(of(&format!("/api/v1/pods?{query}")).unwrap().as_secs_f64(), seconds, "{query}");
        }
        for bad in ["timeout=10", "timeout=s", "timeout=x", "timeout=1d", "timeout=-1s"] {
            assert_eq!(of(&format!("/api/v1/pods?{bad}")).unwrap_err().code(), 400, "{bad}");
        }
    }
}

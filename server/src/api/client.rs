//! The API for components of this process: a `kube::Client` whose requests enter the same filter chain under the component's own identity,
//! without a socket, TLS or HTTP framing.
//!
//! Owns the identity that such a request carries. Must never skip a filter.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, header};
use tower::Service;

use super::authn::Peer;
use super::chain::Chain;
use super::user::User;
use super::{Body, Request, Response};

/// A client that speaks to `chain` as `user`. Must be called within a tokio runtime. Streams that need a connection of their own
/// (exec, attach, port-forward) are refused with 400.
pub fn in_process_client(chain: Chain, user: User) -> kube::Client {
    kube::Client::new(InProcessService { chain, user: Arc::new(user) }, "default")
}

/// The name of the program that does this component's work elsewhere: it becomes the manager of the fields that it writes.
fn agent(user: &str) -> HeaderValue {
    HeaderValue::from_static(match user {
        "system:kube-scheduler" => "kube-scheduler",
        "system:kube-proxy" => "kube-proxy",
        "system:apiserver" => "kube-apiserver",
        user if user.starts_with("system:node:") => "kubelet",
        user if user == "system:kube-controller-manager" || user.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        _ => "kserver",
    })
}

#[derive(Clone)]
struct InProcessService {
    chain: Chain,
    user: Arc<User>,
}

impl<B> Service<http::Request<B>> for InProcessService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<super::body::BodyError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let mut request: Request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::wrap(body) });
        // Whatever a caller put there counts for nothing: the identity is the client's.
        request.extensions_mut().clear();
        request.extensions_mut().insert(Peer::Process(self.user.clone()));
        request.headers_mut().entry(header::USER_AGENT).or_insert_with(|| agent(&self.user.name));
        let chain = self.chain.clone();
        Box::pin(async move { Ok(chain.handle(request).await) })
    }
}

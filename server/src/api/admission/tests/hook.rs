//! A webhook in the test's own process: TLS on loopback, and a function that answers.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What a webhook says to a request: the response without its uid; `None` never answers.
type Answer = dyn Fn(&Value) -> Option<Value> + Send + Sync;

pub(super) struct Hook {
    url: String,
    bundle: String,
    /// The requests so far.
    seen: Arc<Mutex<Vec<Value>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Hook {
    pub(super) async fn start(answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}/hook", listener.local_addr().unwrap().port());
        let seen = Arc::<Mutex<Vec<Value>>>::default();
        let (answer, record): (Arc<Answer>, _) = (Arc::new(answer), seen.clone());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, record) = (acceptor.clone(), answer.clone(), record.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| reply(answer.clone(), record.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Hook { url, bundle: STANDARD.encode(certified.cert.pem()), seen, server }
    }

    /// One that always says this.
    pub(super) async fn saying(response: Value) -> Self {
        Self::start(move |_| Some(response.clone())).await
    }

    /// One that applies a patch.
    pub(super) async fn patching(patch: Value) -> Self {
        Self::saying(patched(&patch)).await
    }

    /// The requests so far.
    pub(super) fn seen(&self) -> Vec<Value> {
        self.seen.lock().clone()
    }

    /// A configuration with one webhook, called for these resources of the core group.
    pub(super) fn configuration(&self, name: &str, resources: &[&str], more: Value) -> Value {
        let mut hook = json!({
            "name": format!("{name}.example.com"),
            "clientConfig": {"url": self.url, "caBundle": self.bundle},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"]
        });
        for (field, value) in more.as_object().unwrap() {
            hook[field] = value.clone();
        }
        json!({"metadata": {"name": name}, "webhooks": [hook]})
    }
}

/// The response that applies a patch.
pub(super) fn patched(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

async fn reply(
    answer: Arc<Answer>,
    record: Arc<Mutex<Vec<Value>>>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Full<Bytes>>, std::convert::Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let request = review["request"].clone();
    record.lock().push(request.clone());
    let Some(mut response) = answer(&request) else { return std::future::pending().await };
    response["uid"] = request["uid"].clone();
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(http::Response::new(Full::new(Bytes::from(review.to_string()))))
}

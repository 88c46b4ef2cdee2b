//! An admission webhook in the test's own process, on the loopback of a cluster's machine.
//!
//! Owns its server, which ends with it. What it answers is the story's.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::Machine;

/// What a webhook says to a request: the response without its uid.
type Answer = dyn Fn(&Value) -> Value + Send + Sync;

/// A webhook that listens.
pub struct Hook {
    /// Where it is.
    pub url: String,
    /// Base64 of the PEM that its certificate is checked against.
    pub bundle: String,
    /// Runs the server; dropped with it.
    _runtime: Runtime,
}

impl Hook {
    /// Starts one on a machine.
    pub fn start(machine: &Machine, answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate can be made");
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("its key is a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("ring knows TLS");
        let config = builder.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).expect("key and certificate fit");
        let listener = machine.listen();
        let url = format!("https://{}/", listener.local_addr().expect("it is bound"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        let (acceptor, answer): (_, Arc<Answer>) = (TlsAcceptor::from(Arc::new(config)), Arc::new(answer));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| reply(answer.clone(), request));
                    // A client that goes away is no failure of the story.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Hook { url, bundle: STANDARD.encode(certified.cert.pem()), _runtime: runtime }
    }

    /// A configuration of one webhook for configmaps of a namespace; `sort` is `Validating` or `Mutating`.
    pub fn configuration(&self, sort: &str, name: &str, namespace: &str, more: &Value) -> String {
        let mut hook = json!({
            "name": format!("{name}.example.com"),
            "clientConfig": {"url": self.url, "caBundle": self.bundle},
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        });
        if let (Some(hook), Some(more)) = (hook.as_object_mut(), more.as_object()) {
            hook.extend(more.clone());
        }
        let kind = format!("{sort}WebhookConfiguration");
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [hook]}).to_string()
    }
}

/// The response that applies a JSON patch.
pub fn patching(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

async fn reply(answer: Arc<Answer>, request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut response = answer(&review["request"]);
    response["uid"] = review["request"]["uid"].clone();
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(http::Response::new(Full::new(Bytes::from(review.to_string()))))
}

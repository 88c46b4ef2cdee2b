//! Signs approved certificate requests for the signers whose certificates the API server trusts
//! (`pkg/controller/certificates/signer/signer.go`).
//!
//! Owns what a signer may sign. The authority's key is its process's, which is why signing is a setting.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::Api;
use kube::api::PostParams;

use super::certificates::request::{parse, validate_node_client, validate_node_serving};
use super::certificates::{KUBELET_CLIENT, KUBELET_SERVING};
use super::queue::{Key, Queue};
use super::{Context, Error, now, synced};

/// Longest validity, and that of requests that ask for none, in seconds (upstream's `--cluster-signing-duration`).
const LONGEST: i32 = 365 * 24 * 60 * 60;
/// Shortest validity, in seconds.
const SHORTEST: i32 = 600;
/// Signs anything for clients of the API server.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs anything.
const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// What a certificate is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// For clients.
    pub client: bool,
    /// For servers.
    pub server: bool,
    /// Validity in seconds.
    pub seconds: i32,
}

type Signer = dyn Fn(&str, Wanted) -> Result<String, String> + Send + Sync;

/// The cluster's authority: makes a certificate, as PEM, of a request.
#[derive(Clone)]
pub struct Sign(pub Arc<Signer>);

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sign")
    }
}

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is not approved, done already, or for another signer.
    Nothing,
    Sign(Wanted),
    /// It asks for what its signer does not sign.
    Refuse(String),
}

fn decide(request: &CertificateSigningRequest) -> Decision {
    let status = request.status.as_ref();
    let has = |kind: &str| status.and_then(|s| s.conditions.as_ref()).is_some_and(|c| c.iter().any(|c| c.type_ == kind));
    let issued = status.and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty());
    if !has("Approved") || has("Denied") || has("Failed") || issued {
        return Decision::Nothing;
    }
    let spec = &request.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    let checked = match spec.signer_name.as_str() {
        CLIENT => client_usages(usages),
        LEGACY => Ok(()),
        KUBELET_CLIENT => parse(&spec.request.0).and_then(|names| validate_node_client(&names, usages)),
        KUBELET_SERVING => parse(&spec.request.0).and_then(|names| validate_node_serving(&names, usages)),
        _ => return Decision::Nothing,
    };
    if let Err(reason) = checked {
        return Decision::Refuse(reason);
    }
    let uses = |usage: &str| usages.iter().any(|u| u == usage);
    let seconds = spec.expiration_seconds.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
    Decision::Sign(Wanted { client: uses("client auth"), server: uses("server auth"), seconds })
}

/// Refuses usages that a client's certificate has no need of (`validateAPIServerClientUsages`).
fn client_usages(usages: &[String]) -> Result<(), String> {
    let fits = |usage: &&String| matches!(usage.as_str(), "digital signature" | "key encipherment" | "client auth");
    match usages.iter().find(|usage| !fits(usage)) {
        Some(usage) => Err(format!("invalid usage for client certificate: {usage}")),
        None if usages.iter().any(|u| u == "client auth") => Ok(()),
        None => Err("missing required usage for client certificate: client auth".into()),
    }
}

/// Starts the controller; without an authority in the settings there is nothing to sign with.
pub fn start(ctx: Context) {
    let Some(sign) = ctx.config.sign.clone() else { return };
    let requests = ctx.informers.get::<CertificateSigningRequest>();
    let queue: Queue<Key> = Queue::new();
    ctx.enqueue_all(&requests, &queue);
    let client = ctx.client.clone();
    ctx.work(&queue, 1, vec![synced(&requests)], move |key| {
        let (client, requests, sign) = (client.clone(), requests.clone(), sign.clone());
        async move {
            let Some(request) = requests.get("", &key.name) else { return Ok(()) };
            let mut changed = CertificateSigningRequest::clone(&request);
            let pem = String::from_utf8_lossy(&request.spec.request.0);
            match decide(&request) {
                Decision::Nothing => return Ok(()),
                Decision::Refuse(reason) => refuse(&mut changed, reason),
                Decision::Sign(wanted) => match (sign.0)(&pem, wanted) {
                    Ok(certificate) => changed.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes())),
                    Err(error) => refuse(&mut changed, format!("unable to sign: {error}")),
                },
            }
            match Api::all(client).replace_status(&key.name, &PostParams::default(), &changed).await.map_err(Error::from) {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        }
    });
}

fn refuse(request: &mut CertificateSigningRequest, message: String) {
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: "Failed".into(),
        status: "True".into(),
        reason: Some("SignerValidationFailure".into()),
        message: Some(message),
        last_update_time: Some(now()),
        last_transition_time: Some(now()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(signer: &str, usages: &[&str], condition: &str) -> CertificateSigningRequest {
        let status = json!({"conditions": [{"type": condition, "status": "True"}]});
        let spec = json!({"signerName": signer, "usages": usages, "request": "", "expirationSeconds": 60});
        serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn only_approved_requests_for_known_signers_are_signed_and_only_for_what_they_sign() {
        let client = Decision::Sign(Wanted { client: true, server: false, seconds: SHORTEST });
        assert_eq!(decide(&request(CLIENT, &["client auth", "digital signature"], "Approved")), client);
        for nothing in [
            request(CLIENT, &["client auth"], "Denied"),
            request("example.com/own", &["client auth"], "Approved"),
            CertificateSigningRequest { status: None, ..request(CLIENT, &["client auth"], "Approved") },
        ] {
            assert_eq!(decide(&nothing), Decision::Nothing, "{nothing:?}");
        }
        assert!(matches!(decide(&request(CLIENT, &["server auth"], "Approved")), Decision::Refuse(_)));
        let both = Decision::Sign(Wanted { client: true, server: true, seconds: SHORTEST });
        assert_eq!(decide(&request(LEGACY, &["server auth", "client auth"], "Approved")), both);
        let mut issued = request(CLIENT, &["client auth"], "Approved");
        issued.status.get_or_insert_default().certificate = Some(ByteString(b"x".to_vec()));
        assert_eq!(decide(&issued), Decision::Nothing);
    }

    #[test]
    fn nodes_get_the_certificates_that_nodes_may_have() {
        let key = rcgen::KeyPair::generate().unwrap();
        let of = |signer: &str, usages: &[&str], name: &str, hosts: &[&str]| {
            let mut params = rcgen::CertificateParams::new(hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let mut request = request(signer, usages, "Approved");
            request.spec.request = ByteString(params.serialize_request(&key).unwrap().pem().unwrap().into_bytes());
            decide(&request)
        };
        let (client, server) = (["digital signature", "client auth"], ["digital signature", "server auth"]);
        let signed = |client, server| Decision::Sign(Wanted { client, server, seconds: SHORTEST });
        assert_eq!(of(KUBELET_CLIENT, &client, "system:node:n", &[]), signed(true, false));
        assert_eq!(of(KUBELET_SERVING, &server, "system:node:n", &["n", "10.0.0.1"]), signed(false, true));
        let refused = |decision, text: &str| assert_eq!(decision, Decision::Refuse(text.to_owned()));
        refused(of(KUBELET_CLIENT, &client, "system:node:n", &["n"]), "DNS subjectAltNames are not allowed");
        refused(of(KUBELET_SERVING, &server, "jane", &["n"]), "subject common name does not begin with system:node: ");
        refused(of(CLIENT, &["client auth", "server auth"], "jane", &[]), "invalid usage for client certificate: server auth");
    }
}

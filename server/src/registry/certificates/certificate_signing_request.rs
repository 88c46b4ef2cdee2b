//! CertificateSigningRequests (`pkg/registry/certificates/certificates/strategy.go`, `pkg/apis/certificates/validation/validation.go`).
//!
//! Who asks is filled in by admission, which knows the user; what a client claims about that is dropped here.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{dns1123_subdomain, immutable};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// The shortest validity a request may ask for, in seconds.
const SHORTEST: i32 = 600;
const USAGES: [&str; 23] = [
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];

/// See the module.
pub struct CertificateSigningRequests;

impl Strategy for CertificateSigningRequests {
    type Object = CertificateSigningRequest;
    const PLURAL: &'static str = "certificatesigningrequests";
    const SINGULAR: &'static str = "certificatesigningrequest";
    const SHORT_NAMES: &'static [&'static str] = &["csr"];
    const NAMESPACED: bool = false;
    const SUBRESOURCES: &'static [Subresource] =
        &[Subresource { name: "approval", kind: "", group: "", version: "", verbs: &["get", "patch", "update"] }, STATUS];
    const FIELDS: &'static [&'static str] = &["spec.signerName"];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        print::AGE,
        Column::new("SignerName"),
        Column::new("Requestor"),
        Column::new("RequestedDuration"),
        Column::new("Condition"),
    ];

    fn prepare_for_create(object: &mut CertificateSigningRequest) {
        let spec = &mut object.spec;
        spec.username = None;
        spec.uid = None;
        spec.groups = None;
        spec.extra = None;
        object.status = Some(Default::default());
    }

    fn validate(object: &CertificateSigningRequest) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let spec = &object.spec;
        let text = std::str::from_utf8(&spec.request.0).unwrap_or_default();
        // The first block is the one that is signed, so it is the one that is looked at.
        if !text.split_once("-----BEGIN ").is_some_and(|(_, first)| first.starts_with("CERTIFICATE REQUEST-----")) {
            errors.push(Error::invalid(&path.child("request"), &spec.request, "PEM block type must be CERTIFICATE REQUEST"));
        }
        let usages = spec.usages.as_deref().unwrap_or_default();
        if usages.is_empty() {
            errors.push(Error::required(&path.child("usages"), ""));
        }
        let mut seen = BTreeSet::new();
        for (index, usage) in usages.iter().enumerate() {
            let path = path.child("usages").index(index);
            if !USAGES.contains(&usage.as_str()) {
                errors.push(Error::not_supported(&path, usage, &USAGES));
            }
            if !seen.insert(usage) {
                errors.push(Error::duplicate(&path, usage));
            }
        }
        signer_name(&path.child("signerName"), &spec.signer_name, &mut errors);
        if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < SHORTEST) {
            let detail = format!("may not specify a duration less than {SHORTEST} seconds (10 minutes)");
            errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, &detail));
        }
        errors
    }

    fn prepare_for_update(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> ErrorList {
        let mut errors = Vec::new();
        immutable(&Path::new("spec"), &new.spec, &old.spec, &mut errors);
        errors
    }

    /// The signer sets the certificate and its own failure; approval has its own subresource.
    fn prepare_for_status_update(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        new.spec.clone_from(&old.spec);
        let decided = |kind: &str| ["Approved", "Denied"].contains(&kind);
        let before = old.status.iter().flat_map(|s| s.conditions.iter().flatten()).filter(|c| decided(&c.type_)).cloned();
        let status = new.status.get_or_insert_default();
        let mut conditions: Vec<_> = before.collect();
        conditions.extend(status.conditions.take().unwrap_or_default().into_iter().filter(|c| !decided(&c.type_)));
        status.conditions = (!conditions.is_empty()).then_some(conditions);
    }

    fn validate_status_update(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> ErrorList {
        let mut errors = conditions(new);
        let certificate = |o: &CertificateSigningRequest| o.status.as_ref().and_then(|s| s.certificate.clone()).filter(|c| !c.0.is_empty());
        if certificate(old).is_some() && certificate(new) != certificate(old) {
            errors.push(Error::forbidden(&Path::new("status").child("certificate"), "updates may not modify existing certificate content"));
        }
        errors
    }

    fn cells(object: &CertificateSigningRequest, context: &PrintContext) -> Vec<Value> {
        let duration = object.spec.expiration_seconds.map(|s| shared::age::human_duration(s.into()));
        vec![
            print::name(&object.metadata),
            print::age(&object.metadata, context),
            print::or_none(Some(&object.spec.signer_name)),
            object.spec.username.clone().unwrap_or_default().into(),
            print::or_none(duration.as_deref()),
            condition(object).into(),
        ]
    }
}

/// What `…/approval` keeps: of the new object only its conditions.
pub fn prepare_for_approval(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    new.spec.clone_from(&old.spec);
    let conditions = new.status.take().and_then(|s| s.conditions);
    new.status.clone_from(&old.status);
    new.status.get_or_insert_default().conditions = conditions;
}

/// Errors of an approval or status: a request is approved or denied, never both, and neither is taken back.
pub fn conditions(object: &CertificateSigningRequest) -> ErrorList {
    let mut errors = Vec::new();
    let path = Path::new("status").child("conditions");
    let list: Vec<_> = object.status.iter().flat_map(|s| s.conditions.iter().flatten()).collect();
    for (index, condition) in list.iter().enumerate() {
        let path = path.index(index);
        if condition.type_.is_empty() {
            errors.push(Error::required(&path.child("type"), ""));
        }
        let fixed = ["Approved", "Denied", "Failed"].contains(&condition.type_.as_str());
        if condition.status.is_empty() {
            errors.push(Error::required(&path.child("status"), ""));
        } else if fixed && condition.status != "True" {
            errors.push(Error::not_supported(&path.child("status"), &condition.status, &["True"]));
        }
        if list[..index].iter().any(|c| c.type_ == condition.type_) {
            errors.push(Error::duplicate(&path.child("type"), &condition.type_));
        }
    }
    let has = |kind: &str| list.iter().any(|c| c.type_ == kind);
    if has("Approved") && has("Denied") {
        errors.push(Error::invalid(&path, "Denied", "Approved and Denied conditions are mutually exclusive"));
    }
    errors
}

/// `Pending`, `Approved` or `Denied`, then `,Failed` and `,Issued`.
fn condition(object: &CertificateSigningRequest) -> String {
    let status = object.status.clone().unwrap_or_default();
    let has = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    let mut text = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if status.certificate.is_some_and(|c| !c.0.is_empty()) {
        text.push_str(",Issued");
    }
    text
}

/// `domain/path`, as `ValidateSignerName`.
fn signer_name(path: &Path, name: &str, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    let Some((domain, rest)) = name.split_once('/') else {
        return errors.push(Error::invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'"));
    };
    if rest.is_empty() || rest.contains('/') {
        return errors.push(Error::invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'"));
    }
    if !dns1123_subdomain(domain).is_empty() || !domain.contains('.') {
        errors.push(Error::invalid(path, name, "should be a domain with at least two segments separated by dots"));
    }
    for message in dns1123_subdomain(rest) {
        errors.push(Error::invalid(path, name, &format!("validating label {rest:?}: {message}")));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn request(patch: Value) -> Value {
        let pem = ByteString(b"-----BEGIN CERTIFICATE REQUEST-----\n".to_vec());
        let base = json!({"metadata": {"name": "r"}, "spec": {
            "request": pem, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "username": "mallory"
        }});
        with(base, patch)
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        assert_eq!(created::<CertificateSigningRequests>(request(json!({}))).spec.username, None);
    }

    #[test]
    fn signer_usages_and_duration_are_checked() {
        let of = |spec: Value| errors::<CertificateSigningRequests>(request(json!({"spec": spec})));
        assert!(of(json!({})).is_empty());
        assert_eq!(of(json!({"usages": null})), ["spec.usages: Required value"]);
        assert_eq!(
            of(json!({"signerName": "nobody"})),
            ["spec.signerName: Invalid value: \"nobody\": must be a fully qualified domain and path of the form 'example.com/signer-name'"]
        );
        assert_eq!(
            of(json!({"expirationSeconds": 1})),
            ["spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 600 seconds (10 minutes)"]
        );
    }

    #[test]
    fn a_signer_cannot_approve() {
        let old = created::<CertificateSigningRequests>(request(json!({})));
        let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"}]}});
        let mut new = object::<CertificateSigningRequests>(request(approved));
        CertificateSigningRequests::prepare_for_status_update(&mut new, &old);
        let kinds: Vec<_> = new.status.unwrap().conditions.unwrap().into_iter().map(|c| c.type_).collect();
        assert_eq!(kinds, ["Failed"]);
    }

    #[test]
    fn a_request_is_approved_or_denied() {
        let both = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]}});
        let errors = conditions(&object::<CertificateSigningRequests>(request(both)));
        assert_eq!(errors[0].to_string(), "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive");
    }

    #[test]
    fn rows_show_the_decision() {
        let of = |status: Value| cells::<CertificateSigningRequests>(request(json!({"status": status})))[5].clone();
        assert_eq!(of(json!({})), "Pending");
        assert_eq!(of(json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="})), "Approved,Issued");
        assert_eq!(of(json!({"conditions": [{"type": "Denied", "status": "True"}]})), "Denied");
    }
}

//! Notes who asks for a certificate (`pkg/registry/certificates/certificates/strategy.go`, `PrepareForCreate`). Who approves a certificate request needs the right to approve for its signer, who signs the right to sign, and nobody asks for a
//! certificate in `system:masters` (`plugin/pkg/admission/certificates/{approval,signing,subjectrestriction}`).

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pemfile::Item;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, forbidden, new_object, new_object_mut, old_object};
use crate::api::authz::Access;

pub(super) struct Certificates;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

#[async_trait]
impl Plugin for Certificates {
    fn name(&self) -> &'static str {
        "Certificates"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.resource.group == "certificates.k8s.io" && attributes.resource.plural == "certificatesigningrequests"
    }

    async fn mutate(&self, _: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if attributes.operation != Operation::Create || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let user = attributes.user;
        if let Some(request) = new_object_mut::<CertificateSigningRequest>(attributes) {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            request.spec.username = text(&user.name);
            request.spec.uid = text(&user.uid);
            request.spec.groups = (!user.groups.is_empty()).then(|| user.groups.clone());
            request.spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
        }
        Ok(())
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(request) = new_object::<CertificateSigningRequest>(attributes) else { return Ok(()) };
        match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") if request.spec.signer_name == CLIENT_SIGNER && asks_for_masters(&request.spec.request.0) => {
                Err(forbidden(attributes, "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"))
            }
            (Operation::Update, "approval") => may(context, attributes, "approve", "approve requests with signerName"),
            (Operation::Update, "status") => {
                let issued = |r: Option<&CertificateSigningRequest>| r.and_then(|r| r.status.as_ref()).and_then(|s| s.certificate.clone());
                if issued(Some(request)) == issued(old_object(attributes)) {
                    return Ok(());
                }
                may(context, attributes, "sign", "sign requests with signerName")
            }
            _ => Ok(()),
        }
    }
}

/// Whether the user has a verb on the signer, or on its whole domain.
fn may(context: &Context, attributes: &Attributes<'_>, verb: &str, what: &str) -> Result<(), ApiError> {
    // The stored signer counts: an update cannot change it.
    let signer = old_object::<CertificateSigningRequest>(attributes).map(|r| r.spec.signer_name.clone()).unwrap_or_default();
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let allowed = [signer.as_str(), &domain].iter().any(|name| {
        let access = Access::resource(verb, "certificates.k8s.io", "signers", "", name);
        context.authorizer.authorize(attributes.user, &access).allowed
    });
    if allowed { Ok(()) } else { Err(forbidden(attributes, &format!("user not permitted to {what} {signer:?}"))) }
}

fn asks_for_masters(pem: &[u8]) -> bool {
    use x509_parser::prelude::FromDer as _;
    let Ok(Some((Item::Csr(der), _))) = rustls_pemfile::read_one_from_slice(pem) else { return false };
    let Ok((_, request)) = x509_parser::certification_request::X509CertificationRequest::from_der(&der) else { return false };
    request.certification_request_info.subject.iter_organization().any(|o| o.as_str().is_ok_and(|o| o == "system:masters"))
}

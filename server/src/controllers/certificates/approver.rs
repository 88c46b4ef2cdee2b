//! Approves the client certificates of nodes if authorization lets their requestor have them
//! (`pkg/controller/certificates/approver/sarapprove.go`).

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use kube::{Api, Client};

use super::request::{Names, is_node_client, parse};
use super::{KUBELET_CLIENT, add_condition, condition, follow, is_issued};
use crate::controllers::error::found;
use crate::controllers::queue::Queue;
use crate::controllers::{Context, Error};

/// Starts the controller.
pub fn start(ctx: Context) {
    let client = ctx.client.clone();
    follow(&ctx, &Queue::new(), move |request| {
        let client = client.clone();
        async move { approve(&client, &request).await }
    });
}

/// What a requestor needs the permission to create, and the message of an approval.
fn recognized(request: &CertificateSigningRequest, names: &Names) -> Vec<(&'static str, &'static str)> {
    if request.spec.signer_name != KUBELET_CLIENT || !is_node_client(names, request.spec.usages.as_deref().unwrap_or_default()) {
        return Vec::new();
    }
    let mut kinds = Vec::new();
    if request.spec.username.as_ref() == Some(&names.name) {
        kinds.push(("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."));
    }
    kinds.push(("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."));
    kinds
}

async fn approve(client: &Client, request: &CertificateSigningRequest) -> Result<(), Error> {
    if is_issued(request) || condition(request, "Approved").is_some() || condition(request, "Denied").is_some() {
        return Ok(());
    }
    // What cannot be read is the signer's to refuse.
    let Ok(names) = parse(&request.spec.request.0) else { return Ok(()) };
    for (subresource, message) in recognized(request, &names) {
        if !may(client, request, subresource).await? {
            continue;
        }
        let mut approved = request.clone();
        add_condition(&mut approved, "Approved", "AutoApproved", message);
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        found(api.replace_subresource("approval", name, &PostParams::default(), &approved).await)?;
        return Ok(());
    }
    Ok(())
}

async fn may(client: &Client, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
    let spec = &request.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                version: Some("*".into()),
                resource: Some("certificatesigningrequests".into()),
                verb: Some("create".into()),
                subresource: Some(subresource.into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::<SubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|s| s.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_client_certificates_are_recognized() {
        let names = Names { name: "system:node:n".into(), groups: vec!["system:nodes".into()], ..Names::default() };
        let mut request = CertificateSigningRequest::default();
        request.spec.usages = Some(vec!["digital signature".into(), "client auth".into()]);
        request.spec.username = Some("system:bootstrap:abc".into());
        assert!(recognized(&request, &names).is_empty());
        request.spec.signer_name = KUBELET_CLIENT.into();
        assert_eq!(recognized(&request, &names).iter().map(|(s, _)| *s).collect::<Vec<_>>(), ["nodeclient"]);
        request.spec.username = Some("system:node:n".into());
        assert_eq!(recognized(&request, &names).iter().map(|(s, _)| *s).collect::<Vec<_>>(), ["selfnodeclient", "nodeclient"]);
    }
}

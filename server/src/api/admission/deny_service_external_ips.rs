//! Nobody draws others' traffic to a Service by `externalIPs` (`plugin/pkg/admission/denyserviceexternalips/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, forbidden, is, new_object, old_object};

pub(super) struct DenyServiceExternalIps;

fn ips(service: Option<&Service>) -> &[String] {
    service.and_then(|s| s.spec.as_ref()).and_then(|s| s.external_ips.as_deref()).unwrap_or_default()
}

#[async_trait]
impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is(attributes, "", "services", &[Operation::Create, Operation::Update])
    }

    async fn validate(&self, _: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let old = ips(old_object(attributes));
        // What is there already may stay, or go.
        if ips(new_object(attributes)).iter().all(|ip| old.contains(ip)) {
            return Ok(());
        }
        Err(forbidden(attributes, "Use of external IPs is denied by admission control."))
    }
}

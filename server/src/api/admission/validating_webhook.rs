//! Calls validating webhooks, all at once (`k8s.io/apiserver/pkg/admission/plugin/webhook/validating/dispatcher.go`).

use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::api::admissionregistration::v1::{ValidatingWebhook, ValidatingWebhookConfiguration};
use shared::status::ApiError;

use super::dynamic::matching::{Rule, Target, exempt, matching_kind, namespace_matches, object_matches};
use super::dynamic::request::Request;
use super::dynamic::review::{self, Hook};
use super::dynamic::transport::Pool;
use super::dynamic::{conditions, environment};
use super::mutating_webhook::{WEBHOOK_SCOPE, decided, refused};
use super::{Attributes, Context, Plugin};
use crate::api::audit::annotate;

#[derive(Default)]
pub(super) struct ValidatingAdmissionWebhook {
    pool: Pool,
}

#[async_trait]
impl Plugin for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !exempt(attributes)
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let mut configurations = context.reader.list::<ValidatingWebhookConfiguration>("")?;
        if configurations.is_empty() {
            return Ok(());
        }
        configurations.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let target = Target::of(attributes);
        let mut relevant = Vec::new();
        for hook in configurations.iter().flat_map(|c| c.webhooks.iter().flatten()) {
            if let Some(request) = matches(context, attributes, &target, hook).await? {
                relevant.push((hook, request));
            }
        }
        let calls = relevant.iter().map(|(hook, request)| async move {
            let asked = Hook {
                name: &hook.name,
                client: &hook.client_config,
                timeout: hook.timeout_seconds,
                side_effects: &hook.side_effects,
                mutating: false,
            };
            let mut warnings = Vec::new();
            let answer = review::call(&self.pool, &context.reader, asked, request, &mut warnings).await;
            (answer, warnings)
        });
        // All are heard, so that every warning is shown; the first refusal counts.
        let mut first = Ok(());
        for (index, ((hook, _), (answer, warnings))) in relevant.iter().zip(join_all(calls).await).enumerate() {
            attributes.warnings.extend(warnings);
            let outcome = match answer {
                Ok(verdict) => {
                    verdict.annotations.into_iter().for_each(|(key, value)| annotate(key, value));
                    Ok(())
                }
                Err(refusal) => {
                    let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                    refused(&hook.name, key, hook.failure_policy.as_deref(), refusal)
                }
            };
            first = first.and(outcome);
        }
        first
    }
}

/// The request as the webhook is to see it, if it is to see it.
async fn matches(context: &Context, attributes: &Attributes<'_>, target: &Target<'_>, hook: &ValidatingWebhook) -> Result<Option<Request>, ApiError> {
    let rules = hook.rules.iter().flatten().map(Rule::from);
    let Some(kind) = matching_kind(target, rules, hook.match_policy.as_deref()) else { return Ok(None) };
    let selected = namespace_matches(context, attributes, target, hook.namespace_selector.as_ref()).await?
        && object_matches(attributes, hook.object_selector.as_ref())?;
    if !selected {
        return Ok(None);
    }
    let request = Request::of(attributes, target, kind)?;
    let conditions = hook.match_conditions.as_deref().unwrap_or_default();
    if !conditions.is_empty() {
        let bindings = environment::bindings(context, attributes, target, &request).await?;
        if !decided(attributes, hook.failure_policy.as_deref(), conditions::hold(&WEBHOOK_SCOPE, conditions, &bindings))? {
            return Ok(None);
        }
    }
    Ok(Some(request))
}

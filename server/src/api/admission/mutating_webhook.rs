//! Calls mutating webhooks, one after the other, and applies their patches
//! (`k8s.io/apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go`).

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use serde_json::{Value, json};
use shared::patch::json::apply_json_patch;
use shared::status::ApiError;

use super::dynamic::matching::{Rule, Target, exempt, matching_kind, namespace_matches, object_matches};
use super::dynamic::request::{Request, take_over};
use super::dynamic::review::{self, Hook, Refusal};
use super::dynamic::transport::Pool;
use super::dynamic::{conditions, environment};
use super::{Attributes, Context, Plugin};
use crate::api::audit::annotate;
use crate::registry::Resource;
use shared::cel::admission::Scope;

#[derive(Default)]
pub(super) struct MutatingAdmissionWebhook {
    pool: Pool,
}

const NAME: &str = "MutatingAdmissionWebhook";

/// A webhook as one write calls it.
struct Called<'a> {
    configuration: &'a str,
    /// Round and number, as audit annotations name it.
    place: String,
    /// What it is known by when it is to be called again.
    id: String,
}

#[async_trait]
impl Plugin for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !exempt(attributes)
    }

    async fn mutate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let mut configurations = context.reader.list::<MutatingWebhookConfiguration>("")?;
        if configurations.is_empty() {
            return Ok(());
        }
        configurations.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let target = Target::of(attributes);
        if attributes.reinvocation.second {
            changed_since(NAME, attributes)?;
        }
        let mut number = 0;
        for configuration in &configurations {
            let configuration_name = configuration.metadata.name.as_deref().unwrap_or_default();
            for (index, hook) in configuration.webhooks.iter().flatten().enumerate() {
                let id = format!("{configuration_name}/{}/{index}", hook.name);
                let place = format!("round_{}_index_{number}", u8::from(attributes.reinvocation.second));
                number += 1;
                if attributes.reinvocation.second && !attributes.reinvocation.due.contains(&id) {
                    continue;
                }
                if let Some(kind) = matches(context, attributes, &target, hook).await? {
                    let called = Called { configuration: configuration_name, place, id };
                    self.one(context, attributes, &target, hook, kind, called).await?;
                }
            }
        }
        if attributes.object.is_some() {
            let left = shown(attributes)?;
            attributes.reinvocation.left.insert(NAME, left);
        }
        Ok(())
    }
}

impl MutatingAdmissionWebhook {
    async fn one(
        &self,
        context: &Context,
        attributes: &mut Attributes<'_>,
        target: &Target<'_>,
        hook: &MutatingWebhook,
        kind: &'static Resource,
        called: Called<'_>,
    ) -> Result<(), ApiError> {
        let request = Request::of(attributes, target, kind)?;
        if !conditions_hold(context, attributes, target, hook, &request).await? {
            return Ok(());
        }
        let asked =
            Hook { name: &hook.name, client: &hook.client_config, timeout: hook.timeout_seconds, side_effects: &hook.side_effects, mutating: true };
        let verdict = match review::call(&self.pool, &context.reader, asked, &request, attributes.warnings).await {
            Ok(verdict) => verdict,
            Err(refusal) => {
                let key = format!("failed-open.mutating.webhook.admission.k8s.io/{}", called.place);
                return refused(&hook.name, key, hook.failure_policy.as_deref(), refusal);
            }
        };
        verdict.annotations.into_iter().for_each(|(key, value)| annotate(key, value));
        let changed = match verdict.patch {
            Some(patch) => patched(attributes, hook, &request, &patch)?,
            None => false,
        };
        let report = json!({"configuration": called.configuration, "webhook": hook.name, "mutated": changed});
        annotate(format!("mutation.webhook.admission.k8s.io/{}", called.place), report.to_string());
        let again = &mut attributes.reinvocation;
        if changed {
            // Whoever was asked before, and wants to know, is asked again.
            again.due.extend(again.asked.iter().cloned());
            again.wanted = true;
        }
        if hook.reinvocation_policy.as_deref() == Some("IfNeeded") {
            again.asked.insert(called.id);
        }
        Ok(())
    }
}

/// Whoever was asked the first time is asked again if others have changed the object since.
pub(super) fn changed_since(plugin: &'static str, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    let now = shown(attributes)?;
    if attributes.reinvocation.left.get(plugin).is_some_and(|left| *left != now) {
        let again = &mut attributes.reinvocation;
        again.due.extend(again.asked.iter().cloned());
    }
    Ok(())
}

pub(super) fn shown(attributes: &Attributes<'_>) -> Result<Value, ApiError> {
    attributes.object.as_deref().map_or(Ok(Value::Null), |o| o.to_value().map_err(ApiError::internal))
}

/// Applies a patch. Returns whether it changed anything.
fn patched(attributes: &mut Attributes<'_>, hook: &MutatingWebhook, request: &Request, patch: &[u8]) -> Result<bool, ApiError> {
    let empty = serde_json::from_slice::<Vec<Value>>(patch).is_ok_and(|operations| operations.is_empty());
    if empty {
        return Ok(false);
    }
    if attributes.object.is_none() {
        let text = format!("admission webhook {:?} attempted to modify the object, which is not supported for this operation", hook.name);
        return Err(ApiError::internal(text));
    }
    let patched = apply_json_patch(request.object.clone(), patch).map_err(|e| ApiError::internal(format!("{e}")))?;
    if patched == request.object {
        return Ok(false);
    }
    take_over(attributes, patched)?;
    Ok(true)
}

async fn matches(
    context: &Context,
    attributes: &Attributes<'_>,
    target: &Target<'_>,
    hook: &MutatingWebhook,
) -> Result<Option<&'static Resource>, ApiError> {
    let rules = hook.rules.iter().flatten().map(Rule::from);
    let Some(kind) = matching_kind(target, rules, hook.match_policy.as_deref()) else { return Ok(None) };
    let selected = namespace_matches(context, attributes, target, hook.namespace_selector.as_ref()).await?
        && object_matches(attributes, hook.object_selector.as_ref())?;
    Ok(selected.then_some(kind))
}

async fn conditions_hold(
    context: &Context,
    attributes: &Attributes<'_>,
    target: &Target<'_>,
    hook: &MutatingWebhook,
    request: &Request,
) -> Result<bool, ApiError> {
    let conditions = hook.match_conditions.as_deref().unwrap_or_default();
    if conditions.is_empty() {
        return Ok(true);
    }
    let bindings = environment::bindings(context, attributes, target, request).await?;
    decided(attributes, hook.failure_policy.as_deref(), conditions::hold(&WEBHOOK_SCOPE, conditions, &bindings))
}

/// What match conditions of webhooks may refer to.
pub(super) const WEBHOOK_SCOPE: Scope = Scope { params: false, authorizer: true, patches: false, variables: Vec::new() };

/// Conditions that cannot be evaluated let the write past the webhook, or refuse it.
pub(super) fn decided(attributes: &Attributes<'_>, policy: Option<&str>, held: Result<bool, String>) -> Result<bool, ApiError> {
    match held {
        Ok(held) => Ok(held),
        Err(_) if policy == Some("Ignore") => Ok(false),
        Err(error) => Err(ApiError::forbidden(attributes.resource.group_resource(), attributes.name, &error)),
    }
}

/// A refusal as an error, unless the failure policy lets it pass.
pub(super) fn refused(hook: &str, failed_open: String, policy: Option<&str>, refusal: Refusal) -> Result<(), ApiError> {
    match refusal {
        Refusal::Denied(error) | Refusal::Error(error) => Err(error),
        Refusal::Failed(reason) if policy == Some("Ignore") => {
            tracing::warn!(%reason, "failing open");
            annotate(failed_open, hook.to_owned());
            Ok(())
        }
        Refusal::Failed(reason) => Err(ApiError::internal(reason)),
    }
}

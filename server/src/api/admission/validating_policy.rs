//! Evaluates ValidatingAdmissionPolicies (`k8s.io/apiserver/pkg/admission/plugin/policy/validating/dispatcher.go`, `validator.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec, Validation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Value as Json, json};
use shared::cel::Value;
use shared::status::ApiError;

use super::dynamic::matching::{Target, exempt};
use super::dynamic::policy::{Binding, Evaluation, Policy, Shown, binding_params, policy_matches};
use super::{Attributes, Context, Plugin, forbidden};
use crate::api::audit::annotate;

pub(super) struct ValidatingAdmissionPolicyPlugin;

/// Longer messages of a messageExpression are not shown.
const MESSAGE: usize = 5 * 1024;

/// Why a write is to be refused, or what its user is to be told.
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    /// Empty for the default.
    reason: String,
    /// Which of the validations it was.
    index: usize,
}

/// What one write comes to.
#[derive(Default)]
struct Outcome {
    denials: Vec<Denial>,
    /// For the audit log, as upstream's `validation_failure` has them.
    failures: Vec<Json>,
    /// The policies' own audit annotations.
    annotations: BTreeMap<String, Vec<String>>,
}

#[async_trait]
impl Plugin for ValidatingAdmissionPolicyPlugin {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !exempt(attributes)
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        // Without bindings no policy has any effect.
        let bindings = context.reader.list::<ValidatingAdmissionPolicyBinding>("")?;
        if bindings.is_empty() {
            return Ok(());
        }
        let mut policies = context.reader.list::<ValidatingAdmissionPolicy>("")?;
        policies.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let target = Target::of(attributes);
        let (mut shown, mut outcome) = (None, Outcome::default());
        for policy in &policies {
            one_policy(context, attributes, &target, policy, &bindings, &mut shown, &mut outcome).await?;
        }
        outcome.annotations.into_iter().for_each(|(key, values)| annotate(key, values.join(", ")));
        if !outcome.failures.is_empty() {
            annotate("validation.policy.admission.k8s.io/validation_failure".into(), Json::Array(outcome.failures).to_string());
        }
        match outcome.denials.into_iter().next() {
            None => Ok(()),
            Some(denial) => Err(refusal(attributes, &denial)),
        }
    }
}

async fn one_policy(
    context: &Context,
    attributes: &mut Attributes<'_>,
    target: &Target<'_>,
    policy: &ValidatingAdmissionPolicy,
    bindings: &[Arc<ValidatingAdmissionPolicyBinding>],
    shown: &mut Option<Shown>,
    outcome: &mut Outcome,
) -> Result<(), ApiError> {
    let Some(spec) = &policy.spec else { return Ok(()) };
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let own: Vec<_> = bindings.iter().filter(|b| b.spec.policy_name == name).collect();
    if own.is_empty() {
        return Ok(());
    }
    let common = common(name, spec);
    let kind = match policy_matches(context, attributes, target, &common).await {
        Ok(Some(kind)) => kind,
        Ok(None) => return Ok(()),
        Err(_) if common.ignores_failures() => return Ok(()),
        Err(wrong) => {
            outcome.denials.push(Denial { policy: name.into(), binding: None, message: wrong.text, reason: String::new(), index: 0 });
            return Ok(());
        }
    };
    let shown = match shown {
        Some(same) if std::ptr::eq(same.kind, kind) => same,
        other => other.insert(Shown::of(context, attributes, target, kind).await?),
    };
    for binding in own {
        let binding_name = binding.metadata.name.as_deref().unwrap_or_default();
        let parts = Binding { name: binding_name, param_ref: binding.spec.param_ref.as_ref(), resources: binding.spec.match_resources.as_ref() };
        let params = match binding_params(context, attributes, target, &common, parts).await {
            Ok(params) => params,
            Err(_) if common.ignores_failures() => continue,
            Err(wrong) => {
                let bound = wrong.binding.map(str::to_owned);
                outcome.denials.push(Denial { policy: name.into(), binding: bound, message: wrong.text, reason: String::new(), index: 0 });
                continue;
            }
        };
        for param in params {
            let prepared = match Evaluation::prepare(shown, &common, param.as_ref()) {
                Ok(Some(prepared)) => Ok(prepared),
                Ok(None) => continue,
                Err(_) if common.ignores_failures() => continue,
                Err(error) => Err(error),
            };
            for (index, message, reason) in decisions(&common, spec, prepared, &mut outcome.annotations) {
                act(attributes, binding, Denial { policy: name.into(), binding: Some(binding_name.into()), message, reason, index }, outcome);
            }
        }
    }
    Ok(())
}

fn common<'a>(name: &'a str, spec: &'a ValidatingAdmissionPolicySpec) -> Policy<'a> {
    Policy {
        name,
        constraints: spec.match_constraints.as_ref(),
        param_kind: spec.param_kind.as_ref(),
        conditions: spec.match_conditions.as_deref().unwrap_or_default(),
        variables: spec.variables.as_deref().unwrap_or_default(),
        failure_policy: spec.failure_policy.as_deref(),
    }
}

/// Index, message and reason of each validation that does not hold, or cannot be evaluated and must not be ignored.
fn decisions(
    policy: &Policy<'_>,
    spec: &ValidatingAdmissionPolicySpec,
    evaluation: Result<Evaluation, String>,
    annotations: &mut BTreeMap<String, Vec<String>>,
) -> Vec<(usize, String, String)> {
    let evaluation = match evaluation {
        Ok(evaluation) => evaluation,
        Err(error) => return vec![(0, error, String::new())],
    };
    let mut out = Vec::new();
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        match evaluation.eval(&validation.expression, &["bool"]) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => out.push((index, message(&evaluation, validation), validation.reason.clone().unwrap_or_else(|| "Invalid".into()))),
            Err(_) if policy.ignores_failures() => {}
            Err(error) => out.push((index, error, String::new())),
        }
    }
    for annotation in spec.audit_annotations.iter().flatten() {
        match evaluation.eval(&annotation.value_expression, &["string", "null"]) {
            Ok(Value::String(text)) if !text.trim().is_empty() => {
                let values = annotations.entry(format!("{}/{}", policy.name, annotation.key)).or_default();
                if !values.iter().any(|v| **v == *text) {
                    values.push(text.to_string());
                }
            }
            Ok(_) => {}
            Err(_) if policy.ignores_failures() => {}
            Err(error) => out.push((0, error, String::new())),
        }
    }
    out
}

/// The messageExpression's text, or the message, or else the expression itself.
fn message(evaluation: &Evaluation, validation: &Validation) -> String {
    let expression = validation.message_expression.as_deref().filter(|e| !e.trim().is_empty());
    let computed = expression.and_then(|e| evaluation.eval(e, &["string"]).ok());
    let computed = computed.as_ref().and_then(Value::as_str).map(str::trim).filter(|m| !m.is_empty() && m.len() <= MESSAGE && !m.contains('\n'));
    let given = || validation.message.as_deref().map(str::trim).filter(|m| !m.is_empty());
    computed.or_else(given).map_or_else(|| format!("failed expression: {}", validation.expression.trim()), str::to_owned)
}

/// Does what the binding says is to be done about a failure.
fn act(attributes: &mut Attributes<'_>, binding: &ValidatingAdmissionPolicyBinding, denial: Denial, outcome: &mut Outcome) {
    let Outcome { denials, failures, .. } = outcome;
    let (policy, bound) = (denial.policy.clone(), denial.binding.clone().unwrap_or_default());
    for action in &binding.spec.validation_actions {
        match action.as_str() {
            "Deny" => denials.push(Denial {
                policy: policy.clone(),
                binding: Some(bound.clone()),
                message: denial.message.clone(),
                reason: denial.reason.clone(),
                index: denial.index,
            }),
            "Warn" => attributes
                .warnings
                .push(format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{bound}': {}", denial.message)),
            _ => failures.push(json!({
                "message": denial.message, "policy": policy, "binding": bound,
                "expressionIndex": denial.index, "validationActions": binding.spec.validation_actions,
            })),
        }
    }
}

fn refusal(attributes: &Attributes<'_>, denial: &Denial) -> ApiError {
    let Denial { policy, message, .. } = denial;
    let text = match &denial.binding {
        Some(binding) => format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}"),
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {message}"),
    };
    let mut error = forbidden(attributes, &text);
    let reason = if denial.reason.is_empty() { "Invalid" } else { &denial.reason };
    error.0.reason = Some(reason.to_owned());
    error.0.code = Some(match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    });
    let cause = StatusCause { message: Some(text), ..StatusCause::default() };
    error.0.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
    error
}

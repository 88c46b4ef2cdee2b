//! Applies MutatingAdmissionPolicies, policy after policy, mutation after mutation
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/mutating/dispatcher.go`, `…/patch`).

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingAdmissionPolicySpec, Mutation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Value as Json, json};
use shared::cel::{Message, Value};
use shared::managed::{self, Type};
use shared::patch::PatchError;
use shared::patch::json::apply_json_patch;
use shared::status::ApiError;

use super::dynamic::matching::{Target, exempt};
use super::dynamic::policy::{Binding, Evaluation, Policy, Shown, binding_params, policy_matches};
use super::dynamic::request::{Request, take_over};
use super::mutating_webhook::{changed_since, shown};
use super::{Attributes, Context, Plugin, forbidden};
use crate::registry::Resource;
use shared::cel::admission::JSON_PATCH;

pub(super) struct MutatingAdmissionPolicyPlugin;

const NAME: &str = "MutatingAdmissionPolicy";

#[async_trait]
impl Plugin for MutatingAdmissionPolicyPlugin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.object.is_some() && !exempt(attributes)
    }

    async fn mutate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let mut bindings = context.reader.list::<MutatingAdmissionPolicyBinding>("")?;
        if bindings.is_empty() {
            return Ok(());
        }
        bindings.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let mut policies = context.reader.list::<MutatingAdmissionPolicy>("")?;
        policies.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let target = Target::of(attributes);
        if attributes.reinvocation.second {
            changed_since(NAME, attributes)?;
        }
        let mut errors = Vec::new();
        for policy in &policies {
            let (Some(spec), Some(name)) = (&policy.spec, policy.metadata.name.as_deref()) else { continue };
            let common = common(name, spec);
            let kind = match policy_matches(context, attributes, &target, &common).await {
                Ok(Some(kind)) => kind,
                Ok(None) => continue,
                Err(wrong) => {
                    report(&common, None, &wrong.text, &mut errors);
                    continue;
                }
            };
            for binding in &bindings {
                let bound = binding.spec.clone().unwrap_or_default();
                if bound.policy_name.as_deref() != Some(name) {
                    continue;
                }
                let binding_name = binding.metadata.name.as_deref().unwrap_or_default();
                let parts = Binding { name: binding_name, param_ref: bound.param_ref.as_ref(), resources: bound.match_resources.as_ref() };
                match binding_params(context, attributes, &target, &common, parts).await {
                    Err(wrong) => report(&common, Some(binding_name), &wrong.text, &mut errors),
                    Ok(params) => {
                        for (index, param) in params.iter().enumerate() {
                            let id = format!("{NAME}/{name}/{binding_name}/{index}");
                            invoke(context, attributes, &target, (spec, &common, kind), binding_name, param.as_ref(), id, &mut errors).await?;
                        }
                    }
                }
            }
        }
        let left = shown(attributes)?;
        attributes.reinvocation.left.insert(NAME, left);
        refusal(attributes, errors)
    }
}

fn common<'a>(name: &'a str, spec: &'a MutatingAdmissionPolicySpec) -> Policy<'a> {
    Policy {
        name,
        constraints: spec.match_constraints.as_ref(),
        param_kind: spec.param_kind.as_ref(),
        conditions: spec.match_conditions.as_deref().unwrap_or_default(),
        variables: spec.variables.as_deref().unwrap_or_default(),
        failure_policy: spec.failure_policy.as_deref(),
    }
}

/// One policy under one binding with one parameter.
#[allow(clippy::too_many_arguments)]
async fn invoke(
    context: &Context,
    attributes: &mut Attributes<'_>,
    target: &Target<'_>,
    (spec, policy, kind): (&MutatingAdmissionPolicySpec, &Policy<'_>, &'static Resource),
    binding: &str,
    param: Option<&Json>,
    id: String,
    errors: &mut Vec<String>,
) -> Result<(), ApiError> {
    if attributes.reinvocation.second && !attributes.reinvocation.due.contains(&id) {
        return Ok(());
    }
    let before = shown(attributes)?;
    let mut policy = *policy;
    for mutation in spec.mutations.iter().flatten() {
        // Each mutation sees what those before it did.
        let seen = Shown::of(context, attributes, target, kind).await?;
        let evaluation = match Evaluation::prepare(&seen, &policy, param) {
            Ok(Some(evaluation)) => evaluation,
            Ok(None) => return Ok(()),
            Err(error) => {
                report(&policy, Some(binding), &error, errors);
                return Ok(());
            }
        };
        // The conditions are about the object as it came, not as the first mutation leaves it.
        policy.conditions = &[];
        match patched(evaluation, mutation, &seen.request) {
            Ok(object) if object == seen.request.object => {}
            Ok(object) => take_over(attributes, object)?,
            Err(error) => report(&policy, Some(binding), &error, errors),
        }
    }
    let changed = shown(attributes)? != before;
    let again = &mut attributes.reinvocation;
    if changed {
        again.due.extend(again.asked.iter().cloned());
        again.wanted = true;
    }
    if spec.reinvocation_policy.as_deref() == Some("IfNeeded") {
        again.asked.insert(id);
    }
    Ok(())
}

/// The object as a mutation makes it.
fn patched(mut evaluation: Evaluation, mutation: &Mutation, request: &Request) -> Result<Json, String> {
    evaluation.scope.patches = true;
    if let Some(apply) = &mutation.apply_configuration {
        let value = evaluation.eval(apply.expression.as_deref().unwrap_or_default(), &["Object"])?;
        let Value::Message(message) = &value else { return Err("unsupported return type from ApplyConfiguration expression".into()) };
        fields_match(message, "Object").map_err(|e| format!("type mismatch: {e}"))?;
        let config = value.to_json().map_err(|e| e.to_string())?;
        return applied(request, config);
    }
    let patch = mutation.json_patch.as_ref().and_then(|p| p.expression.as_deref()).unwrap_or_default();
    let Value::List(operations) = evaluation.eval(patch, &["list(JSONPatch)"])? else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    let mut object = request.object.clone();
    for value in operations.iter() {
        let operation = operation(value)?;
        let bytes = serde_json::to_vec(&[&operation]).map_err(|e| e.to_string())?;
        object = match apply_json_patch(object, &bytes) {
            Ok(object) => object,
            // A test that does not hold means that the patch is not for this object.
            Err(PatchError::Rejected(_)) if operation["op"] == "test" => return Ok(request.object.clone()),
            Err(error) => return Err(format!("JSONPath: {error}")),
        };
    }
    Ok(object)
}

/// Merges a configuration as server-side apply does, but owns nothing.
fn applied(request: &Request, config: Json) -> Result<Json, String> {
    let (api_version, kind) = request.kind();
    let of = Type::of(api_version, kind);
    let atomics = managed::atomics(of, &config);
    if !atomics.is_empty() {
        let list = atomics.join(", ");
        return Err(format!("error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"));
    }
    Ok(managed::merge(of, &request.object, &config))
}

/// The types of nested objects must be named after the fields they are in.
fn fields_match(message: &Message, expected: &str) -> Result<(), String> {
    if *message.name != *expected {
        let name = &message.name;
        return Err(format!("unexpected type name {name:?}, expected {expected:?}, which matches field name path from root Object type"));
    }
    message.fields.iter().try_for_each(|(field, value)| nested_match(value, &format!("{expected}.{field}")))
}

fn nested_match(value: &Value, expected: &str) -> Result<(), String> {
    match value {
        Value::Message(message) => fields_match(message, expected),
        Value::List(items) => items.iter().try_for_each(|item| nested_match(item, expected)),
        _ => Ok(()),
    }
}

fn operation(value: &Value) -> Result<Json, String> {
    let Value::Message(message) = value else { return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into()) };
    if &*message.name != JSON_PATCH {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into());
    }
    let text = |name: &str| message.fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut out = json!({"op": text("op"), "path": text("path")});
    if !text("from").is_empty() {
        out["from"] = text("from").into();
    }
    if let Some(value) = message.fields.get("value") {
        if let Value::Message(inner) = value {
            fields_match(inner, &inner.name).map_err(|e| format!("type mismatch: {e}"))?;
        }
        out["value"] = value.to_json().map_err(|e| format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {e}"))?;
    }
    Ok(out)
}

/// An error counts unless the policy says that it does not.
fn report(policy: &Policy<'_>, binding: Option<&str>, text: &str, errors: &mut Vec<String>) {
    if !policy.ignores_failures() {
        errors.push(match binding {
            Some(binding) => format!("policy '{}' with binding '{binding}' denied request: {text}", policy.name),
            None => format!("policy {:?} denied request: {text}", policy.name),
        });
    }
}

fn refusal(attributes: &Attributes<'_>, errors: Vec<String>) -> Result<(), ApiError> {
    let Some(first) = errors.first() else { return Ok(()) };
    let mut error = forbidden(attributes, "admission request denied by policy");
    error.0.message = Some(first.clone());
    let causes = errors.into_iter().map(|text| StatusCause { message: Some(text), ..StatusCause::default() });
    error.0.details.get_or_insert_default().causes.get_or_insert_default().extend(causes);
    Err(error)
}

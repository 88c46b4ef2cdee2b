//! What both sorts of policy do before they differ: find the policies and bindings that a write matches, with their parameters
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/generic/policy_dispatcher.go`).
//!
//! Owns the selection and the variables. What is then evaluated is each plugin's.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{MatchCondition, MatchResources, ParamKind, ParamRef, Variable};
use serde_json::Value as Json;
use shared::cel::{Bindings, Budget, EvalError, Program, Type, Value};
use shared::status::ApiError;

use super::environment::{self, Variables};
use super::matching::{Target, resources_match};
use super::request::Request;
use super::{conditions, params};
use crate::api::admission::{Attributes, Context};
use crate::registry::Resource;
use shared::cel::admission::{Scope, checked};

/// What all expressions of one policy may cost together (upstream's `RuntimeCELCostBudget`).
pub(in crate::api::admission) const BUDGET: u64 = 10_000_000;

/// The parts of a policy that both sorts have.
#[derive(Clone, Copy)]
pub(in crate::api::admission) struct Policy<'a> {
    pub(in crate::api::admission) name: &'a str,
    pub(in crate::api::admission) constraints: Option<&'a MatchResources>,
    pub(in crate::api::admission) param_kind: Option<&'a ParamKind>,
    pub(in crate::api::admission) conditions: &'a [MatchCondition],
    pub(in crate::api::admission) variables: &'a [Variable],
    pub(in crate::api::admission) failure_policy: Option<&'a str>,
}

impl Policy<'_> {
    /// Whether errors let the write pass.
    pub(in crate::api::admission) fn ignores_failures(&self) -> bool {
        self.failure_policy == Some("Ignore")
    }

    /// What its match conditions may refer to.
    pub(in crate::api::admission) fn scope(&self) -> Scope {
        Scope { params: self.param_kind.is_some(), authorizer: true, ..Scope::default() }
    }
}

/// The parts of a binding that both sorts have.
#[derive(Clone, Copy)]
pub(in crate::api::admission) struct Binding<'a> {
    pub(in crate::api::admission) name: &'a str,
    pub(in crate::api::admission) param_ref: Option<&'a ParamRef>,
    pub(in crate::api::admission) resources: Option<&'a MatchResources>,
}

/// Why a policy could not be evaluated, and for which binding if it was one's.
#[derive(Debug)]
pub(in crate::api::admission) struct Misconfigured<'a> {
    pub(in crate::api::admission) binding: Option<&'a str>,
    pub(in crate::api::admission) text: String,
}

/// The kind that a policy matches the write as.
///
/// # Errors
/// The selectors cannot be evaluated.
pub(in crate::api::admission) async fn policy_matches(
    context: &Context,
    attributes: &Attributes<'_>,
    target: &Target<'_>,
    policy: &Policy<'_>,
) -> Result<Option<&'static Resource>, Misconfigured<'static>> {
    let Some(constraints) = policy.constraints else { return Ok(None) };
    let matched = resources_match(context, attributes, target, constraints).await;
    matched.map_err(|e| Misconfigured { binding: None, text: format!("failed to configure policy: {e}") })
}

/// The parameters to evaluate with under a binding, none when it does not match.
///
/// # Errors
/// Its selectors or parameters cannot be evaluated.
pub(in crate::api::admission) async fn binding_params<'b>(
    context: &Context,
    attributes: &Attributes<'_>,
    target: &Target<'_>,
    policy: &Policy<'_>,
    binding: Binding<'b>,
) -> Result<Vec<Option<Json>>, Misconfigured<'b>> {
    let failed = |text: String| Misconfigured { binding: Some(binding.name), text: format!("failed to configure binding: {text}") };
    if let Some(resources) = binding.resources
        && resources_match(context, attributes, target, resources).await.map_err(|e| failed(e.to_string()))?.is_none()
    {
        return Ok(Vec::new());
    }
    params::collect(context, policy.param_kind, binding.param_ref, target).await.map_err(failed)
}

/// A write as policies that match it as one kind see it; the same for all of them.
pub(in crate::api::admission) struct Shown {
    pub(in crate::api::admission) kind: &'static Resource,
    pub(in crate::api::admission) request: Request,
    bindings: Bindings,
}

impl Shown {
    /// The write as it is now.
    ///
    /// # Errors
    /// 404 when its namespace is gone; 500 when the object cannot be encoded.
    pub(in crate::api::admission) async fn of(
        context: &Context,
        attributes: &Attributes<'_>,
        target: &Target<'_>,
        kind: &'static Resource,
    ) -> Result<Self, ApiError> {
        let request = Request::of(attributes, target, kind)?;
        let bindings = environment::bindings(context, attributes, target, &request).await?;
        Ok(Shown { kind, request, bindings })
    }
}

/// One evaluation of a policy: the scope its expressions are compiled in, and the values they see.
pub(in crate::api::admission) struct Evaluation {
    pub(in crate::api::admission) scope: Scope,
    pub(in crate::api::admission) bindings: Bindings,
    pub(in crate::api::admission) budget: Arc<Budget>,
}

impl Evaluation {
    /// Prepares an evaluation; `None` when the match conditions do not hold.
    ///
    /// # Errors
    /// The conditions' errors, or a variable that does not compile.
    pub(in crate::api::admission) fn prepare(shown: &Shown, policy: &Policy<'_>, param: Option<&Json>) -> Result<Option<Self>, String> {
        let bindings = shown.bindings.clone().with("params", param.map_or(Value::Null, Value::from_json));
        let budget = Arc::new(Budget::new(BUDGET));
        let mut scope = policy.scope();
        if !conditions::hold(&scope, policy.conditions, &bindings)? {
            return Ok(None);
        }
        let programs = compile_variables(&mut scope, policy.variables)?;
        let bindings = Variables::add(bindings, programs, &budget);
        Ok(Some(Evaluation { scope, bindings, budget }))
    }

    /// Computes an expression that must come to one of these types (any when none is given).
    ///
    /// # Errors
    /// Upstream's text, naming the expression.
    pub(in crate::api::admission) fn eval(&self, expression: &str, wanted: &[&str]) -> Result<Value, String> {
        let program = checked(&self.scope, expression, wanted)?;
        self.run(&program).map_err(|e| format!("expression '{expression}' resulted in error: {e}"))
    }

    fn run(&self, program: &Program) -> Result<Value, EvalError> {
        // Each expression has its own limit, and all draw on the policy's.
        let limit = Budget::per_call();
        let before = limit.left();
        let value = program.eval(&self.bindings, &limit);
        self.budget.charge(before - limit.left())?;
        value
    }
}

/// Compiles variables one after the other, each in the scope of those before it.
pub(in crate::api::admission) fn compile_variables(scope: &mut Scope, variables: &[Variable]) -> Result<Vec<(String, Program)>, String> {
    let mut programs = Vec::with_capacity(variables.len());
    for variable in variables {
        let program = checked(scope, &variable.expression, &[])?;
        let of: Type = program.result().clone();
        scope.variables.push((variable.name.clone(), of.into()));
        programs.push((variable.name.clone(), program));
    }
    Ok(programs)
}

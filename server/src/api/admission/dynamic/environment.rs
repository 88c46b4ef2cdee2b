//! What expressions see of a write: `object`, `oldObject`, `request`, `namespaceObject`, `authorizer`, `params` and lazy `variables`.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value as Json, json};
use shared::cel::{Bindings, Budget, EvalError, Opaque, Program, Value};
use shared::status::{ApiError, GroupResource};

use super::authorizer;
use super::matching::Target;
use super::request::Request;
use crate::api::admission::{Attributes, Context};
use shared::cel::admission as expressions;

/// The variables of a write that do not change from expression to expression.
///
/// # Errors
/// 404 when the namespace is gone.
pub(in crate::api::admission) async fn bindings(
    context: &Context,
    attributes: &Attributes<'_>,
    target: &Target<'_>,
    request: &Request,
) -> Result<Bindings, ApiError> {
    Ok(Bindings::new()
        .with("object", Value::from_json(&request.object))
        .with("oldObject", Value::from_json(&request.old))
        .with("request", Value::from_json(&filled(&request.head)))
        .with("namespaceObject", namespace(context, target).await?)
        .with("authorizer", authorizer::of(context, attributes.user.clone()))
        .with("authorizer.requestResource", authorizer::request_resource(context, attributes, target)))
}

/// The request with the texts that Go has though they are empty.
fn filled(head: &Json) -> Json {
    let mut head = head.clone();
    for field in ["subResource", "requestSubResource", "name", "namespace"] {
        if head[field].is_null() {
            head[field] = "".into();
        }
    }
    head
}

async fn namespace(context: &Context, target: &Target<'_>) -> Result<Value, ApiError> {
    // A Namespace is its own object, not one in it.
    if target.namespace.is_empty() || !target.resource.namespaced {
        return Ok(Value::Null);
    }
    let Some(namespace) = context.reader.get_fresh::<Namespace>("", target.namespace).await? else {
        return Err(ApiError::not_found(GroupResource { group: "", resource: "namespaces" }, target.namespace));
    };
    let mut shown = serde_json::to_value(&*namespace).map_err(ApiError::internal)?;
    let uid = shown["metadata"]["uid"].take();
    shown["metadata"]["UID"] = uid;
    let shown = json!({"metadata": shown["metadata"], "spec": shown["spec"], "status": shown["status"]});
    Ok(Value::from_typed_json(&shown, expressions::namespace_type()))
}

/// A variable of a policy: computed when first asked for, once a write.
struct Variable {
    name: String,
    program: Program,
    value: OnceLock<Result<Value, EvalError>>,
}

/// `variables`
pub(in crate::api::admission) struct Variables {
    variables: Vec<Variable>,
    bindings: Bindings,
    budget: Arc<Budget>,
    /// Itself, as the value that earlier variables are found under.
    own: Weak<Variables>,
}

impl Variables {
    /// The bindings with `variables` added.
    pub(in crate::api::admission) fn add(bindings: Bindings, programs: Vec<(String, Program)>, budget: &Arc<Budget>) -> Bindings {
        let variables = programs.into_iter().map(|(name, program)| Variable { name, program, value: OnceLock::new() }).collect();
        let all = Arc::new_cyclic(|own| Variables { variables, bindings: bindings.clone(), budget: budget.clone(), own: own.clone() });
        bindings.with("variables", Value::Opaque(all))
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables.iter().map(|v| &v.name)).finish()
    }
}

impl Opaque for Variables {
    fn type_name(&self) -> &'static str {
        "kubernetes.variables"
    }

    fn field(&self, name: &str) -> Option<Result<Value, EvalError>> {
        let variable = self.variables.iter().find(|v| v.name == name)?;
        let computed = variable.value.get_or_init(|| {
            // Only earlier variables can be named, by the checker's word, so this ends.
            let own: Arc<dyn Opaque> = self.own.upgrade().ok_or_else(|| EvalError::new("the variables are gone"))?;
            let bindings = self.bindings.clone().with("variables", Value::Opaque(own));
            variable.program.eval(&bindings, &self.budget)
        });
        Some(computed.clone().map_err(|e| EvalError::new(format!("composited variable \"{name}\" fails to evaluate: {e}"))))
    }

    fn any(&self) -> &dyn Any {
        self
    }
}

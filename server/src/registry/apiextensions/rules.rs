//! `x-kubernetes-validations`: expressions that values must satisfy (`apiextensions-apiserver/pkg/apiserver/schema/cel`).
//!
//! Owns the compiled rules of a schema's node and their evaluation. The language is `shared::cel`'s.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, ValidationRule};
use serde_json::Value;
use shared::cel::{self, Bindings, Budget, CompileError, Env, Program, Type};
use shared::field::{Error, ErrorList, Path};

/// What one request may spend on the rules of an object (upstream's `RuntimeCELCostBudget`).
pub const BUDGET: u64 = 10_000_000;

/// A rule, compiled.
#[derive(Debug)]
pub struct Rule {
    rule: ValidationRule,
    /// What it did not compile to was refused with its definition.
    program: Result<Program, CompileError>,
    message: Option<Result<Program, CompileError>>,
    of: Type,
    /// Whether it compares with the value before, and so only holds for updates.
    transition: bool,
}

/// The rules of a schema's node, compiled. `root` says that its values are whole objects.
pub fn compile(props: &JSONSchemaProps, root: bool) -> Vec<Arc<Rule>> {
    let Some(rules) = props.x_kubernetes_validations.as_ref().filter(|r| !r.is_empty()) else { return Vec::new() };
    let schema = serde_json::to_value(props).unwrap_or_default();
    let nothing: cel::Definitions = Arc::new(|_| None);
    let of = cel::type_of_schema("object", &schema, &nothing, root);
    let one = |rule: &ValidationRule| {
        let old = if rule.optional_old_self == Some(true) { Type::optional(of.clone()) } else { of.clone() };
        let env = Env::new().variable("self", of.clone()).variable("oldSelf", old);
        let program = cel::compile(&rule.rule, &env);
        let message = rule.message_expression.as_ref().map(|m| cel::compile(m, &env));
        let transition = program.as_ref().is_ok_and(|p| p.mentions("oldSelf"));
        Arc::new(Rule { rule: rule.clone(), program, message, of: of.clone(), transition })
    };
    rules.iter().map(one).collect()
}

/// Errors of a node's rules themselves.
pub fn validate(rules: &[Arc<Rule>], path: &Path, errors: &mut ErrorList) {
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("x-kubernetes-validations").index(index);
        if rule.rule.rule.trim().is_empty() {
            errors.push(Error::required(&path.child("rule"), "rule is not specified"));
            continue;
        }
        let mut compiled = |field: &str, source: &str, program: &Result<Program, CompileError>, right: fn(&Type) -> bool, otherwise: &str| {
            let text = match program {
                Err(error) => format!("compilation failed: {error}"),
                Ok(program) if !right(program.result()) && !program.result().is_dyn() => otherwise.to_owned(),
                Ok(_) => return,
            };
            errors.push(Error::invalid(&path.child(field), source, &text));
        };
        let is_bool = |of: &Type| matches!(of, Type::Bool);
        compiled("rule", &rule.rule.rule, &rule.program, is_bool, "cel expression must evaluate to a bool");
        if let (Some(source), Some(message)) = (&rule.rule.message_expression, &rule.message) {
            let is_string = |of: &Type| matches!(of, Type::String);
            compiled("messageExpression", source, message, is_string, "messageExpression must evaluate to a string");
        }
        if rule.rule.optional_old_self == Some(true) && !rule.transition {
            errors.push(Error::invalid(&path.child("optionalOldSelf"), true, "may not be set to true when rule does not refer to oldSelf"));
        }
        let reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        if let Some(reason) = rule.rule.reason.as_deref().filter(|r| !reasons.contains(r)) {
            errors.push(Error::not_supported(&path.child("reason"), reason, &reasons));
        }
        if rule.rule.message.as_deref().is_some_and(|m| m.trim().is_empty()) {
            errors.push(Error::invalid(&path.child("message"), &rule.rule.message, "message must be non-empty if specified"));
        }
    }
}

/// Errors of a value. `old` is what it replaces, where that can be told.
pub fn check(rules: &[Arc<Rule>], kind: &str, value: &Value, old: Option<&Value>, path: &str, budget: &Budget, errors: &mut ErrorList) {
    for rule in rules {
        if rule.transition && old.is_none() && rule.rule.optional_old_self != Some(true) {
            continue;
        }
        let Ok(program) = &rule.program else { continue };
        let mut bindings = Bindings::new().with("self", cel::Value::from_typed_json(value, &rule.of));
        if rule.transition {
            let old = old.map(|o| cel::Value::from_typed_json(o, &rule.of));
            bindings = bindings.with(
                "oldSelf",
                match (rule.rule.optional_old_self, old) {
                    (Some(true), old) => old.map_or(cel::Value::Optional(None), cel::Value::some),
                    (_, old) => old.unwrap_or(cel::Value::Null),
                },
            );
        }
        let at = Path::new(path);
        match program.eval(&bindings, budget) {
            Ok(cel::Value::Bool(true)) => {}
            Ok(_) => errors.push(rule.failure(kind, path, &bindings, budget)),
            Err(error) => {
                let detail = format!("{error} evaluating rule: {}", rule.rule.message.as_deref().unwrap_or(&rule.rule.rule));
                errors.push(Error::invalid(&at, kind, &detail));
                if error.over_budget() {
                    return;
                }
            }
        }
    }
}

impl Rule {
    fn failure(&self, kind: &str, path: &str, bindings: &Bindings, budget: &Budget) -> Error {
        let computed = self.message.as_ref().and_then(|m| m.as_ref().ok()).and_then(|m| m.eval(bindings, budget).ok());
        let computed = computed.as_ref().and_then(cel::Value::as_str).filter(|t| !t.trim().is_empty() && !t.contains('\n'));
        let detail = computed.map(str::to_owned).or_else(|| self.rule.message.clone()).unwrap_or_else(|| format!("failed rule: {}", self.rule.rule));
        let below = self.rule.field_path.as_deref().unwrap_or_default();
        let path = Path::new(format!("{path}{below}").trim_start_matches('.'));
        match self.rule.reason.as_deref() {
            Some("FieldValueRequired") => Error::required(&path, &detail),
            Some("FieldValueForbidden") => Error::forbidden(&path, &detail),
            Some("FieldValueDuplicate") => Error::duplicate(&path, kind),
            _ => Error::invalid(&path, kind, &detail),
        }
    }
}

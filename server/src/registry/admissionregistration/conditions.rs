//! The rules that expressions are held to when a webhook or policy is stored
//! (`pkg/apis/admissionregistration/validation/validation.go`).
//!
//! What has been stored is not compiled again unless it changes, so that a stricter server does not make old objects immutable.

use k8s_openapi::api::admissionregistration::v1::{AuditAnnotation, MatchCondition, Mutation, Validation, Variable};
use shared::field::{Error, ErrorList, Path};
use shared::selector::qualified_name_errors;

use crate::registry::validation::one_of;
use shared::cel::admission::{Scope, checked};

const MOST_CONDITIONS: usize = 64;
const MOST_ANNOTATIONS: usize = 20;
const ANNOTATION_EXPRESSION: usize = 5 * 1024;
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// An expression compiles, and comes to one of these types.
fn expression(path: &Path, scope: &Scope, text: &str, wanted: &[&str], errors: &mut ErrorList) {
    if let Err(why) = checked(scope, text, wanted) {
        errors.push(Error::invalid(path, text, &why));
    }
}

/// Match conditions of a webhook or policy.
pub(super) fn match_conditions(path: &Path, scope: &Scope, conditions: &[MatchCondition], errors: &mut ErrorList) {
    if conditions.len() > MOST_CONDITIONS {
        errors.push(Error::too_many(path, conditions.len(), MOST_CONDITIONS));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let trimmed = condition.expression.trim();
        if trimmed.is_empty() {
            errors.push(Error::required(&path.child("expression"), ""));
        } else {
            expression(&path.child("expression"), scope, trimmed, &["bool"], errors);
        }
        let name = path.child("name");
        if condition.name.is_empty() {
            errors.push(Error::required(&name, ""));
        } else {
            qualified_name_errors(&condition.name).iter().for_each(|m| errors.push(Error::invalid(&name, &condition.name, m)));
            if conditions[..index].iter().any(|c| c.name == condition.name) {
                errors.push(Error::duplicate(&name, &condition.name));
            }
        }
    }
}

/// Variables, each in the scope of those before it; adds them to the scope.
pub(super) fn variables(path: &Path, scope: &mut Scope, variables: &[Variable], errors: &mut ErrorList) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        if variable.name.trim().is_empty() {
            errors.push(Error::required(&path.child("name"), "name is not specified"));
        } else if !is_identifier(&variable.name) {
            errors.push(Error::invalid(&path.child("name"), &variable.name, "name is not a valid CEL identifier"));
        }
        if variable.expression.trim().is_empty() {
            errors.push(Error::required(&path.child("expression"), "expression is not specified"));
            continue;
        }
        match checked(scope, &variable.expression, &[]) {
            Ok(program) => scope.variables.push((variable.name.clone(), program.result().clone().into())),
            Err(why) => errors.push(Error::invalid(&path.child("expression"), &variable.expression, &why)),
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !RESERVED.contains(&name)
}

/// Validations of a policy.
pub(super) fn validations(path: &Path, scope: &Scope, validations: &[Validation], errors: &mut ErrorList) {
    for (index, validation) in validations.iter().enumerate() {
        let path = path.index(index);
        let text = validation.expression.trim();
        if text.is_empty() {
            errors.push(Error::required(&path.child("expression"), "expression is not specified"));
        } else {
            expression(&path.child("expression"), scope, &validation.expression, &["bool"], errors);
        }
        if let Some(computed) = validation.message_expression.as_deref().filter(|m| !m.is_empty()) {
            let path = path.child("messageExpression");
            if computed.trim().is_empty() {
                errors.push(Error::invalid(&path, computed, "must be non-empty if specified"));
            } else {
                // A message is no place to ask what somebody may do.
                expression(&path, &Scope { authorizer: false, ..scope.clone() }, computed, &["string"], errors);
            }
        }
        let message = validation.message.as_deref().unwrap_or_default();
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(Error::invalid(&path.child("message"), message, "message must be non-empty if specified"));
        } else if message.trim().contains(['\n', '\r']) {
            errors.push(Error::invalid(&path.child("message"), message, "message must not contain line breaks"));
        } else if text.contains(['\n', '\r']) && message.trim().is_empty() {
            errors.push(Error::required(&path.child("message"), "message must be specified if expression contains line breaks"));
        }
        let reasons = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
        one_of(&path.child("reason"), validation.reason.as_deref(), reasons, errors);
    }
}

/// Audit annotations of a policy.
pub(super) fn audit_annotations(path: &Path, scope: &Scope, annotations: &[AuditAnnotation], errors: &mut ErrorList) {
    if annotations.len() > MOST_ANNOTATIONS {
        errors.push(Error::invalid(path, annotations, &format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations")));
    }
    for (index, annotation) in annotations.iter().enumerate() {
        let path = path.index(index);
        let (key, value) = (path.child("key"), path.child("valueExpression"));
        if annotation.key.is_empty() {
            errors.push(Error::required(&key, ""));
        } else {
            qualified_name_errors(&annotation.key).iter().for_each(|m| errors.push(Error::invalid(&key, &annotation.key, m)));
        }
        let text = annotation.value_expression.trim();
        if text.is_empty() {
            errors.push(Error::required(&value, "valueExpression is not specified"));
        } else if text.len() > ANNOTATION_EXPRESSION {
            errors.push(Error::required(&value, &format!("must not exceed {ANNOTATION_EXPRESSION} bytes in length")));
        } else {
            expression(&value, scope, &annotation.value_expression, &["string", "null"], errors);
        }
        if annotations[..index].iter().any(|a| a.key == annotation.key) {
            errors.push(Error::duplicate(&key, &annotation.key));
        }
    }
}

/// Mutations of a policy: each has the expression that its type asks for, and no other.
pub(super) fn mutations(path: &Path, scope: &Scope, mutations: &[Mutation], errors: &mut ErrorList) {
    let scope = Scope { patches: true, ..scope.clone() };
    for (index, mutation) in mutations.iter().enumerate() {
        let path = path.index(index);
        let apply = mutation.apply_configuration.as_ref().map(|a| a.expression.as_deref().unwrap_or_default());
        let patch = mutation.json_patch.as_ref().map(|p| p.expression.as_deref().unwrap_or_default());
        for (kind, field, given, result) in
            [("ApplyConfiguration", "applyConfiguration", apply, "Object"), ("JSONPatch", "jsonPatch", patch, "list(JSONPatch)")]
        {
            let path = path.child(field);
            match (mutation.patch_type == kind, given) {
                (true, None) => errors.push(Error::required(&path, &format!("must be specified when patchType is {kind}"))),
                (true, Some(text)) if text.trim().is_empty() => {
                    errors.push(Error::required(&path.child("expression"), "expression is not specified"));
                }
                (true, Some(text)) => expression(&path.child("expression"), &scope, text, &[result], errors),
                (false, Some(_)) => errors.push(Error::invalid(&path, given, &format!("must not be specified when patchType is not {kind}"))),
                (false, None) => {}
            }
        }
    }
}

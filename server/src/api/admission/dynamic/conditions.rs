//! Match conditions: all must be true, one false is enough (`k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions/matcher.go`).

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use shared::cel::{Bindings, Budget, Value};

use shared::cel::admission::{Scope, checked};

/// What all the conditions of one webhook or policy may cost together (upstream's `RuntimeCELCostBudgetMatchConditions`).
const BUDGET: u64 = 2_500_000;

/// Whether conditions let a write through. An error counts only when none of them is false.
///
/// # Errors
/// The conditions' errors.
pub(in crate::api::admission) fn hold(scope: &Scope, conditions: &[MatchCondition], bindings: &Bindings) -> Result<bool, String> {
    let budget = Budget::new(BUDGET);
    let mut errors = Vec::new();
    for condition in conditions {
        let result = checked(scope, &condition.expression, &["bool"])
            .and_then(|program| program.eval(bindings, &budget).map_err(|e| format!("expression '{}' resulted in error: {e}", condition.expression)));
        match result {
            Ok(Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => Ok(true),
        1 => Err(errors.swap_remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

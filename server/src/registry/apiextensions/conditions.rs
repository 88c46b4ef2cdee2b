//! The conditions of a CustomResourceDefinition (`k8s.io/apiextensions-apiserver/pkg/apihelpers`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, CustomResourceDefinitionCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Its names clash with nobody's.
pub const NAMES_ACCEPTED: &str = "NamesAccepted";
/// Its objects are served.
pub const ESTABLISHED: &str = "Established";
/// It is being deleted.
pub const TERMINATING: &str = "Terminating";
/// It is in one of Kubernetes' own groups with approval.
pub const CONFORMANT: &str = "KubernetesAPIApprovalPolicyConformant";

/// Whether a group is Kubernetes' own.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// Whether a condition is true.
pub fn is_true(object: &CustomResourceDefinition, kind: &str) -> bool {
    find(object, kind).is_some_and(|c| c.status == "True")
}

/// A condition.
pub fn find<'a>(object: &'a CustomResourceDefinition, kind: &str) -> Option<&'a CustomResourceDefinitionCondition> {
    object.status.as_ref().and_then(|s| s.conditions.as_ref()).and_then(|list| list.iter().find(|c| c.type_ == kind))
}

/// Sets a condition; its time moves only with its status.
pub fn set(object: &mut CustomResourceDefinition, kind: &str, status: bool, reason: &str, message: &str) {
    let now = Timestamp::now();
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let status = if status { "True" } else { "False" };
    let conditions = object.status.get_or_insert_default().conditions.get_or_insert_default();
    let fresh = CustomResourceDefinitionCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(now),
        observed_generation: None,
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        None => conditions.push(fresh),
        Some(known) if known.status != status => *known = fresh,
        Some(known) => (known.reason, known.message) = (fresh.reason, fresh.message),
    }
}

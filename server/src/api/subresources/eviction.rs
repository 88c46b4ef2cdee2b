//! `pods/eviction`: deletes a pod if its disruption budget has room (`pkg/registry/core/pod/storage/eviction.go`).
//!
//! The budget's room is taken in an update of its own, compared by revision, before the pod goes: two evictions never share it.

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use shared::selector::Selector;
use shared::status::{ApiError, GroupResource};

use super::Part;
use crate::api::chain::Call;
use crate::api::negotiate;
use crate::api::verbs::options;
use crate::api::{Body, Response, respond};
use crate::registry::admit::{AdmitAll, Operation};
use crate::registry::core::pod::status::set_condition;
use crate::registry::store::{Current, Decoded, DeleteOptions, WriteOptions};
use crate::registry::{Object, Resource};

/// More disrupted pods than this mean that the controller is not keeping up.
const MAX_DISRUPTED: usize = 2000;
const BLOCKED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Evicts a pod.
///
/// # Errors
/// 404 without the pod, 429 when the budget has no room, 500 when several budgets cover the pod.
pub async fn create(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
    let mut eviction: Eviction = super::decode(&json)?;
    let name = &call.info.name;
    if eviction.metadata.name.as_deref().is_some_and(|n| !n.is_empty() && n != name) {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    options::same_object(call.info, row, &mut eviction.metadata)?;
    let mut deletion = options::validated(&eviction.delete_options.clone().unwrap_or_default())?;
    let dry = options::writing(call, "CreateOptions", false)?.store.dry_run;
    deletion.dry_run |= dry;
    let pod: Pod = super::typed(call, &call.info.namespace, name).await?;
    let warnings = admitted(call, row, eviction, deletion.dry_run).await?;
    if !ignores_budgets(&pod) {
        take_room(call, &pod, deletion.dry_run).await?;
    }
    if !deletion.dry_run {
        announce(call, row).await?;
    }
    // The announcement has changed the pod, so a resourceVersion that the client named was compared by it already.
    let unversioned = DeleteOptions { resource_version: deletion.resource_version.take().filter(|_| deletion.dry_run), ..deletion };
    let server = call.server;
    // Admission has been asked about the eviction; as upstream, it is not asked about the deletion that follows.
    server.store.delete(row, &call.info.namespace, name, &unversioned, call.user, &AdmitAll).await?;
    let mut response = super::success();
    respond::add_warnings(response.headers_mut(), &warnings);
    Ok(response)
}

/// Asks admission before a budget or the pod is touched: a kubelet may only evict the pods of its own node. Returns its warnings.
async fn admitted(call: &Call<'_>, row: &'static Resource, eviction: Eviction, dry_run: bool) -> Result<Vec<String>, ApiError> {
    let mut object = Object::new(eviction);
    let write = Part { operation: Operation::Create, subresource: "eviction", dry_run, object: Some(&mut object), options: None };
    super::admitted(call, row, write).await
}

/// Pods that hold nothing up any more, or do not yet.
fn ignores_budgets(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether an unhealthy pod may go although nothing is taken from the budget.
fn unhealthy_may_go(pod: &Pod, budget: &PodDisruptionBudget) -> bool {
    if ready(pod) {
        return false;
    }
    if budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref()) == Some("AlwaysAllow") {
        return true;
    }
    budget.status.as_ref().is_some_and(|s| s.desired_healthy.unwrap_or(0) > 0 && s.current_healthy >= s.desired_healthy)
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = Selector::from_label_selector(budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
    selector.is_ok_and(|s| s.matches(&pod.metadata.labels))
}

async fn take_room(call: &Call<'_>, pod: &Pod, dry_run: bool) -> Result<(), ApiError> {
    let budgets = super::list_typed::<PodDisruptionBudget>(call, &call.info.namespace)?;
    let covering: Vec<&PodDisruptionBudget> = budgets.iter().filter(|b| covers(b, pod)).collect();
    let budget = match covering[..] {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::new(500, "", text));
        }
    };
    if unhealthy_may_go(pod, budget) {
        return Ok(());
    }
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    let row = super::row::<PodDisruptionBudget>()?;
    let budget_name = budget.metadata.name.clone().unwrap_or_default();
    let change = |current: Option<&Current>| {
        let current = current.ok_or_else(|| ApiError::not_found(row.group_resource(), &budget_name))?;
        let mut object = current.object.clone();
        let budget: &mut PodDisruptionBudget = object.downcast_mut().ok_or_else(|| ApiError::internal("not a budget"))?;
        decrement(budget, &pod_name)?;
        Ok(Decoded::from(object))
    };
    // Whoever may evict a pod need not be allowed to touch budgets: this is the server's own doing.
    let options = WriteOptions { dry_run, subresource: "status", ..WriteOptions::new(call.user) };
    call.server.store.update(row, &call.info.namespace, &budget_name, &options, &change, &AdmitAll).await?;
    Ok(())
}

/// Takes one disruption from a budget.
fn decrement(budget: &mut PodDisruptionBudget, pod: &str) -> Result<(), ApiError> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let gr = GroupResource { group: "policy", resource: "poddisruptionbudgets" };
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        let text = format!("The disruption budget {name} is still being processed by the server.");
        return Err(ApiError::too_many_requests(BLOCKED, 10).cause("DisruptionBudget", "", &text));
    }
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed < 0 {
        return Err(ApiError::forbidden(gr, &name, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|p| p.len() > MAX_DISRUPTED) {
        return Err(ApiError::forbidden(gr, &name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        let (needed, healthy) = (status.desired_healthy.unwrap_or(0), status.current_healthy.unwrap_or(0));
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionAllowed" && c.status == "False");
        let text = match condition.filter(|c| !c.message.is_empty()) {
            Some(condition) => condition.message.clone(),
            None => format!("The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"),
        };
        return Err(ApiError::new(429, "TooManyRequests", BLOCKED).cause("DisruptionBudget", "", &text));
    }
    status.disruptions_allowed = Some(allowed - 1);
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    if allowed == 1 {
        set_budget_condition(status.conditions.get_or_insert_default(), generation, &now);
    }
    status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), now);
    Ok(())
}

fn set_budget_condition(conditions: &mut Vec<Condition>, generation: i64, now: &Time) {
    let condition = Condition {
        type_: "DisruptionAllowed".into(),
        status: "False".into(),
        reason: "InsufficientPods".into(),
        message: String::new(),
        observed_generation: Some(generation),
        last_transition_time: now.clone(),
    };
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => {
            let since = if old.status == condition.status { old.last_transition_time.clone() } else { now.clone() };
            *old = Condition { last_transition_time: since, ..condition };
        }
        None => conditions.push(condition),
    }
}

/// Shows in the pod's status why it is going.
async fn announce(call: &Call<'_>, row: &'static Resource) -> Result<(), ApiError> {
    let change = |current: Option<&Current>| {
        let current = current.ok_or_else(|| ApiError::not_found(row.group_resource(), &call.info.name))?;
        let mut object = current.object.clone();
        let pod: &mut Pod = object.downcast_mut().ok_or_else(|| ApiError::internal("not a pod"))?;
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("EvictionByEvictionAPI".into()),
            message: Some("Eviction API: evicting".into()),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        };
        set_condition(pod.status.get_or_insert_with(PodStatus::default), condition, &Time(k8s_openapi::jiff::Timestamp::now()));
        Ok(Decoded::from(object))
    };
    let options = WriteOptions { subresource: "status", ..WriteOptions::new(call.user) };
    call.server.store.update(row, &call.info.namespace, &call.info.name, &options, &change, &AdmitAll).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn budget(status: serde_json::Value) -> PodDisruptionBudget {
        let value = json!({
            "metadata": {"name": "b", "generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "x"}}},
            "status": status,
        });
        serde_json::from_value(value).unwrap()
    }

    fn status(allowed: i32, observed: i64) -> serde_json::Value {
        json!({"disruptionsAllowed": allowed, "observedGeneration": observed, "currentHealthy": 3, "desiredHealthy": 3, "expectedPods": 3})
    }

    fn pod(phase: &str, ready: &str) -> Pod {
        let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
        serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"app": "x"}}, "status": status})).unwrap()
    }

    #[test]
    fn a_budget_gives_what_it_has_and_no_more() {
        let mut one = budget(status(1, 1));
        decrement(&mut one, "p").unwrap();
        let left = one.status.clone().unwrap();
        assert_eq!((left.disruptions_allowed, left.disrupted_pods.unwrap().len()), (Some(0), 1));
        assert_eq!(left.conditions.unwrap()[0].reason, "InsufficientPods");
        let error = decrement(&mut one, "q").unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (429, BLOCKED));
        let cause = &error.0.details.unwrap().causes.unwrap()[0];
        assert_eq!(cause.message.as_deref(), Some("The disruption budget b needs 3 healthy pods and has 3 currently"));
    }

    #[test]
    fn a_budget_that_is_not_processed_yet_says_when_to_come_back() {
        let error = decrement(&mut budget(status(5, 0)), "p").unwrap_err();
        assert_eq!((error.code(), error.0.details.unwrap().retry_after_seconds), (429, Some(10)));
    }

    #[test]
    fn only_running_pods_that_a_budget_covers_need_its_room() {
        assert!(ignores_budgets(&pod("Pending", "False")) && ignores_budgets(&pod("Failed", "False")) && !ignores_budgets(&pod("Running", "True")));
        let covering = budget(status(0, 1));
        assert!(covers(&covering, &pod("Running", "True")));
        let mut other = pod("Running", "True");
        other.metadata.labels = None;
        assert!(!covers(&covering, &other));
        assert!(unhealthy_may_go(&pod("Running", "False"), &covering), "the budget is healthy without it");
        assert!(!unhealthy_may_go(&pod("Running", "True"), &covering));
    }
}

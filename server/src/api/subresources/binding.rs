//! `pods/binding`: gives a pod its node (`pkg/registry/core/pod/storage/storage.go`, `BindingREST`).

use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shared::field;
use shared::status::{ApiError, GroupResource};

use crate::api::chain::Call;
use crate::api::negotiate;
use crate::api::verbs::options;
use crate::api::{Body, Response, respond};
use crate::registry::store::{Current, Decoded, Tracking};
use crate::registry::{Object, Resource};

const PODS_BINDING: GroupResource<'static> = GroupResource { group: "", resource: "pods/binding" };

/// Binds a pod.
///
/// # Errors
/// 404 without the pod, 409 when it is bound already, being deleted or gated, 422 for a bad target.
pub async fn create(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
    let mut binding: Binding = super::decode(&json)?;
    options::same_object(call.info, row, &mut binding.metadata)?;
    validate(&call.info.name, &binding)?;
    let mut writing = options::writing(call, "CreateOptions", false)?;
    // As upstream, where a binding is no write of the pod's own fields.
    writing.store.tracking = Tracking::Keep;
    let change = |current: Option<&Current>| {
        let current = current.ok_or_else(|| ApiError::not_found(row.group_resource(), &call.info.name))?;
        let mut object = current.object.clone();
        bind(&mut object, &binding)?;
        Ok(Decoded::from(object))
    };
    let server = call.server;
    let written = server.store.update(row, &call.info.namespace, &call.info.name, &writing.store, &change, &*server.admit).await?;
    let mut response = super::success();
    respond::add_warnings(response.headers_mut(), &written.warnings);
    Ok(response)
}

fn validate(name: &str, binding: &Binding) -> Result<(), ApiError> {
    let target = field::Path::new("target");
    let mut errors = field::ErrorList::new();
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(field::Error::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().unwrap_or_default().is_empty() {
        errors.push(field::Error::required(&target.child("name"), ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(GroupResource { group: "", resource: "Binding" }, name, &errors)) }
}

/// Puts the node, the binding's labels and annotations and the PodScheduled condition into a pod.
fn bind(object: &mut Object, binding: &Binding) -> Result<(), ApiError> {
    let pod: &mut Pod = object.downcast_mut().ok_or_else(|| ApiError::internal("not a pod"))?;
    let name = pod.metadata.name.clone().unwrap_or_default();
    let conflict = |detail: &str| Err(ApiError::conflict(PODS_BINDING, &name, detail));
    let precondition = |what: &str, wanted: Option<&String>, found: Option<&String>| match (wanted, found) {
        (Some(wanted), Some(found)) if !wanted.is_empty() && wanted != found => Err(ApiError::conflict(
            PODS_BINDING,
            &name,
            &format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"),
        )),
        _ => Ok(()),
    };
    precondition("UID", binding.metadata.uid.as_ref(), pod.metadata.uid.as_ref())?;
    precondition("ResourceVersion", binding.metadata.resource_version.as_ref(), pod.metadata.resource_version.as_ref())?;
    let spec = pod.spec.get_or_insert_with(PodSpec::default);
    if pod.metadata.deletion_timestamp.is_some() {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return conflict(&format!("pod {name} is already assigned to node {node:?}"));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name = binding.target.name.clone();
    for (key, value) in binding.metadata.annotations.iter().flatten() {
        pod.metadata.annotations.get_or_insert_default().insert(key.clone(), value.clone());
    }
    for (key, value) in binding.metadata.labels.iter().flatten() {
        pod.metadata.labels.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    let observed = pod.metadata.generation;
    let status = pod.status.get_or_insert_with(PodStatus::default);
    set_condition(
        status,
        PodCondition { type_: "PodScheduled".into(), status: "True".into(), observed_generation: observed, ..PodCondition::default() },
    );
    Ok(())
}

/// Sets a condition; its transition time changes only with its status (`pkg/api/pod.UpdatePodCondition`).
pub(super) fn set_condition(status: &mut PodStatus, mut condition: PodCondition) {
    condition.last_transition_time = Some(Time(k8s_openapi::jiff::Timestamp::now()));
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time.clone_from(&old.last_transition_time);
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(extra: serde_json::Value) -> Object {
        let mut pod = json!({"metadata": {"name": "x", "uid": "1", "resourceVersion": "5"}, "spec": {"containers": []}});
        json_patch_merge(&mut pod, extra);
        Object::new::<Pod>(serde_json::from_value(pod).unwrap())
    }

    fn json_patch_merge(into: &mut serde_json::Value, from: serde_json::Value) {
        match (into, from) {
            (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
                for (key, value) in from {
                    json_patch_merge(into.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    fn to(node: &str) -> Binding {
        serde_json::from_value(json!({"metadata": {"name": "x", "annotations": {"a": "b"}}, "target": {"kind": "Node", "name": node}})).unwrap()
    }

    #[test]
    fn a_bound_pod_has_its_node_and_says_it_is_scheduled() {
        let mut object = pod(json!({}));
        bind(&mut object, &to("n1")).unwrap();
        let pod: &Pod = object.downcast_ref().unwrap();
        assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("n1"));
        assert_eq!(pod.metadata.annotations.as_ref().unwrap()["a"], "b");
        let condition = &pod.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
        assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("PodScheduled", "True"));
        assert!(condition.last_transition_time.is_some());
    }

    #[test]
    fn a_pod_is_bound_only_once_and_only_when_it_may_be() {
        let refused = |extra, binding: &Binding| bind(&mut pod(extra), binding).unwrap_err().to_string();
        let head = "Operation cannot be fulfilled on pods/binding \"x\": ";
        assert_eq!(refused(json!({"spec": {"nodeName": "y"}}), &to("n1")), format!("{head}pod x is already assigned to node \"y\""));
        assert_eq!(
            refused(json!({"spec": {"schedulingGates": [{"name": "g"}]}}), &to("n")),
            format!("{head}pod x has non-empty .spec.schedulingGates")
        );
        let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(refused(deleting, &to("n")), format!("{head}pod x is being deleted, cannot be assigned to a host"));
        let mut other = to("n");
        other.metadata.uid = Some("2".into());
        assert!(refused(json!({}), &other).contains("Precondition failed: UID"));
    }

    #[test]
    fn a_binding_needs_a_node() {
        assert!(validate("x", &to("n")).is_ok());
        assert_eq!(validate("x", &to("")).unwrap_err().code(), 422);
        let mut wrong = to("n");
        wrong.target.kind = Some("Pod".into());
        assert_eq!(validate("x", &wrong).unwrap_err().code(), 422);
    }
}

//! What an update of a pod may change (`ValidatePodUpdate`, `ValidatePodStatusUpdate`).

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus, Toleration};
use shared::field::{Error, ErrorList, Path};
use shared::selector::qualified_name_errors;

use super::MIRROR_ANNOTATION;
use crate::registry::validation::diff::changes;
use crate::registry::validation::{BAD_IP, IMMUTABLE, check, inclusive_range, ip};

/// What every update of a pod's spec is told when it goes too far.
const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Errors of a changed spec, beyond those of the new spec by itself.
pub fn validate(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = Vec::new();
    mirror_annotation(new, old, &mut errors);
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
    let path = Path::new("spec");
    let init = |spec: &PodSpec| spec.init_containers.as_ref().map_or(0, Vec::len);
    for (field, new, old) in [("containers", new.containers.len(), old.containers.len()), ("initContainers", init(new), init(old))] {
        if new != old {
            errors.push(Error::forbidden(&path.child(field), "pod updates may not add or remove containers"));
            return errors;
        }
    }
    if !deadline(&path.child("activeDeadlineSeconds"), new, old, &mut errors) {
        return errors;
    }
    if !old_tolerations_kept(new, old) {
        errors.push(Error::forbidden(&path.child("tolerations"), "existing toleration can not be modified except its tolerationSeconds"));
    }
    scheduling_gates(&path.child("schedulingGates"), new, old, &mut errors);
    let munged = with_old_mutable_fields(new, old, &mut errors);
    if munged != *old {
        errors.push(Error::forbidden(&path, &format!("{FORBIDDEN}\n{}", changes(old, &munged))));
    }
    errors
}

fn mirror_annotation(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    let of = |pod: &Pod| pod.metadata.annotations.as_ref().and_then(|a| a.get(MIRROR_ANNOTATION)).cloned();
    let path = Path::new("metadata").child("annotations").key(MIRROR_ANNOTATION);
    match (of(old), of(new)) {
        (old, new) if old == new => {}
        (None, _) => errors.push(Error::forbidden(&path, "may not add mirror pod annotation")),
        _ => errors.push(Error::forbidden(&path, "may not remove or update mirror pod annotation")),
    }
}

/// A deadline may be set, or made shorter. Says whether to go on.
fn deadline(path: &Path, new: &PodSpec, old: &PodSpec, errors: &mut ErrorList) -> bool {
    let before = errors.len();
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(Error::invalid(path, new, &inclusive_range(0, i64::from(i32::MAX))));
        }
        (Some(new), Some(old)) if old < new => errors.push(Error::invalid(path, new, "must be less than or equal to previous value")),
        (None, Some(_)) => {
            errors.push(Error::invalid(path, serde_json::Value::Null, "must not update from a positive integer to nil value"));
            return true;
        }
        _ => {}
    }
    errors.len() == before
}

fn old_tolerations_kept(new: &PodSpec, old: &PodSpec) -> bool {
    let timeless = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() };
    let new: Vec<_> = new.tolerations.iter().flatten().map(timeless).collect();
    old.tolerations.iter().flatten().all(|t| new.contains(&timeless(t)))
}

fn scheduling_gates(path: &Path, new: &PodSpec, old: &PodSpec, errors: &mut ErrorList) {
    let old = old.scheduling_gates.as_deref().unwrap_or_default();
    for (index, gate) in new.scheduling_gates.iter().flatten().enumerate().filter(|(_, g)| !old.contains(g)) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.push(Error::forbidden(&path.index(index).child("name"), &detail));
    }
}

/// The new spec with everything that may change put back, so that what still differs may not.
fn with_old_mutable_fields(new: &PodSpec, old: &PodSpec, errors: &mut ErrorList) -> PodSpec {
    let mut munged = new.clone();
    for (container, old) in munged.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&old.image);
    }
    for (container, old) in munged.init_containers.iter_mut().flatten().zip(old.init_containers.iter().flatten()) {
        container.image.clone_from(&old.image);
    }
    munged.active_deadline_seconds = old.active_deadline_seconds;
    munged.scheduling_gates.clone_from(&old.scheduling_gates);
    munged.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|p| p < 0) && new.termination_grace_period_seconds == Some(1) {
        munged.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    let gated = old.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
    if gated && new.node_selector != old.node_selector {
        let kept = old.node_selector.iter().flatten().all(|(k, v)| new.node_selector.as_ref().and_then(|n| n.get(k)) == Some(v));
        if !kept {
            let path = Path::new("spec").child("nodeSelector");
            errors.push(Error::invalid(&path, &new.node_selector, "only additions are allowed (no mutations or deletions)"));
        }
        munged.node_selector.clone_from(&old.node_selector);
    }
    munged
}

/// Errors of a status update.
pub fn validate_status(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = Vec::new();
    let path = Path::new("status");
    let none = PodStatus::default();
    let (status, before) = (new.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none));
    for (index, condition) in status.conditions.iter().flatten().enumerate() {
        let path = path.child("conditions").index(index).child("Type");
        check(&path, &condition.type_, qualified_name_errors(&condition.type_), &mut errors);
    }
    if before.qos_class.is_some() && status.qos_class != before.qos_class {
        errors.push(Error::invalid(&path.child("qosClass"), &status.qos_class, IMMUTABLE));
    }
    let policy = old.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let sidecars: Vec<&str> = old
        .spec
        .iter()
        .flat_map(|s| s.init_containers.iter().flatten())
        .filter(|c| c.restart_policy.as_deref() == Some("Always"))
        .map(|c| c.name.as_str())
        .collect();
    for (field, new, old) in [
        ("containerStatuses", &status.container_statuses, &before.container_statuses),
        ("initContainerStatuses", &status.init_container_statuses, &before.init_container_statuses),
    ] {
        resurrections(&path.child(field), new.as_deref(), old.as_deref(), policy, &sidecars, &mut errors);
    }
    let ephemeral = (&status.ephemeral_container_statuses, &before.ephemeral_container_statuses);
    resurrections(&path.child("ephemeralContainerStatuses"), ephemeral.0.as_deref(), ephemeral.1.as_deref(), "Never", &[], &mut errors);
    for (field, ips) in [
        ("podIPs", status.pod_ips.iter().flatten().map(|i| i.ip.as_str()).collect::<Vec<_>>()),
        ("hostIPs", status.host_ips.iter().flatten().map(|i| i.ip.as_str()).collect()),
    ] {
        for (index, address) in ips.iter().enumerate().filter(|(_, a)| ip(a).is_none()) {
            errors.push(Error::invalid(&path.child(field).index(index), address, BAD_IP));
        }
    }
    errors
}

/// A container that ended for good stays ended.
fn resurrections(
    path: &Path,
    new: Option<&[ContainerStatus]>,
    old: Option<&[ContainerStatus]>,
    policy: &str,
    sidecars: &[&str],
    errors: &mut ErrorList,
) {
    if policy == "Always" {
        return;
    }
    let ended = |status: &ContainerStatus| status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    for (index, old) in old.unwrap_or_default().iter().enumerate() {
        let Some(code) = ended(old) else { continue };
        if (code != 0 && policy == "OnFailure") || sidecars.contains(&old.name.as_str()) {
            continue;
        }
        if new.unwrap_or_default().iter().any(|n| n.name == old.name && ended(n).is_none()) {
            errors.push(Error::forbidden(&path.index(index).child("state"), "may not be transitioned to non-terminated state"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Pods;
    use super::*;
    use crate::registry::Strategy;
    use crate::registry::testing::{created, object, update_errors, with};

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "c", "image": "a:1"}], "tolerations": [{"key": "k", "operator": "Exists"}]
        }})
    }

    fn errors(patch: Value) -> Vec<String> {
        update_errors::<Pods>(pod(), with(pod(), patch))
    }

    #[test]
    fn images_deadlines_and_more_tolerations_may_change() {
        assert!(errors(json!({"spec": {"containers": [{"name": "c", "image": "a:1", "imagePullPolicy": "IfNotPresent"}]}})).is_empty());
        assert!(errors(json!({"spec": {"activeDeadlineSeconds": 5}})).is_empty());
        assert!(errors(json!({"metadata": {"labels": {"a": "b"}}})).is_empty());
        assert!(errors(json!({"spec": {"tolerations": [{"key": "x", "operator": "Exists"}, {"key": "k", "operator": "Exists"}]}})).is_empty());
        assert!(errors(json!({"spec": {"containers": [{"name": "c", "image": "b:2"}]}})).is_empty());
    }

    #[test]
    fn all_else_is_forbidden_and_the_change_is_shown() {
        let changed = errors(json!({"spec": {"nodeName": "n"}}));
        assert_eq!(changed, [format!("spec: Forbidden: {FORBIDDEN}\n  nodeName: null → \"n\"")]);
        assert_eq!(
            errors(json!({"spec": {"containers": [{"name": "c", "image": "a:1"}, {"name": "d", "image": "a:1"}]}})),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"]
        );
        assert!(errors(json!({"spec": {"tolerations": []}}))[0].starts_with("spec.tolerations: Forbidden: existing toleration can not be"));
        assert_eq!(
            errors(json!({"spec": {"schedulingGates": [{"name": "g"}]}})),
            ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"]
        );
    }

    #[test]
    fn a_deadline_never_grows() {
        let of = |old: i64, new: Value| {
            update_errors::<Pods>(
                with(pod(), json!({"spec": {"activeDeadlineSeconds": old}})),
                with(pod(), json!({"spec": {"activeDeadlineSeconds": new}})),
            )
        };
        assert!(of(5, json!(4)).is_empty());
        assert_eq!(of(5, json!(6)), ["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"]);
        assert_eq!(of(5, Value::Null), ["spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"]);
    }

    #[test]
    fn an_ended_container_stays_ended_unless_it_may_restart() {
        let status = |state: Value| {
            json!({"status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}
            ]}})
        };
        let of = |policy: &str, code: i32| {
            let pod = with(pod(), json!({"spec": {"restartPolicy": policy}}));
            let mut old = created::<Pods>(pod.clone());
            old.status = object::<Pods>(status(json!({"terminated": {"exitCode": code}}))).status;
            let new = object::<Pods>(with(pod, status(json!({"running": {}}))));
            Pods::validate_status_update(&new, &old).len()
        };
        assert_eq!((of("Never", 0), of("OnFailure", 0), of("OnFailure", 1), of("Always", 0)), (1, 1, 0, 0));
    }
}

//! What a pod's spec and status say, as controllers, the scheduler and the kubelet ask it
//! (`pkg/api/v1/pod/util.go`, `pkg/apis/core/v1/helper/qos/qos.go`). Pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shared::quantity::Quantity;

/// The condition of a type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether a condition is `True`.
pub fn is_true(pod: &Pod, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| c.status == "True")
}

/// Whether the pod may receive traffic.
pub fn is_ready(pod: &Pod) -> bool {
    is_true(pod, "Ready")
}

/// Whether the pod has been ready for `min_ready_seconds` at `now`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: &Time) -> bool {
    let Some(ready) = condition(pod, "Ready").filter(|c| c.status == "True") else { return false };
    let since = ready.last_transition_time.as_ref();
    min_ready_seconds == 0 || since.is_some_and(|t| t.0.as_second() + i64::from(min_ready_seconds) <= now.0.as_second())
}

/// The phase, `""` when unknown.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether no container of the pod will ever run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts for its controller: neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Sets a condition. Its transition time changes only with its status. Returns whether anything changed.
pub fn set_condition(status: &mut PodStatus, mut new: PodCondition, now: &Time) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        new.last_transition_time = Some(now.clone());
        conditions.push(new);
        return true;
    };
    new.last_transition_time = if old.status == new.status { old.last_transition_time.clone() } else { Some(now.clone()) };
    let changed = *old != new;
    *old = new;
    changed
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: Option<&PodSpec>) -> &'static str {
    let Some(spec) = spec else { return "BestEffort" };
    if let Some(resources) = spec.resources.as_ref().filter(|r| asks(r)) {
        return if is_guaranteed(resources) { "Guaranteed" } else { "Burstable" };
    }
    let none = ResourceRequirements::default();
    let all: Vec<&ResourceRequirements> = containers(spec).map(|c| c.resources.as_ref().unwrap_or(&none)).collect();
    if !all.iter().any(|r| asks(r)) {
        "BestEffort"
    } else if all.iter().all(|r| is_guaranteed(r)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// Whether anything of CPU or memory is asked for.
fn asks(resources: &ResourceRequirements) -> bool {
    let lists = [&resources.limits, &resources.requests];
    let amounts = lists.into_iter().flatten().flatten();
    amounts.into_iter().any(|(name, wire)| ["cpu", "memory"].contains(&name.as_str()) && Quantity::of(wire).signum() > 0)
}

/// Whether CPU and memory are limited, and what is requested is the limit.
fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = resources.limits.as_ref().and_then(|l| l.get(*name)).map(Quantity::of).filter(|q| q.signum() > 0);
        let request = resources.requests.as_ref().and_then(|l| l.get(*name)).map(Quantity::of).filter(|q| q.signum() > 0);
        limit.is_some() && request.is_none_or(|r| Some(r) == limit)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_class_of_service_follows_requests_and_limits() {
        let of = |resources: Value| {
            let spec = json!({"containers": resources.as_array().unwrap().iter().map(|r| json!({"name": "c", "resources": r})).collect::<Vec<_>>()});
            qos_class(Some(&serde_json::from_value(spec).unwrap()))
        };
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        for (resources, class) in [
            (json!([{}]), "BestEffort"),
            (json!([{"limits": {"example.com/gpu": "1"}}]), "BestEffort"),
            (json!([{"requests": {"cpu": "1"}}]), "Burstable"),
            (json!([{"limits": {"cpu": "1"}}]), "Burstable"),
            (json!([full]), "Guaranteed"),
            (json!([full, {}]), "Burstable"),
            (json!([{"limits": {"cpu": "1", "memory": "1Gi"}}]), "Guaranteed"),
            (json!([{"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}]), "Burstable"),
            (json!([{"requests": {"cpu": "0"}}]), "BestEffort"),
        ] {
            assert_eq!(of(resources.clone()), class, "{resources}");
        }
    }

    #[test]
    fn availability_needs_readiness_for_long_enough() {
        let time = |text: &str| Time(text.parse().unwrap());
        let pod: Pod = serde_json::from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}
        ]}}))
        .unwrap();
        assert!(is_ready(&pod) && is_available(&pod, 0, &time("2024-01-01T00:00:00Z")));
        assert!(!is_available(&pod, 10, &time("2024-01-01T00:00:09Z")));
        assert!(is_available(&pod, 10, &time("2024-01-01T00:00:10Z")));
        assert!(!is_ready(&Pod::default()));
    }

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let (first, second) = (Time("2024-01-01T00:00:00Z".parse().unwrap()), Time("2024-01-01T00:01:00Z".parse().unwrap()));
        let new = |status: &str, reason: &str| PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: Some(reason.into()),
            ..PodCondition::default()
        };
        let mut status = PodStatus::default();
        assert!(set_condition(&mut status, new("False", "a"), &first));
        assert!(!set_condition(&mut status, new("False", "a"), &second));
        assert!(set_condition(&mut status, new("False", "b"), &second));
        assert_eq!(status.conditions.as_ref().unwrap()[0].last_transition_time.as_ref(), Some(&first));
        assert!(set_condition(&mut status, new("True", "b"), &second));
        assert_eq!(status.conditions.as_ref().unwrap()[0].last_transition_time.as_ref(), Some(&second));
    }
}

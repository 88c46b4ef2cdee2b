//! What controllers ask about pods (`pkg/api/v1/pod/util.go`, `pkg/controller/controller_utils.go`). Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::elapsed;

/// `status.phase`, `""` if it is not set.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// The node it runs on, `""` before it is bound.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// Its name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Its uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Succeeded or Failed: no container of it will run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// A condition of its status.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Whether its Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when it has been ready.
pub fn ready_since(pod: &Pod) -> Option<&Time> {
    condition(pod, "Ready").filter(|c| c.status == "True").and_then(|c| c.last_transition_time.as_ref())
}

/// Ready for at least `min_ready` seconds.
pub fn is_available(pod: &Pod, min_ready: i32, now: &Time) -> bool {
    is_ready(pod) && (min_ready <= 0 || ready_since(pod).is_some_and(|since| elapsed(since, now) >= seconds(min_ready)))
}

/// How long until the first of the ready but not yet available pods becomes available.
pub fn next_availability<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>, min_ready: i32, now: &Time) -> Option<Duration> {
    if min_ready <= 0 {
        return None;
    }
    let waits = pods.into_iter().filter(|p| is_ready(p) && !is_available(p, min_ready, now));
    waits.filter_map(|p| ready_since(p).map(|since| seconds(min_ready).saturating_sub(elapsed(since, now)).max(Duration::from_millis(100)))).min()
}

/// A count of seconds from the API; negative ones are none.
pub fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default())
}

/// The value of an annotation.
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The most restarts of any regular container, then of any restartable init container.
pub fn max_restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let regular = status.container_statuses.iter().flatten().map(|c| c.restart_count).max().unwrap_or_default();
    let sidecars = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let restarts: HashMap<&str, i32> = status.init_container_statuses.iter().flatten().map(|c| (c.name.as_str(), c.restart_count)).collect();
    (regular, sidecars.filter_map(|c| restarts.get(c.name.as_str()).copied()).max().unwrap_or_default())
}

/// Whether a toleration tolerates a taint (`v1.Toleration.ToleratesTaint`).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (left, right) = (text(&toleration.value), text(&taint.value));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => left == right,
        "Exists" => true,
        "Lt" | "Gt" => match (left.parse::<i64>(), right.parse::<i64>()) {
            (Ok(bound), Ok(value)) if toleration.operator.as_deref() == Some("Lt") => value < bound,
            (Ok(bound), Ok(value)) => value > bound,
            _ => false,
        },
        _ => false,
    }
}

/// Whether every taint that `filter` lets through is tolerated; the first that is not otherwise.
pub fn untolerated<'a>(tolerations: &[Toleration], taints: &'a [Taint], filter: impl Fn(&Taint) -> bool) -> Option<&'a Taint> {
    taints.iter().filter(|t| filter(t)).find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// Its tolerations.
pub fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

/// Sets a condition; the transition time changes with the status only. Returns whether anything changed.
pub fn set_condition(pod: &mut Pod, mut new: PodCondition, now: &Time) -> bool {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        new.last_transition_time = Some(now.clone());
        conditions.push(new);
        return true;
    };
    new.last_transition_time = if old.status == new.status { old.last_transition_time.clone() } else { Some(now.clone()) };
    new.last_probe_time = old.last_probe_time.clone();
    let changed = *old != new;
    *old = new;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Toleration { key: some(key), operator: some(operator), value: some(value), effect: some(effect), toleration_seconds: None }
    }

    #[test]
    fn tolerations_match_taints_as_upstream_does() {
        let taint = Taint { key: "k".into(), value: Some("v".into()), effect: "NoExecute".into(), time_added: None };
        for (toleration, expected) in [
            (toleration("k", "Equal", "v", "NoExecute"), true),
            (toleration("k", "", "v", ""), true),
            (toleration("k", "Equal", "other", ""), false),
            (toleration("k", "Exists", "", ""), true),
            (toleration("", "Exists", "", ""), true),
            (toleration("", "Exists", "", "NoSchedule"), false),
            (toleration("other", "Exists", "", ""), false),
            (toleration("k", "Gt", "1", ""), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
        let number = Taint { key: "n".into(), value: Some("5".into()), effect: "NoSchedule".into(), time_added: None };
        assert!(tolerates(&toleration("n", "Gt", "4", ""), &number));
        assert!(!tolerates(&toleration("n", "Lt", "4", ""), &number));
    }
}

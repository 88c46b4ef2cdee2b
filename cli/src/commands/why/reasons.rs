//! What an object itself says about why it is as it is: phases, conditions, container states, finalizers. Pure.

use serde_json::Value;

/// The object's own reasons, the most telling first; nothing when it is as it should be.
pub fn of(object: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(since) = object["metadata"]["deletionTimestamp"].as_str() {
        let holders: Vec<&str> = items(&object["metadata"]["finalizers"]).filter_map(Value::as_str).collect();
        reasons.push(match holders.as_slice() {
            [] => format!("it is being deleted since {since}"),
            some => format!("it is being deleted since {since}, and waits for its finalizers: {}", some.join(", ")),
        });
    }
    match object["kind"].as_str() {
        Some("Pod") => pod(object, &mut reasons),
        Some("Job") => conditions(object, &["Failed", "FailureTarget"], &[], &mut reasons),
        Some("Namespace") => conditions(object, &[], &[], &mut reasons),
        Some("Node") => conditions(object, &["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"], &["Ready"], &mut reasons),
        Some("PersistentVolumeClaim") if object["status"]["phase"] == "Pending" => reasons.push("no volume is bound to it yet".into()),
        _ => conditions(object, &["ReplicaFailure", "Stalled"], &["Available", "Progressing", "Ready"], &mut reasons),
    }
    let status = &object["status"];
    let wanted = object["spec"]["replicas"].as_i64().or_else(|| status["desiredNumberScheduled"].as_i64());
    if let Some(wanted) = wanted {
        let ready = status["readyReplicas"].as_i64().or_else(|| status["numberReady"].as_i64()).unwrap_or(0);
        if ready < wanted {
            reasons.push(format!("{ready} of {wanted} pods are ready"));
        }
    }
    reasons
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Conditions that tell of trouble when true, and those that do when false; for a namespace every one that is true.
fn conditions(object: &Value, bad: &[&str], good: &[&str], reasons: &mut Vec<String>) {
    let any = object["kind"] == "Namespace";
    for condition in items(&object["status"]["conditions"]) {
        let (kind, status) = (text(&condition["type"]), text(&condition["status"]));
        let troubles = (bad.contains(&kind) || any) && status == "True" || good.contains(&kind) && status != "True";
        if troubles {
            reasons.push(format!("{kind} is {status}: {}", said(condition)));
        }
    }
}

/// `Reason: message`
fn said(state: &Value) -> String {
    match (text(&state["reason"]), text(&state["message"])) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {}", message.trim()),
    }
}

fn pod(pod: &Value, reasons: &mut Vec<String>) {
    let status = &pod["status"];
    if !text(&status["reason"]).is_empty() || !text(&status["message"]).is_empty() {
        reasons.push(said(status));
    }
    for condition in items(&status["conditions"]) {
        let kind = text(&condition["type"]);
        if kind == "PodScheduled" && text(&condition["status"]) == "False" {
            reasons.push(format!("not scheduled: {}", said(condition)));
        }
    }
    for gate in items(&pod["spec"]["schedulingGates"]) {
        reasons.push(format!("scheduling waits for the gate {}", text(&gate["name"])));
    }
    for (list, sort) in [("initContainerStatuses", "init container"), ("containerStatuses", "container"), ("ephemeralContainerStatuses", "container")]
    {
        for container in items(&status[list]) {
            reasons.extend(container_reason(container, sort));
        }
    }
    for condition in items(&status["conditions"]) {
        let gate = items(&pod["spec"]["readinessGates"]).any(|g| g["conditionType"] == condition["type"]);
        if gate && text(&condition["status"]) != "True" {
            reasons.push(format!("readiness gate {} is {}: {}", text(&condition["type"]), text(&condition["status"]), said(condition)));
        }
    }
}

fn container_reason(container: &Value, sort: &str) -> Option<String> {
    let name = text(&container["name"]);
    let ended = |state: &Value| {
        let code = state["exitCode"].as_i64().unwrap_or(0);
        let signal = match code {
            137 => ", killed",
            139 => ", segmentation fault",
            143 => ", terminated",
            127 => ", command not found",
            126 => ", command not executable",
            _ => "",
        };
        let told = text(&state["message"]).trim();
        let told = if told.is_empty() { String::new() } else { format!(": {told}") };
        format!("{} with code {code}{signal}{told}", text(&state["reason"]))
    };
    let state = &container["state"];
    let last = &container["lastState"]["terminated"];
    let before = if last.is_object() { format!("; before that it ended: {}", ended(last)) } else { String::new() };
    if state["waiting"].is_object() {
        // Being created is what every pod goes through.
        let plain = matches!(text(&state["waiting"]["reason"]), "ContainerCreating" | "PodInitializing") && last.is_null();
        return (!plain).then(|| format!("{sort} {name} waits: {}{before}", said(&state["waiting"])));
    }
    if state["terminated"].is_object() {
        let failed = state["terminated"]["exitCode"].as_i64().unwrap_or(0) != 0;
        return failed.then(|| format!("{sort} {name} ended: {}", ended(&state["terminated"])));
    }
    let not_ready = container["ready"] == false && sort == "container";
    not_ready.then(|| format!("{sort} {name} runs but is not ready{before}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_tell_what_their_containers_wait_for() {
        let pod = json!({ "kind": "Pod", "status": { "conditions": [{ "type": "PodScheduled", "status": "True" }], "containerStatuses": [
            { "name": "a", "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s" } },
              "lastState": { "terminated": { "reason": "OOMKilled", "exitCode": 137 } } },
            { "name": "b", "state": { "waiting": { "reason": "ContainerCreating" } } },
            { "name": "c", "ready": false, "state": { "running": {} } },
        ] } });
        assert_eq!(
            of(&pod),
            [
                "container a waits: CrashLoopBackOff: back-off 5m0s; before that it ended: OOMKilled with code 137, killed",
                "container c runs but is not ready",
            ]
        );
    }

    #[test]
    fn finalizers_quotas_and_missing_replicas_are_told() {
        let terminating = json!({ "kind": "ConfigMap", "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"] } });
        assert_eq!(of(&terminating), ["it is being deleted since 2026-01-01T00:00:00Z, and waits for its finalizers: x/y"]);
        let deployment = json!({ "kind": "Deployment", "spec": { "replicas": 2 }, "status": { "conditions": [
            { "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota" },
            { "type": "Available", "status": "True", "reason": "MinimumReplicasAvailable" },
        ] } });
        assert_eq!(of(&deployment), ["ReplicaFailure is True: FailedCreate: exceeded quota", "0 of 2 pods are ready"]);
        assert!(of(&json!({ "kind": "Pod", "status": { "phase": "Running", "containerStatuses": [{ "name": "a", "ready": true, "state": { "running": {} } }] } })).is_empty());
    }
}

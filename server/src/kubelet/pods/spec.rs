//! What a pod's spec says, in the terms the kubelet needs: its containers by kind, restart decisions, QoS class.
//!
//! Pure functions only.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use shared::quantity::Quantity;

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Runs to completion before the main ones.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// One of `spec.containers`.
    Main,
    /// Added to a running pod for debugging.
    Ephemeral,
}

/// The pod's spec; validated pods have one.
pub fn spec(pod: &Pod) -> PodSpec {
    pod.spec.clone().unwrap_or_default()
}

/// UID, or empty.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
/// Name, or empty.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
/// Namespace, or empty.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}
/// `name_namespace(uid)`, as upstream names pods in messages (`pkg/kubelet/util/format/pod.go`).
pub fn title(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The kind of an init container.
pub fn init_kind(container: &Container) -> Kind {
    if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init }
}

/// An ephemeral container in the shape of an ordinary one; they share every field but the target.
pub fn ephemeral(container: &k8s_openapi::api::core::v1::EphemeralContainer) -> Container {
    // Serialising between two generated types with the same field names cannot fail.
    serde_json::to_string(container).and_then(|text| serde_json::from_str(&text)).unwrap_or_default()
}

/// Every container: init ones, main ones, ephemeral ones, in the order of the spec.
pub fn containers(pod: &Pod) -> Vec<(Kind, Container)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|c| (init_kind(c), c.clone()));
    let main = spec.containers.iter().map(|c| (Kind::Main, c.clone()));
    let debug = spec.ephemeral_containers.iter().flatten().map(|c| (Kind::Ephemeral, ephemeral(c)));
    init.chain(main).chain(debug).collect()
}

/// A container by name.
pub fn container(pod: &Pod, name: &str) -> Option<(Kind, Container)> {
    containers(pod).into_iter().find(|(_, c)| c.name == name)
}

/// `Always`, `OnFailure` or `Never`.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether a container that ended with this code is to run again (KEP-5307 rules, then its own policy, then the pod's).
pub fn should_restart(pod: &Pod, kind: Kind, container: &Container, exit_code: i32) -> bool {
    if kind == Kind::Ephemeral {
        return false;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        if rule.action == "Restart" && listed == (codes.operator == "In") {
            return true;
        }
    }
    let policy = container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
    match (policy, kind) {
        ("Never", _) => false,
        // A finished init container is done, whatever the policy.
        ("OnFailure", _) | (_, Kind::Init) => exit_code != 0,
        _ => true,
    }
}

/// Host network, process and IPC namespaces.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

/// Quality of service (`pkg/apis/core/v1/helper/qos/qos.go`): `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Pod) -> &'static str {
    if let Some(class) = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        match class {
            "Guaranteed" => return "Guaranteed",
            "Burstable" => return "Burstable",
            "BestEffort" => return "BestEffort",
            _ => {}
        }
    }
    let (mut any, mut guaranteed) = (false, true);
    if let Some(resources) = pod_resources(pod) {
        // Pod-level resources decide alone (KEP-2837).
        for resource in ["cpu", "memory"] {
            let (request, limit) = (amount(resources.requests.as_ref(), resource), amount(resources.limits.as_ref(), resource));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
        return class(any, guaranteed);
    }
    for (_, container) in containers(pod).iter().filter(|(kind, _)| *kind != Kind::Ephemeral) {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (request(container, resource), limit(container, resource));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    class(any, guaranteed)
}

fn class(any: bool, guaranteed: bool) -> &'static str {
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn amount(list: Option<&std::collections::BTreeMap<String, Wire>>, resource: &str) -> Option<Quantity> {
    list?.get(resource).map(Quantity::of).filter(|q| !q.is_zero())
}

/// Resources of the pod as a whole, if it names CPU or memory (`IsPodLevelResourcesSet` in `component-helpers/resource/helpers.go`).
fn pod_resources(pod: &Pod) -> Option<&ResourceRequirements> {
    let resources = pod.spec.as_ref()?.resources.as_ref()?;
    let named = |list: &Option<std::collections::BTreeMap<String, Wire>>| {
        list.iter().flatten().any(|(name, _)| name == "cpu" || name == "memory" || name.starts_with("hugepages-"))
    };
    (named(&resources.requests) || named(&resources.limits)).then_some(resources)
}

/// The limit of a pod as a whole, unless zero or absent.
pub fn pod_limit(pod: &Pod, resource: &str) -> Option<Quantity> {
    amount(pod_resources(pod)?.limits.as_ref(), resource)
}

/// The request of a pod as a whole, unless zero or absent.
pub fn pod_request(pod: &Pod, resource: &str) -> Option<Quantity> {
    amount(pod_resources(pod)?.requests.as_ref(), resource)
}

/// A container's limit, unless zero or absent.
pub fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// A container's request, unless zero or absent.
pub fn request(container: &Container, resource: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.requests.as_ref(), resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    #[test]
    fn the_qos_class_follows_requests_and_limits() {
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({ "requests": { "cpu": "100m" } }), "Burstable"),
            (json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), "Guaranteed"),
            (json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m", "memory": "1Gi" } }), "Guaranteed"),
            (json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } }), "Burstable"),
            (json!({ "limits": { "memory": "1Gi" } }), "Burstable"),
        ] {
            let pod = pod(json!({ "containers": [{ "name": "a", "resources": resources }] }));
            assert_eq!(qos_class(&pod), class, "{resources}");
        }
    }

    #[test]
    fn pod_level_resources_decide_about_the_class() {
        for (resources, class) in [
            (json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), "Guaranteed"),
            (json!({ "limits": { "cpu": "1" } }), "Burstable"),
            (json!({ "requests": { "memory": "1Gi" } }), "Burstable"),
            (json!({}), "BestEffort"),
        ] {
            let pod = pod(json!({ "resources": resources, "containers": [{ "name": "a" }] }));
            assert_eq!(qos_class(&pod), class, "{resources}");
        }
    }

    #[test]
    fn restart_decisions_follow_rules_then_the_containers_policy_then_the_pods() {
        for (policy, own, rules, code, restart) in [
            ("Always", json!(null), json!(null), 0, true),
            ("OnFailure", json!(null), json!(null), 0, false),
            ("OnFailure", json!(null), json!(null), 1, true),
            ("Never", json!(null), json!(null), 1, false),
            ("Never", json!("OnFailure"), json!(null), 1, true),
            ("Never", json!("Never"), json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]), 42, true),
            ("Never", json!("Never"), json!([{ "action": "Restart", "exitCodes": { "operator": "NotIn", "values": [42] } }]), 42, false),
            ("Never", json!("Never"), json!([{ "action": "Restart", "exitCodes": { "operator": "NotIn", "values": [42] } }]), 1, true),
        ] {
            let pod = pod(json!({ "restartPolicy": policy, "containers": [{ "name": "a", "restartPolicy": own, "restartPolicyRules": rules }] }));
            let (kind, container) = container(&pod, "a").unwrap();
            assert_eq!(should_restart(&pod, kind, &container, code), restart, "{policy} {own} {rules} {code}");
        }
    }
}

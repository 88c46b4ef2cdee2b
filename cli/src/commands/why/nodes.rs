//! Why a pod fits on a node or not, judged as the scheduler's filters do (`k8s.io/kubernetes/pkg/scheduler/framework/plugins`). Pure.
//!
//! The scheduler only counts nodes by reason; here each node gets its own verdict. Plugins that need more than the node and its pods
//! (volumes, affinity between pods, topology spread) are left out, and the scheduler's own words stand beside these.

use serde_json::Value;
use shared::quantity::Quantity;

/// What keeps a pod from a node; nothing when it fits.
pub fn verdict(pod: &Value, node: &Value, others: &[&Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let spec = &pod["spec"];
    if node["spec"]["unschedulable"] == true && !tolerated(spec, "node.kubernetes.io/unschedulable", "", "NoSchedule") {
        problems.push("cordoned".to_owned());
    }
    problems.extend(taints(spec, node));
    problems.extend(labels(spec, node));
    problems.extend(resources(pod, node, others));
    problems.extend(ports(spec, others));
    problems
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn tolerated(spec: &Value, key: &str, value: &str, effect: &str) -> bool {
    items(&spec["tolerations"]).any(|t| {
        let exists = text(&t["operator"]) == "Exists";
        let key_fits = text(&t["key"]) == key || text(&t["key"]).is_empty() && exists;
        let effect_fits = text(&t["effect"]).is_empty() || text(&t["effect"]) == effect;
        key_fits && effect_fits && (exists || text(&t["value"]) == value)
    })
}

fn taints(spec: &Value, node: &Value) -> Vec<String> {
    let keeps_away = |taint: &&Value| matches!(text(&taint["effect"]), "NoSchedule" | "NoExecute");
    items(&node["spec"]["taints"])
        .filter(keeps_away)
        // A cordoned node carries a taint that says the same.
        .filter(|t| text(&t["key"]) != "node.kubernetes.io/unschedulable")
        .filter(|t| !tolerated(spec, text(&t["key"]), text(&t["value"]), text(&t["effect"])))
        .map(|t| {
            let value = if text(&t["value"]).is_empty() { String::new() } else { format!("={}", text(&t["value"])) };
            format!("taint {}{value}:{} is not tolerated", text(&t["key"]), text(&t["effect"]))
        })
        .collect()
}

fn labels(spec: &Value, node: &Value) -> Vec<String> {
    let label = |key: &str| node["metadata"]["labels"][key].as_str();
    let mut problems: Vec<String> = spec["nodeSelector"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| label(key) != value.as_str())
        .map(|(key, value)| match label(key) {
            Some(other) => format!("nodeSelector wants {key}={}, it has {other}", text(value)),
            None => format!("nodeSelector wants {key}={}, it has no such label", text(value)),
        })
        .collect();
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let fits = |term: &Value| {
        let by_field = items(&term["matchFields"]).all(|e| requirement(e, node["metadata"]["name"].as_str()));
        by_field && items(&term["matchExpressions"]).all(|e| requirement(e, label(text(&e["key"]))))
    };
    if required.is_array() && !items(required).any(fits) {
        problems.push("required node affinity does not match its labels".to_owned());
    }
    problems
}

fn requirement(expression: &Value, have: Option<&str>) -> bool {
    let listed = have.is_some_and(|have| items(&expression["values"]).any(|v| v == have));
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    let limit = number(expression["values"][0].as_str());
    match text(&expression["operator"]) {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => number(have).zip(limit).is_some_and(|(have, limit)| have > limit),
        "Lt" => number(have).zip(limit).is_some_and(|(have, limit)| have < limit),
        _ => true,
    }
}

fn amount(value: &Value) -> Quantity {
    value.as_str().and_then(|t| t.parse().ok()).unwrap_or_else(Quantity::zero)
}

/// What a pod asks for of a resource: the sum of its containers, or an init container that asks for more.
fn request(pod: &Value, resource: &str) -> Quantity {
    let of = |container: &Value| amount(&container["resources"]["requests"][resource]);
    let spec = &pod["spec"];
    let together = items(&spec["containers"]).map(of).fold(Quantity::zero(), Quantity::plus);
    let first = items(&spec["initContainers"]).map(of).fold(Quantity::zero(), Quantity::max);
    together.max(first).plus(amount(&spec["overhead"][resource]))
}

fn resources(pod: &Value, node: &Value, others: &[&Value]) -> Vec<String> {
    let allocatable = &node["status"]["allocatable"];
    let mut problems = Vec::new();
    let most = amount(&allocatable["pods"]).value();
    if most > 0 && i64::try_from(others.len()).is_ok_and(|running| running >= most) {
        problems.push(format!("it runs {} pods already, as many as it may", others.len()));
    }
    let mut names: Vec<&String> = items(&pod["spec"]["containers"])
        .chain(items(&pod["spec"]["initContainers"]))
        .filter_map(|c| c["resources"]["requests"].as_object())
        .flat_map(|requests| requests.keys())
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        let (wanted, all) = (request(pod, name), amount(&allocatable[name]));
        let free = others.iter().fold(all, |free, p| free.minus(request(p, name))).max(Quantity::zero());
        if wanted > free {
            problems.push(format!("{name}: wants {wanted}, {free} of {all} are free"));
        }
    }
    problems
}

fn ports(spec: &Value, others: &[&Value]) -> Vec<String> {
    let of = |spec: &Value| -> Vec<(u64, String)> {
        items(&spec["containers"])
            .flat_map(|c| items(&c["ports"]))
            .filter_map(|p| Some((p["hostPort"].as_u64().filter(|n| *n > 0)?, p["protocol"].as_str().unwrap_or("TCP").to_owned())))
            .collect()
    };
    let mut problems = Vec::new();
    for wanted in of(spec) {
        if let Some(holder) = others.iter().find(|p| of(&p["spec"]).contains(&wanted)) {
            problems.push(format!("host port {}/{} is taken by pod {}", wanted.0, wanted.1, text(&holder["metadata"]["name"])));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Value {
        json!({
            "metadata": { "name": "n", "labels": { "disk": "hdd" } },
            "spec": { "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }, { "key": "soft", "effect": "PreferNoSchedule" }] },
            "status": { "allocatable": { "cpu": "2", "memory": "2Gi", "pods": "110" } },
        })
    }

    #[test]
    fn a_node_tells_everything_that_keeps_a_pod_away() {
        let other = json!({ "metadata": { "name": "o" }, "spec": { "containers": [{ "resources": { "requests": { "cpu": "1500m" } }, "ports": [{ "hostPort": 80 }] }] } });
        let pod = json!({ "spec": {
            "nodeSelector": { "disk": "ssd", "zone": "a" },
            "containers": [{ "resources": { "requests": { "cpu": "1", "memory": "1Gi" } }, "ports": [{ "hostPort": 80, "protocol": "TCP" }] }],
        } });
        assert_eq!(
            verdict(&pod, &node(), &[&other]),
            [
                "taint gpu=yes:NoSchedule is not tolerated",
                "nodeSelector wants disk=ssd, it has hdd",
                "nodeSelector wants zone=a, it has no such label",
                "cpu: wants 1, 500m of 2 are free",
                "host port 80/TCP is taken by pod o",
            ]
        );
    }

    #[test]
    fn a_pod_that_fits_is_told_nothing() {
        let expression = |operator: &str, values: &[&str]| json!({ "key": "disk", "operator": operator, "values": values });
        let pod = |expression: Value| {
            json!({ "spec": {
                "tolerations": [{ "key": "gpu", "operator": "Exists" }],
                "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchExpressions": [expression] }] } } },
                "containers": [{}],
            } })
        };
        for fitting in [expression("In", &["hdd", "ssd"]), expression("NotIn", &["ssd"]), expression("Exists", &[])] {
            assert!(verdict(&pod(fitting), &node(), &[]).is_empty());
        }
        for unfit in [expression("In", &["ssd"]), expression("DoesNotExist", &[]), expression("Gt", &["1"])] {
            assert_eq!(verdict(&pod(unfit), &node(), &[]), ["required node affinity does not match its labels"]);
        }
        let mut cordoned = node();
        cordoned["spec"]["unschedulable"] = json!(true);
        assert_eq!(verdict(&pod(expression("Exists", &[])), &cordoned, &[]), ["cordoned"]);
    }
}

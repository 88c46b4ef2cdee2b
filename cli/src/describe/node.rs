//! Nodes, with what runs on them and what that takes.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Container, Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use shared::quantity::Quantity;

use super::Writer;
use super::format::{quantity, rfc1123, since};

pub(super) fn describe(w: &mut Writer, node: &Node, lease: Option<&Lease>, pods: Option<&[Pod]>) {
    let (meta, spec, status) = (&node.metadata, node.spec.clone().unwrap_or_default(), node.status.clone().unwrap_or_default());
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    let roles = roles(meta.labels.as_ref());
    w.field(0, "Roles", if roles.is_empty() { "<none>".into() } else { roles.join(",") });
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    w.field(0, "CreationTimestamp", meta.creation_timestamp.as_ref().map_or_else(String::new, rfc1123));
    taints(w, spec.taints.as_deref().unwrap_or_default());
    w.field(0, "Unschedulable", spec.unschedulable.unwrap_or(false));
    if let Some(lease) = lease {
        let spec = lease.spec.clone().unwrap_or_default();
        let time = |t: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime>| {
            t.as_ref().map_or_else(|| "<unset>".into(), |t| rfc1123(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(t.0)))
        };
        w.write(0, "Lease:\n");
        w.field(1, "HolderIdentity", spec.holder_identity.as_deref().unwrap_or("<unset>"));
        w.field(1, "AcquireTime", time(&spec.acquire_time));
        w.field(1, "RenewTime", time(&spec.renew_time));
    }
    if let Some(conditions) = status.conditions.as_ref().filter(|c| !c.is_empty()) {
        w.write(0, "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage\n");
        w.write(1, "----\t------\t-----------------\t------------------\t------\t-------\n");
        for c in conditions {
            let time = |t: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                t.as_ref().map_or_else(|| "Mon, 01 Jan 0001 00:00:00 +0000".into(), rfc1123)
            };
            let (heartbeat, transition) = (time(&c.last_heartbeat_time), time(&c.last_transition_time));
            w.write(
                1,
                &format!(
                    "{} \t{} \t{heartbeat} \t{transition} \t{} \t{}\n",
                    c.type_,
                    c.status,
                    c.reason.as_deref().unwrap_or_default(),
                    c.message.as_deref().unwrap_or_default()
                ),
            );
        }
    }
    w.write(0, "Addresses:\n");
    status.addresses.iter().flatten().for_each(|a| w.field(1, &a.type_, &a.address));
    for (title, amounts) in [("Capacity", &status.capacity), ("Allocatable", &status.allocatable)] {
        if let Some(amounts) = amounts.as_ref().filter(|a| !a.is_empty()) {
            w.write(0, &format!("{title}:\n"));
            amounts.iter().for_each(|(name, amount)| w.field(1, name, quantity(amount)));
        }
    }
    if let Some(info) = &status.node_info {
        w.write(0, "System Info:\n");
        for (name, text) in [
            ("Machine ID", &info.machine_id),
            ("System UUID", &info.system_uuid),
            ("Boot ID", &info.boot_id),
            ("Kernel Version", &info.kernel_version),
            ("OS Image", &info.os_image),
            ("Operating System", &info.operating_system),
            ("Architecture", &info.architecture),
            ("Container Runtime Version", &info.container_runtime_version),
            ("Kubelet Version", &info.kubelet_version),
        ] {
            w.field(1, name, text);
        }
    }
    if let Some(cidr) = spec.pod_cidr.as_ref().filter(|c| !c.is_empty()) {
        w.field(0, "PodCIDR", cidr);
    }
    if let Some(cidrs) = spec.pod_cidrs.as_ref().filter(|c| !c.is_empty()) {
        w.field(0, "PodCIDRs", cidrs.join(","));
    }
    if let Some(id) = spec.provider_id.as_ref().filter(|p| !p.is_empty()) {
        w.field(0, "ProviderID", id);
    }
    match pods {
        Some(pods) => allocated(w, pods, status.allocatable.as_ref().or(status.capacity.as_ref()).unwrap_or(&BTreeMap::new())),
        None => w.field(0, "Pods", "not authorized"),
    }
}

fn roles(labels: Option<&BTreeMap<String, String>>) -> Vec<String> {
    let mut roles: Vec<String> = Vec::new();
    for (key, value) in labels.into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()) {
            roles.push(role.to_owned());
        } else if key == "kubernetes.io/role" && !value.is_empty() {
            roles.push(value.clone());
        }
    }
    roles.sort();
    roles.dedup();
    roles
}

fn taints(w: &mut Writer, taints: &[Taint]) {
    w.write(0, "Taints:\t");
    if taints.is_empty() {
        return w.write(0, "<none>\n");
    }
    let mut texts: Vec<String> = taints
        .iter()
        .map(|t| match t.value.as_deref().filter(|v| !v.is_empty()) {
            Some(value) => format!("{}={value}:{}", t.key, t.effect),
            None => format!("{}:{}", t.key, t.effect),
        })
        .collect();
    texts.sort();
    for (index, text) in texts.iter().enumerate() {
        w.write(0, &format!("{}{text}\n", if index > 0 { "\t" } else { "" }));
    }
}

type Amounts = BTreeMap<String, Quantity>;

/// What a pod asks for: its containers' sum, or its largest init container where that is more; sidecars count with both.
pub fn pod_amounts(pod: &Pod, limits: bool) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let of = |c: &Container| -> Amounts {
        let amounts = c.resources.as_ref().and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
        amounts.into_iter().flatten().map(|(k, v): (&String, &Wire)| (k.clone(), Quantity::of(v))).collect()
    };
    let add = |into: &mut Amounts, from: &Amounts| {
        for (name, amount) in from {
            let sum = into.get(name).copied().unwrap_or_else(Quantity::zero).plus(*amount);
            into.insert(name.clone(), sum);
        }
    };
    let raise = |into: &mut Amounts, from: &Amounts| {
        for (name, amount) in from {
            if into.get(name).is_none_or(|have| have < amount) {
                into.insert(name.clone(), *amount);
            }
        }
    };
    let mut sum = Amounts::new();
    spec.containers.iter().for_each(|c| add(&mut sum, &of(c)));
    let (mut sidecars, mut init) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut need = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &need);
            add(&mut sidecars, &need);
            need = sidecars.clone();
        } else {
            add(&mut need, &sidecars);
        }
        raise(&mut init, &need);
    }
    raise(&mut sum, &init);
    if let Some(overhead) = &spec.overhead {
        let overhead: Amounts = overhead.iter().map(|(k, v)| (k.clone(), Quantity::of(v))).collect();
        add(&mut sum, &overhead);
    }
    sum
}

fn percent(amount: Option<&Quantity>, of: Option<&Quantity>) -> i64 {
    let (Some(amount), Some(of)) = (amount, of) else { return 0 };
    if of.millis() == 0 { 0 } else { (amount.millis() as f64 / of.millis() as f64 * 100.0) as i64 }
}

fn allocated(w: &mut Writer, pods: &[Pod], allocatable: &BTreeMap<String, Wire>) {
    let allocatable: Amounts = allocatable.iter().map(|(k, v)| (k.clone(), Quantity::of(v))).collect();
    let cell = |amounts: &Amounts, name: &str| {
        let amount = amounts.get(name);
        format!("{} ({}%)", amount.map_or_else(|| "0".into(), ToString::to_string), percent(amount, allocatable.get(name)))
    };
    w.write(0, &format!("Non-terminated Pods:\t({} in total)\n", pods.len()));
    w.write(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge\n");
    w.write(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---\n");
    let now = jiff::Timestamp::now();
    let (mut all_requests, mut all_limits) = (Amounts::new(), Amounts::new());
    for pod in pods {
        let (requests, limits) = (pod_amounts(pod, false), pod_amounts(pod, true));
        w.write(
            1,
            &format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}\n",
                pod.metadata.namespace.as_deref().unwrap_or_default(),
                pod.metadata.name.as_deref().unwrap_or_default(),
                cell(&requests, "cpu"),
                cell(&limits, "cpu"),
                cell(&requests, "memory"),
                cell(&limits, "memory"),
                since(pod.metadata.creation_timestamp.as_ref().map(|t| t.0), now)
            ),
        );
        for (total, more) in [(&mut all_requests, requests), (&mut all_limits, limits)] {
            for (name, amount) in more {
                let sum = total.get(&name).copied().unwrap_or_else(Quantity::zero).plus(amount);
                total.insert(name, sum);
            }
        }
    }
    w.write(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)\n");
    w.write(1, "Resource\tRequests\tLimits\n");
    w.write(1, "--------\t--------\t------\n");
    let mut standard = vec!["cpu", "memory", "ephemeral-storage"];
    standard.extend(allocatable.keys().map(String::as_str).filter(|k| k.starts_with("hugepages-")));
    for name in &standard {
        w.write(1, &format!("{name}\t{}\t{}\n", cell(&all_requests, name), cell(&all_limits, name)));
    }
    let plain = |amounts: &Amounts, name: &str| amounts.get(name).map_or_else(|| "0".into(), ToString::to_string);
    for name in allocatable.keys().filter(|k| !standard.contains(&k.as_str()) && *k != "pods") {
        w.write(1, &format!("{name}\t{}\t{}\n", plain(&all_requests, name), plain(&all_limits, name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_containers_count_where_they_need_more() {
        let container = |name: &str, cpu: &str, policy: Option<&str>| serde_json::json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let pod = |init: Vec<serde_json::Value>| -> Pod {
            serde_json::from_value(
                serde_json::json!({"spec": {"containers": [container("a", "100m", None), container("b", "100m", None)], "initContainers": init}}),
            )
            .unwrap()
        };
        for (init, cpu) in [
            (vec![], "200m"),
            (vec![container("i", "500m", None)], "500m"),
            (vec![container("i", "100m", None)], "200m"),
            (vec![container("s", "100m", Some("Always")), container("i", "300m", None)], "400m"),
        ] {
            assert_eq!(pod_amounts(&pod(init), false)["cpu"].to_string(), cpu);
        }
    }
}

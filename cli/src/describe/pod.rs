//! Pods.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::Writer;
use super::containers::{containers, resources, tolerations, topology, volumes};
use super::format::{controller, rfc1123, since};

pub(super) fn describe(w: &mut Writer, pod: &Pod) {
    let (meta, spec) = (&pod.metadata, pod.spec.clone().unwrap_or_default());
    let status = pod.status.clone().unwrap_or_default();
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    placement(w, pod, &spec);
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    let phase = status.phase.as_deref().unwrap_or_default();
    match &meta.deletion_timestamp {
        Some(time) if !matches!(phase, "Failed" | "Succeeded") => {
            w.field(0, "Status", format!("Terminating (lasts {})", since(Some(time.0), jiff::Timestamp::now())));
            w.field(0, "Termination Grace Period", format!("{}s", meta.deletion_grace_period_seconds.unwrap_or(0)));
        }
        _ => w.field(0, "Status", phase),
    }
    for (name, text) in [("Reason", &status.reason), ("Message", &status.message)] {
        if let Some(text) = text.as_ref().filter(|t| !t.is_empty()) {
            w.field(0, name, text);
        }
    }
    if let Some(seccomp) = spec.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref()) {
        w.field(0, "SeccompProfile", &seccomp.type_);
        if seccomp.type_ == "Localhost" {
            w.field(0, "LocalhostProfile", seccomp.localhost_profile.as_deref().unwrap_or_default());
        }
    }
    w.field(0, "IP", status.pod_ip.as_deref().unwrap_or_default());
    match status.pod_ips.as_deref() {
        None | Some([]) => w.field(0, "IPs", "<none>"),
        Some(ips) => {
            w.write(0, "IPs:\n");
            ips.iter().for_each(|ip| w.field(1, "IP", &ip.ip));
        }
    }
    let owner = controller(meta);
    if !owner.is_empty() {
        w.field(0, "Controlled By", owner);
    }
    if let Some(node) = status.nominated_node_name.as_ref().filter(|n| !n.is_empty()) {
        w.field(0, "NominatedNodeName", node);
    }
    if let Some(needs) = &spec.resources {
        w.write(0, "Resources:\n");
        resources(w, needs, 1);
    }
    if let Some(init) = spec.init_containers.as_ref().filter(|c| !c.is_empty()) {
        containers(w, "Init Containers", init, status.init_container_statuses.as_deref().unwrap_or_default(), Some(pod), "");
    }
    containers(w, "Containers", &spec.containers, status.container_statuses.as_deref().unwrap_or_default(), Some(pod), "");
    ephemeral(w, pod, &spec);
    if let Some(gates) = spec.readiness_gates.as_ref().filter(|g| !g.is_empty()) {
        w.write(0, "Readiness Gates:\n  Type\tStatus\n");
        for gate in gates {
            let condition = status.conditions.iter().flatten().find(|c| c.type_ == gate.condition_type);
            w.write(1, &format!("{} \t{} \n", gate.condition_type, condition.map_or("<none>", |c| c.status.as_str())));
        }
    }
    if let Some(conditions) = status.conditions.as_ref().filter(|c| !c.is_empty()) {
        w.write(0, "Conditions:\n  Type\tStatus\n");
        conditions.iter().for_each(|c| w.write(1, &format!("{} \t{} \n", c.type_, c.status)));
    }
    volumes(w, spec.volumes.as_deref().unwrap_or_default(), "");
    w.field(0, "QoS Class", status.qos_class.as_deref().unwrap_or("BestEffort"));
    w.labels("Node-Selectors", spec.node_selector.as_ref());
    tolerations(w, "Tolerations", spec.tolerations.as_deref().unwrap_or_default());
    topology(w, spec.topology_spread_constraints.as_deref().unwrap_or_default(), "");
}

fn placement(w: &mut Writer, pod: &Pod, spec: &PodSpec) {
    let status = pod.status.as_ref();
    if let Some(priority) = spec.priority {
        w.field(0, "Priority", priority);
    }
    for (name, text) in [
        ("Priority Class Name", &spec.priority_class_name),
        ("Runtime Class Name", &spec.runtime_class_name),
        ("Service Account", &spec.service_account_name),
    ] {
        if let Some(text) = text.as_ref().filter(|t| !t.is_empty()) {
            w.field(0, name, text);
        }
    }
    match spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        Some(node) => w.field(0, "Node", format!("{node}/{}", status.and_then(|s| s.host_ip.as_deref()).unwrap_or_default())),
        None => w.field(0, "Node", "<none>"),
    }
    if let Some(start) = status.and_then(|s| s.start_time.as_ref()) {
        w.field(0, "Start Time", rfc1123(start));
    }
}

/// Ephemeral containers have the fields of ordinary ones.
fn ephemeral(w: &mut Writer, pod: &Pod, spec: &PodSpec) {
    let Some(list) = spec.ephemeral_containers.as_ref().filter(|c| !c.is_empty()) else { return };
    let as_containers = serde_json::to_value(list).and_then(serde_json::from_value::<Vec<k8s_openapi::api::core::v1::Container>>);
    if let Ok(list) = as_containers {
        let statuses = pod.status.as_ref().and_then(|s| s.ephemeral_container_statuses.as_deref()).unwrap_or_default();
        containers(w, "Ephemeral Containers", &list, statuses, Some(pod), "");
    }
}

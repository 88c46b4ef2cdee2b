//! Resizing containers while they run (KEP-1287, `pkg/kubelet/allocation` and `doPodResizeAction` in
//! `pkg/kubelet/kuberuntime/kuberuntime_manager.go`): what the runtime holds a container to follows its spec, if the node has room.
//!
//! Owns what was applied to which container; the status reports that and not what is only wished for.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::worker::Worker;
use super::{container, kill, predicates, spec};
use crate::kubelet::cgroups;
use crate::kubelet::runtime::observe::{self, Observed};
use crate::kubelet::status::Resize;

/// Resources that can be changed in place.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// What containers were held to when they were last started or resized, by the runtime's id.
pub type Applied = HashMap<String, ResourceRequirements>;

/// The resources in which two lists differ.
fn differences(held: &ResourceRequirements, wanted: &ResourceRequirements) -> Vec<&'static str> {
    let differ = |name: &&str| {
        let of = |list: &Option<std::collections::BTreeMap<String, _>>| list.as_ref().and_then(|l| l.get(*name)).map(shared::quantity::Quantity::of);
        of(&held.limits) != of(&wanted.limits) || of(&held.requests) != of(&wanted.requests)
    };
    RESIZABLE.into_iter().filter(differ).collect()
}

/// Whether a container has to be restarted for these resources to change.
fn needs_restart(container: &Container, changed: &[&str]) -> bool {
    let policies = container.resize_policy.iter().flatten();
    policies.into_iter().any(|p| p.restart_policy == "RestartContainer" && changed.contains(&p.resource_name.as_str()))
}

/// What the API says a container was held to, for one that ran before this kubelet.
fn on_record(pod: &Pod, id: &str) -> Option<ResourceRequirements> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|s| s.container_id.as_deref().is_some_and(|c| c.ends_with(id)))?;
    found.resources.clone()
}

impl Worker {
    /// Brings what runs to the sizes in the spec, and notes what stands in the way.
    pub(super) async fn resize(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        self.applied.retain(|id, _| observed.running().any(|c| c.id == *id));
        let mut changed: Vec<(observe::Container, Container)> = Vec::new();
        for running in observed.running() {
            let Some((_, container)) = spec::container(pod, &running.name).filter(|(kind, _)| *kind != spec::Kind::Ephemeral) else { continue };
            let wanted = container.resources.clone().unwrap_or_default();
            let held = self.applied.entry(running.id.clone()).or_insert_with(|| on_record(pod, &running.id).unwrap_or_else(|| wanted.clone()));
            if !differences(held, &wanted).is_empty() {
                changed.push((running.clone(), container));
            }
        }
        self.resized = None;
        if changed.is_empty() {
            return;
        }
        if let Some(pending) = self.no_room(pod) {
            self.resized = Some(pending);
            return;
        }
        let group = cgroups::pod_path(&self.kubelet.config.cgroup_root, pod);
        let limits = cgroups::pod_limits(pod);
        // A pod that grows needs its room before its containers, one that shrinks can give it back only after them.
        let _ = self.kubelet.cgroups.create(&group, &limits);
        for (running, container) in changed {
            if let Err(message) = self.resize_one(pod, &running, &container).await {
                self.resized = Some(Resize { kind: "PodResizeInProgress", reason: "Error", message });
            }
        }
        if let Err(error) = self.kubelet.cgroups.create(&group, &limits) {
            self.resized = Some(Resize { kind: "PodResizeInProgress", reason: "Error", message: error.to_string() });
        }
        self.kubelet.weigh_classes();
    }

    async fn resize_one(&mut self, pod: &Arc<Pod>, running: &observe::Container, container: &Container) -> Result<(), String> {
        let wanted = container.resources.clone().unwrap_or_default();
        let changed = self.applied.get(&running.id).map(|held| differences(held, &wanted)).unwrap_or_default();
        if needs_restart(container, &changed) {
            let message = format!("Container {} resize requires restart", container.name);
            let stopped = kill::container(&self.kubelet, pod, running, kill::default_grace(pod), true, message).await;
            return stopped.map_err(|e| e.to_string());
        }
        let bounds = container::resources(pod, container, self.kubelet.machine.memory);
        self.kubelet.runtime.update_resources(&running.id, bounds).await.map_err(|e| e.message().to_owned())?;
        self.applied.insert(running.id.clone(), wanted);
        Ok(())
    }

    /// Why the node cannot hold the pod at its new size: never, or not now.
    fn no_room(&self, pod: &Pod) -> Option<Resize> {
        let node = self.kubelet.nodes.get("", &self.kubelet.config.node_name)?;
        let pending = |reason, message: String| Some(Resize { kind: "PodResizePending", reason, message });
        let plain = |text: String| text.trim_start_matches("Pod was rejected: ").to_owned();
        if let Some(refused) = predicates::out_of_resources(pod, &node, &[]) {
            return pending("Infeasible", plain(refused.message));
        }
        let pods = self.kubelet.pods.list();
        let others: Vec<&Pod> = predicates::others(pod, &pods);
        predicates::out_of_resources(pod, &node, &others).and_then(|refused| pending("Deferred", plain(refused.message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        let of = |limits: Value, requests: Value| -> ResourceRequirements {
            serde_json::from_value(json!({ "limits": limits, "requests": requests })).unwrap()
        };
        let held = of(json!({ "cpu": "1", "memory": "1Gi" }), json!({ "cpu": "500m" }));
        for (wanted, expected) in [
            (of(json!({ "cpu": "1000m", "memory": "1024Mi" }), json!({ "cpu": "0.5" })), vec![]),
            (of(json!({ "cpu": "2", "memory": "1Gi" }), json!({ "cpu": "500m" })), vec!["cpu"]),
            (of(json!({ "cpu": "1", "memory": "2Gi" }), json!({ "cpu": "600m" })), vec!["cpu", "memory"]),
            (of(json!({ "cpu": "1", "memory": "1Gi" }), json!({ "cpu": "500m", "ephemeral-storage": "1" })), vec![]),
        ] {
            assert_eq!(differences(&held, &wanted), expected, "{wanted:?}");
        }
    }

    #[test]
    fn the_resize_policy_decides_about_a_restart() {
        let container: Container = serde_json::from_value(json!({ "name": "a",
            "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "NotRequired" }, { "resourceName": "memory", "restartPolicy": "RestartContainer" }] }))
        .unwrap();
        assert!(!needs_restart(&container, &["cpu"]));
        assert!(needs_restart(&container, &["cpu", "memory"]));
        assert!(!needs_restart(&Container::default(), &["memory"]));
    }
}

//! Builders of test objects.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::plugins::{Cycle, Filter, Plugin};
use super::pod_info::{Classes, PodInfo};

/// A node in the making: 4 CPUs, 8 GiB, 110 pods unless told otherwise.
pub struct NodeBuilder(Value);

pub fn node(name: &str) -> NodeBuilder {
    NodeBuilder(json!({
        "metadata": { "name": name, "labels": {} },
        "spec": { "taints": [] },
        "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" }, "images": [] },
    }))
}

impl NodeBuilder {
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = value.into();
        self
    }
    pub fn allocatable(mut self, name: &str, amount: &str) -> Self {
        self.0["status"]["allocatable"][name] = amount.into();
        self
    }
    pub fn taint(mut self, key: &str, effect: &str) -> Self {
        self.0["spec"]["taints"].as_array_mut().unwrap().push(json!({ "key": key, "effect": effect }));
        self
    }
    pub fn cordoned(mut self) -> Self {
        self.0["spec"]["unschedulable"] = true.into();
        self
    }
    pub fn image(mut self, name: &str, bytes: i64) -> Self {
        self.0["status"]["images"].as_array_mut().unwrap().push(json!({ "names": [name], "sizeBytes": bytes }));
        self
    }
    pub fn build(self) -> Arc<Node> {
        Arc::new(serde_json::from_value(self.0).unwrap())
    }
}

/// A pod in the making, in namespace `default`, with one container.
pub struct PodBuilder(Value);

pub fn pod(name: &str) -> PodBuilder {
    PodBuilder(json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {} },
        "spec": { "schedulerName": "default-scheduler", "containers": [{ "name": "c", "resources": { "requests": {} }, "ports": [] }] },
        "status": {},
    }))
}

impl PodBuilder {
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let mut at = &mut self.0;
        for part in parent.split('/').skip(1) {
            at = match part.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[part],
            };
        }
        at[key] = value;
        self
    }
    pub fn namespace(self, namespace: &str) -> Self {
        self.set("/metadata/namespace", namespace.into())
    }
    pub fn label(self, key: &str, value: &str) -> Self {
        self.set(&format!("/metadata/labels/{key}"), value.into())
    }
    pub fn request(self, name: &str, amount: &str) -> Self {
        let mut this = self;
        this.0["spec"]["containers"][0]["resources"]["requests"][name] = amount.into();
        this
    }
    pub fn cpu(self, amount: &str) -> Self {
        self.request("cpu", amount)
    }
    pub fn priority(self, priority: i32) -> Self {
        self.set("/spec/priority", priority.into())
    }
    pub fn nominated(self, node: &str) -> Self {
        self.set("/status/nominatedNodeName", node.into())
    }
    pub fn host_port(mut self, port: i32) -> Self {
        self.0["spec"]["containers"][0]["ports"].as_array_mut().unwrap().push(json!({ "containerPort": port, "hostPort": port }));
        self
    }
    pub fn tolerate(self, key: &str) -> Self {
        self.set("/spec/tolerations", json!([{ "key": key, "operator": "Exists" }]))
    }
    pub fn selector(self, key: &str, value: &str) -> Self {
        self.set("/spec/nodeSelector", json!({ key: value }))
    }
    pub fn claim(self, name: &str) -> Self {
        self.set("/spec/volumes", json!([{ "name": "v", "persistentVolumeClaim": { "claimName": name } }]))
    }
    pub fn spread(self, key: &str, skew: i32, when: &str) -> Self {
        let selector = json!({ "matchLabels": self.0["metadata"]["labels"] });
        self.set(
            "/spec/topologySpreadConstraints",
            json!([{ "maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector }]),
        )
    }
    pub fn affinity(self, label: &str, key: &str) -> Self {
        self.related("podAffinity", label, key)
    }
    pub fn anti_affinity(self, label: &str, key: &str) -> Self {
        self.related("podAntiAffinity", label, key)
    }
    fn related(self, kind: &str, label: &str, key: &str) -> Self {
        let (name, value) = label.split_once('=').unwrap();
        let term = json!({ "topologyKey": key, "labelSelector": { "matchLabels": { name: value } } });
        self.set("/spec/affinity", json!({ kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } }))
    }
    pub fn build(self) -> Arc<Pod> {
        Arc::new(serde_json::from_value(self.0).unwrap())
    }
    pub fn info(self) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(self.build(), &mut Classes::default()))
    }
}

/// A cluster of these nodes.
pub fn cluster(nodes: impl IntoIterator<Item = NodeBuilder>) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.set_node(node.build());
    }
    cluster
}

/// What a plugin's filter says of one node.
pub fn refusal(plugin: &dyn Plugin, pod: &PodInfo, cluster: &Cluster, node: &str) -> Option<String> {
    match plugin.filter(Cycle { pod, cluster }) {
        Filter::Skip => None,
        Filter::Refuse(refusal) => Some(refusal.reasons.join(", ")),
        Filter::Nodes(check) => check(cluster.node(node).unwrap()).err().map(|r| r.reasons.join(", ")),
    }
}

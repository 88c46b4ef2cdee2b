//! The controllers together, on the API server in memory, with time paused: whatever waits for a timer gets it at once.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::fake_api::FakeApi;
use super::{Config, pods, run};
use crate::informers::{Change, Informers};
use crate::tasks::Tasks;

mod batch;
mod cascade;
mod cluster;
mod nodes;
mod storage;
mod workloads;

/// An API server, its controllers, and a kubelet that runs every pod at once.
struct World {
    api: FakeApi,
    /// Controllers and kubelet.
    tasks: Tasks,
    controllers: Tasks,
    config: Config,
}

fn config() -> Config {
    Config { leader_elect: false, root_ca: "CA".into(), namespace_deletion_delay: Duration::from_secs(1), ..Config::default() }
}

/// Only these controllers run.
fn only(names: &[&str]) -> Config {
    let others = super::CONTROLLERS.iter().filter(|d| !names.contains(&d.name));
    Config { disabled: others.map(|d| d.name.to_owned()).collect(), ..config() }
}

impl World {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: Config) -> Self {
        let api = FakeApi::new();
        api.insert(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "default" } }));
        api.insert(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }));
        let tasks = Tasks::new();
        kubelet(&api, &tasks);
        let world = World { api, controllers: tasks.child(), tasks, config };
        world.start_controllers();
        world
    }

    fn start_controllers(&self) {
        let (api, tasks, config) = (self.api.clone(), self.controllers.clone(), self.config.clone());
        self.controllers.spawn("controllers", async move {
            let informers = Informers::new(api.client(), tasks.clone());
            run(|_| api.client(), informers, &tasks, config).await;
        });
    }

    /// The controllers die and others take their place.
    fn crash(&mut self) {
        self.controllers.cancel();
        self.controllers = self.tasks.child();
        self.start_controllers();
    }

    /// Waits until the API server's contents are as wanted.
    async fn until(&self, what: &str, condition: impl Fn(&FakeApi) -> bool) {
        let mut written = self.api.written();
        let wait = async {
            while !condition(&self.api) {
                written.changed().await.expect("the server lives");
            }
        };
        if tokio::time::timeout(Duration::from_secs(1500), wait).await.is_err() {
            panic!("never: {what}\npods: {:#?}", self.api.all::<Value>("pods").iter().map(|p| p["metadata"].clone()).collect::<Vec<_>>());
        }
    }

    /// Waits until nothing has been written for a while.
    async fn settle(&self) {
        let mut written = self.api.written();
        while tokio::time::timeout(Duration::from_secs(20), written.changed()).await.is_ok() {}
    }

    fn pods(&self) -> Vec<Pod> {
        self.api.all("pods")
    }

    fn sets(&self) -> Vec<ReplicaSet> {
        self.api.all("apps/replicasets")
    }

    fn deployment(&self, name: &str) -> Deployment {
        self.api.all::<Deployment>("apps/deployments").into_iter().find(|d| d.metadata.name.as_deref() == Some(name)).expect("it is there")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// Runs every pod as soon as it is seen, and ends it as soon as it is told to.
fn kubelet(api: &FakeApi, tasks: &Tasks) {
    let (api, informers) = (api.clone(), Informers::new(api.client(), tasks.clone()));
    tasks.spawn("kubelet", async move {
        let mut changes = informers.get::<Pod>().subscribe();
        while let Some(change) = changes.recv().await {
            let pod: Arc<Pod> = change.object().clone();
            let (namespace, name) = (pod.metadata.namespace.clone().unwrap_or_default(), pods::name(&pod).to_owned());
            if matches!(change, Change::Deleted(_)) || pods::annotation(&pod, "test/frozen").is_some() {
                continue;
            }
            if pods::is_terminating(&pod) {
                if pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
                    api.remove("pods", &namespace, &name);
                } else if !pods::is_terminal(&pod) {
                    api.modify("pods", &namespace, &name, |p| p["status"]["phase"] = json!("Failed"));
                }
            } else if pods::phase(&pod) == "Pending" && pods::annotation(&pod, "test/outcome").is_some() {
                let outcome = pods::annotation(&pod, "test/outcome").unwrap().to_owned();
                api.modify("pods", &namespace, &name, |p| {
                    p["spec"]["nodeName"] = json!("n1");
                    p["status"]["phase"] = json!(outcome);
                });
            } else if pods::phase(&pod) == "Pending" {
                api.modify("pods", &namespace, &name, |p| {
                    if p["spec"]["nodeName"].is_null() {
                        p["spec"]["nodeName"] = json!("n1");
                    }
                    p["status"]["phase"] = json!("Running");
                    p["status"]["podIP"] = json!("10.0.0.1");
                    p["status"]["conditions"] = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": super::now() }]);
                });
            }
        }
    });
}

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 1 } },
            "template": template(name, image),
        },
    })
}

fn template(app: &str, image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": app } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

fn images(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(|p| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap()).collect()
}

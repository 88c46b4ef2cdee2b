//! Registers the Node and keeps its status current (`pkg/kubelet/kubelet_node_status.go`).
//!
//! Writes when something changed and every five minutes otherwise; the lease tells that the node lives.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::object::{self, Condition, Facts};

/// Longest time between two reports of an unchanged status (`nodeStatusReportFrequency`).
const REPORT: Duration = Duration::from_secs(300);

/// The time in whole seconds, as the API carries it.
pub fn now() -> Time {
    Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default())
}

/// One node's registration.
pub struct Registration {
    api: Api<Node>,
    facts: Facts,
    /// The conditions on record.
    conditions: Vec<NodeCondition>,
    /// Resource version of the Node when they were written; versions grow (KEP-5504).
    version: u64,
    reported: Option<(Condition, Instant)>,
}

impl Registration {
    /// Nothing is written yet.
    pub fn new(client: Client, facts: Facts) -> Self {
        Registration { api: Api::all(client), facts, conditions: Vec::new(), version: 0, reported: None }
    }

    /// Creates the Node, or takes an existing one over: labels that differ are put right, foreign ones stay.
    pub async fn register(&mut self, condition: &Condition) -> Result<Node, kube::Error> {
        let wanted = object::node(&self.facts, condition, now());
        match self.api.create(&PostParams::default(), &wanted).await {
            Ok(node) => {
                self.conditions = conditions(node.status.as_ref());
                self.version = version(&node);
                self.reported = Some((condition.clone(), Instant::now()));
                Ok(node)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let present = self.api.get(&self.facts.name).await?;
                self.conditions = conditions(present.status.as_ref());
                let labels = object::labels(&self.facts);
                let have = present.metadata.labels.clone().unwrap_or_default();
                if labels.iter().any(|(k, v)| have.get(k) != Some(v)) {
                    let patch = json!({ "metadata": { "labels": labels } });
                    self.api.patch(&self.facts.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
                }
                // Whatever was reported of an earlier Node of this name.
                self.reported = None;
                self.report(condition).await?;
                Ok(present)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes note of the Node as the API has it. True if somebody else has written into the kubelet's conditions, as the node
    /// controller does when the node was silent for a while: the next report puts them right.
    pub fn reconcile(&mut self, node: &Node) -> bool {
        // An older state than the one just written is only late.
        if version(node) <= self.version {
            return false;
        }
        let present = conditions(node.status.as_ref());
        let differs = self.conditions.iter().any(|own| {
            let found = present.iter().find(|c| c.type_ == own.type_);
            object::OWNED.contains(&own.type_.as_str()) && found.is_none_or(|c| (&c.status, &c.reason) != (&own.status, &own.reason))
        });
        if differs {
            self.conditions = present;
            self.version = version(node);
            self.reported = None;
        }
        differs
    }

    /// Writes the status if it has changed or if the last report is old. Returns the conditions whose status has changed.
    pub async fn report(&mut self, condition: &Condition) -> Result<Vec<NodeCondition>, kube::Error> {
        if self.reported.as_ref().is_some_and(|(last, at)| last == condition && at.elapsed() < REPORT) {
            return Ok(Vec::new());
        }
        let status = object::status(&self.facts, condition, &self.conditions, now());
        let patch = json!({ "status": status });
        let answer = self.api.patch_status(&self.facts.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        self.version = version(&answer);
        let after = conditions(Some(&status));
        let is_new = |c: &&NodeCondition| !self.conditions.iter().any(|old| old.type_ == c.type_ && old.status == c.status);
        let changed = after.iter().filter(is_new).cloned().collect();
        self.conditions = after;
        self.reported = Some((condition.clone(), Instant::now()));
        Ok(changed)
    }
}

fn version(node: &Node) -> u64 {
    node.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn conditions(status: Option<&NodeStatus>) -> Vec<NodeCondition> {
    status.and_then(|s| s.conditions.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::node::machine::Machine;

    fn registration() -> Registration {
        let connector = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no API server"))
        });
        let facts = Facts {
            name: "n".into(),
            ip: std::net::IpAddr::from([192, 0, 2, 1]),
            port: 10250,
            machine: Machine { millicores: 1000, memory: 1 << 30, storage: 1 << 30 },
            max_pods: 110,
            info: k8s_openapi::api::core::v1::NodeSystemInfo::default(),
            labels: std::collections::BTreeMap::new(),
            taints: Vec::new(),
        };
        Registration::new(Client::new(connector, "default"), facts)
    }

    #[tokio::test]
    async fn conditions_that_others_overwrote_are_reported_again() {
        let mut registration = registration();
        let mut node = object::node(&registration.facts, &Condition::default(), now());
        registration.conditions = conditions(node.status.as_ref());
        registration.version = 5;
        registration.reported = Some((Condition::default(), Instant::now()));
        let at = |node: &mut Node, version: &str| node.metadata.resource_version = Some(version.into());
        at(&mut node, "6");
        assert!(!registration.reconcile(&node));
        for condition in node.status.as_mut().unwrap().conditions.as_mut().unwrap() {
            (condition.status, condition.reason) = ("Unknown".into(), Some("NodeStatusUnknown".into()));
        }
        at(&mut node, "4");
        assert!(!registration.reconcile(&node), "an event from before the last write");
        at(&mut node, "7");
        assert!(registration.reconcile(&node));
        assert!(registration.reported.is_none());
        assert!(registration.conditions.iter().all(|c| c.status == "Unknown"));
    }
}

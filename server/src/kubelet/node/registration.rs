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
    conditions: Vec<NodeCondition>,
    reported: Option<(Condition, Instant)>,
}

impl Registration {
    /// Nothing is written yet.
    pub fn new(client: Client, facts: Facts) -> Self {
        Registration { api: Api::all(client), facts, conditions: Vec::new(), reported: None }
    }

    /// Creates the Node, or takes an existing one over: labels that differ are put right, foreign ones stay.
    pub async fn register(&mut self, condition: &Condition) -> Result<Node, kube::Error> {
        let wanted = object::node(&self.facts, condition, now());
        match self.api.create(&PostParams::default(), &wanted).await {
            Ok(node) => {
                self.conditions = conditions(node.status.as_ref());
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
                self.report(condition).await?;
                Ok(present)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the status if it has changed or if the last report is old. Returns the conditions whose status has changed.
    pub async fn report(&mut self, condition: &Condition) -> Result<Vec<NodeCondition>, kube::Error> {
        if self.reported.as_ref().is_some_and(|(last, at)| last == condition && at.elapsed() < REPORT) {
            return Ok(Vec::new());
        }
        let status = object::status(&self.facts, condition, &self.conditions, now());
        let patch = json!({ "status": status });
        self.api.patch_status(&self.facts.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        let after = conditions(Some(&status));
        let is_new = |c: &&NodeCondition| !self.conditions.iter().any(|old| old.type_ == c.type_ && old.status == c.status);
        let changed = after.iter().filter(is_new).cloned().collect();
        self.conditions = after;
        self.reported = Some((condition.clone(), Instant::now()));
        Ok(changed)
    }
}

fn conditions(status: Option<&NodeStatus>) -> Vec<NodeCondition> {
    status.and_then(|s| s.conditions.clone()).unwrap_or_default()
}

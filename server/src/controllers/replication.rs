//! ReplicationControllers: the ReplicaSet controller under another kind (`pkg/controller/replication`).

use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use shared::selector::Selector;

use super::Context;
use super::replicaset::{Condition, Replicator, Status, start_for};

impl Replicator for ReplicationController {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }
    fn selector(&self) -> Option<Selector> {
        // An empty selector would adopt everything; the API server fills it in from the template.
        self.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty()).map(Selector::from_map)
    }
    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default()
    }
    fn status(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: None,
            observed_generation: status.observed_generation.unwrap_or_default(),
            conditions: status
                .conditions
                .into_iter()
                .flatten()
                .map(|c| Condition {
                    type_: c.type_,
                    status: c.status,
                    reason: c.reason,
                    message: c.message,
                    last_transition_time: c.last_transition_time,
                })
                .collect(),
        }
    }
    fn with_status(&self, status: Status) -> Self {
        let conditions = status.conditions.into_iter().map(|c| ReplicationControllerCondition {
            type_: c.type_,
            status: c.status,
            reason: c.reason,
            message: c.message,
            last_transition_time: c.last_transition_time,
        });
        let conditions: Vec<_> = conditions.collect();
        let some = |count: i32| (count != 0).then_some(count);
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: some(status.fully_labeled),
            ready_replicas: some(status.ready),
            available_replicas: some(status.available),
            observed_generation: Some(status.observed_generation),
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        ReplicationController { metadata: self.metadata.clone(), spec: self.spec.clone(), status: Some(status) }
    }
}

/// Starts the controller.
pub fn start(ctx: Context) {
    start_for::<ReplicationController>(&ctx, false);
}

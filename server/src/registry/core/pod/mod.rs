//! Pods (`pkg/registry/core/pod/strategy.go`).
//!
//! What a pod shares with templates is in `core/pod_template`; rows are in [`row`], what a pod's status says in [`status`], and
//! the rules of subresources in [`subresources`].

pub mod row;
pub mod status;
pub mod subresources;
mod update;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use super::pod_template::{self, Use};
use crate::registry::{Claim, Column, FieldSource, PrintContext, Ranges, STATUS, Strategy, Subresource, print};

/// Marks the API's copy of a static pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// See the module.
pub struct Pods;

const fn connect(name: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, kind, group: "", version: "v1", verbs: &["create", "get"] }
}

const fn part(name: &'static str) -> Subresource {
    Subresource { name, kind: "", group: "", version: "", verbs: &["get", "patch", "update"] }
}

impl Strategy for Pods {
    type Object = Pod;
    const PLURAL: &'static str = "pods";
    const SINGULAR: &'static str = "pod";
    const SHORT_NAMES: &'static [&'static str] = &["po"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[
        connect("attach", "PodAttachOptions"),
        Subresource { name: "binding", kind: "Binding", group: "", version: "v1", verbs: &["create"] },
        part("ephemeralcontainers"),
        Subresource { name: "eviction", kind: "Eviction", group: "policy", version: "v1", verbs: &["create"] },
        connect("exec", "PodExecOptions"),
        Subresource { name: "log", kind: "", group: "", version: "", verbs: &["get"] },
        connect("portforward", "PodPortForwardOptions"),
        super::proxy("PodProxyOptions"),
        part("resize"),
        STATUS,
    ];
    const FIELDS: &'static [&'static str] = &[
        "spec.hostNetwork",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
    ];
    const FIELD_SOURCES: &'static [FieldSource] = &[FieldSource { field: "spec.hostNetwork", paths: &["spec.hostNetwork"], absent: "false" }];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = row::COLUMNS;

    fn default(object: &mut Pod) {
        let spec = object.spec.get_or_insert_default();
        pod_template::default_spec(spec);
        spec.enable_service_links.get_or_insert(true);
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            requests_from_limits(container);
        }
        pod_requests(spec);
        if spec.host_network == Some(true) {
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                for port in container.ports.iter_mut().flatten().filter(|p| p.host_port.unwrap_or_default() == 0) {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }

    fn prepare_for_create(object: &mut Pod) {
        let gated = object.spec.as_ref().is_some_and(|s| s.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()));
        let condition = PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("SchedulingGated".into()),
            message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
            ..PodCondition::default()
        };
        object.status = Some(PodStatus { phase: Some("Pending".into()), conditions: gated.then(|| vec![condition]), ..PodStatus::default() });
    }

    /// The class of service is the server's to choose, once admission has had its say about resources. It never changes.
    fn allocate(object: &mut Pod, old: Option<&Pod>, _: &Ranges, _: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
        if old.is_none() {
            let class = status::qos_class(object.spec.as_ref());
            object.status.get_or_insert_default().qos_class = Some(class.into());
        }
        Ok(())
    }

    fn validate(object: &Pod) -> ErrorList {
        let mut errors = Vec::new();
        annotations(object, &mut errors);
        let none = PodSpec::default();
        pod_template::validate_spec(&Path::new("spec"), object.spec.as_ref().unwrap_or(&none), Use::Pod, &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &Pod, old: &Pod) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(update::validate(new, old));
        errors
    }

    fn prepare_for_status_update(new: &mut Pod, old: &Pod) {
        new.spec.clone_from(&old.spec);
        new.metadata.deletion_timestamp.clone_from(&old.metadata.deletion_timestamp);
        // The owner is not the reporter's to change.
        new.metadata.owner_references.clone_from(&old.metadata.owner_references);
        let qos = old.status.as_ref().and_then(|s| s.qos_class.clone());
        let status = new.status.get_or_insert_default();
        if status.qos_class.is_none() {
            status.qos_class = qos;
        }
    }

    fn validate_status_update(new: &Pod, old: &Pod) -> ErrorList {
        update::validate_status(new, old)
    }

    fn spec_changed(new: &Pod, old: &Pod) -> bool {
        new.spec != old.spec
    }

    /// `CheckGracefulDelete`: a pod that no kubelet runs goes at once.
    fn grace_period(object: &Pod, requested: Option<i64>) -> Option<i64> {
        let spec = object.spec.as_ref();
        let own = spec.and_then(|s| s.termination_grace_period_seconds);
        let unscheduled = spec.is_none_or(|s| s.node_name.as_ref().is_none_or(String::is_empty));
        let period = match requested.or(own).unwrap_or_default() {
            _ if unscheduled || status::is_terminal(object) => 0,
            period if period < 0 => 1,
            period => period,
        };
        (period > 0).then_some(period)
    }

    fn cells(object: &Pod, context: &PrintContext) -> Vec<Value> {
        let mut cells = vec![print::name(&object.metadata)];
        cells.extend(row::cells(object, context));
        cells
    }
}

/// A limit without a request is the request, too.
fn requests_from_limits(container: &mut Container) {
    let Some(resources) = &mut container.resources else { return };
    let Some(limits) = resources.limits.as_ref().filter(|l| !l.is_empty()) else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// The same for limits of the pod as a whole, where its containers ask for nothing (`defaultPodRequests`).
fn pod_requests(spec: &mut PodSpec) {
    let Some(resources) = &mut spec.resources else { return };
    let Some(limits) = resources.limits.as_ref().filter(|l| !l.is_empty()) else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        let asked: Vec<_> =
            spec.containers.iter().filter_map(|c| c.resources.as_ref()?.requests.as_ref()?.get(name)).map(shared::quantity::Quantity::of).collect();
        let sum = asked.into_iter().reduce(shared::quantity::Quantity::plus);
        requests.entry(name.clone()).or_insert_with(|| sum.map_or_else(|| limit.clone(), shared::quantity::Quantity::to_wire));
    }
}

fn annotations(object: &Pod, errors: &mut ErrorList) {
    let Some(annotations) = &object.metadata.annotations else { return };
    let path = Path::new("metadata").child("annotations");
    let unscheduled = object.spec.as_ref().is_none_or(|s| s.node_name.as_ref().is_none_or(String::is_empty));
    if let Some(value) = annotations.get(MIRROR_ANNOTATION).filter(|_| unscheduled) {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(Error::invalid(&path.key(MIRROR_ANNOTATION), value, detail));
    }
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = annotations.get(COST).filter(|v| !is_cost(v)) {
        errors.push(Error::invalid(&path.key(COST), value, "must be a 32bit integer"));
    }
}

fn is_cost(text: &str) -> bool {
    let canonical = |n: i32| n.to_string() == text;
    text.parse::<i32>().is_ok_and(canonical)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}})
    }

    #[test]
    fn a_new_pod_is_pending_with_its_class_of_service() {
        let mut stored = created::<Pods>(with(pod(), json!({"status": {"phase": "Running"}})));
        let ranges = Ranges { service_network: [10, 96, 0, 0].into(), service_prefix: 12, node_ports: (30000, 32767) };
        Pods::allocate(&mut stored, None, &ranges, &|_| false).unwrap();
        let stored = serde_json::to_value(stored).unwrap();
        assert_eq!(stored["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(stored["spec"]["enableServiceLinks"], true);
        let gated = created::<Pods>(with(pod(), json!({"spec": {"schedulingGates": [{"name": "g"}]}})));
        assert_eq!(gated.status.unwrap().conditions.unwrap()[0].reason.as_deref(), Some("SchedulingGated"));
    }

    #[test]
    fn requests_default_to_limits_and_host_ports_to_container_ports() {
        let spec = json!({"hostNetwork": true, "containers": [{
            "name": "c", "image": "i", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}
        }]});
        let container = defaulted::<Pods>(json!({"metadata": {}, "spec": spec}))["spec"]["containers"][0].clone();
        assert_eq!(container["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(container["ports"][0]["hostPort"], 80);
    }

    #[test]
    fn only_running_pods_are_deleted_with_grace() {
        let of = |patch: Value, requested| Pods::grace_period(&object::<Pods>(with(pod(), patch)), requested);
        let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 7}, "status": {"phase": "Running"}});
        assert_eq!(of(running.clone(), None), Some(7));
        assert_eq!(of(running.clone(), Some(60)), Some(60));
        assert_eq!(of(running.clone(), Some(0)), None);
        assert_eq!(of(running.clone(), Some(-1)), Some(1));
        assert_eq!(of(with(running.clone(), json!({"spec": {"nodeName": null}})), None), None);
        assert_eq!(of(with(running, json!({"status": {"phase": "Succeeded"}})), Some(60)), None);
    }

    #[test]
    fn a_status_update_changes_nothing_but_the_status() {
        let old = created::<Pods>(pod());
        let mut new = object::<Pods>(with(pod(), json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}})));
        Pods::prepare_for_status_update(&mut new, &old);
        assert_eq!(new.spec, old.spec);
        assert_eq!(new.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
        assert!(Pods::validate_status_update(&new, &old).is_empty());
    }
}

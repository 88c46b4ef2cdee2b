//! The Node object: labels, capacity, addresses, conditions (`pkg/kubelet/nodestatus/setters.go`).
//!
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::machine::{self, Machine};

/// Most images and names an image that are listed (upstream: `nodeStatusMaxImages`, 50, and 5 names).
const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;

/// Types of the conditions that the kubelet writes.
pub const OWNED: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

/// What describes a node and hardly changes.
#[derive(Clone)]
pub struct Facts {
    /// Name of the Node and of the host.
    pub name: String,
    /// Address that others reach it at.
    pub ip: IpAddr,
    /// Port of the kubelet's server.
    pub port: u16,
    /// Capacity.
    pub machine: Machine,
    /// Most pods it takes.
    pub max_pods: u32,
    /// System and versions.
    pub info: NodeSystemInfo,
    /// Labels beyond the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints at the first registration.
    pub taints: Vec<Taint>,
}

/// What a look at the machine and the runtime gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Why the node is not ready; `None` if it is.
    pub not_ready: Option<String>,
    /// Little memory is left.
    pub memory_pressure: bool,
    /// Little disk is left.
    pub disk_pressure: bool,
    /// Few process ids are left.
    pub pid_pressure: bool,
    /// Images: names and size.
    pub images: Vec<(Vec<String>, i64)>,
}

/// The labels every node carries.
pub fn labels(facts: &Facts) -> BTreeMap<String, String> {
    let mut labels = facts.labels.clone();
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        labels.insert(format!("{prefix}/os"), "linux".into());
        labels.insert(format!("{prefix}/arch"), machine::arch().into());
    }
    labels.insert("kubernetes.io/hostname".into(), facts.name.clone());
    labels
}

/// A new Node.
pub fn node(facts: &Facts, condition: &Condition, now: Time) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            labels: Some(labels(facts)),
            annotations: Some([("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: (!facts.taints.is_empty()).then(|| facts.taints.clone()), ..NodeSpec::default() }),
        status: Some(status(facts, condition, &[], now)),
    }
}

/// The whole status, with transition times kept from the conditions before.
pub fn status(facts: &Facts, condition: &Condition, before: &[NodeCondition], now: Time) -> NodeStatus {
    let resources = resources(facts);
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    NodeStatus {
        addresses: Some(vec![address("InternalIP", facts.ip.to_string()), address("Hostname", facts.name.clone())]),
        capacity: Some(resources.clone()),
        allocatable: Some(resources),
        conditions: Some(conditions(condition, before, &now)),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }) }),
        images: Some(images(condition)),
        node_info: Some(facts.info.clone()),
        ..NodeStatus::default()
    }
}

fn resources(facts: &Facts) -> BTreeMap<String, Wire> {
    let kib = |bytes: i64| Wire(format!("{}Ki", bytes / 1024));
    BTreeMap::from([
        ("cpu".into(), Wire((facts.machine.millicores / 1000).to_string())),
        ("memory".into(), kib(facts.machine.memory)),
        ("ephemeral-storage".into(), kib(facts.machine.storage)),
        ("hugepages-1Gi".into(), Wire("0".into())),
        ("hugepages-2Mi".into(), Wire("0".into())),
        ("pods".into(), Wire(facts.max_pods.to_string())),
    ])
}

fn images(condition: &Condition) -> Vec<ContainerImage> {
    let mut images = condition.images.clone();
    images.sort_by_key(|(names, size)| (std::cmp::Reverse(*size), names.clone()));
    images.truncate(MAX_IMAGES);
    let image =
        |(names, size): (Vec<String>, i64)| ContainerImage { names: Some(names.into_iter().take(MAX_NAMES).collect()), size_bytes: Some(size) };
    images.into_iter().map(image).collect()
}

fn conditions(condition: &Condition, before: &[NodeCondition], now: &Time) -> Vec<NodeCondition> {
    type Row = (&'static str, bool, &'static str, String);
    let pressure = |kind, is: bool, yes: (&'static str, &str), no: (&'static str, &str)| -> Row {
        let (reason, message) = if is { yes } else { no };
        (kind, is, reason, message.to_owned())
    };
    let rows: [Row; 4] = [
        pressure(
            "MemoryPressure",
            condition.memory_pressure,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            condition.disk_pressure,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            condition.pid_pressure,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        match &condition.not_ready {
            None => ("Ready", true, "KubeletReady", "kubelet is posting ready status".into()),
            Some(why) => ("Ready", false, "KubeletNotReady", why.clone()),
        },
    ];
    rows.into_iter()
        .map(|(kind, value, reason, message)| {
            let status = if value { "True" } else { "False" };
            let kept = before.iter().find(|c| c.type_ == kind && c.status == status).and_then(|c| c.last_transition_time.clone());
            NodeCondition {
                type_: kind.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: Some(kept.unwrap_or_else(|| now.clone())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn facts() -> Facts {
        Facts {
            name: "n1".into(),
            ip: "192.0.2.1".parse().unwrap(),
            port: 10250,
            machine: Machine { millicores: 2000, memory: 2 << 30, storage: 10 << 30 },
            max_pods: 110,
            info: NodeSystemInfo::default(),
            labels: BTreeMap::new(),
            taints: vec![],
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_ready_node_has_upstreams_conditions_and_resources() {
        let node = node(&facts(), &Condition::default(), at(1));
        let status = node.status.unwrap();
        let listed: Vec<String> =
            status.conditions.unwrap().iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason.clone().unwrap())).collect();
        assert_eq!(
            listed,
            [
                "MemoryPressure=False KubeletHasSufficientMemory",
                "DiskPressure=False KubeletHasNoDiskPressure",
                "PIDPressure=False KubeletHasSufficientPID",
                "Ready=True KubeletReady"
            ]
        );
        let capacity = status.capacity.unwrap();
        assert_eq!((capacity["cpu"].0.as_str(), capacity["memory"].0.as_str(), capacity["pods"].0.as_str()), ("2", "2097152Ki", "110"));
        assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/hostname"], "n1");
    }

    #[test]
    fn transition_times_move_only_with_the_status() {
        let first = status(&facts(), &Condition::default(), &[], at(1)).conditions.unwrap();
        let same = status(&facts(), &Condition::default(), &first, at(2)).conditions.unwrap();
        assert!(same.iter().all(|c| c.last_transition_time == Some(at(1)) && c.last_heartbeat_time == Some(at(2))));
        let bad = Condition { not_ready: Some("container runtime is down".into()), ..Condition::default() };
        let changed = status(&facts(), &bad, &same, at(3)).conditions.unwrap();
        let ready = changed.iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!((ready.last_transition_time.clone(), ready.reason.as_deref()), (Some(at(3)), Some("KubeletNotReady")));
        assert_eq!(changed[0].last_transition_time, Some(at(1)));
    }
}

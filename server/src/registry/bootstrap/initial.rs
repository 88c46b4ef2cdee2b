//! The initial namespaces, the system's priority classes, and the Service through which pods reach the API server
//! (`pkg/controlplane/controller/{systemnamespaces,kubernetesservice}`, `pkg/apis/scheduling/v1/helpers.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Namespace, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Config;

fn meta(namespace: &str, name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        labels: (!labels.is_empty()).then_some(labels),
        ..ObjectMeta::default()
    }
}

/// Namespaces that always exist.
pub(super) fn namespaces() -> Vec<Namespace> {
    let names = ["default", "kube-node-lease", "kube-public", "kube-system"];
    names.iter().map(|name| Namespace { metadata: meta("", name, &[("kubernetes.io/metadata.name", name)]), ..Namespace::default() }).collect()
}

/// The priorities of what a node or the cluster cannot do without.
pub(super) fn priority_classes() -> Vec<PriorityClass> {
    let class = |name: &str, value: i32, description: &str| PriorityClass {
        metadata: meta("", name, &[]),
        value: Some(value),
        description: Some(description.to_owned()),
        global_default: None,
        preemption_policy: Some("PreemptLowerPriority".into()),
    };
    vec![
        class("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

const LABELS: &[(&str, &str)] = &[("component", "apiserver"), ("provider", "kubernetes")];

/// `default/kubernetes`
pub(super) fn service(config: &Config) -> Service {
    let port = ServicePort {
        name: Some("https".into()),
        port: 443,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::Int(i32::from(config.port))),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        cluster_ip: Some(config.service_ip.to_string()),
        cluster_ips: Some(vec![config.service_ip.to_string()]),
        ip_families: Some(vec!["IPv4".into()]),
        ip_family_policy: Some("SingleStack".into()),
        ports: Some(vec![port]),
        session_affinity: Some("None".into()),
        type_: Some("ClusterIP".into()),
        internal_traffic_policy: Some("Cluster".into()),
        ..ServiceSpec::default()
    };
    Service { metadata: meta("default", "kubernetes", LABELS), spec: Some(spec), status: None }
}

/// `default/kubernetes`, with this server's address.
pub(super) fn endpoints(config: &Config) -> Endpoints {
    let address = EndpointAddress { ip: config.advertise_address.to_string(), ..EndpointAddress::default() };
    let port = EndpointPort { name: Some("https".into()), port: i32::from(config.port), protocol: Some("TCP".into()), app_protocol: None };
    let subset = EndpointSubset { addresses: Some(vec![address]), ports: Some(vec![port]), not_ready_addresses: None };
    let labels = &[("endpointslice.kubernetes.io/skip-mirror", "true")];
    Endpoints { metadata: meta("default", "kubernetes", labels), subsets: Some(vec![subset]) }
}

/// `default/kubernetes`, the slice that belongs to the Service.
pub(super) fn endpoint_slice(config: &Config) -> EndpointSlice {
    let endpoint = Endpoint {
        addresses: vec![config.advertise_address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    let port = SlicePort { name: Some("https".into()), port: Some(i32::from(config.port)), protocol: Some("TCP".into()), app_protocol: None };
    EndpointSlice {
        metadata: meta("default", "kubernetes", &[("kubernetes.io/service-name", "kubernetes")]),
        address_type: "IPv4".into(),
        endpoints: Some(vec![endpoint]),
        ports: Some(vec![port]),
    }
}

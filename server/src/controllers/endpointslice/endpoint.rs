//! From pods and Services to endpoints and ports, for EndpointSlices and Endpoints alike
//! (`staging/src/k8s.io/endpointslice/utils.go`, `util/controller_utils.go`). Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use shared::selector::Selector;

use crate::controllers::pods;
use crate::controllers::queue::Key;
use crate::informers::{Change, Informer};

/// Since when the endpoints have been out of date, for those who measure how fast they are brought up to date.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Marks what belongs to a Service without a cluster IP.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector of a Service whose endpoints are made here; `None` for those that others look after.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|s| !s.is_empty()).map(Selector::from_map)
}

/// No cluster IP: clients get the endpoints' own addresses.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Endpoints are published ready whether they are or not.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or_default()
}

/// All addresses of a pod.
pub fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { all }
}

/// `IPv4` or `IPv6`.
pub fn family(address: &str) -> Option<&'static str> {
    match address.parse().ok()? {
        IpAddr::V4(_) => Some("IPv4"),
        IpAddr::V6(_) => Some("IPv6"),
    }
}

/// The families a Service is served in.
pub fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.clone().unwrap_or_default();
    match spec.ip_families.filter(|f| !f.is_empty()) {
        Some(families) => families,
        None => vec![spec.cluster_ip.as_deref().and_then(family).unwrap_or("IPv4").to_owned()],
    }
}

/// Whether a pod is an endpoint at all: it has an address and may still run.
pub fn is_endpoint(pod: &Pod, with_terminating: bool) -> bool {
    !pods::is_terminal(pod) && !addresses(pod).is_empty() && (with_terminating || !pods::is_terminating(pod))
}

/// The hostname under which cluster DNS names the endpoint of its own.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|h| !h.is_empty())?;
    (spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace).then_some(hostname)
}

/// What an endpoint stands for.
pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// A pod as an endpoint of one family; `None` if it has no address of it.
pub fn endpoint(pod: &Pod, node: Option<&Node>, service: &Service, wanted: &str) -> Option<Endpoint> {
    let addresses: Vec<String> = addresses(pod).into_iter().filter(|a| family(a) == Some(wanted)).take(1).map(str::to_owned).collect();
    if addresses.is_empty() {
        return None;
    }
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let ready = publishes_not_ready(service) || serving && !terminating;
    let zone = node.and_then(|n| n.metadata.labels.as_ref()).and_then(|l| l.get("topology.kubernetes.io/zone")).filter(|z| !z.is_empty()).cloned();
    let node_name = Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty());
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hints: if ready { hints(service, zone.as_deref(), node_name.as_deref()) } else { None },
        hostname: hostname(pod, service),
        target_ref: Some(target(pod)),
        node_name,
        zone,
        deprecated_topology: None,
    })
}

/// Who is to use the endpoint first, after the Service's `trafficDistribution`.
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let zones = zone.map(|z| vec![ForZone { name: z.to_owned() }]);
    match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => Some(EndpointHints { for_zones: Some(zones?), for_nodes: None }),
        "PreferSameNode" => Some(EndpointHints { for_zones: zones, for_nodes: Some(vec![ForNode { name: node?.to_owned() }]) }),
        _ => None,
    }
}

/// The ports of a Service as this pod serves them; a port that the pod has not is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let Some(ports) = service.spec.as_ref().and_then(|s| s.ports.as_ref()) else { return Vec::new() };
    let port = |port: &ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(find_port(pod, port)?),
            protocol: Some(protocol(port).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.iter().filter_map(port).collect()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The number behind a Service's target port (`podutil.FindPort`).
fn find_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut declared = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    declared.find(|p| p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol(port)).map(|p| p.container_port)
}

/// The Services that a change of a pod concerns.
pub fn services_concerned(services: &Informer<Service>, change: &Change<Pod>) -> Vec<Key> {
    let pod = change.object();
    let old = match change {
        Change::Updated { old, new } => {
            if same_endpoint(old, new) {
                return Vec::new();
            }
            Some(old)
        }
        _ => None,
    };
    let matches = |service: &Service| {
        selector(service).is_some_and(|s| s.matches(&pod.metadata.labels) || old.is_some_and(|old| s.matches(&old.metadata.labels)))
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    services.list_namespaced(namespace).iter().filter(|s| matches(s)).map(|s| Key::of(&**s)).collect()
}

/// Whether nothing changed that an endpoint shows.
fn same_endpoint(old: &Pod, new: &Pod) -> bool {
    let name = |p: &Pod| p.spec.as_ref().map(|s| (s.hostname.clone(), s.subdomain.clone()));
    old.metadata.labels == new.metadata.labels
        && addresses(old) == addresses(new)
        && pods::is_ready(old) == pods::is_ready(new)
        && pods::is_terminal(old) == pods::is_terminal(new)
        && pods::is_terminating(old) == pods::is_terminating(new)
        && pods::node_name(old) == pods::node_name(new)
        && name(old) == name(new)
}

/// When the endpoints of each Service began to be out of date (`endpointslice/trigger_time_tracker.go`).
#[derive(Default)]
pub struct TriggerTimes(HashMap<Key, Seen>);

#[derive(Default)]
struct Seen {
    service: Option<Time>,
    pods: HashMap<String, Time>,
}

impl TriggerTimes {
    /// The earliest change since the last call for this Service, in RFC 3339; `None` if there was none to speak of.
    pub fn compute(&mut self, service: &Service, selected: &[&Pod]) -> Option<Time> {
        let known = self.0.entry(Key::of(service)).or_default();
        let created = service.metadata.creation_timestamp.clone();
        let fresh = if known.service == created { None } else { created.clone() };
        let times: HashMap<String, Time> = selected.iter().filter_map(|p| Some((pods::name(p).to_owned(), changed_at(p)?))).collect();
        let pod_times = times.iter().filter(|(name, time)| known.pods.get(*name).is_none_or(|before| *time > before)).map(|(_, t)| t.clone());
        let earliest = pod_times.chain(fresh).min();
        *known = Seen { service: created, pods: times };
        earliest
    }

    /// The Service is gone.
    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }
}

/// When a pod last changed in a way endpoints show.
fn changed_at(pod: &Pod) -> Option<Time> {
    pods::condition(pod, "Ready").and_then(|c| c.last_transition_time.clone()).or_else(|| pod.metadata.creation_timestamp.clone())
}

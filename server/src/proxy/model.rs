//! What one Service means for packets: a pure function of the Service, its EndpointSlices and the node
//! (`pkg/proxy/servicechangetracker.go`, `endpointslicecache.go`, `topology.go`).
//!
//! Must do no I/O and know nothing of what is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Upstream's default time for `sessionAffinity: ClientIP`, in seconds.
const AFFINITY_SECONDS: i32 = 10800;
/// Services with this label belong to another proxy.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// A range of addresses: its first one and the length of its prefix.
pub type Network = (Ipv4Addr, u8);

/// Where packets go in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Pod or host address.
    pub ip: Ipv4Addr,
    /// Port.
    pub port: u16,
}

/// A transport protocol, as nft writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
    /// nft's keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// What packets are addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    /// The Service's own address.
    Cluster {
        /// Address.
        ip: Ipv4Addr,
        /// Protocol.
        protocol: Protocol,
        /// Port.
        port: u16,
    },
    /// An address that a load balancer announces.
    Balancer {
        /// Address.
        ip: Ipv4Addr,
        /// Protocol.
        protocol: Protocol,
        /// Port.
        port: u16,
    },
    /// A port on every address of the node but loopback.
    NodePort {
        /// Protocol.
        protocol: Protocol,
        /// Port.
        port: u16,
    },
}

impl Frontend {
    /// Protocol.
    pub fn protocol(self) -> Protocol {
        match self {
            Frontend::Cluster { protocol, .. } | Frontend::Balancer { protocol, .. } | Frontend::NodePort { protocol, .. } => protocol,
        }
    }
}

/// What is done with packets to a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Spread over these; never empty.
    Backends(BTreeSet<Backend>),
    /// Nobody serves it anywhere: refuse at once.
    Refuse,
    /// Nobody serves it on this node, and the Service wants no other.
    Drop,
}

/// One frontend of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What packets are addressed to.
    pub frontend: Frontend,
    /// For packets of pods and of this host, and of everybody unless `outside` says otherwise.
    pub target: Target,
    /// For packets from outside the cluster, when `externalTrafficPolicy` is `Local`: they keep their source address.
    pub outside: Option<Target>,
    /// Seconds for which a client stays with its backend.
    pub affinity: Option<u32>,
    /// Clients that may come, if not all of them may; no two overlap.
    pub sources: Option<BTreeSet<Network>>,
}

/// What one Service means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Its frontends.
    pub routes: Vec<Route>,
}

/// Works a Service out. Only IPv4 is proxied.
pub fn fragment<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice> + Clone, node: &str) -> Fragment {
    let mut fragment = Fragment::default();
    let Some(spec) = service.spec.as_ref().filter(|s| s.type_.as_deref() != Some("ExternalName")) else { return fragment };
    if service.metadata.labels.as_ref().is_some_and(|l| l.contains_key(OTHER_PROXY)) {
        return fragment;
    }
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let Some(ip) = addresses.filter_map(|a| a.parse::<Ipv4Addr>().ok()).next() else { return fragment };
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let configured = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
        u32::try_from(configured.unwrap_or(AFFINITY_SECONDS)).unwrap_or(0).max(1)
    });
    let inside_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let outside_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let balancers = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|b| b.ingress.as_ref());
    let balancers: Vec<Ipv4Addr> = balancers
        .into_iter()
        .flatten()
        .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| i.ip.as_deref()?.parse().ok())
        .filter(|_| spec.type_.as_deref() == Some("LoadBalancer"))
        .collect();
    let allowed = sources(service);
    for service_port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(port)) = (Protocol::parse(service_port.protocol.as_deref()), u16::try_from(service_port.port)) else { continue };
        let all = endpoints(service_port, protocol, slices.clone());
        let (everywhere, here) = (usable(all.iter()), usable(all.iter().filter(|e| e.node.as_deref() == Some(node))));
        let local = |everywhere: &BTreeSet<Backend>| match (here.is_empty(), everywhere.is_empty()) {
            (false, _) => Target::Backends(here.clone()),
            (true, true) => Target::Refuse,
            (true, false) => Target::Drop,
        };
        let cluster = if everywhere.is_empty() { Target::Refuse } else { Target::Backends(everywhere.clone()) };
        let outside = outside_local.then(|| local(&everywhere));
        let inside = if inside_local { local(&everywhere) } else { cluster.clone() };
        let mut push = |frontend: Frontend, target: &Target, outside: &Option<Target>| {
            // Only a balancer's address is guarded, as upstream; whoever is let through there finds the rest open anyway.
            let sources = allowed.clone().filter(|_| matches!(frontend, Frontend::Balancer { .. }));
            fragment.routes.push(Route { frontend, target: target.clone(), outside: outside.clone(), affinity, sources });
        };
        push(Frontend::Cluster { ip, protocol, port }, &inside, &None);
        for ip in &balancers {
            push(Frontend::Balancer { ip: *ip, protocol, port }, &cluster, &outside);
        }
        if let Some(port) = service_port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) {
            push(Frontend::NodePort { protocol, port }, &cluster, &outside);
        }
    }
    fragment
}

/// Whom `loadBalancerSourceRanges`, or the annotation that came before it, lets in; `None` is everybody
/// (`GetLoadBalancerSourceRanges` in `pkg/api/v1/service/util.go`).
fn sources(service: &Service) -> Option<BTreeSet<Network>> {
    const ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let listed = service.spec.as_ref()?.load_balancer_source_ranges.clone().filter(|r| !r.is_empty()).or_else(|| {
        let text = service.metadata.annotations.as_ref()?.get(ANNOTATION)?.trim();
        (!text.is_empty()).then(|| text.split(',').map(str::to_owned).collect())
    })?;
    let mut networks: Vec<Network> = listed.iter().filter_map(|text| network(text.trim())).collect();
    networks.sort_by_key(|(_, bits)| *bits);
    let mut kept: BTreeSet<Network> = BTreeSet::new();
    for (ip, bits) in networks {
        // The kernel takes no range that lies within another.
        if !kept.iter().any(|(outer, outer_bits)| first_of(ip, *outer_bits) == *outer) {
            kept.insert((ip, bits));
        }
    }
    let everybody = kept.iter().any(|(_, bits)| *bits == 0);
    (!everybody).then_some(kept)
}

fn network(text: &str) -> Option<Network> {
    let (ip, bits) = text.split_once('/')?;
    let (ip, bits) = (ip.parse().ok()?, bits.parse().ok().filter(|b| *b <= 32)?);
    Some((first_of(ip, bits), bits))
}

fn first_of(ip: Ipv4Addr, bits: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    Ipv4Addr::from_bits(ip.to_bits() & mask)
}

struct Known {
    backend: Backend,
    node: Option<String>,
    ready: bool,
    /// Still answering while it terminates.
    draining: bool,
}

/// A Service port's endpoints over all slices, each once.
fn endpoints<'a>(port: &ServicePort, protocol: Protocol, slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<Known> {
    let mut known: BTreeMap<Backend, Known> = BTreeMap::new();
    let name = port.name.as_deref().unwrap_or_default();
    for slice in slices.filter(|s| s.address_type == "IPv4") {
        let matching = slice
            .ports
            .iter()
            .flatten()
            .filter(|p| p.name.as_deref().unwrap_or_default() == name && Protocol::parse(p.protocol.as_deref()) == Some(protocol));
        for number in matching.filter_map(|p| p.port).filter_map(|p| u16::try_from(p).ok()) {
            for endpoint in slice.endpoints.iter().flatten() {
                if let Some(found) = known_endpoint(endpoint, number) {
                    let ready = known.get(&found.backend).is_some_and(|k| k.ready);
                    if !ready {
                        known.insert(found.backend, found);
                    }
                }
            }
        }
    }
    known.into_values().collect()
}

fn known_endpoint(endpoint: &Endpoint, port: u16) -> Option<Known> {
    let ip = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    Some(Known { backend: Backend { ip, port }, node: endpoint.node_name.clone(), ready, draining: serving && terminating })
}

/// The ready ones; when there is none, those that still serve while they terminate.
fn usable<'a>(endpoints: impl Iterator<Item = &'a Known> + Clone) -> BTreeSet<Backend> {
    let ready: BTreeSet<Backend> = endpoints.clone().filter(|e| e.ready).map(|e| e.backend).collect();
    if ready.is_empty() { endpoints.filter(|e| e.draining).map(|e| e.backend).collect() } else { ready }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub fn service(name: &str, spec: Value) -> Service {
        let mut object = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
        if let Some(ip) = object["spec"]["loadBalancerIP"].as_str().map(str::to_owned) {
            object["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": ip }] } });
        }
        serde_json::from_value(object).unwrap()
    }

    /// `ip` or `ip@node`, then flags: `r`eady, `s`erving, `t`erminating.
    pub fn slice(service: &str, protocol: &str, port: u16, endpoints: &[(&str, &str)]) -> EndpointSlice {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(at, flags)| {
                let (ip, node) = at.split_once('@').unwrap_or((at, "n1"));
                let has = |f: char| flags.contains(f);
                json!({ "addresses": [ip], "nodeName": node, "conditions": { "ready": has('r'), "serving": has('s'), "terminating": has('t') } })
            })
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": format!("{service}-1"), "namespace": "default", "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "ports": [{ "name": "", "port": port, "protocol": protocol }],
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    #[test]
    fn source_ranges_guard_the_balancers_address_and_do_not_overlap() {
        let ranges = |ranges: Value| {
            let spec = json!({ "type": "LoadBalancer", "clusterIP": "10.96.0.9", "loadBalancerIP": "192.0.2.7", "loadBalancerSourceRanges": ranges,
                "ports": [{ "port": 80, "nodePort": 30080 }] });
            let slice = slice("s", "TCP", 8080, &[("10.0.0.1", "r")]);
            let fragment = fragment(&service("s", spec), [&slice].into_iter(), "n1");
            assert!(fragment.routes.iter().all(|r| r.sources.is_none() || matches!(r.frontend, Frontend::Balancer { .. })));
            let found = fragment.routes.into_iter().find(|r| matches!(r.frontend, Frontend::Balancer { .. })).unwrap().sources;
            found.map(|s| s.iter().map(|(ip, bits)| format!("{ip}/{bits}")).collect::<Vec<_>>().join(" "))
        };
        for (given, expected) in [
            (json!(null), None),
            (json!([]), None),
            (json!(["0.0.0.0/0", "10.0.0.0/8"]), None),
            (json!(["10.1.2.3/8", "10.9.0.0/16", "192.168.0.0/16"]), Some("10.0.0.0/8 192.168.0.0/16")),
            (json!(["fd00::/8"]), Some("")),
        ] {
            assert_eq!(ranges(given.clone()).as_deref(), expected, "{given}");
        }
    }

    fn targets(spec: Value, endpoints: &[(&str, &str)]) -> Vec<(Target, Option<Target>)> {
        let slice = slice("s", "TCP", 8080, endpoints);
        let fragment = fragment(&service("s", spec), [&slice].into_iter(), "n1");
        fragment.routes.into_iter().map(|r| (r.target, r.outside)).collect()
    }

    fn to(ips: &[&str]) -> Target {
        Target::Backends(ips.iter().map(|ip| Backend { ip: ip.parse().unwrap(), port: 8080 }).collect())
    }

    #[test]
    fn a_cluster_ip_leads_to_ready_endpoints_or_else_to_those_that_drain() {
        let spec = || json!({ "clusterIP": "10.96.0.5", "ports": [{ "port": 80 }] });
        for (endpoints, expected) in [
            (vec![("10.0.0.1", "rs"), ("10.0.0.2", "rs")], to(&["10.0.0.1", "10.0.0.2"])),
            (vec![("10.0.0.1", "rs"), ("10.0.0.2", "st"), ("10.0.0.3", "")], to(&["10.0.0.1"])),
            (vec![("10.0.0.2", "st"), ("10.0.0.3", "t")], to(&["10.0.0.2"])),
            (vec![("10.0.0.3", "")], Target::Refuse),
            (vec![], Target::Refuse),
        ] {
            assert_eq!(targets(spec(), &endpoints), [(expected, None)], "{endpoints:?}");
        }
    }

    #[test]
    fn local_policies_keep_to_the_node_and_drop_when_only_others_serve() {
        let spec = |inside: &str, outside: &str| json!({ "type": "NodePort", "clusterIP": "10.96.0.5", "internalTrafficPolicy": inside, "externalTrafficPolicy": outside, "ports": [{ "port": 80, "nodePort": 30080 }] });
        let both = [("10.0.0.1@n1", "rs"), ("10.0.0.2@n2", "rs")];
        let all = to(&["10.0.0.1", "10.0.0.2"]);
        assert_eq!(targets(spec("Cluster", "Cluster"), &both), [(all.clone(), None), (all.clone(), None)]);
        assert_eq!(targets(spec("Local", "Cluster"), &both)[0].0, to(&["10.0.0.1"]));
        assert_eq!(targets(spec("Cluster", "Local"), &both)[1], (all, Some(to(&["10.0.0.1"]))));
        let elsewhere = [("10.0.0.2@n2", "rs")];
        assert_eq!(targets(spec("Local", "Local"), &elsewhere), [(Target::Drop, None), (to(&["10.0.0.2"]), Some(Target::Drop))]);
        assert_eq!(targets(spec("Local", "Local"), &[]), [(Target::Refuse, None), (Target::Refuse, Some(Target::Refuse))]);
    }

    #[test]
    fn what_is_not_ours_to_proxy_yields_nothing() {
        for spec in [
            json!({ "clusterIP": "None", "ports": [{ "port": 80 }] }),
            json!({ "type": "ExternalName", "externalName": "x.org" }),
            json!({ "clusterIP": "fd00::1", "ports": [{ "port": 80 }] }),
            json!({ "ports": [{ "port": 80 }] }),
        ] {
            assert!(targets(spec.clone(), &[("10.0.0.1", "rs")]).is_empty(), "{spec}");
        }
    }

    #[test]
    fn endpoints_match_by_port_name_and_appear_once() {
        let mut named = slice("s", "TCP", 8080, &[("10.0.0.1", "rs")]);
        named.ports.as_mut().unwrap()[0].name = Some("web".into());
        let again = named.clone();
        let spec = json!({ "clusterIP": "10.96.0.5", "ports": [{ "name": "web", "port": 80 }, { "name": "other", "port": 81 }] });
        let fragment = fragment(&service("s", spec), [&named, &again].into_iter(), "n1");
        assert_eq!(fragment.routes[0].target, to(&["10.0.0.1"]));
        assert_eq!(fragment.routes[1].target, Target::Refuse);
    }

    #[test]
    fn a_load_balancer_address_is_served_too() {
        let spec = json!({ "type": "LoadBalancer", "clusterIP": "10.96.0.5", "loadBalancerIP": "203.0.113.9", "ports": [{ "port": 80 }] });
        let slice = slice("s", "TCP", 8080, &[("10.0.0.1", "rs")]);
        let fragment = fragment(&service("s", spec), [&slice].into_iter(), "n1");
        assert_eq!(fragment.routes[1].frontend, Frontend::Balancer { ip: "203.0.113.9".parse().unwrap(), protocol: Protocol::Tcp, port: 80 });
    }
}

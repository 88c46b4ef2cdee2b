//! Cluster IPs and node ports: which a Service needs, and which it gets
//! (`pkg/registry/core/service/storage/alloc.go`, `ipallocator`, `portallocator`).
//!
//! Values that nobody asked for come from the upper band of a range first, from a random start, so that the lower band stays
//! free for those who ask. Pure but for the random start.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::ServiceSpec;
use shared::field::{Error, Path};

use super::{HEADLESS, is_headless, kind, needs_health_check, spec_path};
use crate::registry::{Claim, Ranges};

/// The space of cluster IPs.
pub const CLUSTER_IPS: &str = "clusterips";
/// The space of node ports: one for all protocols, as upstream's allocator has it.
pub const NODE_PORTS: &str = "nodeports";
const IPV4: &str = "IPv4";

/// Whether it has addresses of its own.
pub(super) fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    kind(spec) != "ExternalName"
}

/// Whether it is reached at a port of every node.
pub(super) fn needs_node_ports(spec: &ServiceSpec) -> bool {
    match kind(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn cluster_ip(value: &str) -> Claim {
    Claim { space: CLUSTER_IPS, value: value.to_owned(), field: "spec.clusterIPs" }
}

fn node_port(port: i32) -> Claim {
    Claim { space: NODE_PORTS, value: port.to_string(), field: "spec.ports.nodePort" }
}

/// What a Service owns: its cluster IPs and node ports, each once.
pub fn claims(spec: &ServiceSpec) -> Vec<Claim> {
    let ips = spec.cluster_ips.iter().flatten().filter(|ip| needs_cluster_ip(spec) && !ip.is_empty() && *ip != HEADLESS);
    let ports: BTreeSet<i32> =
        spec.ports.iter().flatten().filter_map(|p| p.node_port).chain(spec.health_check_node_port).filter(|p| *p != 0).collect();
    ips.map(|ip| cluster_ip(ip)).chain(ports.into_iter().map(node_port)).collect()
}

/// Fills in what the Service leaves open. What it had before stays its own.
///
/// # Errors
/// An address or port that is out of range or taken, a family the cluster does not have, or a full range.
pub fn allocate(spec: &mut ServiceSpec, old: Option<&ServiceSpec>, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
    let owned = old.map(claims).unwrap_or_default();
    let taken = |claim: &Claim| !owned.iter().any(|o| (o.space, &o.value) == (claim.space, &claim.value)) && taken(claim);
    families(spec)?;
    cluster_ips(spec, ranges, &taken)?;
    node_ports(spec, ranges, &taken)?;
    health_check_port(spec, ranges, &taken)
}

/// Families and their policy on a cluster with IPv4 alone (`initIPFamilyFields`).
fn families(spec: &mut ServiceSpec) -> Result<(), Error> {
    if !needs_cluster_ip(spec) {
        return Ok(());
    }
    let selectorless = spec.selector.as_ref().is_none_or(|s| s.is_empty());
    if is_headless(spec) && selectorless {
        // Someone else supplies the endpoints, of any family.
        let policy = spec.ip_family_policy.get_or_insert_with(|| "RequireDualStack".into()).clone();
        let families = spec.ip_families.get_or_insert_default();
        if families.is_empty() {
            families.push(IPV4.into());
        }
        if families.len() == 1 && policy != "SingleStack" {
            let other = if families[0] == IPV4 { "IPv6" } else { IPV4 };
            families.push(other.into());
        }
        return Ok(());
    }
    let policy = spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
    if policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(Error::invalid(&spec_path("ipFamilyPolicy"), &policy, detail));
    }
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.push(IPV4.into());
    }
    match families.iter().position(|f| f != IPV4) {
        Some(index) if families[index] == "IPv6" => {
            Err(Error::invalid(&spec_path("ipFamilies").index(index), &families[index], "not configured on this cluster"))
        }
        _ => Ok(()),
    }
}

fn cluster_ips(spec: &mut ServiceSpec, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
    if !needs_cluster_ip(spec) || is_headless(spec) {
        return Ok(());
    }
    let path = spec_path("clusterIPs");
    if let Some(ips) = spec.cluster_ips.clone().filter(|ips| !ips.is_empty()) {
        for (index, ip) in ips.iter().enumerate() {
            requested_ip(&path.index(index), ip, ranges, taken)?;
        }
        return Ok(());
    }
    // Set to something validation refuses: nothing to choose.
    if spec.cluster_ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
        return Ok(());
    }
    let (first, size) = hosts(ranges);
    let pick = |offset: u32| Ipv4Addr::from(first + offset).to_string();
    let found = search(size, band(size, 16, 256, 16), |offset| !taken(&cluster_ip(&pick(offset))));
    let Some(offset) = found else {
        return Err(Error::invalid(&path, &spec.cluster_ips, "failed to allocate a serviceIP: range is full"));
    };
    spec.cluster_ip = Some(pick(offset));
    spec.cluster_ips = Some(vec![pick(offset)]);
    Ok(())
}

fn requested_ip(path: &Path, ip: &str, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
    let Ok(address) = ip.parse::<Ipv4Addr>() else {
        // IPv6 is refused here, anything else by validation.
        return match ip.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Err(Error::invalid(path, ip, "not configured on this cluster")),
            Err(_) => Ok(()),
        };
    };
    let (first, size) = hosts(ranges);
    let inside = u32::from(address).checked_sub(first).is_some_and(|offset| offset < size);
    if !inside {
        let range = format!("{}/{}", ranges.service_network, ranges.service_prefix);
        let detail = format!("failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}");
        return Err(Error::invalid(path, ip, &detail));
    }
    if taken(&cluster_ip(ip)) {
        return Err(Error::invalid(path, ip, &format!("failed to allocate IP {ip}: provided IP is already allocated")));
    }
    Ok(())
}

/// The first usable address and how many there are: without the network's own and the broadcast address.
fn hosts(ranges: &Ranges) -> (u32, u32) {
    let bits = 32 - u32::from(ranges.service_prefix.min(32));
    let size = u32::try_from((1u64 << bits).saturating_sub(2)).unwrap_or(u32::MAX);
    (u32::from(ranges.service_network).saturating_add(1), size)
}

/// Size of the band that is kept for requests: a part of the range within bounds, nothing of a small one.
fn band(size: u32, minimum: u32, maximum: u32, step: u32) -> u32 {
    if size <= minimum { 0 } else { (size / step).clamp(minimum, maximum) }
}

/// The first free offset above the band, from a random start; then in the band.
fn search(size: u32, band: u32, free: impl Fn(u32) -> bool) -> Option<u32> {
    let scan = |from: u32, to: u32| {
        let count = to.checked_sub(from).filter(|c| *c > 0)?;
        let start = rand::random_range(0..count);
        (0..count).map(|i| from + (start + i) % count).find(|offset| free(*offset))
    };
    scan(band, size).or_else(|| scan(0, band))
}

fn node_ports(spec: &mut ServiceSpec, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
    let wanted = needs_node_ports(spec);
    let ports = spec.ports.get_or_insert_default();
    // Ports with the same number (TCP and UDP, say) share a node port, whichever of them names it.
    let mut chosen: Vec<(i32, i32)> = Vec::new();
    let mut used: BTreeSet<i32> = ports.iter().filter_map(|p| p.node_port).filter(|p| *p != 0).collect();
    used.extend(spec.health_check_node_port);
    for index in 0..ports.len() {
        let path = spec_path("ports").index(index).child("nodePort");
        let number = ports[index].port;
        let given = ports[index].node_port.filter(|p| *p != 0);
        match given {
            Some(port) => requested_port(&path, port, ranges, taken)?,
            None if !wanted => continue,
            None => {}
        }
        let sibling = ports.iter().find(|p| p.port == number && p.node_port.is_some_and(|n| n != 0)).and_then(|p| p.node_port);
        let earlier = chosen.iter().find(|(n, _)| *n == number).map(|(_, node)| *node);
        let port = match given.or(earlier).or(sibling) {
            Some(port) => port,
            None => free_port(&path, &used, ranges, taken)?,
        };
        used.insert(port);
        chosen.push((number, port));
        ports[index].node_port = Some(port);
    }
    if ports.is_empty() {
        spec.ports = None;
    }
    Ok(())
}

fn health_check_port(spec: &mut ServiceSpec, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
    if !needs_health_check(spec) {
        return Ok(());
    }
    let path = spec_path("healthCheckNodePort");
    match spec.health_check_node_port.filter(|p| *p != 0) {
        Some(port) => requested_port(&path, port, ranges, taken),
        None => {
            let used = spec.ports.iter().flatten().filter_map(|p| p.node_port).collect();
            spec.health_check_node_port = Some(free_port(&path, &used, ranges, taken)?);
            Ok(())
        }
    }
}

fn requested_port(path: &Path, port: i32, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
    let (low, high) = ranges.node_ports;
    if !(i32::from(low)..=i32::from(high)).contains(&port) {
        let detail = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
        return Err(Error::invalid(path, port, &detail));
    }
    if taken(&node_port(port)) {
        return Err(Error::invalid(path, port, "provided port is already allocated"));
    }
    Ok(())
}

fn free_port(path: &Path, used: &BTreeSet<i32>, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<i32, Error> {
    let (low, high) = (i32::from(ranges.node_ports.0), i32::from(ranges.node_ports.1));
    let size = u32::try_from(high - low + 1).unwrap_or_default();
    let number = |offset: u32| low + i32::try_from(offset).unwrap_or_default();
    let found = search(size, band(size, 16, 128, 32), |offset| !used.contains(&number(offset)) && !taken(&node_port(number(offset))));
    found.map(number).ok_or_else(|| Error::invalid(path, 0, "failed to allocate a nodePort: range is full"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::{Value, json};

    use super::*;

    fn ranges() -> Ranges {
        Ranges { service_network: Ipv4Addr::new(10, 96, 0, 0), service_prefix: 12, node_ports: (30000, 32767) }
    }

    fn run(spec: Value, old: Option<Value>, taken: &[(&str, &str)]) -> Result<ServiceSpec, String> {
        let taken: HashSet<(String, String)> = taken.iter().map(|(s, v)| ((*s).to_owned(), (*v).to_owned())).collect();
        let mut spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let old: Option<ServiceSpec> = old.map(|o| serde_json::from_value(o).unwrap());
        super::super::default_spec(&mut spec);
        super::super::update::normalize(&mut spec, None);
        allocate(&mut spec, old.as_ref(), &ranges(), &|c| taken.contains(&(c.space.to_owned(), c.value.clone()))).map_err(|e| e.to_string())?;
        Ok(spec)
    }

    #[test]
    fn an_address_and_a_family_are_chosen() {
        let spec = run(json!({"ports": [{"port": 80}]}), None, &[]).unwrap();
        let ip: Ipv4Addr = spec.cluster_ip.as_deref().unwrap().parse().unwrap();
        assert!(u32::from(ip) > u32::from(Ipv4Addr::new(10, 96, 0, 255)), "{ip} comes from the upper band");
        assert_eq!(spec.cluster_ips, Some(vec![ip.to_string()]));
        assert_eq!((spec.ip_families.as_deref(), spec.ip_family_policy.as_deref()), (Some(&["IPv4".to_owned()][..]), Some("SingleStack")));
        assert_eq!(claims(&spec), [cluster_ip(&ip.to_string())]);
    }

    #[test]
    fn headless_and_external_names_own_nothing() {
        let headless = run(json!({"clusterIP": "None", "selector": {"a": "b"}}), None, &[]).unwrap();
        assert_eq!((headless.cluster_ips.as_deref(), claims(&headless).len()), (Some(&["None".to_owned()][..]), 0));
        let selectorless = run(json!({"clusterIP": "None"}), None, &[]).unwrap();
        assert_eq!(selectorless.ip_family_policy.as_deref(), Some("RequireDualStack"));
        assert_eq!(selectorless.ip_families.unwrap(), ["IPv4", "IPv6"]);
        let external = run(json!({"type": "ExternalName", "externalName": "a.b"}), None, &[]).unwrap();
        assert_eq!((external.cluster_ip, external.ip_families, external.ports), (None, None, None));
    }

    #[test]
    fn what_is_asked_for_is_given_or_refused() {
        let asked = |ip: &str, taken: &[(&str, &str)]| run(json!({"clusterIP": ip, "ports": [{"port": 80}]}), None, taken);
        assert_eq!(asked("10.96.0.10", &[]).unwrap().cluster_ips.unwrap(), ["10.96.0.10"]);
        assert_eq!(
            asked("10.96.0.10", &[(CLUSTER_IPS, "10.96.0.10")]).unwrap_err(),
            "spec.clusterIPs[0]: Invalid value: \"10.96.0.10\": failed to allocate IP 10.96.0.10: provided IP is already allocated"
        );
        assert_eq!(
            asked("10.1.1.1", &[]).unwrap_err(),
            "spec.clusterIPs[0]: Invalid value: \"10.1.1.1\": failed to allocate IP 10.1.1.1: the provided IP (10.1.1.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12"
        );
        assert!(asked("10.96.0.0", &[]).is_err() && asked("10.111.255.255", &[]).is_err() && asked("fd00::1", &[]).is_err());
        let port = |port: i32, taken: &[(&str, &str)]| run(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}), None, taken);
        assert_eq!(port(30001, &[]).unwrap().ports.unwrap()[0].node_port, Some(30001));
        assert_eq!(
            port(80, &[]).unwrap_err(),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
        assert_eq!(
            port(30001, &[(NODE_PORTS, "30001")]).unwrap_err(),
            "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
        );
    }

    #[test]
    fn node_ports_come_from_the_upper_band_and_are_shared_between_protocols() {
        let spec = json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}, {"name": "c", "port": 80}
        ]});
        let ports = run(spec, None, &[]).unwrap().ports.unwrap();
        let numbers: Vec<i32> = ports.iter().map(|p| p.node_port.unwrap()).collect();
        assert_eq!(numbers[0], numbers[1]);
        assert_ne!(numbers[0], numbers[2]);
        assert!(numbers.iter().all(|n| (30086..=32767).contains(n)), "{numbers:?}");
        let named =
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP", "nodePort": 30053}]});
        assert_eq!(run(named, None, &[]).unwrap().ports.unwrap()[0].node_port, Some(30053));
    }

    #[test]
    fn what_a_service_owns_is_not_taken_from_itself() {
        let own = json!({"type": "NodePort", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "ports": [{"port": 80, "nodePort": 30001}]});
        let taken = [(CLUSTER_IPS, "10.96.1.1"), (NODE_PORTS, "30001")];
        assert!(run(own.clone(), Some(own.clone()), &taken).is_ok());
        assert!(run(own, None, &taken).is_err());
    }

    #[test]
    fn local_load_balancers_get_a_health_check_port() {
        let spec = run(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}), None, &[]).unwrap();
        let (port, health) = (spec.ports.as_ref().unwrap()[0].node_port.unwrap(), spec.health_check_node_port.unwrap());
        assert_ne!(port, health);
        assert_eq!(claims(&spec).len(), 3);
        let none = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]});
        assert_eq!(run(none, None, &[]).unwrap().ports.unwrap()[0].node_port, None);
    }

    #[test]
    fn one_family_is_all_there_is() {
        assert_eq!(
            run(json!({"ipFamilyPolicy": "RequireDualStack"}), None, &[]).unwrap_err(),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
        );
        assert_eq!(
            run(json!({"ipFamilies": ["IPv6"]}), None, &[]).unwrap_err(),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
        );
        assert_eq!(run(json!({"ipFamilyPolicy": "PreferDualStack"}), None, &[]).unwrap().ip_families.unwrap(), ["IPv4"]);
    }

    #[test]
    fn a_full_range_says_so_and_the_band_is_used_last() {
        let tiny = Ranges { service_network: Ipv4Addr::new(10, 0, 0, 0), service_prefix: 30, node_ports: (30000, 30001) };
        let mut spec = ServiceSpec::default();
        let first = Claim { space: CLUSTER_IPS, value: "10.0.0.1".into(), field: "" };
        allocate(&mut spec, None, &tiny, &|c| c.value == first.value).unwrap();
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.0.0.2"));
        let error = allocate(&mut ServiceSpec::default(), None, &tiny, &|_| true).unwrap_err();
        assert!(error.to_string().ends_with("range is full"), "{error}");
        assert_eq!(search(100, 16, |offset| offset == 3), Some(3));
        assert_eq!((band(2768, 16, 128, 32), band(1 << 20, 16, 256, 16), band(16, 16, 256, 16)), (86, 256, 0));
    }
}

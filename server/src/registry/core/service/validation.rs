//! Rules of Services (`ValidateService`, `ValidateServiceUpdate`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::json;
use shared::field::{Error, ErrorList, Path};
use shared::selector::qualified_name_errors;

use super::{HEADLESS, is_externally_accessible, is_headless, kind, needs_health_check, spec_path};
use crate::registry::core::endpoints::special;
use crate::registry::validation::{
    BAD_CIDR, BAD_IP, IMMUTABLE, check, cidr, dns1123_label, dns1123_subdomain, ip, meta, one_of, port_number, port_number_or_name, required_one_of,
};

const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

/// Rules of a spec, after defaulting and allocation.
pub fn spec(spec: &ServiceSpec, errors: &mut ErrorList) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !is_headless(spec) && kind(spec) != "ExternalName" {
        errors.push(Error::required(&spec_path("ports"), ""));
    }
    by_type(spec, errors);
    let mut names = BTreeSet::new();
    for (index, item) in ports.iter().enumerate() {
        let path = spec_path("ports").index(index);
        port(&path, item, ports.len() > 1, errors);
        if item.name.as_ref().is_some_and(|n| !n.is_empty() && !names.insert(n)) {
            errors.push(Error::duplicate(&path.child("name"), &item.name));
        }
    }
    meta::labels(&spec_path("selector"), spec.selector.as_ref(), errors);
    affinity(spec, errors);
    cluster_ips(spec, errors);
    for (index, address) in spec.external_ips.iter().flatten().enumerate() {
        let path = spec_path("externalIPs").index(index);
        match ip(address) {
            None => errors.push(Error::invalid(&path, address, BAD_IP)),
            Some(parsed) => errors.extend(special(parsed).map(|detail| Error::invalid(&path, address, detail))),
        }
    }
    required_one_of(&spec_path("type"), spec.type_.as_deref(), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    port_conflicts(spec, ports, errors);
    balancer(spec, errors);
    traffic(spec, errors);
}

fn by_type(spec: &ServiceSpec, errors: &mut ErrorList) {
    match kind(spec) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(&spec_path("clusterIPs").index(0), HEADLESS, &detail));
        }
        "ExternalName" => {
            let forbidden = "may not be set for ExternalName services";
            let set = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
            for (field, set) in
                [("clusterIPs", set(&spec.cluster_ips)), ("ipFamilies", set(&spec.ip_families)), ("ipFamilyPolicy", spec.ip_family_policy.is_some())]
            {
                if set {
                    errors.push(Error::forbidden(&spec_path(field), forbidden));
                }
            }
            let name = spec.external_name.as_deref().unwrap_or_default();
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.push(Error::required(&spec_path("externalName"), "")),
                name => check(&spec_path("externalName"), name, dns1123_subdomain(name), errors),
            }
        }
        _ => {}
    }
}

fn port(path: &Path, port: &ServicePort, name_needed: bool, errors: &mut ErrorList) {
    match port.name.as_deref().unwrap_or_default() {
        "" if name_needed => errors.push(Error::required(&path.child("name"), "")),
        "" => {}
        name => check(&path.child("name"), name, dns1123_label(name), errors),
    }
    check(&path.child("port"), port.port, port_number(port.port.into()), errors);
    required_one_of(&path.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], errors);
    if let Some(target) = &port.target_port {
        port_number_or_name(&path.child("targetPort"), target, errors);
    }
    if let Some(protocol) = &port.app_protocol {
        check(&path.child("appProtocol"), protocol, qualified_name_errors(protocol), errors);
    }
}

fn affinity(spec: &ServiceSpec, errors: &mut ErrorList) {
    required_one_of(&spec_path("sessionAffinity"), spec.session_affinity.as_deref(), &["ClientIP", "None"], errors);
    let path = spec_path("sessionAffinityConfig");
    let config = spec.session_affinity_config.as_ref();
    match spec.session_affinity.as_deref() {
        Some("None") if config.is_some() => errors.push(Error::forbidden(&path, "must not be set when session affinity is None")),
        Some("ClientIP") => {
            let timeout = config.and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
            if let Some(timeout) = timeout.filter(|t| !(1..=86400).contains(t)) {
                let path = path.child("clientIP").child("timeoutSeconds");
                errors.push(Error::invalid(&path, timeout, "must be greater than 0 and less than 86400"));
            }
        }
        _ => {}
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` agree (`ValidateServiceClusterIPsRelatedFields`).
fn cluster_ips(spec: &ServiceSpec, errors: &mut ErrorList) {
    if kind(spec) == "ExternalName" {
        return;
    }
    let path = spec_path("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match (spec.cluster_ip.as_deref().unwrap_or_default(), ips.first()) {
        ("", Some(_)) => errors.push(Error::invalid(&path, ips, "must be empty when `clusterIP` is not specified")),
        ("", None) => {}
        (_, None) => errors.push(Error::required(&path, "")),
        (ip, Some(first)) if ip != first => errors.push(Error::invalid(&path, ips, "first value must match `clusterIP`")),
        _ => {}
    }
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        let path = spec_path("ipFamilies").index(index);
        one_of(&path, Some(family), &["IPv4", "IPv6"], errors);
        if spec.ip_families.iter().flatten().take(index).any(|f| f == family) {
            errors.push(Error::duplicate(&path, family));
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    one_of(&spec_path("ipFamilyPolicy"), spec.ip_family_policy.as_deref(), &policies, errors);
    if ips.first().is_some_and(|first| first == HEADLESS) && ips.len() > 1 {
        errors.push(Error::invalid(&path, ips, "'None' must be the first and only value"));
        return;
    }
    for (index, address) in ips.iter().enumerate().filter(|(i, a)| !(*i == 0 && *a == HEADLESS) && ip(a).is_none()) {
        errors.push(Error::invalid(&path.index(index), address, BAD_IP));
    }
    if ips.len() > 2 {
        errors.push(Error::invalid(&path, ips, "may only hold up to 2 values"));
    }
}

fn port_conflicts(spec: &ServiceSpec, ports: &[ServicePort], errors: &mut ErrorList) {
    if kind(spec) == "ClusterIP" {
        for (index, _) in ports.iter().enumerate().filter(|(_, p)| p.node_port.unwrap_or_default() != 0) {
            let path = spec_path("ports").index(index).child("nodePort");
            errors.push(Error::forbidden(&path, "may not be used when `type` is 'ClusterIP'"));
        }
    }
    let mut node_ports = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let Some(number) = port.node_port.filter(|n| *n != 0) else { continue };
        if !node_ports.insert((&port.protocol, number)) {
            errors.push(Error::duplicate(&spec_path("ports").index(index).child("nodePort"), number));
        }
    }
    let mut numbers = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        if !numbers.insert((&port.protocol, port.port)) {
            let value = json!({"protocol": port.protocol, "port": port.port, "targetPort": 0});
            errors.push(Error::duplicate(&spec_path("ports").index(index), value));
        }
    }
}

fn balancer(spec: &ServiceSpec, errors: &mut ErrorList) {
    let is_balancer = kind(spec) == "LoadBalancer";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    // Upstream's field name begins with a capital.
    let path = spec_path("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer {
        errors.push(Error::forbidden(&path, ONLY_BALANCERS));
    }
    for (index, range) in ranges.iter().enumerate().filter(|(_, r)| cidr(r.trim()).is_none()) {
        errors.push(Error::invalid(&path.index(index), range.trim(), BAD_CIDR));
    }
    match (is_balancer, spec.allocate_load_balancer_node_ports) {
        (false, Some(_)) => errors.push(Error::forbidden(&spec_path("allocateLoadBalancerNodePorts"), ONLY_BALANCERS)),
        (true, None) => errors.push(Error::required(&Path::new("allocateLoadBalancerNodePorts"), "")),
        _ => {}
    }
    if let Some(class) = &spec.load_balancer_class {
        let path = spec_path("loadBalancerClass");
        if !is_balancer {
            errors.push(Error::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
        }
        check(&path, class, qualified_name_errors(class), errors);
    }
}

fn traffic(spec: &ServiceSpec, errors: &mut ErrorList) {
    let external = spec.external_traffic_policy.as_deref().unwrap_or_default();
    let path = spec_path("externalTrafficPolicy");
    if is_externally_accessible(spec) {
        required_one_of(&path, Some(external), &["Cluster", "Local"], errors);
    } else if !external.is_empty() {
        errors.push(Error::invalid(&path, external, "may only be set for externally-accessible services"));
    }
    let health = spec.health_check_node_port.unwrap_or_default();
    let path = spec_path("healthCheckNodePort");
    match (needs_health_check(spec), health) {
        (true, 0) => errors.push(Error::required(&path, "")),
        (true, port) => check(&path, port, port_number(port.into()), errors),
        (false, 0) => {}
        (false, port) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(Error::invalid(&path, port, detail));
        }
    }
    let path = spec_path("internalTrafficPolicy");
    if kind(spec) != "ExternalName" && spec.internal_traffic_policy.is_none() {
        errors.push(Error::required(&path, ""));
    }
    one_of(&path, spec.internal_traffic_policy.as_deref(), &["Cluster", "Local"], errors);
    let preferences = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    one_of(&spec_path("trafficDistribution"), spec.traffic_distribution.as_deref(), &preferences, errors);
}

/// What an update may not change.
pub fn update(new: &ServiceSpec, old: &ServiceSpec, errors: &mut ErrorList) {
    let both_addressed = kind(new) != "ExternalName" && kind(old) != "ExternalName";
    let (ips, before) = (new.cluster_ips.as_deref().unwrap_or_default(), old.cluster_ips.as_deref().unwrap_or_default());
    if both_addressed && !before.is_empty() {
        if ips.first() != before.first() {
            errors.push(Error::invalid(&spec_path("clusterIPs").index(0), ips, "may not change once set"));
        }
        let (families, before) = (new.ip_families.as_deref().unwrap_or_default(), old.ip_families.as_deref().unwrap_or_default());
        if families.first() != before.first() && !before.is_empty() {
            errors.push(Error::invalid(&spec_path("ipFamilies").index(0), families, "may not change once set"));
        }
    }
    if kind(new) == "LoadBalancer" && kind(old) == "LoadBalancer" && new.load_balancer_class != old.load_balancer_class {
        errors.push(Error::invalid(&spec_path("loadBalancerClass"), &new.load_balancer_class, "may not change once set"));
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port != old.health_check_node_port {
        errors.push(Error::forbidden(&spec_path("healthCheckNodePort"), IMMUTABLE));
    }
}

/// Rules of a status: only load balancers have ingress points.
pub fn status(service: &Service, errors: &mut ErrorList) {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|l| l.ingress.iter().flatten());
    let is_balancer = service.spec.as_ref().is_some_and(|s| kind(s) == "LoadBalancer");
    for (index, item) in ingress.enumerate() {
        if !is_balancer {
            errors.push(Error::forbidden(&path, "may only be used when `spec.type` is \"LoadBalancer\""));
            return;
        }
        let path = path.index(index);
        if let Some(address) = item.ip.as_deref().filter(|a| !a.is_empty() && ip(a).is_none()) {
            errors.push(Error::invalid(&path.child("ip"), address, BAD_IP));
        }
        if let Some(name) = item.hostname.as_deref().filter(|n| !n.is_empty()) {
            check(&path.child("hostname"), name, dns1123_subdomain(name), errors);
            if ip(name).is_some() {
                errors.push(Error::invalid(&path.child("hostname"), name, "must be a DNS name, not an IP address"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Services;
    use crate::registry::testing::{errors, update_errors, with};

    fn service(patch: Value) -> Value {
        with(json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}), patch)
    }

    #[test]
    fn each_rule_names_its_field() {
        for (patch, expected) in [
            (json!({}), vec![]),
            (json!({"spec": {"ports": null}}), vec!["spec.ports: Required value"]),
            (json!({"spec": {"ports": null, "clusterIP": "None"}}), vec![]),
            (json!({"spec": {"ports": [{"port": 80}, {"port": 81, "name": "b"}]}}), vec!["spec.ports[0].name: Required value"]),
            (
                json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}}),
                vec!["spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\",\"targetPort\":0}"],
            ),
            (
                json!({"spec": {"ports": [{"port": 0}]}}),
                vec![
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "nodePort": 30001}]}}),
                vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"spec": {"type": "NodePort", "clusterIP": "None"}}),
                vec!["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
            ),
            (json!({"spec": {"type": "ExternalName", "clusterIP": null}}), vec!["spec.externalName: Required value"]),
            (
                json!({"spec": {"type": "loadbalancers"}}),
                vec![
                    "spec.type: Unsupported value: \"loadbalancers\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                    "spec.internalTrafficPolicy: Required value",
                ],
            ),
            (
                json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}}),
                vec!["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400"],
            ),
            (
                json!({"spec": {"externalTrafficPolicy": "Local"}}),
                vec!["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"],
            ),
        ] {
            assert_eq!(errors::<Services>(service(patch.clone())), expected, "{patch}");
        }
    }

    #[test]
    fn the_address_never_changes() {
        let errors = update_errors::<Services>(service(json!({})), service(json!({"spec": {"clusterIP": "10.96.0.10"}})));
        assert_eq!(errors, ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set"]);
        assert!(update_errors::<Services>(service(json!({})), service(json!({"spec": {"clusterIP": null}}))).is_empty());
    }
}

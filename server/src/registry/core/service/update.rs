//! What an update of a Service inherits from the stored one (`patchAllocatedValues`, `normalizeClusterIPs`,
//! `dropTypeDependentFields`). Clients that send a whole object without the allocated values keep them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceSpec;

use super::allocation::{needs_cluster_ip, needs_node_ports};
use super::{is_externally_accessible, kind, needs_health_check};

/// All three steps, in upstream's order.
pub fn prepare(new: &mut ServiceSpec, old: &ServiceSpec) {
    inherit(new, old);
    normalize(new, Some(old));
    drop_unneeded(new, old);
}

/// An empty list or text counts as absent.
fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn list(value: &Option<Vec<String>>) -> &[String] {
    value.as_deref().unwrap_or_default()
}

/// Allocated values that are left out are those it has.
fn inherit(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(&new.cluster_ip).is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if list(&new.cluster_ips).is_empty() && text(&new.cluster_ip) == text(&old.cluster_ip) {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        if new.ip_family_policy.is_none() {
            new.ip_family_policy.clone_from(&old.ip_family_policy);
        }
        if list(&new.ip_families).is_empty() {
            new.ip_families.clone_from(&old.ip_families);
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        inherit_node_ports(new, old);
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port.unwrap_or_default() == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// A port of the same name keeps its node port, unless another port of the new object asks for it.
fn inherit_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let used = |spec: &ServiceSpec| -> BTreeSet<i32> { spec.ports.iter().flatten().filter_map(|p| p.node_port).filter(|p| *p != 0).collect() };
    let mut used: BTreeSet<i32> = used(old).intersection(&used(new)).copied().collect();
    let by_name: BTreeMap<&str, i32> = old.ports.iter().flatten().map(|p| (text(&p.name), p.node_port.unwrap_or_default())).collect();
    for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or_default() == 0) {
        let before = by_name.get(text(&port.name)).copied().unwrap_or_default();
        if before != 0 && used.insert(before) {
            port.node_port = Some(before);
        }
    }
}

/// Keeps `clusterIP` and the first of `clusterIPs` the same when a client changes only one of them.
pub fn normalize(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else {
        if !text(&new.cluster_ip).is_empty() && list(&new.cluster_ips).is_empty() {
            new.cluster_ips = new.cluster_ip.clone().map(|ip| vec![ip]);
        }
        return;
    };
    let same_ip = text(&new.cluster_ip) == text(&old.cluster_ip);
    let same_ips = list(&new.cluster_ips) == list(&old.cluster_ips);
    if !same_ip && (same_ips || list(&new.cluster_ips).is_empty()) {
        new.cluster_ips = (!text(&new.cluster_ip).is_empty()).then(|| vec![text(&new.cluster_ip).to_owned()]);
    } else if same_ip && !same_ips && list(&new.cluster_ips).is_empty() {
        new.cluster_ip = None;
    }
}

/// A changed type drops the values that the new type cannot have, unless the client changed them too.
fn drop_unneeded(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if list(&new.cluster_ips) == list(&old.cluster_ips) && text(&new.cluster_ip) == text(&old.cluster_ip) {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    let node_ports = |spec: &ServiceSpec| -> Vec<Option<i32>> { spec.ports.iter().flatten().map(|p| p.node_port.filter(|n| *n != 0)).collect() };
    if needs_node_ports(old) && !needs_node_ports(new) && node_ports(new) == node_ports(old) {
        new.ports.iter_mut().flatten().for_each(|p| p.node_port = None);
    }
    if needs_health_check(old) && !needs_health_check(new) && new.health_check_node_port == old.health_check_node_port {
        new.health_check_node_port = None;
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if is_externally_accessible(old) && !is_externally_accessible(new) && new.external_traffic_policy == old.external_traffic_policy {
        new.external_traffic_policy = None;
    }
    if kind(new) == "ExternalName" && new.internal_traffic_policy == old.internal_traffic_policy {
        new.internal_traffic_policy = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::testing::with;

    fn stored() -> Value {
        json!({
            "type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "ports": [{"name": "h", "port": 80, "nodePort": 30001}]
        })
    }

    fn updated(new: Value) -> Value {
        let old: ServiceSpec = serde_json::from_value(stored()).unwrap();
        let mut new: ServiceSpec = serde_json::from_value(new).unwrap();
        super::super::default_spec(&mut new);
        prepare(&mut new, &old);
        serde_json::to_value(new).unwrap()
    }

    #[test]
    fn what_is_left_out_is_kept() {
        let new = updated(json!({"type": "NodePort", "ports": [{"name": "h", "port": 81}]}));
        assert_eq!((&new["clusterIP"], &new["clusterIPs"]), (&json!("10.96.0.9"), &json!(["10.96.0.9"])));
        assert_eq!(new["ports"][0]["nodePort"], 30001);
        assert_eq!(new["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn another_type_drops_what_it_cannot_have() {
        let cluster = updated(with(stored(), json!({"type": "ClusterIP"})));
        assert_eq!((&cluster["ports"][0]["nodePort"], &cluster["externalTrafficPolicy"]), (&Value::Null, &Value::Null));
        assert_eq!(cluster["clusterIP"], "10.96.0.9");
        let name = updated(with(stored(), json!({"type": "ExternalName", "externalName": "a.b"})));
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy", "externalTrafficPolicy"] {
            assert_eq!(name[field], Value::Null, "{field}");
        }
    }

    #[test]
    fn a_changed_address_is_changed_in_both_fields() {
        let new = updated(with(stored(), json!({"clusterIP": "10.96.0.10"})));
        assert_eq!(new["clusterIPs"], json!(["10.96.0.10"]));
    }

    #[test]
    fn a_node_port_moves_with_who_asks_for_it() {
        let new = updated(json!({"type": "NodePort", "ports": [{"name": "h", "port": 80}, {"name": "x", "port": 81, "nodePort": 30001}]}));
        assert_eq!(new["ports"][0]["nodePort"], Value::Null);
    }
}

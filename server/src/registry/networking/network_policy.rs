//! NetworkPolicies (`pkg/registry/networking/networkpolicy/strategy.go`, `pkg/apis/networking/v1/defaults.go`).

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{BAD_CIDR, check, cidr, one_of, port_name, port_number, selectors};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    type Object = NetworkPolicy;
    const PLURAL: &'static str = "networkpolicies";
    const SINGULAR: &'static str = "networkpolicy";
    const SHORT_NAMES: &'static [&'static str] = &["netpol"];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Pod-Selector"), print::AGE];

    fn default(object: &mut NetworkPolicy) {
        let spec = object.spec.get_or_insert_default();
        // Upstream's selector is not a pointer: it is always encoded.
        spec.pod_selector.get_or_insert_default();
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let egress = spec.egress.as_ref().is_some_and(|e| !e.is_empty());
            let types = if egress { vec!["Ingress", "Egress"] } else { vec!["Ingress"] };
            spec.policy_types = Some(types.into_iter().map(str::to_owned).collect());
        }
        let ingress = spec.ingress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
        let egress = spec.egress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn validate(object: &NetworkPolicy) -> ErrorList {
        let mut errors = Vec::new();
        let spec = object.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        selectors::label_selector(&path.child("podSelector"), spec.pod_selector.as_ref(), &mut errors);
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = path.child("ingress").index(index);
            rule_parts(&path, "from", rule.ports.as_deref(), rule.from.as_deref(), &mut errors);
        }
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let path = path.child("egress").index(index);
            rule_parts(&path, "to", rule.ports.as_deref(), rule.to.as_deref(), &mut errors);
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        if types.len() > 2 {
            errors.push(Error::invalid(&path.child("policyTypes"), types, "may not specify more than two policyTypes"));
        }
        for (index, kind) in types.iter().enumerate() {
            one_of(&path.child("policyTypes").index(index), Some(kind), &["Egress", "Ingress"], &mut errors);
        }
        errors
    }

    fn spec_changed(new: &NetworkPolicy, old: &NetworkPolicy) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &NetworkPolicy, context: &PrintContext) -> Vec<Value> {
        let selector = object.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
        vec![print::name(&object.metadata), print::selector(selector), print::age(&object.metadata, context)]
    }
}

fn rule_parts(path: &Path, field: &str, ports: Option<&[NetworkPolicyPort]>, peers: Option<&[NetworkPolicyPeer]>, errors: &mut ErrorList) {
    for (index, item) in ports.unwrap_or_default().iter().enumerate() {
        port(&path.child("ports").index(index), item, errors);
    }
    for (index, item) in peers.unwrap_or_default().iter().enumerate() {
        peer(&path.child(field).index(index), item, errors);
    }
}

fn port(path: &Path, port: &NetworkPolicyPort, errors: &mut ErrorList) {
    one_of(&path.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], errors);
    let end_path = path.child("endPort");
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), end) => {
            check(&path.child("port"), number, port_number((*number).into()), errors);
            if let Some(end) = end {
                if end < *number {
                    errors.push(Error::invalid(&end_path, end, "must be greater than or equal to `port`"));
                }
                check(&end_path, end, port_number(end.into()), errors);
            }
        }
        (Some(IntOrString::String(name)), end) => {
            errors.extend(end.map(|end| Error::invalid(&end_path, end, "may not be specified when `port` is non-numeric")));
            check(&path.child("port"), name, port_name(name), errors);
        }
        (None, Some(end)) => errors.push(Error::invalid(&end_path, end, "may not be specified when `port` is not specified")),
        (None, None) => {}
    }
}

fn peer(path: &Path, peer: &NetworkPolicyPeer, errors: &mut ErrorList) {
    selectors::label_selector(&path.child("podSelector"), peer.pod_selector.as_ref(), errors);
    selectors::label_selector(&path.child("namespaceSelector"), peer.namespace_selector.as_ref(), errors);
    let selected = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        None if !selected => errors.push(Error::required(path, "must specify a peer")),
        None => {}
        Some(block) => {
            ip_block(&path.child("ipBlock"), block, errors);
            if selected {
                errors.push(Error::forbidden(path, "may not specify both ipBlock and another peer"));
            }
        }
    }
}

fn ip_block(path: &Path, block: &IPBlock, errors: &mut ErrorList) {
    if block.cidr.is_empty() {
        return errors.push(Error::required(&path.child("cidr"), ""));
    }
    let Some(outer) = cidr(&block.cidr) else {
        return errors.push(Error::invalid(&path.child("cidr"), &block.cidr, BAD_CIDR));
    };
    for (index, except) in block.except.iter().flatten().enumerate() {
        let path = path.child("except").index(index);
        match cidr(except) {
            None => errors.push(Error::invalid(&path, except, BAD_CIDR)),
            Some(inner) if !is_strict_subset(inner, outer) => {
                errors.push(Error::invalid(&path, except, "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

fn is_strict_subset(inner: (IpAddr, u8), outer: (IpAddr, u8)) -> bool {
    let top = |bits: u128, width: u32, prefix: u8| bits.checked_shr(width - u32::from(prefix)).unwrap_or_default();
    let same = match (inner.0, outer.0) {
        (IpAddr::V4(a), IpAddr::V4(b)) => top(u32::from(a).into(), 32, outer.1) == top(u32::from(b).into(), 32, outer.1),
        (IpAddr::V6(a), IpAddr::V6(b)) => top(a.into(), 128, outer.1) == top(b.into(), 128, outer.1),
        _ => false,
    };
    same && inner.1 > outer.1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn types_follow_the_rules() {
        let of = |spec: Value| defaulted::<NetworkPolicies>(json!({"metadata": {}, "spec": spec}))["spec"]["policyTypes"].clone();
        assert_eq!(of(json!({"podSelector": {}})), json!(["Ingress"]));
        assert_eq!(of(json!({"podSelector": {}, "egress": [{}]})), json!(["Ingress", "Egress"]));
    }

    #[test]
    fn peers_and_ports_are_checked() {
        let of = |rule: Value| errors::<NetworkPolicies>(json!({"spec": {"podSelector": {}, "ingress": [rule]}}));
        assert!(
            of(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]})).is_empty()
        );
        let field = "spec.ingress[0]";
        assert_eq!(of(json!({"from": [{}]})), [format!("{field}.from[0]: Required value: must specify a peer")]);
        assert_eq!(
            of(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]})),
            [format!("{field}.from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`")]
        );
        assert_eq!(
            of(json!({"ports": [{"port": "http", "endPort": 90}]})),
            [format!("{field}.ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric")]
        );
    }

    #[test]
    fn rows_show_the_selector() {
        let row = cells::<NetworkPolicies>(json!({"metadata": {"name": "p"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}}));
        assert_eq!(row, ["p", "a=b", "<unknown>"]);
    }
}

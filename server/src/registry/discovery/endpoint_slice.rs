//! EndpointSlices (`pkg/registry/discovery/endpointslice/strategy.go`, `pkg/apis/discovery/validation/validation.go`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::selector::qualified_name_errors;

use crate::registry::core::endpoints::special;
use crate::registry::validation::{check, dns1123_label, dns1123_subdomain, immutable, ip, one_of, required_one_of};
use crate::registry::{Column, PrintContext, Strategy, print};

const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const MAX_ENDPOINTS: usize = 1000;

/// See the module.
pub struct EndpointSlices;

impl Strategy for EndpointSlices {
    type Object = EndpointSlice;
    const PLURAL: &'static str = "endpointslices";
    const SINGULAR: &'static str = "endpointslice";
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("AddressType"), Column::new("Ports"), Column::new("Endpoints"), print::AGE];

    fn default(object: &mut EndpointSlice) {
        for port in object.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn validate(object: &EndpointSlice) -> ErrorList {
        let mut errors = Vec::new();
        required_one_of(&Path::new("addressType"), Some(&object.address_type), &["FQDN", "IPv4", "IPv6"], &mut errors);
        let path = Path::new("endpoints");
        let endpoints = object.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(Error::too_many(&path, endpoints.len(), MAX_ENDPOINTS));
        } else {
            for (index, item) in endpoints.iter().enumerate() {
                endpoint(&path.index(index), item, &object.address_type, &mut errors);
            }
        }
        ports(&Path::new("ports"), object.ports.as_deref().unwrap_or_default(), &mut errors);
        errors
    }

    fn validate_update(new: &EndpointSlice, old: &EndpointSlice) -> ErrorList {
        let mut errors = Self::validate(new);
        immutable(&Path::new("addressType"), &new.address_type, &old.address_type, &mut errors);
        errors
    }

    fn spec_changed(new: &EndpointSlice, old: &EndpointSlice) -> bool {
        (&new.endpoints, &new.ports, &new.address_type) != (&old.endpoints, &old.ports, &old.address_type)
    }

    fn cells(object: &EndpointSlice, context: &PrintContext) -> Vec<Value> {
        let ports = object.ports.iter().flatten().map(|p| match (p.port, &p.name) {
            (Some(number), _) => number.to_string().into(),
            (None, Some(name)) => name.as_str().into(),
            (None, None) => "*".into(),
        });
        let addresses = object.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().map(|a| a.as_str().into()));
        vec![
            print::name(&object.metadata),
            object.address_type.clone().into(),
            print::list_with_more(ports).into(),
            print::list_with_more(addresses).into(),
            print::age(&object.metadata, context),
        ]
    }
}

fn endpoint(path: &Path, endpoint: &Endpoint, kind: &str, errors: &mut ErrorList) {
    let addresses = path.child("addresses");
    match endpoint.addresses.len() {
        0 => errors.push(Error::required(&addresses, "must contain at least 1 address")),
        count if count > MAX_ADDRESSES => errors.push(Error::too_many(&addresses, count, MAX_ADDRESSES)),
        _ => {}
    }
    for (index, item) in endpoint.addresses.iter().enumerate() {
        address(&addresses.index(index), item, kind, errors);
    }
    if let Some(node) = &endpoint.node_name {
        check(&path.child("nodeName"), node, dns1123_subdomain(node), errors);
    }
    if let Some(hostname) = &endpoint.hostname {
        check(&path.child("hostname"), hostname, dns1123_label(hostname), errors);
    }
    let zones = endpoint.hints.iter().flat_map(|h| h.for_zones.iter().flatten());
    for (index, zone) in zones.enumerate() {
        if shared::selector::label_value_errors(&zone.name).is_empty() {
            continue;
        }
        let path = path.child("hints").child("forZones").index(index).child("name");
        check(&path, &zone.name, shared::selector::label_value_errors(&zone.name), errors);
    }
}

fn address(path: &Path, address: &str, kind: &str, errors: &mut ErrorList) {
    let parsed = ip(address);
    match (kind, parsed) {
        ("IPv4", Some(IpAddr::V4(_))) | ("IPv6", Some(IpAddr::V6(_))) => {
            errors.extend(parsed.and_then(special).map(|detail| Error::invalid(path, address, detail)));
        }
        ("IPv4", _) => errors.push(Error::invalid(path, address, "must be a valid IPv4 address")),
        ("IPv6", _) => errors.push(Error::invalid(path, address, "must be a valid IPv6 address")),
        ("FQDN", _) => check(path, address, dns1123_subdomain(address), errors),
        _ => {}
    }
}

fn ports(path: &Path, ports: &[EndpointPort], errors: &mut ErrorList) {
    if ports.len() > MAX_PORTS {
        return errors.push(Error::too_many(path, ports.len(), MAX_PORTS));
    }
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            check(&path.child("name"), name, dns1123_label(name), errors);
        }
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        one_of(&path.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], errors);
        if let Some(protocol) = &port.app_protocol {
            check(&path.child("appProtocol"), protocol, qualified_name_errors(protocol), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn ports_get_a_name_and_a_protocol() {
        let slice = defaulted::<EndpointSlices>(json!({"metadata": {}, "addressType": "IPv4", "endpoints": [], "ports": [{"port": 80}]}));
        assert_eq!(slice["ports"], json!([{"port": 80, "name": "", "protocol": "TCP"}]));
    }

    #[test]
    fn addresses_are_of_the_slices_type() {
        let of = |kind: &str, address: &str| errors::<EndpointSlices>(json!({"addressType": kind, "endpoints": [{"addresses": [address]}]}));
        assert!(of("IPv4", "10.0.0.1").is_empty() && of("IPv6", "fd00::1").is_empty() && of("FQDN", "a.b").is_empty());
        assert_eq!(of("IPv4", "fd00::1"), ["endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address"]);
        assert!(of("IPv4", "127.0.0.1")[0].contains("may not be in the loopback range"));
        assert_eq!(of("", "x"), ["addressType: Required value"]);
        assert_eq!(
            errors::<EndpointSlices>(json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]})),
            ["endpoints[0].addresses: Required value: must contain at least 1 address"]
        );
    }

    #[test]
    fn the_type_never_changes_and_the_generation_counts_endpoints() {
        let slice = |kind: &str, address: &str| json!({"addressType": kind, "endpoints": [{"addresses": [address]}]});
        assert_eq!(
            update_errors::<EndpointSlices>(slice("IPv4", "10.0.0.1"), slice("IPv6", "fd00::1")),
            ["addressType: Invalid value: \"IPv6\": field is immutable"]
        );
        let (a, b) = (created::<EndpointSlices>(slice("IPv4", "10.0.0.1")), created::<EndpointSlices>(slice("IPv4", "10.0.0.2")));
        assert!(EndpointSlices::spec_changed(&b, &a) && !EndpointSlices::spec_changed(&a, &a));
    }

    #[test]
    fn rows_cut_long_lists() {
        let endpoints: Vec<_> = (1..=4).map(|i| json!({"addresses": [format!("10.0.0.{i}")]})).collect();
        let row = cells::<EndpointSlices>(json!({
            "metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 80}, {"name": "x"}]
        }));
        assert_eq!(row, ["s", "IPv4", "80,x", "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...", "<unknown>"]);
        assert_eq!(cells::<EndpointSlices>(json!({"addressType": "IPv4", "endpoints": []}))[2..4], ["<unset>", "<unset>"]);
    }
}

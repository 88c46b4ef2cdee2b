//! Endpoints (`pkg/registry/core/endpoint/strategy.go`, `ValidateEndpoints`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints as Object};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{BAD_IP, check, dns1123_label, dns1123_subdomain, ip, port_number, required_one_of};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct Endpoints;

impl Strategy for Endpoints {
    type Object = Object;
    const PLURAL: &'static str = "endpoints";
    const SINGULAR: &'static str = "endpoints";
    const SHORT_NAMES: &'static [&'static str] = &["ep"];
    const STORAGE: &'static str = "services/endpoints";
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Endpoints"), print::AGE];

    fn default(object: &mut Object) {
        for port in object.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = Vec::new();
        for (index, subset) in object.subsets.iter().flatten().enumerate() {
            let path = Path::new("subsets").index(index);
            let addresses = subset.addresses.as_deref().unwrap_or_default();
            let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
            if addresses.is_empty() && not_ready.is_empty() {
                errors.push(Error::required(&path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for (name, list) in [("addresses", addresses), ("notReadyAddresses", not_ready)] {
                for (index, item) in list.iter().enumerate() {
                    address(&path.child(name).index(index), item, &mut errors);
                }
            }
            let ports = subset.ports.as_deref().unwrap_or_default();
            for (index, item) in ports.iter().enumerate() {
                port(&path.child("ports").index(index), item, ports.len() > 1, &mut errors);
            }
        }
        errors
    }

    fn cells(object: &Object, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), addresses(object).into(), print::age(&object.metadata, context)]
    }
}

/// `1.2.3.4:80,1.2.3.5:80 + 2 more...`, or `<none>`.
fn addresses(object: &Object) -> String {
    let subsets = object.subsets.as_deref().unwrap_or_default();
    let all = subsets.iter().flat_map(|subset| {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        // A headless service may have no ports.
        let ports: Vec<Option<i32>> = match subset.ports.as_deref() {
            None | Some([]) => vec![None],
            Some(ports) => ports.iter().map(|p| Some(p.port)).collect(),
        };
        ports.into_iter().flat_map(move |port| addresses.iter().map(move |a| join(&a.ip, port).into()))
    });
    if subsets.is_empty() {
        return print::NONE.into();
    }
    match print::list_with_more(all).as_str() {
        print::UNSET => String::new(),
        list => list.to_owned(),
    }
}

fn join(address: &str, port: Option<i32>) -> String {
    match port {
        None => address.to_owned(),
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
    }
}

fn address(path: &Path, address: &EndpointAddress, errors: &mut ErrorList) {
    let ip_path = path.child("ip");
    match ip(&address.ip) {
        None => errors.push(Error::invalid(&ip_path, &address.ip, BAD_IP)),
        Some(parsed) => errors.extend(special(parsed).map(|detail| Error::invalid(&ip_path, &address.ip, detail))),
    }
    if let Some(hostname) = address.hostname.as_deref().filter(|h| !h.is_empty()) {
        check(&path.child("hostname"), hostname, dns1123_label(hostname), errors);
    }
    if let Some(node) = address.node_name.as_deref() {
        check(&path.child("nodeName"), node, dns1123_subdomain(node), errors);
    }
}

/// Upstream's `ValidateEndpointIP`: why an address may not be an endpoint.
pub fn special(address: IpAddr) -> Option<&'static str> {
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

fn port(path: &Path, port: &EndpointPort, name_needed: bool, errors: &mut ErrorList) {
    match port.name.as_deref().unwrap_or_default() {
        "" if name_needed => errors.push(Error::required(&path.child("name"), "")),
        "" => {}
        name => check(&path.child("name"), name, dns1123_label(name), errors),
    }
    check(&path.child("port"), port.port, port_number(port.port.into()), errors);
    required_one_of(&path.child("protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"], errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn rows_show_three_addresses_and_count_the_rest() {
        let of = |subsets: serde_json::Value| cells::<Endpoints>(json!({"metadata": {"name": "e"}, "subsets": subsets}))[1].clone();
        let addresses: Vec<_> = (1..=5).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        assert_eq!(of(json!([])), "<none>");
        assert_eq!(of(json!([{"addresses": addresses, "ports": [{"port": 80}]}])), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
        assert_eq!(of(json!([{"addresses": [{"ip": "10.0.0.1"}]}])), "10.0.0.1");
        assert_eq!(of(json!([{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 81}]}])), "[fd00::1]:80,[fd00::1]:81");
        assert_eq!(of(json!([{"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}])), "");
    }

    #[test]
    fn no_endpoint_points_back_at_the_node() {
        let of = |ip: &str| errors::<Endpoints>(json!({"subsets": [{"addresses": [{"ip": ip}]}]}));
        assert!(of("10.1.2.3").is_empty());
        let field = "subsets[0].addresses[0].ip: Invalid value:";
        assert_eq!(of("127.0.0.1"), [format!("{field} \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)")]);
        assert_eq!(of("169.254.1.1"), [format!("{field} \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)")]);
        assert_eq!(of("x"), [format!("{field} \"x\": {BAD_IP}")]);
    }

    #[test]
    fn ports_get_a_protocol_and_need_names_when_there_are_several() {
        assert_eq!(
            defaulted::<Endpoints>(json!({"metadata": {}, "subsets": [{"ports": [{"port": 80}]}]}))["subsets"][0]["ports"],
            json!([{"port": 80, "protocol": "TCP"}])
        );
        let errors =
            errors::<Endpoints>(json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}, {"port": 0, "name": "b"}]}]}));
        assert_eq!(
            errors,
            ["subsets[0].ports[0].name: Required value", "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive"]
        );
    }
}

//! Services (`pkg/registry/core/service/strategy.go`, `storage/alloc.go`).
//!
//! Addresses and ports are chosen in [`allocation`] and claimed in the transaction that writes the Service, so that two Services
//! never share one at any revision. The cluster has one IP family, IPv4.

pub mod allocation;
mod update;
mod validation;

use k8s_openapi::api::core::v1::{LoadBalancerStatus, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::{Claim, Column, FieldSource, PrintContext, Ranges, STATUS, Strategy, Subresource, print};

/// A headless Service's cluster IP.
pub const HEADLESS: &str = "None";
/// Upstream's default for ClientIP affinity: three hours, in seconds.
const AFFINITY_TIMEOUT: i32 = 10800;

/// See the module.
pub struct Services;

impl Strategy for Services {
    type Object = Service;
    const PLURAL: &'static str = "services";
    const SINGULAR: &'static str = "service";
    const SHORT_NAMES: &'static [&'static str] = &["svc"];
    const CATEGORIES: &'static [&'static str] = &["all"];
    const SUBRESOURCES: &'static [Subresource] = &[super::proxy("ServiceProxyOptions"), STATUS];
    const STORAGE: &'static str = "services/specs";
    const CREATE_ON_UPDATE: bool = true;
    const FIELDS: &'static [&'static str] = &["spec.clusterIP", "spec.type"];
    const FIELD_SOURCES: &'static [FieldSource] = &[FieldSource { field: "spec.type", paths: &["spec.type"], absent: "ClusterIP" }];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Type"),
        Column::new("Cluster-IP"),
        Column::new("External-IP"),
        Column::new("Port(s)"),
        print::AGE,
        print::SELECTOR,
    ];

    fn validate_name(name: &str) -> Result<(), String> {
        crate::registry::validation::dns1035_label(name).into_iter().next().map_or(Ok(()), Err)
    }

    fn default(object: &mut Service) {
        default_spec(object.spec.get_or_insert_default());
        let status = object.status.get_or_insert_default();
        for ingress in status.load_balancer.get_or_insert_default().ingress.iter_mut().flatten() {
            if ingress.ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
                ingress.ip_mode.get_or_insert_with(|| "VIP".into());
            }
        }
    }

    fn prepare_for_create(object: &mut Service) {
        object.status = Some(Default::default());
        object.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus::default());
        update::normalize(object.spec.get_or_insert_default(), None);
    }

    fn validate(object: &Service) -> ErrorList {
        let none = ServiceSpec::default();
        let mut errors = Vec::new();
        validation::spec(object.spec.as_ref().unwrap_or(&none), &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        if let Some(old) = &old.spec {
            update::prepare(new.spec.get_or_insert_default(), old);
        }
    }

    fn validate_update(new: &Service, old: &Service) -> ErrorList {
        let mut errors = Vec::new();
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            validation::update(new, old, &mut errors);
        }
        errors.extend(Self::validate(new));
        errors
    }

    fn prepare_for_status_update(new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &Service, _old: &Service) -> ErrorList {
        let mut errors = Vec::new();
        validation::status(new, &mut errors);
        errors
    }

    fn claims(object: &Service) -> Vec<Claim> {
        object.spec.as_ref().map(allocation::claims).unwrap_or_default()
    }

    fn allocate(object: &mut Service, old: Option<&Service>, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
        allocation::allocate(object.spec.get_or_insert_default(), old.and_then(|o| o.spec.as_ref()), ranges, taken)
    }

    fn cells(object: &Service, context: &PrintContext) -> Vec<Value> {
        let none = ServiceSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first()).map(String::as_str);
        let ports = spec.ports.iter().flatten().map(port_text).collect::<Vec<_>>().join(",");
        vec![
            print::name(&object.metadata),
            kind(spec).into(),
            print::or_none_keep_empty(ip),
            external_ip(object, spec).into(),
            print::or_none(Some(&ports)),
            print::age(&object.metadata, context),
            print::labels(spec.selector.as_ref()),
        ]
    }
}

/// The type, `ClusterIP` when unset.
pub fn kind(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().filter(|t| !t.is_empty()).unwrap_or("ClusterIP")
}

/// Whether the Service has no address of its own but its endpoints'.
pub fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some(HEADLESS) || spec.cluster_ips.as_ref().is_some_and(|ips| ips.first().is_some_and(|ip| ip == HEADLESS))
}

/// Whether traffic from outside the cluster may reach it.
fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    match kind(spec) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

/// Whether a load balancer asks each node about its own endpoints.
fn needs_health_check(spec: &ServiceSpec) -> bool {
    kind(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

fn default_spec(spec: &mut ServiceSpec) {
    if spec.type_.as_ref().is_none_or(String::is_empty) {
        spec.type_ = Some("ClusterIP".into());
    }
    if spec.session_affinity.as_ref().is_none_or(String::is_empty) {
        spec.session_affinity = Some("None".into());
    }
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.get_or_insert_default();
            config.client_ip.get_or_insert_default().timeout_seconds.get_or_insert(AFFINITY_TIMEOUT);
        }
        _ => {}
    }
    for port in spec.ports.iter_mut().flatten() {
        default_port(port);
    }
    if is_externally_accessible(spec) && spec.external_traffic_policy.as_ref().is_none_or(String::is_empty) {
        spec.external_traffic_policy = Some("Cluster".into());
    }
    if matches!(kind(spec), "NodePort" | "LoadBalancer" | "ClusterIP") {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    if kind(spec) == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

fn default_port(port: &mut ServicePort) {
    if port.protocol.as_ref().is_none_or(String::is_empty) {
        port.protocol = Some("TCP".into());
    }
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::String(name)) => name.is_empty(),
        Some(IntOrString::Int(_)) => false,
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

/// `80/TCP` or `80:30001/TCP`.
fn port_text(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or_default();
    match port.node_port.filter(|p| *p > 0) {
        Some(node_port) => format!("{}:{node_port}/{protocol}", port.port),
        None => format!("{}/{protocol}", port.port),
    }
}

/// Where it is reached from outside (`getServiceExternalIP`).
fn external_ip(object: &Service, spec: &ServiceSpec) -> String {
    let own = spec.external_ips.clone().unwrap_or_default();
    match kind(spec) {
        "ClusterIP" | "NodePort" if own.is_empty() => print::NONE.into(),
        "ClusterIP" | "NodePort" => own.join(","),
        "LoadBalancer" => {
            let status = object.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let ingress = status.iter().flat_map(|s| s.ingress.iter().flatten());
            let balancers: std::collections::BTreeSet<String> = ingress
                .filter_map(|i| i.ip.clone().filter(|ip| !ip.is_empty()).or_else(|| i.hostname.clone()))
                .filter(|text| !text.is_empty())
                .collect();
            let all: Vec<String> = balancers.into_iter().chain(own).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => spec.external_name.clone().unwrap_or_default(),
        _ => "<unknown>".into(),
    }
}

/// The path of a field of the spec.
fn spec_path(field: &str) -> Path {
    Path::new("spec").child(field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn defaults_are_upstreams() {
        assert_eq!(
            defaulted::<Services>(json!({"metadata": {}, "spec": {"ports": [{"port": 80}]}}))["spec"],
            json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]
            })
        );
        let balancer = defaulted::<Services>(json!({"metadata": {}, "spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}));
        assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
        assert_eq!(balancer["spec"]["externalTrafficPolicy"], "Cluster");
        assert_eq!(balancer["spec"]["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
        let name = defaulted::<Services>(json!({"metadata": {}, "spec": {"type": "ExternalName", "externalName": "a.b"}}));
        assert_eq!(name["spec"], json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}));
    }

    #[test]
    fn rows_show_addresses_and_ports() {
        let of = |spec: Value, status: Value| cells::<Services>(json!({"metadata": {"name": "s"}, "spec": spec, "status": status}))[1..5].to_vec();
        assert_eq!(
            of(json!({"type": "NodePort", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}), json!({})),
            ["NodePort", "10.96.0.7", "<none>", "80:30001/TCP"]
        );
        assert_eq!(of(json!({"type": "ClusterIP", "clusterIPs": ["None"]}), json!({})), ["ClusterIP", "None", "<none>", "<none>"]);
        assert_eq!(of(json!({"type": "LoadBalancer"}), json!({})), ["LoadBalancer", "<none>", "<pending>", "<none>"]);
        assert_eq!(
            of(json!({"type": "LoadBalancer", "externalIPs": ["1.2.3.4"]}), json!({"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}]}}))[2],
            "5.6.7.8,1.2.3.4"
        );
        assert_eq!(of(json!({"type": "ExternalName", "externalName": "a.b"}), json!({}))[2], "a.b");
    }

    #[test]
    fn names_begin_with_a_letter() {
        assert!(Services::validate_name("a-1").is_ok());
        assert!(Services::validate_name("1a").unwrap_err().starts_with("a DNS-1035 label must consist of"));
    }
}

//! Services, endpoints and ingresses.

use k8s_openapi::api::core::v1::{Endpoints, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};

use super::Writer;
use super::format::{int_or_string, labels};
use super::related::Backends;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(super) fn service(w: &mut Writer, service: &Service, slices: &[EndpointSlice]) {
    let (meta, spec) = (&service.metadata, service.spec.clone().unwrap_or_default());
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    w.field(0, "Selector", labels(spec.selector.as_ref()));
    w.field(0, "Type", spec.type_.as_deref().unwrap_or("ClusterIP"));
    let joined = |list: &Option<Vec<String>>| list.as_ref().filter(|l| !l.is_empty()).map(|l| l.join(","));
    if let Some(policy) = &spec.ip_family_policy {
        w.field(0, "IP Family Policy", policy);
    }
    w.field(0, "IP Families", joined(&spec.ip_families).unwrap_or_else(|| "<none>".into()));
    w.field(0, "IP", spec.cluster_ip.as_deref().unwrap_or_default());
    w.field(0, "IPs", joined(&spec.cluster_ips).unwrap_or_else(|| "<none>".into()));
    if let Some(ips) = joined(&spec.external_ips) {
        w.field(0, "External IPs", ips);
    }
    if let Some(ip) = spec.load_balancer_ip.as_ref().filter(|i| !i.is_empty()) {
        w.field(0, "Desired LoadBalancer IP", ip);
    }
    if let Some(name) = spec.external_name.as_ref().filter(|n| !n.is_empty()) {
        w.field(0, "External Name", name);
    }
    let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.clone()).unwrap_or_default();
    if !ingress.is_empty() {
        let text = |i: &k8s_openapi::api::core::v1::LoadBalancerIngress| {
            let mode = i.ip_mode.as_ref().map_or_else(String::new, |m| format!(" ({m})"));
            i.ip.as_ref().map(|ip| format!("{ip}{mode}")).or_else(|| i.hostname.clone()).unwrap_or_default()
        };
        w.field(0, "LoadBalancer Ingress", ingress.iter().map(text).collect::<Vec<_>>().join(", "));
    }
    for port in spec.ports.iter().flatten() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let name = port.name.as_deref().filter(|n| !n.is_empty()).unwrap_or("<unset>");
        w.write(0, &format!("Port:\t{name}\t{}/{protocol}\n", port.port));
        let target = port.target_port.as_ref().map_or_else(|| port.port.to_string(), int_or_string);
        w.field(0, "TargetPort", format!("{target}/{protocol}"));
        if let Some(node) = port.node_port.filter(|p| *p != 0) {
            w.write(0, &format!("NodePort:\t{name}\t{node}/{protocol}\n"));
        }
        w.field(0, "Endpoints", ready_addresses(slices, port.name.as_deref().unwrap_or_default()));
    }
    w.field(0, "Session Affinity", spec.session_affinity.as_deref().unwrap_or("None"));
    for (name, text) in [
        ("External Traffic Policy", &spec.external_traffic_policy),
        ("Internal Traffic Policy", &spec.internal_traffic_policy),
        ("Traffic Distribution", &spec.traffic_distribution),
    ] {
        if let Some(text) = text.as_ref().filter(|t| !t.is_empty()) {
            w.field(0, name, text);
        }
    }
    if let Some(port) = spec.health_check_node_port.filter(|p| *p != 0) {
        w.field(0, "HealthCheck NodePort", port);
    }
    if let Some(ranges) = joined(&spec.load_balancer_source_ranges) {
        w.field(0, "LoadBalancer Source Ranges", ranges);
    }
}

/// `10.0.0.1:80,10.0.0.2:80 + 3 more...`
fn ready_addresses(slices: &[EndpointSlice], port_name: &str) -> String {
    if slices.is_empty() {
        return String::new();
    }
    let mut all = Vec::new();
    for slice in slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        for port in ports.iter().filter(|p| p.name.as_deref().unwrap_or_default() == port_name) {
            let Some(number) = port.port else { continue };
            for endpoint in slice.endpoints.iter().flatten().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)) {
                all.extend(endpoint.addresses.iter().map(|a| if a.contains(':') { format!("[{a}]:{number}") } else { format!("{a}:{number}") }));
            }
        }
    }
    shown(&all)
}

fn shown(addresses: &[String]) -> String {
    const MAX: usize = 3;
    match addresses.len() {
        0 => String::new(),
        n if n > MAX => format!("{} + {} more...", addresses[..MAX].join(","), n - MAX),
        _ => addresses.join(","),
    }
}

pub(super) fn endpoints(w: &mut Writer, endpoints: &Endpoints) {
    let meta = &endpoints.metadata;
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    w.write(0, "Subsets:\n");
    for subset in endpoints.subsets.iter().flatten() {
        let list = |addresses: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
            let ips: Vec<&str> = addresses.iter().flatten().map(|a| a.ip.as_str()).collect();
            if ips.is_empty() { "<none>".to_owned() } else { ips.join(",") }
        };
        w.field(1, "Addresses", list(&subset.addresses));
        w.field(1, "NotReadyAddresses", list(&subset.not_ready_addresses));
        if let Some(ports) = subset.ports.as_ref().filter(|p| !p.is_empty()) {
            w.write(1, "Ports:\n");
            w.write(2, "Name\tPort\tProtocol\n");
            w.write(2, "----\t----\t--------\n");
            for port in ports {
                let name = port.name.as_deref().filter(|n| !n.is_empty()).unwrap_or("<unset>");
                w.write(2, &format!("{name}\t{}\t{}\n", port.port, port.protocol.as_deref().unwrap_or("TCP")));
            }
        }
        w.write(0, "\n");
    }
}

pub(super) fn endpoint_slice(w: &mut Writer, slice: &EndpointSlice) {
    let meta = &slice.metadata;
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    w.field(0, "AddressType", &slice.address_type);
    let ports = slice.ports.as_deref().unwrap_or_default();
    if ports.is_empty() {
        w.write(0, "Ports: <unset>\n");
    } else {
        w.write(0, "Ports:\n");
        w.write(1, "Name\tPort\tProtocol\n");
        w.write(1, "----\t----\t--------\n");
        for port in ports {
            let name = port.name.as_deref().filter(|n| !n.is_empty()).unwrap_or("<unset>");
            let number = port.port.map_or_else(|| "<unset>".into(), |p| p.to_string());
            w.write(1, &format!("{name}\t{number}\t{}\n", port.protocol.as_deref().unwrap_or("TCP")));
        }
    }
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.is_empty() {
        return w.write(0, "Endpoints: <none>\n");
    }
    w.write(0, "Endpoints:\n");
    for endpoint in endpoints {
        let or_unset = |text: &Option<String>| text.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| "<unset>".into());
        let addresses = if endpoint.addresses.is_empty() { "<none>".to_owned() } else { endpoint.addresses.join(",") };
        w.write(1, &format!("- Addresses:\t{addresses}\n"));
        w.write(2, "Conditions:\n");
        let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).map_or_else(|| "<unset>".into(), |r| r.to_string());
        w.field(3, "Ready", ready);
        w.field(2, "Hostname", or_unset(&endpoint.hostname));
        if let Some(target) = &endpoint.target_ref {
            w.field(2, "TargetRef", format!("{}/{}", target.kind.as_deref().unwrap_or_default(), target.name.as_deref().unwrap_or_default()));
        }
        w.field(2, "NodeName", or_unset(&endpoint.node_name));
        w.field(2, "Zone", or_unset(&endpoint.zone));
    }
}

pub(super) fn ingress(w: &mut Writer, ingress: &Ingress, backends: &Backends) {
    let backend = |of: &IngressBackend| backend(of, backends);
    let (meta, spec) = (&ingress.metadata, ingress.spec.clone().unwrap_or_default());
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.labels("Labels", meta.labels.as_ref());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    let addresses = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.clone()).unwrap_or_default();
    let address = addresses.iter().filter_map(|i| i.ip.clone().or_else(|| i.hostname.clone())).collect::<Vec<_>>().join(",");
    w.field(0, "Address", address);
    w.field(0, "Ingress Class", spec.ingress_class_name.as_deref().unwrap_or("<none>"));
    w.field(0, "Default backend", spec.default_backend.as_ref().map_or_else(|| "<default>".into(), &backend));
    if let Some(tls) = spec.tls.as_ref().filter(|t| !t.is_empty()) {
        w.write(0, "TLS:\n");
        for entry in tls {
            let hosts = entry.hosts.as_ref().map(|h| h.join(",")).unwrap_or_default();
            match entry.secret_name.as_deref().filter(|s| !s.is_empty()) {
                Some(secret) => w.write(1, &format!("{secret} terminates {hosts}\n")),
                None => w.write(1, &format!("SNI routes {hosts}\n")),
            }
        }
    }
    w.write(0, "Rules:\n");
    w.write(1, "Host\tPath\tBackends\n");
    w.write(1, "----\t----\t--------\n");
    let mut count = 0;
    for rule in spec.rules.iter().flatten() {
        let Some(http) = &rule.http else { continue };
        count += 1;
        w.write(1, &format!("{}\t\n", rule.host.as_deref().filter(|h| !h.is_empty()).unwrap_or("*")));
        for path in &http.paths {
            w.write(2, &format!("\t{} \t{}\n", path.path.as_deref().unwrap_or_default(), backend(&path.backend)));
        }
    }
    if count == 0 {
        w.write(1, &format!("*\t*\t{}\n", spec.default_backend.as_ref().map_or_else(|| "<default>".into(), backend)));
    }
    w.annotations("Annotations", meta.annotations.as_ref());
}

fn backend(backend: &IngressBackend, backends: &Backends) -> String {
    if let Some(service) = &backend.service {
        let port = service.port.as_ref().and_then(|p| p.number.map(IntOrString::Int).or_else(|| p.name.clone().map(IntOrString::String)));
        let leads_to = match backends.get(&service.name) {
            Some(Ok((found, slices))) => {
                let wanted = |p: &&ServicePort| match &port {
                    Some(IntOrString::Int(number)) => p.port == *number,
                    Some(IntOrString::String(name)) => p.name.as_ref() == Some(name),
                    None => false,
                };
                let named = found.spec.iter().flat_map(|s| s.ports.iter().flatten()).find(wanted).and_then(|p| p.name.clone());
                ready_addresses(slices, named.as_deref().unwrap_or_default())
            }
            Some(Err(error)) => format!("<error: {error}>"),
            None => String::new(),
        };
        return format!("{}:{} ({leads_to})", service.name, port.as_ref().map_or_else(String::new, int_or_string));
    }
    match &backend.resource {
        Some(resource) => {
            format!("APIGroup: {}, Kind: {}, Name: {}", resource.api_group.as_deref().unwrap_or("<none>"), resource.kind, resource.name)
        }
        None => String::new(),
    }
}

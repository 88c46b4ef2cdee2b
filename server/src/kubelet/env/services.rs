//! Service environment variables in the style of Docker links (`pkg/kubelet/envvars/envvars.go`).
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// Variables of the services of a namespace (if linked) and of the API server's, which every pod gets.
pub fn variables(services: &[Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |service: &Service| found.extend(of(service));
    let is = |service: &Service, ns: &str| service.metadata.namespace.as_deref() == Some(ns);
    let is_api = |service: &Service| is(service, "default") && service.metadata.name.as_deref() == Some("kubernetes");
    for service in services.iter().filter(|s| is_api(s)) {
        add(service);
    }
    // A service of the pod's own namespace goes before the API server's.
    for service in services.iter().filter(|s| links && is(s, namespace)) {
        add(service);
    }
    found
}

fn of(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports: Vec<&ServicePort> = spec.ports.iter().flatten().collect();
    let Some(first) = ports.first() else { return Vec::new() };
    if ip.is_empty() || ip == "None" {
        return Vec::new();
    }
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let mut list = vec![(format!("{name}_SERVICE_HOST"), ip.to_owned()), (format!("{name}_SERVICE_PORT"), first.port.to_string())];
    for port in &ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            list.push((format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            list.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        list.push((prefix.clone(), url));
        list.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        list.push((format!("{prefix}_PORT"), port.port.to_string()));
        list.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    list
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str) -> Arc<Service> {
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "namespace": namespace, "name": name },
                "spec": { "clusterIP": ip, "ports": [{ "name": "web-ui", "port": 80, "protocol": "TCP" }] } }))
            .unwrap(),
        )
    }

    #[test]
    fn every_pod_sees_the_api_server_and_linked_ones_their_neighbours() {
        let all = [
            service("default", "kubernetes", "10.0.0.1"),
            service("n", "my-db", "10.0.0.2"),
            service("other", "x", "10.0.0.3"),
            service("n", "none", "None"),
        ];
        let linked = variables(&all, "n", true);
        for (name, value) in [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("MY_DB_SERVICE_HOST", "10.0.0.2"),
            ("MY_DB_SERVICE_PORT", "80"),
            ("MY_DB_SERVICE_PORT_WEB_UI", "80"),
            ("MY_DB_PORT", "tcp://10.0.0.2:80"),
            ("MY_DB_PORT_80_TCP_ADDR", "10.0.0.2"),
            ("MY_DB_PORT_80_TCP_PROTO", "tcp"),
        ] {
            assert_eq!(linked.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(linked.len(), 16);
        assert_eq!(variables(&all, "n", false).len(), 8);
    }
}

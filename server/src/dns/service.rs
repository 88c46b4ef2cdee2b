//! The `kube-dns` Service that pods ask, and the EndpointSlice that leads from it to this process.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::PostParams;
use kube::{Api, Client};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
/// A create or update that somebody else was faster with is tried again so often.
const TRIES: usize = 5;

/// Creates or corrects the Service (without a selector, so that no controller touches its endpoints) and this node's slice.
///
/// # Errors
/// The API refuses, or a `kube-dns` Service with another address is there already: its address cannot be changed.
pub async fn ensure_service(client: Client, cluster_dns_ip: IpAddr, endpoint: SocketAddr, node_name: &str) -> anyhow::Result<()> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    let service = ensure(&services, NAME, |found| wanted_service(found, cluster_dns_ip)).await.context("service kube-dns")?;
    let actual = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default().to_owned();
    if actual != cluster_dns_ip.to_string() {
        bail!("service {NAMESPACE}/{NAME} has the address {actual}, not {cluster_dns_ip}, which pods are told");
    }
    let name = format!("{NAME}-{node_name}");
    ensure(&slices, &name, |found| wanted_slice(found, &name, endpoint, node_name)).await.with_context(|| format!("endpoint slice {name}"))?;
    Ok(())
}

async fn ensure<K>(api: &Api<K>, name: &str, wanted: impl Fn(Option<K>) -> K) -> Result<K, kube::Error>
where
    K: Clone + PartialEq + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let mut tries = 1;
    loop {
        let outcome = match api.get_opt(name).await? {
            None => api.create(&PostParams::default(), &wanted(None)).await,
            Some(found) => {
                let new = wanted(Some(found.clone()));
                if new == found {
                    return Ok(found);
                }
                api.replace(name, &PostParams::default(), &new).await
            }
        };
        match outcome {
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
}

fn wanted_service(found: Option<Service>, ip: IpAddr) -> Service {
    let fresh = found.is_none();
    let mut service = found.unwrap_or_else(|| Service { metadata: meta(NAME), ..Service::default() });
    let labels = service.metadata.labels.get_or_insert_default();
    for (key, value) in [("k8s-app", "kube-dns"), ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")] {
        labels.insert(key.into(), value.into());
    }
    let spec = service.spec.get_or_insert_with(ServiceSpec::default);
    spec.selector = None;
    if fresh {
        spec.cluster_ip = Some(ip.to_string());
        spec.cluster_ips = Some(vec![ip.to_string()]);
    }
    let port = |name: &str, protocol: &str| ServicePort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: 53,
        target_port: Some(IntOrString::Int(53)),
        ..ServicePort::default()
    };
    let ports = spec.ports.get_or_insert_default();
    for (name, protocol) in [("dns", "UDP"), ("dns-tcp", "TCP")] {
        if !ports.iter().any(|p| p.name.as_deref() == Some(name) && p.port == 53 && p.protocol.as_deref() == Some(protocol)) {
            ports.retain(|p| p.name.as_deref() != Some(name));
            ports.push(port(name, protocol));
        }
    }
    service
}

fn wanted_slice(found: Option<EndpointSlice>, name: &str, at: SocketAddr, node_name: &str) -> EndpointSlice {
    let kind = if at.is_ipv4() { "IPv4" } else { "IPv6" };
    // The address type cannot be changed; a slice of the other one is somebody's mistake and the API says so.
    let mut slice = found.unwrap_or_else(|| EndpointSlice { metadata: meta(name), address_type: kind.into(), ..EndpointSlice::default() });
    let labels = slice.metadata.labels.get_or_insert_default();
    for (key, value) in [("kubernetes.io/service-name", NAME), ("endpointslice.kubernetes.io/managed-by", "kserver.dns"), ("k8s-app", "kube-dns")] {
        labels.insert(key.into(), value.into());
    }
    let port = |name: &str, protocol: &str| EndpointPort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: Some(i32::from(at.port())),
        ..EndpointPort::default()
    };
    slice.ports = Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]);
    slice.endpoints = Some(vec![Endpoint {
        addresses: vec![at.ip().to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) }),
        node_name: Some(node_name.to_owned()),
        ..Endpoint::default()
    }]);
    slice
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), namespace: Some(NAMESPACE.into()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_is_left_alone() {
        let ip = "10.96.0.10".parse().unwrap();
        let service = wanted_service(None, ip);
        assert_eq!(wanted_service(Some(service.clone()), ip), service);
        let at = "192.0.2.1:1053".parse().unwrap();
        let slice = wanted_slice(None, "kube-dns-n1", at, "n1");
        assert_eq!(wanted_slice(Some(slice.clone()), "kube-dns-n1", at, "n1"), slice);
        let moved = wanted_slice(Some(slice.clone()), "kube-dns-n1", "192.0.2.2:1053".parse().unwrap(), "n1");
        assert_ne!(moved, slice);
    }

    #[test]
    fn a_selector_is_taken_away_and_ports_are_mended() {
        let mut service = wanted_service(None, "10.96.0.10".parse().unwrap());
        let spec = service.spec.as_mut().unwrap();
        spec.selector = Some([("k8s-app".to_owned(), "kube-dns".to_owned())].into());
        spec.ports.as_mut().unwrap()[0].port = 5353;
        let mended = wanted_service(Some(service), "10.96.0.10".parse().unwrap()).spec.unwrap();
        assert!(mended.selector.is_none());
        assert!(mended.ports.unwrap().iter().all(|p| p.port == 53));
    }
}

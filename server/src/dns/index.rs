//! What names exist and what they mean: a pure index of Services, EndpointSlices and Namespaces
//! (Kubernetes DNS-Based Service Discovery 1.1.0, <https://github.com/kubernetes/dns/blob/master/docs/specification.md>).
//!
//! Names here are lower-case labels relative to the cluster's zone. Must do no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Version of the schema, as `dns-version` answers.
pub const SCHEMA_VERSION: &str = "1.1.0";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name.
type Key = (String, String);

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// `A` or `AAAA`.
    Address(IpAddr),
    /// `CNAME`, a full name outside of our care.
    Alias(String),
    /// `SRV`: port, and the target relative to the zone.
    Server {
        /// Port.
        port: u16,
        /// Name relative to the zone.
        target: String,
        /// The target's addresses, for the additional section.
        addresses: Vec<IpAddr>,
    },
    /// `TXT`.
    Text(String),
}

/// What the index says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It exists, with these records; perhaps none of the wanted type.
    Records(Vec<Record>),
    /// It does not exist.
    Nothing,
}

#[derive(Clone, Debug)]
struct Endpoint {
    ip: IpAddr,
    /// `hostname`, or the address with dashes.
    host: String,
    /// Port name, protocol, port.
    ports: Vec<(String, String, u16)>,
}

/// The index.
#[derive(Default)]
pub struct Index {
    services: BTreeMap<Key, Arc<Service>>,
    slices: HashMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    namespaces: BTreeSet<String>,
    /// Names, relative to the zone, by address and then by Service.
    names: HashMap<IpAddr, BTreeMap<Key, BTreeSet<String>>>,
    /// What `names` holds of each Service.
    indexed: HashMap<Key, Vec<IpAddr>>,
}

fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// The address that a dashed label stands for.
fn undashed(label: &str) -> Option<IpAddr> {
    label.replace('-', ".").parse().ok().or_else(|| label.replace('-', ":").parse().ok())
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut ips: Vec<IpAddr> = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok()).collect();
    ips.dedup();
    let mut seen = BTreeSet::new();
    ips.retain(|ip| seen.insert(*ip));
    ips
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref().filter(|s| s.type_.as_deref() == Some("ExternalName"))?;
    spec.external_name.as_deref().filter(|n| !n.is_empty())
}

impl Index {
    /// Takes a namespace's coming or going.
    pub fn set_namespace(&mut self, name: &str, exists: bool) {
        if exists {
            self.namespaces.insert(name.to_owned());
        } else {
            self.namespaces.remove(name);
        }
    }

    /// Takes a Service's new state; `None` when it is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, service: Option<Arc<Service>>) {
        let key = (namespace.to_owned(), name.to_owned());
        match service {
            Some(service) => self.services.insert(key.clone(), service),
            None => self.services.remove(&key),
        };
        self.reindex(&key);
    }

    /// Takes a slice's new state, or its going.
    pub fn set_slice(&mut self, slice: &Arc<EndpointSlice>, exists: bool) {
        let meta = &slice.metadata;
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let owner = meta.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)).map(|service| (namespace.clone(), service.clone()));
        // The label may have changed: the slice leaves whatever Service had it.
        let before: Vec<Key> = match &owner {
            Some(key) if self.slices.get(key).is_some_and(|s| s.contains_key(&name)) => vec![key.clone()],
            _ => self.slices.iter().filter(|(key, s)| key.0 == namespace && s.contains_key(&name)).map(|(key, _)| key.clone()).collect(),
        };
        for key in &before {
            if let Some(slices) = self.slices.get_mut(key) {
                slices.remove(&name);
                if slices.is_empty() {
                    self.slices.remove(key);
                }
            }
        }
        if let (Some(key), true) = (&owner, exists) {
            self.slices.entry(key.clone()).or_default().insert(name, slice.clone());
        }
        for key in before.iter().chain(&owner) {
            self.reindex(key);
        }
    }

    fn reindex(&mut self, key: &Key) {
        for ip in self.indexed.remove(key).unwrap_or_default() {
            if let Some(names) = self.names.get_mut(&ip) {
                names.remove(key);
                if names.is_empty() {
                    self.names.remove(&ip);
                }
            }
        }
        let Some(service) = self.services.get(key).cloned() else { return };
        let base = format!("{}.{}.svc", key.1, key.0);
        let mut found: Vec<(IpAddr, String)> = cluster_ips(&service).into_iter().map(|ip| (ip, base.clone())).collect();
        if is_headless(&service) {
            found.extend(self.endpoints(key).into_iter().map(|e| (e.ip, format!("{}.{base}", e.host))));
        }
        for (ip, name) in &found {
            self.names.entry(*ip).or_default().entry(key.clone()).or_default().insert(name.clone());
        }
        if !found.is_empty() {
            self.indexed.insert(key.clone(), found.into_iter().map(|(ip, _)| ip).collect());
        }
    }

    /// A Service's ready endpoints, each address once.
    fn endpoints(&self, key: &Key) -> Vec<Endpoint> {
        let mut all: BTreeMap<IpAddr, Endpoint> = BTreeMap::new();
        for slice in self.slices.get(key).into_iter().flat_map(|s| s.values()) {
            let ports: Vec<(String, String, u16)> = slice
                .ports
                .iter()
                .flatten()
                .filter_map(|p| {
                    let number = u16::try_from(p.port?).ok()?;
                    Some((p.name.clone().unwrap_or_default().to_lowercase(), p.protocol.as_deref().unwrap_or("TCP").to_lowercase(), number))
                })
                .collect();
            for endpoint in slice.endpoints.iter().flatten().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)) {
                for ip in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                    let host = endpoint.hostname.clone().filter(|h| !h.is_empty()).map_or_else(|| dashed(ip), |h| h.to_lowercase());
                    all.entry(ip).or_insert_with(|| Endpoint { ip, host, ports: Vec::new() }).ports.extend(ports.iter().cloned());
                }
            }
        }
        all.into_values().collect()
    }

    /// The names of an address, relative to the zone.
    pub fn reverse(&self, ip: IpAddr) -> Vec<String> {
        self.names.get(&ip).map(|by_service| by_service.values().flatten().cloned().collect()).unwrap_or_default()
    }

    /// Looks a name up; labels from left to right, without the zone, in lower case.
    pub fn lookup(&self, labels: &[&str]) -> Found {
        match labels {
            [] | ["svc"] | ["pod"] => Found::Records(Vec::new()),
            ["dns-version"] => Found::Records(vec![Record::Text(SCHEMA_VERSION.into())]),
            // The name server's own name, which the zone's NS record gives.
            ["dns"] => Found::Records(Vec::new()),
            ["ns", "dns"] => self.service("kube-system", "kube-dns", &[]),
            [namespace, "svc" | "pod"] => self.existing_namespace(namespace, Vec::new()),
            [dashed, namespace, "pod"] => match undashed(dashed) {
                Some(ip) => self.existing_namespace(namespace, vec![Record::Address(ip)]),
                None => Found::Nothing,
            },
            [rest @ .., name, namespace, "svc"] => self.service(namespace, name, rest),
            _ => Found::Nothing,
        }
    }

    fn existing_namespace(&self, namespace: &str, records: Vec<Record>) -> Found {
        if self.namespaces.contains(namespace) { Found::Records(records) } else { Found::Nothing }
    }

    fn service(&self, namespace: &str, name: &str, rest: &[&str]) -> Found {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(service) = self.services.get(&key) else { return Found::Nothing };
        if let Some(target) = external_name(service) {
            return if rest.is_empty() { Found::Records(vec![Record::Alias(target.to_owned())]) } else { Found::Nothing };
        }
        match rest {
            [] => {
                let mut records: Vec<Record> = self.addresses(&key, service).into_iter().map(Record::Address).collect();
                records.extend(self.servers(&key, service, |_, _| true));
                Found::Records(records)
            }
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let (port, protocol) = (&port[1..], &protocol[1..]);
                let records = self.servers(&key, service, |p, proto| p == port && proto == protocol);
                if records.is_empty() { Found::Nothing } else { Found::Records(records) }
            }
            [protocol] if protocol.starts_with('_') => {
                let any = !self.servers(&key, service, |_, proto| proto == &protocol[1..]).is_empty();
                if any { Found::Records(Vec::new()) } else { Found::Nothing }
            }
            [host] if is_headless(service) => {
                let ips: Vec<Record> = self.endpoints(&key).iter().filter(|e| e.host == *host).map(|e| Record::Address(e.ip)).collect();
                if ips.is_empty() { Found::Nothing } else { Found::Records(ips) }
            }
            _ => Found::Nothing,
        }
    }

    fn addresses(&self, key: &Key, service: &Service) -> Vec<IpAddr> {
        if is_headless(service) { self.endpoints(key).into_iter().map(|e| e.ip).collect() } else { cluster_ips(service) }
    }

    fn servers(&self, key: &Key, service: &Service, wanted: impl Fn(&str, &str) -> bool) -> Vec<Record> {
        let base = format!("{}.{}.svc", key.1, key.0);
        let mut out = Vec::new();
        if is_headless(service) {
            let mut by_target: BTreeMap<(String, u16), Vec<IpAddr>> = BTreeMap::new();
            for endpoint in self.endpoints(key) {
                for (_, _, port) in endpoint.ports.iter().filter(|(name, protocol, _)| !name.is_empty() && wanted(name, protocol)) {
                    by_target.entry((endpoint.host.clone(), *port)).or_default().push(endpoint.ip);
                }
            }
            out.extend(by_target.into_iter().map(|((host, port), addresses)| Record::Server { port, target: format!("{host}.{base}"), addresses }));
        } else {
            for port in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
                let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
                let name = port.name.as_deref().unwrap_or_default().to_lowercase();
                if let Ok(number) = u16::try_from(port.port)
                    && !name.is_empty()
                    && wanted(&name, &protocol)
                {
                    out.push(Record::Server { port: number, target: base.clone(), addresses: cluster_ips(service) });
                }
            }
        }
        out
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub fn index() -> Index {
        let mut index = Index::default();
        index.set_namespace("default", true);
        index.set_namespace("empty", true);
        let service = |name: &str, spec: Value| {
            Arc::new(serde_json::from_value::<Service>(json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec })).unwrap())
        };
        let ports = json!([{ "name": "web", "port": 80, "protocol": "TCP" }]);
        index.set_service(
            "default",
            "plain",
            Some(service("plain", json!({ "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"], "ports": ports }))),
        );
        index.set_service("default", "db", Some(service("db", json!({ "clusterIP": "None", "ports": ports }))));
        index.set_service("default", "hollow", Some(service("hollow", json!({ "clusterIP": "None" }))));
        index.set_service("default", "ext", Some(service("ext", json!({ "type": "ExternalName", "externalName": "example.org" }))));
        index.set_slice(&slice("db", &[("10.244.0.2", Some("db-0"), true), ("10.244.0.3", None, true), ("10.244.0.4", Some("db-2"), false)]), true);
        index
    }

    pub fn slice(service: &str, endpoints: &[(&str, Option<&str>, bool)]) -> Arc<EndpointSlice> {
        let endpoints: Vec<Value> =
            endpoints.iter().map(|(ip, host, ready)| json!({ "addresses": [ip], "hostname": host, "conditions": { "ready": ready } })).collect();
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": format!("{service}-x"), "namespace": "default", "labels": { SERVICE_NAME: service } },
                "addressType": "IPv4",
                "ports": [{ "name": "web", "port": 8080, "protocol": "TCP" }],
                "endpoints": endpoints,
            }))
            .unwrap(),
        )
    }

    fn addresses(found: &Found) -> Vec<String> {
        let Found::Records(records) = found else { panic!("nothing") };
        records.iter().filter_map(|r| if let Record::Address(ip) = r { Some(ip.to_string()) } else { None }).collect()
    }

    fn lookup(name: &str) -> Found {
        index().lookup(&name.split('.').collect::<Vec<_>>())
    }

    #[test]
    fn services_and_endpoints_have_addresses() {
        for (name, expected) in [
            ("plain.default.svc", vec!["10.96.0.5", "fd00::5"]),
            ("db.default.svc", vec!["10.244.0.2", "10.244.0.3"]),
            ("db-0.db.default.svc", vec!["10.244.0.2"]),
            ("10-244-0-3.db.default.svc", vec!["10.244.0.3"]),
            ("10-244-0-9.default.pod", vec!["10.244.0.9"]),
            ("hollow.default.svc", vec![]),
            ("default.svc", vec![]),
            ("empty.svc", vec![]),
            ("default.pod", vec![]),
            ("svc", vec![]),
            ("_tcp.plain.default.svc", vec![]),
        ] {
            assert_eq!(addresses(&lookup(name)), expected, "{name}");
        }
    }

    #[test]
    fn what_does_not_exist_is_told_from_what_is_empty() {
        for name in [
            "absent.default.svc",
            "plain.absent.svc",
            "absent.svc",
            "db-2.db.default.svc",
            "x.plain.default.svc",
            "_dns._tcp.plain.default.svc",
            "_web._udp.plain.default.svc",
            "_udp.plain.default.svc",
            "1-2-3.default.pod",
            "10-244-0-9.absent.pod",
            "x.ext.default.svc",
            "other",
        ] {
            assert_eq!(lookup(name), Found::Nothing, "{name}");
        }
    }

    #[test]
    fn ports_have_server_records() {
        let server = |port, target: &str, ip: &str| Record::Server { port, target: target.into(), addresses: vec![ip.parse().unwrap()] };
        let Found::Records(plain) = lookup("_web._tcp.plain.default.svc") else { panic!() };
        assert!(matches!(&plain[..], [Record::Server { port: 80, target, addresses }] if target == "plain.default.svc" && addresses.len() == 2));
        assert_eq!(
            lookup("_web._tcp.db.default.svc"),
            Found::Records(vec![server(8080, "10-244-0-3.db.default.svc", "10.244.0.3"), server(8080, "db-0.db.default.svc", "10.244.0.2")])
        );
    }

    #[test]
    fn external_names_are_aliases() {
        assert_eq!(lookup("ext.default.svc"), Found::Records(vec![Record::Alias("example.org".into())]));
    }

    #[test]
    fn addresses_lead_back_to_names_until_they_are_gone() {
        let mut index = index();
        let reverse = |index: &Index, ip: &str| index.reverse(ip.parse().unwrap());
        assert_eq!(reverse(&index, "10.96.0.5"), ["plain.default.svc"]);
        assert_eq!(reverse(&index, "10.244.0.2"), ["db-0.db.default.svc"]);
        assert!(reverse(&index, "10.244.0.4").is_empty(), "not ready");
        index.set_slice(&slice("db", &[("10.244.0.4", Some("db-2"), true)]), true);
        assert!(reverse(&index, "10.244.0.2").is_empty());
        assert_eq!(reverse(&index, "10.244.0.4"), ["db-2.db.default.svc"]);
        index.set_slice(&slice("db", &[]), false);
        index.set_service("default", "plain", None);
        assert!(reverse(&index, "10.244.0.4").is_empty() && reverse(&index, "10.96.0.5").is_empty());
    }
}

//! A pod's resolver configuration, host name and hosts file (`pkg/kubelet/network/dns/dns.go`, `pkg/kubelet/kubelet_pods.go`).
//!
//! Pure; the caller reads and writes the files.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use super::spec;

/// Limits of resolvers that upstream enforces: name servers and search domains.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
/// Longest host name of Linux.
const MAX_HOSTNAME: usize = 63;

/// What the cluster and the host offer.
pub struct Cluster<'a> {
    /// Address of the cluster's name server.
    pub dns: IpAddr,
    /// For instance `cluster.local`.
    pub domain: &'a str,
    /// Text of the host's `resolv.conf`.
    pub host: &'a str,
}

/// Reads a `resolv.conf`.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(Into::into)),
            Some("search") => config.searches = words.map(|w| w.trim_end_matches('.').to_owned()).filter(|w| !w.is_empty()).collect(),
            Some("options") => config.options = words.map(Into::into).collect(),
            _ => {}
        }
    }
    config
}

/// The resolver configuration of a pod.
pub fn config(pod: &Pod, cluster: &Cluster<'_>) -> DnsConfig {
    let spec = spec::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec::host_network(pod);
    let host = parse(cluster.host);
    let mut config = match policy {
        "None" => DnsConfig::default(),
        "ClusterFirst" if !host_network => cluster_first(pod, cluster, host),
        "ClusterFirstWithHostNet" => cluster_first(pod, cluster, host),
        _ => host,
    };
    if let Some(own) = &spec.dns_config {
        add(&mut config.servers, own.nameservers.iter().flatten().cloned());
        add(&mut config.searches, own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            config.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    config
}

fn add(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn cluster_first(pod: &Pod, cluster: &Cluster<'_>, host: DnsConfig) -> DnsConfig {
    let (namespace, domain) = (spec::namespace(pod), cluster.domain);
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    add(&mut searches, host.searches.into_iter());
    DnsConfig { servers: vec![cluster.dns.to_string()], searches, options: vec!["ndots:5".into()] }
}

/// Host name and domain (`GeneratePodHostNameAndDomain`). The name is the short one, also with `setHostnameAsFQDN`.
pub fn host_name(pod: &Pod, domain: &str) -> (String, String) {
    let spec = spec::spec(pod);
    if let Some(name) = spec.hostname_override.filter(|n| !n.is_empty()) {
        return (name, String::new());
    }
    let mut name = spec.hostname.filter(|h| !h.is_empty()).unwrap_or_else(|| spec::name(pod).to_owned());
    if name.len() > MAX_HOSTNAME {
        name.truncate(MAX_HOSTNAME);
        name.truncate(name.trim_end_matches(['-', '.']).len());
    }
    let sub = spec.subdomain.filter(|s| !s.is_empty());
    let full = sub.map(|s| format!("{s}.{}.svc.{domain}", spec::namespace(pod))).unwrap_or_default();
    (name, full)
}

/// The host name that the kernel is to report in the pod: with `setHostnameAsFQDN` the full one.
pub fn kernel_host_name(pod: &Pod, domain: &str) -> String {
    let (name, full) = host_name(pod, domain);
    let as_fqdn = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn) == Some(true);
    if as_fqdn && !full.is_empty() { format!("{name}.{full}") } else { name }
}

/// The text of a pod's `/etc/hosts`. `host` is the node's own file for pods in the host's network, `None` for others.
pub fn hosts_file(pod: &Pod, ips: &[IpAddr], name: &str, domain: &str, host: Option<&str>) -> String {
    let mut text = match host {
        Some(host) => format!("# Kubernetes-managed hosts file (host network).\n{host}"),
        None => {
            let mut text =
                "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                            fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
                    .to_owned();
            for ip in ips {
                let _ = match domain {
                    "" => writeln!(text, "{ip}\t{name}"),
                    domain => writeln!(text, "{ip}\t{name}.{domain}\t{name}"),
                };
            }
            text
        }
    };
    let aliases = pod.spec.iter().flat_map(|s| s.host_aliases.iter().flatten()).filter(|a| a.hostnames.is_some());
    for (index, alias) in aliases.enumerate() {
        if index == 0 {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n" }, "spec": spec })).unwrap()
    }

    const HOST: &str = "nameserver 9.9.9.9\nsearch corp.example.\noptions edns0\n";

    fn cluster() -> Cluster<'static> {
        Cluster { dns: "10.96.0.10".parse().unwrap(), domain: "cluster.local", host: HOST }
    }

    #[test]
    fn the_policy_chooses_between_cluster_and_host() {
        let inside = "10.96.0.10 | n.svc.cluster.local svc.cluster.local cluster.local corp.example | ndots:5";
        let outside = "9.9.9.9 | corp.example | edns0";
        for (spec, expected) in [
            (json!({ "containers": [] }), inside),
            (json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirst" }), outside),
            (json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" }), inside),
            (json!({ "containers": [], "dnsPolicy": "Default" }), outside),
            (
                json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": { "nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{ "name": "ndots", "value": "2" }, { "name": "use-vc" }] } }),
                "1.1.1.1 | x | ndots:2 use-vc",
            ),
            (
                json!({ "containers": [], "dnsConfig": { "options": [{ "name": "ndots", "value": "1" }] } }),
                "10.96.0.10 | n.svc.cluster.local svc.cluster.local cluster.local corp.example | ndots:1",
            ),
        ] {
            let c = config(&pod(spec.clone()), &cluster());
            assert_eq!(format!("{} | {} | {}", c.servers.join(" "), c.searches.join(" "), c.options.join(" ")), expected, "{spec}");
        }
    }

    #[test]
    fn host_names_and_hosts_files() {
        let plain = pod(json!({ "containers": [] }));
        assert_eq!(host_name(&plain, "cluster.local"), ("p".into(), String::new()));
        let named =
            pod(json!({ "containers": [], "hostname": "h", "subdomain": "s", "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }] }));
        let (name, domain) = host_name(&named, "cluster.local");
        assert_eq!((name.as_str(), domain.as_str()), ("h", "s.n.svc.cluster.local"));
        let text = hosts_file(&named, &["10.0.0.9".parse().unwrap()], &name, &domain, None);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.0.0.9\th.s.n.svc.cluster.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        let mut full = named.clone();
        full.spec.as_mut().unwrap().set_hostname_as_fqdn = Some(true);
        assert_eq!(kernel_host_name(&full, "cluster.local"), "h.s.n.svc.cluster.local");
        let (name, domain) = host_name(&full, "cluster.local");
        assert_eq!(hosts_file(&full, &["10.0.0.9".parse().unwrap()], &name, &domain, None), text);
        assert_eq!(kernel_host_name(&plain, "cluster.local"), "p");
        let long = Pod {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(format!("{}-x", "a".repeat(62))),
                ..Default::default()
            },
            ..plain
        };
        assert_eq!(host_name(&long, "d").0, "a".repeat(62));
    }
}

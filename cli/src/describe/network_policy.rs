//! Network policies, in the words of upstream's `describeNetworkPolicy`.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Writer;
use super::format::{int_or_string, selector};

const INDENT: &str = "    ";

pub(super) fn describe(w: &mut Writer, policy: &NetworkPolicy) {
    let (meta, spec) = (&policy.metadata, policy.spec.clone().unwrap_or_default());
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    let created =
        meta.creation_timestamp.as_ref().map(|t| t.0.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string());
    w.field(0, "Created on", created.unwrap_or_default());
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    w.write(0, "Spec:\n");
    let pods = match &spec.pod_selector {
        Some(pods) if *pods != LabelSelector::default() => selector(Some(pods)),
        _ => "<none> (Allowing the specific traffic to all pods in this namespace)".into(),
    };
    w.write(1, &format!("PodSelector:     {pods}\n"));
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let ingress = types.is_empty() || types.iter().any(|t| t == "Ingress");
    let egress = types.iter().any(|t| t == "Egress") || types.is_empty() && spec.egress.as_ref().is_some_and(|e| !e.is_empty());
    let rules = spec.ingress.iter().flatten().map(|r| (r.ports.as_deref(), r.from.as_deref())).collect::<Vec<_>>();
    direction(w, "ingress", ingress, &rules, ("From", "source"));
    let rules = spec.egress.iter().flatten().map(|r| (r.ports.as_deref(), r.to.as_deref())).collect::<Vec<_>>();
    direction(w, "egress", egress, &rules, ("To", "destination"));
    w.write(1, &format!("Policy Types: {}\n", if types.is_empty() { "<none>".into() } else { types.join(", ") }));
}

type Rule<'a> = (Option<&'a [NetworkPolicyPort]>, Option<&'a [NetworkPolicyPeer]>);

fn direction(w: &mut Writer, name: &str, enabled: bool, rules: &[Rule<'_>], (word, end): (&str, &str)) {
    if !enabled {
        return w.write(1, &format!("Not affecting {name} traffic\n"));
    }
    w.write(1, &format!("Allowing {name} traffic:\n"));
    if rules.is_empty() {
        return w.write(0, &format!("{INDENT}<none> (Selected pods are isolated for {name} connectivity)\n"));
    }
    for (index, (ports, peers)) in rules.iter().enumerate() {
        let (ports, peers) = (ports.unwrap_or_default(), peers.unwrap_or_default());
        if ports.is_empty() {
            w.write(0, &format!("{INDENT}To Port: <any> (traffic allowed to all ports)\n"));
        }
        ports.iter().for_each(|p| port(w, p));
        if peers.is_empty() {
            w.write(0, &format!("{INDENT}{word}: <any> (traffic not restricted by {end})\n"));
        }
        for peer in peers {
            w.write(0, &format!("{INDENT}{word}:\n"));
            self::peer(w, peer);
        }
        if index + 1 < rules.len() {
            w.write(0, &format!("{INDENT}----------\n"));
        }
    }
}

fn port(w: &mut Writer, port: &NetworkPolicyPort) {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = port.port.as_ref().map_or_else(|| "<nil>".into(), int_or_string);
    w.write(
        0,
        &match port.end_port {
            None => format!("{INDENT}To Port: {number}/{protocol}\n"),
            Some(end) => format!("{INDENT}To Port Range: {number}-{end}/{protocol}\n"),
        },
    );
}

fn peer(w: &mut Writer, peer: &NetworkPolicyPeer) {
    if let Some(namespaces) = &peer.namespace_selector {
        w.write(1, &format!("{INDENT}NamespaceSelector: {}\n", selector(Some(namespaces))));
    }
    if let Some(pods) = &peer.pod_selector {
        w.write(1, &format!("{INDENT}PodSelector: {}\n", selector(Some(pods))));
    }
    if let (Some(block), None, None) = (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        w.write(1, &format!("{INDENT}IPBlock:\n"));
        w.write(2, &format!("{INDENT}CIDR: {}\n", block.cidr));
        w.write(2, &format!("{INDENT}Except: {}\n", block.except.as_deref().unwrap_or_default().join(", ")));
    }
}

//! Validation of a pod's spec as a whole (`ValidatePodSpec`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use shared::field::{Error, ErrorList, Path};
use shared::selector::qualified_name_errors;

use super::{affinity, containers, security, volumes};
use crate::registry::validation::{BAD_IP, check, dns1123_label, dns1123_subdomain, inclusive_range, ip, meta, one_of, required_one_of, resources};

/// Where a spec stands: some rules hold only for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// In a Pod.
    Pod,
    /// In a workload's template.
    Template,
}

/// Volumes by name, for the checks of mounts.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// Rules of a spec, after defaulting.
pub fn spec(path: &Path, spec: &PodSpec, used: Use, errors: &mut ErrorList) {
    let volumes = volumes::volumes(&path.child("volumes"), spec.volumes.as_deref().unwrap_or_default(), errors);
    containers::containers(path, spec, &volumes, errors);
    pod_resources(&path.child("resources"), spec, errors);
    host_ports(path, spec, used, errors);
    required_one_of(&path.child("restartPolicy"), spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"], errors);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    required_one_of(&path.child("dnsPolicy"), spec.dns_policy.as_deref(), &dns, errors);
    meta::labels(&path.child("nodeSelector"), spec.node_selector.as_ref(), errors);
    security::pod(path, spec, errors);
    affinity::affinity(&path.child("affinity"), spec.affinity.as_ref(), errors);
    dns_config(&path.child("dnsConfig"), spec, errors);
    gates(path, spec, errors);
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    affinity::topology_spread(&path.child("topologySpreadConstraints"), constraints, errors);
    names(path, spec, errors);
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        errors.push(Error::invalid(&path.child("activeDeadlineSeconds"), seconds, &inclusive_range(1, i64::from(i32::MAX))));
    }
    affinity::tolerations(&path.child("tolerations"), spec.tolerations.as_deref().unwrap_or_default(), errors);
    host_aliases(&path.child("hostAliases"), spec, errors);
    one_of(&path.child("preemptionPolicy"), spec.preemption_policy.as_deref(), &["PreemptLowerPriority", "Never"], errors);
    resources::list(&path.child("overhead"), spec.overhead.as_ref(), errors);
    if let Some(os) = &spec.os {
        required_one_of(&path.child("os").child("name"), Some(&os.name), &["linux", "windows"], errors);
    }
    if used == Use::Pod {
        only_for_pods(path, spec, errors);
    }
}

/// Names and references by name.
fn names(path: &Path, spec: &PodSpec, errors: &mut ErrorList) {
    type Rule = fn(&str) -> Vec<String>;
    let names: [(&str, &Option<String>, Rule); 6] = [
        ("serviceAccountName", &spec.service_account_name, dns1123_subdomain),
        ("nodeName", &spec.node_name, dns1123_subdomain),
        ("hostname", &spec.hostname, dns1123_label),
        ("subdomain", &spec.subdomain, dns1123_label),
        ("priorityClassName", &spec.priority_class_name, dns1123_subdomain),
        ("runtimeClassName", &spec.runtime_class_name, dns1123_subdomain),
    ];
    for (field, value, rule) in names {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            check(&path.child(field), value, rule(value), errors);
        }
    }
}

fn pod_resources(path: &Path, spec: &PodSpec, errors: &mut ErrorList) {
    let Some(resources) = &spec.resources else { return };
    if resources.claims.as_ref().is_some_and(|c| !c.is_empty()) {
        errors.push(Error::forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level"));
    }
    resources::requirements(path, resources, errors);
}

/// On the host's network a container's port is the host's.
fn host_ports(path: &Path, spec: &PodSpec, used: Use, errors: &mut ErrorList) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host = port.host_port.unwrap_or_default();
            if (used == Use::Pod || host != 0) && host != port.container_port {
                let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                errors.push(Error::invalid(&path, host, "must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
}

fn dns_config(path: &Path, spec: &PodSpec, errors: &mut ErrorList) {
    let none = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if none {
            errors.push(Error::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if none && servers.is_empty() {
        errors.push(Error::required(&path.child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None"));
        return;
    }
    if servers.len() > 3 {
        errors.push(Error::invalid(&path.child("nameservers"), servers, "must not have more than 3 nameservers"));
    }
    for (index, server) in servers.iter().enumerate().filter(|(_, s)| ip(s).is_none()) {
        errors.push(Error::invalid(&path.child("nameservers").index(index), server, BAD_IP));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > 32 {
        errors.push(Error::invalid(&path.child("searches"), searches, "must not have more than 32 search paths"));
    }
    if searches.join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.push(Error::invalid(&path.child("searches"), searches, detail));
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_ref().is_none_or(String::is_empty) {
            errors.push(Error::required(&path.child("options").index(index), "must not be empty"));
        }
    }
}

/// Readiness and scheduling gates.
fn gates(path: &Path, spec: &PodSpec, errors: &mut ErrorList) {
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.child("readinessGates").index(index).child("conditionType");
        check(&path, &gate.condition_type, qualified_name_errors(&gate.condition_type), errors);
    }
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    for (index, gate) in gates.iter().enumerate() {
        let path = path.child("schedulingGates").index(index);
        check(&path, &gate.name, qualified_name_errors(&gate.name), errors);
        if gates[..index].contains(gate) {
            errors.push(Error::duplicate(&path, &gate.name));
        }
    }
}

fn host_aliases(path: &Path, spec: &PodSpec, errors: &mut ErrorList) {
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.index(index);
        if ip(&alias.ip).is_none() {
            errors.push(Error::invalid(&path.child("ip"), &alias.ip, BAD_IP));
        }
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            check(&path.child("hostnames").index(index), name, dns1123_subdomain(name), errors);
        }
    }
}

/// Rules that templates are spared, for compatibility.
fn only_for_pods(path: &Path, spec: &PodSpec, errors: &mut ErrorList) {
    let untrimmed = |c: &Container| c.image.as_ref().is_some_and(|i| i.trim().len() != i.len());
    let lists = [("containers", spec.containers.as_slice()), ("initContainers", spec.init_containers.as_deref().unwrap_or_default())];
    for (field, list) in lists {
        for (index, container) in list.iter().enumerate().filter(|(_, c)| untrimmed(c)) {
            let path = path.child(field).index(index).child("image");
            errors.push(Error::invalid(&path, &container.image, "must not have leading or trailing whitespace"));
        }
    }
    if spec.service_account_name.as_ref().is_none_or(String::is_empty) {
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
            for (source, _) in sources.enumerate().filter(|(_, s)| s.service_account_token.is_some()) {
                let path = path.child("volumes").index(index).child("projected").child("sources").index(source).child("serviceAccountToken");
                errors.push(Error::forbidden(&path, "must not be specified when serviceAccountName is not set"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::testing::with;

    fn errors_of(patch: Value, used: Use) -> Vec<String> {
        let base = json!({"containers": [{"name": "c", "image": "i"}]});
        let mut spec: PodSpec = serde_json::from_value(with(base, patch)).unwrap();
        super::super::default_spec(&mut spec);
        let mut errors = Vec::new();
        super::spec(&Path::new("spec"), &spec, used, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_rule_names_its_field() {
        for (patch, expected) in [
            (json!({}), vec![]),
            (json!({"containers": []}), vec!["spec.containers: Required value"]),
            (
                json!({"restartPolicy": "Sometimes"}),
                vec!["spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\""],
            ),
            (json!({"dnsPolicy": "None"}), vec!["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]),
            (
                json!({"dnsConfig": {"nameservers": ["x"]}}),
                vec!["spec.dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
            ),
            (json!({"activeDeadlineSeconds": 0}), vec!["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"]),
            (json!({"schedulingGates": [{"name": "g"}, {"name": "g"}]}), vec!["spec.schedulingGates[1]: Duplicate value: \"g\""]),
            (json!({"os": {"name": "plan9"}}), vec!["spec.os.name: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""]),
            (
                json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 81}]}]}),
                vec!["spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"],
            ),
        ] {
            assert_eq!(errors_of(patch.clone(), Use::Template), expected, "{patch}");
        }
        assert!(errors_of(json!({"hostname": "A"}), Use::Template)[0].starts_with("spec.hostname: Invalid value: \"A\": a lowercase RFC 1123 label"));
    }

    #[test]
    fn pods_are_held_to_more_than_templates() {
        let spaced = json!({"containers": [{"name": "c", "image": " i"}]});
        assert!(errors_of(spaced.clone(), Use::Template).is_empty());
        assert_eq!(errors_of(spaced, Use::Pod), ["spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace"]);
        let token = json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
        assert_eq!(
            errors_of(token, Use::Pod),
            ["spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"]
        );
    }
}

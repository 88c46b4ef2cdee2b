//! Ingresses (`pkg/registry/networking/ingress/strategy.go`, `pkg/apis/networking/validation/validation.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressSpec};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{BAD_IP, Messages, check, dns1035_label, dns1123_subdomain, ip, path_segment, port_name, port_number};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// See the module.
pub struct Ingresses;

impl Strategy for Ingresses {
    type Object = Ingress;
    const PLURAL: &'static str = "ingresses";
    const SINGULAR: &'static str = "ingress";
    const SHORT_NAMES: &'static [&'static str] = &["ing"];
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const STORAGE: &'static str = "ingress";
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] =
        &[Column::name(), Column::new("Class"), Column::new("Hosts"), Column::new("Address"), Column::new("Ports"), print::AGE];

    fn prepare_for_create(object: &mut Ingress) {
        object.status = Some(Default::default());
        object.status.get_or_insert_default().load_balancer = Some(Default::default());
    }

    fn validate(object: &Ingress) -> ErrorList {
        let mut errors = Vec::new();
        let none = IngressSpec::default();
        spec(&Path::new("spec"), object.spec.as_ref().unwrap_or(&none), &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut Ingress, old: &Ingress) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut Ingress, old: &Ingress) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(new: &Ingress, _old: &Ingress) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("status").child("loadBalancer").child("ingress");
        let points = new.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|l| l.ingress.iter().flatten());
        for (index, point) in points.enumerate() {
            let path = path.index(index);
            if let Some(address) = point.ip.as_deref().filter(|a| !a.is_empty() && ip(a).is_none()) {
                errors.push(Error::invalid(&path.child("ip"), address, BAD_IP));
            }
            if let Some(name) = point.hostname.as_deref().filter(|n| !n.is_empty()) {
                check(&path.child("hostname"), name, dns1123_subdomain(name), &mut errors);
                if ip(name).is_some() {
                    errors.push(Error::invalid(&path.child("hostname"), name, "must be a DNS name, not an IP address"));
                }
            }
        }
        errors
    }

    fn spec_changed(new: &Ingress, old: &Ingress) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &Ingress, context: &PrintContext) -> Vec<Value> {
        let none = IngressSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let points = object.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|l| l.ingress.iter().flatten());
        let addresses: BTreeSet<String> =
            points.filter_map(|p| p.ip.clone().filter(|ip| !ip.is_empty()).or_else(|| p.hostname.clone())).filter(|a| !a.is_empty()).collect();
        let secure = spec.tls.as_ref().is_some_and(|t| !t.is_empty());
        vec![
            print::name(&object.metadata),
            print::or_none_keep_empty(spec.ingress_class_name.as_deref()),
            hosts(spec).into(),
            addresses.into_iter().collect::<Vec<_>>().join(",").into(),
            if secure { "80, 443" } else { "80" }.into(),
            print::age(&object.metadata, context),
        ]
    }
}

/// The rules' hosts, three at most; `*` when no rule has one.
fn hosts(spec: &IngressSpec) -> String {
    const MAX: usize = 3;
    let rules = spec.rules.as_deref().unwrap_or_default();
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == MAX;
        if let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty() && !more) {
            shown.push(host);
        }
    }
    match shown.is_empty() {
        true => "*".into(),
        false if more => format!("{} + {} more...", shown.join(","), rules.len() - MAX),
        false => shown.join(","),
    }
}

fn spec(path: &Path, spec: &IngressSpec, errors: &mut ErrorList) {
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        errors.push(Error::invalid(path, &spec.rules, "either `defaultBackend` or `rules` must be specified"));
    }
    if let Some(default) = &spec.default_backend {
        backend(&path.child("defaultBackend"), default, errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        if let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty()) {
            if ip(host).is_some() {
                errors.push(Error::invalid(&path.child("host"), host, "must be a DNS name, not an IP address"));
            }
            check(&path.child("host"), host, host_name(host), errors);
        }
        let Some(http) = &rule.http else { continue };
        let path = path.child("http").child("paths");
        if http.paths.is_empty() {
            errors.push(Error::required(&path, ""));
        }
        http.paths.iter().enumerate().for_each(|(index, item)| http_path(&path.index(index), item, errors));
    }
    for (index, tls) in spec.tls.iter().flatten().enumerate() {
        let path = path.child("tls").index(index);
        for (index, host) in tls.hosts.iter().flatten().enumerate() {
            check(&path.child("hosts").index(index), host, host_name(host), errors);
        }
        if let Some(secret) = tls.secret_name.as_deref().filter(|s| !s.is_empty()) {
            check(&path.child("secretName"), secret, dns1123_subdomain(secret), errors);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        check(&path.child("ingressClassName"), class, dns1123_subdomain(class), errors);
    }
}

fn host_name(host: &str) -> Messages {
    if !host.contains('*') {
        return dns1123_subdomain(host);
    }
    let good = host.strip_prefix("*.").is_some_and(|rest| dns1123_subdomain(rest).is_empty());
    if good { Messages::new() } else { vec![WILDCARD.into()] }
}

fn http_path(path: &Path, item: &HTTPIngressPath, errors: &mut ErrorList) {
    let value = item.path.as_deref().unwrap_or_default();
    let field = path.child("path");
    match item.path_type.as_str() {
        "" => return errors.push(Error::required(&path.child("pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.push(Error::invalid(&field, value, "must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|s| value.contains(**s)) {
                errors.push(Error::invalid(&field, value, &format!("must not contain '{sequence}'")));
            }
            for suffix in ["/..", "/."].iter().filter(|s| value.ends_with(**s)) {
                errors.push(Error::invalid(&field, value, &format!("cannot end with '{suffix}'")));
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.push(Error::invalid(&field, value, "must be an absolute path"));
            }
        }
        other => errors.push(Error::not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"])),
    }
    backend(&path.child("backend"), &item.backend, errors);
}

fn backend(path: &Path, backend: &IngressBackend, errors: &mut ErrorList) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => errors.push(Error::invalid(path, "", "cannot set both resource and service backends")),
        (None, None) => errors.push(Error::invalid(path, "", "resource or service backend is required")),
        (Some(resource), None) => {
            let path = path.child("resource");
            if let Some(group) = &resource.api_group {
                check(&path.child("apiGroup"), group, dns1123_subdomain(group), errors);
            }
            for (field, value) in [("kind", &resource.kind), ("name", &resource.name)] {
                match value.as_str() {
                    "" => errors.push(Error::required(&path.child(field), "")),
                    value => check(&path.child(field), value, path_segment(value), errors),
                }
            }
        }
        (None, Some(service)) => {
            let name = path.child("service").child("name");
            match service.name.as_str() {
                "" => errors.push(Error::required(&name, "")),
                value => check(&name, value, dns1035_label(value), errors),
            }
            let port = service.port.clone().unwrap_or_default();
            let field = path.child("service").child("port");
            match (port.name.filter(|n| !n.is_empty()), port.number.filter(|n| *n != 0)) {
                (Some(_), Some(_)) => errors.push(Error::invalid(path, "", "cannot set both port name & port number")),
                (Some(name), None) => check(&field.child("name"), &name, port_name(&name), errors),
                (None, Some(number)) => check(&field.child("number"), number, port_number(number.into()), errors),
                (None, None) => errors.push(Error::required(path, "port name or number is required")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn ingress(path: Value) -> Value {
        json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.b", "http": {"paths": [path]}}]}})
    }

    #[test]
    fn paths_and_backends_are_checked() {
        let good = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}});
        let of = |patch: Value| errors::<Ingresses>(ingress(with(good.clone(), patch)));
        assert!(of(json!({})).is_empty());
        let field = "spec.rules[0].http.paths[0]";
        assert_eq!(of(json!({"pathType": null})), [format!("{field}.pathType: Required value: pathType must be specified")]);
        assert_eq!(of(json!({"path": "x"})), [format!("{field}.path: Invalid value: \"x\": must be an absolute path")]);
        assert_eq!(of(json!({"path": "/a//b"})), [format!("{field}.path: Invalid value: \"/a//b\": must not contain '//'")]);
        assert_eq!(
            of(json!({"backend": {"service": {"port": null}}})),
            [format!("{field}.backend: Required value: port name or number is required")]
        );
        assert_eq!(errors::<Ingresses>(json!({"spec": {}})), ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]);
    }

    #[test]
    fn hosts_may_begin_with_a_wildcard() {
        assert!(host_name("*.a.b").is_empty() && host_name("a.b").is_empty());
        assert_eq!(host_name("a.*.b"), [WILDCARD]);
    }

    #[test]
    fn rows_show_hosts_and_addresses() {
        let rules: Vec<_> = ["a", "b", "c", "d"].iter().map(|h| json!({"host": h})).collect();
        let row = cells::<Ingresses>(json!({
            "metadata": {"name": "i"}, "spec": {"ingressClassName": "nginx", "rules": rules, "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}
        }));
        assert_eq!(row, ["i", "nginx", "a,b,c + 1 more...", "1.2.3.4", "80, 443", "<unknown>"]);
        assert_eq!(cells::<Ingresses>(json!({"spec": {}}))[1..5], ["<none>", "*", "", "80"]);
    }
}

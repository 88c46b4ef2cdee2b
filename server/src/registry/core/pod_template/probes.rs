//! Validation of probes and lifecycle handlers (`validateProbe`, `validateHandler`).

use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, Probe, SleepAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{not_negative, one_of, port_number_or_name};

/// Every probe and handler of a container. `grace` is the pod's termination grace period in seconds.
pub fn all(path: &Path, container: &Container, grace: Option<i64>, errors: &mut ErrorList) {
    if let Some(lifecycle) = &container.lifecycle {
        for (field, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            let Some(handler) = handler else { continue };
            let actions = Actions {
                exec: handler.exec.as_ref(),
                http_get: handler.http_get.as_ref(),
                tcp_socket: handler.tcp_socket.as_ref(),
                grpc: None,
                sleep: handler.sleep.as_ref(),
            };
            actions.validate(&path.child("lifecycle").child(field), grace, errors);
        }
    }
    probe(&path.child("livenessProbe"), container.liveness_probe.as_ref(), errors);
    probe(&path.child("readinessProbe"), container.readiness_probe.as_ref(), errors);
    probe(&path.child("startupProbe"), container.startup_probe.as_ref(), errors);
    for (field, probe) in [("livenessProbe", &container.liveness_probe), ("startupProbe", &container.startup_probe)] {
        if let Some(threshold) = probe.as_ref().and_then(|p| p.success_threshold).filter(|t| *t != 1) {
            errors.push(Error::invalid(&path.child(field).child("successThreshold"), threshold, "must be 1"));
        }
    }
    if let Some(period) = container.readiness_probe.as_ref().and_then(|p| p.termination_grace_period_seconds) {
        let path = path.child("readinessProbe").child("terminationGracePeriodSeconds");
        errors.push(Error::invalid(&path, period, "must not be set for readinessProbes"));
    }
}

fn probe(path: &Path, probe: Option<&Probe>, errors: &mut ErrorList) {
    let Some(probe) = probe else { return };
    let actions = Actions {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    actions.validate(path, None, errors);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        not_negative(&path.child(field), value.map(i64::from), errors);
    }
    if let Some(period) = probe.termination_grace_period_seconds.filter(|p| *p <= 0) {
        errors.push(Error::invalid(&path.child("terminationGracePeriodSeconds"), period, "must be greater than 0"));
    }
}

/// What a probe or handler may do; exactly one is set.
struct Actions<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Actions<'_> {
    fn validate(&self, path: &Path, grace: Option<i64>, errors: &mut ErrorList) {
        let set = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut names = set.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
        let Some(first) = names.next() else {
            return errors.push(Error::required(path, "must specify a handler type"));
        };
        self.one(&path.child(first), first, grace, errors);
        errors.extend(names.map(|name| Error::forbidden(&path.child(name), "may not specify more than 1 handler type")));
    }

    fn one(&self, path: &Path, name: &str, grace: Option<i64>, errors: &mut ErrorList) {
        match name {
            "exec" if self.exec.is_some_and(|e| e.command.as_ref().is_none_or(Vec::is_empty)) => {
                errors.push(Error::required(&path.child("command"), ""));
            }
            "httpGet" => self.http_get.iter().for_each(|http| {
                port_number_or_name(&path.child("port"), &http.port, errors);
                one_of(&path.child("scheme"), http.scheme.as_deref(), &["HTTP", "HTTPS"], errors);
                for header in http.http_headers.iter().flatten().filter(|h| !is_header_name(&h.name)) {
                    let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                    errors.push(Error::invalid(&path.child("httpHeaders"), &header.name, detail));
                }
            }),
            "tcpSocket" => self.tcp_socket.iter().for_each(|tcp| port_number_or_name(&path.child("port"), &tcp.port, errors)),
            "grpc" => self.grpc.iter().for_each(|grpc| port_number_or_name(&path.child("port"), &IntOrString::Int(grpc.port), errors)),
            "sleep" => {
                if let (Some(sleep), Some(grace)) = (self.sleep, grace)
                    && !(0..=grace).contains(&sleep.seconds)
                {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.push(Error::invalid(path, sleep.seconds, &detail));
                }
            }
            _ => {}
        }
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn errors_of(patch: Value) -> Vec<String> {
        let container = crate::registry::testing::with(json!({"name": "c"}), patch);
        let mut spec = serde_json::from_value(json!({"containers": [container]})).unwrap();
        super::super::default_spec(&mut spec);
        let mut errors = Vec::new();
        all(&Path::new("c"), &spec.containers[0], Some(30), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_probe_does_exactly_one_thing() {
        for (container, expected) in [
            (json!({"livenessProbe": {"httpGet": {"port": 80}}}), vec![]),
            (json!({"livenessProbe": {}}), vec!["c.livenessProbe: Required value: must specify a handler type"]),
            (
                json!({"readinessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}}),
                vec!["c.readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
            ),
            (json!({"startupProbe": {"exec": {}}}), vec!["c.startupProbe.exec.command: Required value"]),
            (
                json!({"livenessProbe": {"httpGet": {"port": 0}}}),
                vec!["c.livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (
                json!({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}}),
                vec!["c.livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (
                json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
                vec!["c.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"],
            ),
            (
                json!({"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": -1}}),
                vec!["c.readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ] {
            assert_eq!(errors_of(container.clone()), expected, "{container}");
        }
    }
}

//! The CRI configuration of a pod's sandbox (`pkg/kubelet/kuberuntime/kuberuntime_sandbox.go`).
//!
//! Pure.

use std::path::Path;

use k8s_cri::v1::{self as cri, NamespaceMode, PodSandboxConfig};
use k8s_openapi::api::core::v1::{AppArmorProfile, Pod, SELinuxOptions, SeccompProfile};

use super::{dns, spec};
use crate::kubelet::cgroups;
use crate::kubelet::runtime::labels;

/// What a sandbox's configuration depends on besides the pod.
pub struct Input<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// How many sandboxes it had before.
    pub attempt: u32,
    /// Cluster and host name service.
    pub dns: dns::Cluster<'a>,
    /// Parent of every pod's cgroup.
    pub cgroup_root: &'a str,
    /// Parent of every pod's log directory.
    pub logs: &'a Path,
    /// Where localhost seccomp profiles are.
    pub seccomp: &'a Path,
    /// Whether the kernel has AppArmor.
    pub app_armor: bool,
}

/// `<logs>/<namespace>_<name>_<uid>`
pub fn log_directory(logs: &Path, pod: &Pod) -> std::path::PathBuf {
    logs.join(format!("{}_{}_{}", spec::namespace(pod), spec::name(pod), spec::uid(pod)))
}

/// The configuration of a sandbox.
pub fn config(input: &Input<'_>) -> PodSandboxConfig {
    let pod = input.pod;
    let hostname = dns::kernel_host_name(pod, input.dns.domain);
    let limits = cgroups::pod_limits(pod);
    PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: spec::name(pod).into(),
            uid: spec::uid(pod).into(),
            namespace: spec::namespace(pod).into(),
            attempt: input.attempt,
        }),
        hostname: if spec::host_network(pod) { String::new() } else { hostname },
        log_directory: log_directory(input.logs, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns::config(pod, &input.dns)),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroups::pod_path(input.cgroup_root, pod),
            security_context: Some(security(input)),
            sysctls: sysctls(pod),
            resources: Some(cri::LinuxContainerResources {
                cpu_shares: limits.shares,
                cpu_period: limits.quota.map_or(0, |_| cgroups::PERIOD),
                cpu_quota: limits.quota.unwrap_or(0),
                memory_limit_in_bytes: limits.memory.unwrap_or(0),
                ..Default::default()
            }),
            ..Default::default()
        }),
        windows: None,
    }
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if spec::host_network(pod) {
        return Vec::new();
    }
    let containers = spec::containers(pod);
    let ports = containers.iter().flat_map(|(_, c)| c.ports.iter().flatten()).filter(|p| p.host_port.is_some_and(|h| h > 0));
    ports
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

fn sysctls(pod: &Pod) -> std::collections::HashMap<String, String> {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    context.into_iter().flat_map(|c| c.sysctls.iter().flatten()).map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

/// Namespaces shared with the host or between the pod's containers.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = spec::spec(pod);
    let mode = |host: Option<bool>, otherwise: NamespaceMode| if host == Some(true) { NamespaceMode::Node } else { otherwise } as i32;
    // Explicitly per container: CRI's default would share the pause process's.
    let pid = if spec.share_process_namespace == Some(true) { NamespaceMode::Pod } else { NamespaceMode::Container };
    cri::NamespaceOption {
        network: mode(spec.host_network, NamespaceMode::Pod),
        pid: mode(spec.host_pid, pid),
        ipc: mode(spec.host_ipc, NamespaceMode::Pod),
        ..Default::default()
    }
}

/// A seccomp profile in CRI's terms; absent means unconfined, as upstream without `seccompDefault`.
pub fn seccomp(profile: Option<&SeccompProfile>, dir: &Path) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, path) = match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => (ProfileType::RuntimeDefault, String::new()),
        Some(("Localhost", Some(name))) => (ProfileType::Localhost, dir.join(name).to_string_lossy().into_owned()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref: path }
}

/// An AppArmor profile in CRI's terms, and as the string that older runtimes read (`getAppArmorProfile` in
/// `pkg/kubelet/kuberuntime/helpers_linux.go`). Nothing where the kernel has no AppArmor.
pub fn app_armor(profile: Option<&AppArmorProfile>, supported: bool) -> (Option<cri::SecurityProfile>, String) {
    use cri::security_profile::ProfileType;
    let Some(profile) = profile.filter(|_| supported) else { return (None, String::new()) };
    let name = profile.localhost_profile.clone().unwrap_or_default();
    let (kind, reference, text) = match profile.type_.as_str() {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new(), "runtime/default".to_owned()),
        "Localhost" => (ProfileType::Localhost, name.clone(), format!("localhost/{name}")),
        _ => (ProfileType::Unconfined, String::new(), "unconfined".to_owned()),
    };
    (Some(cri::SecurityProfile { profile_type: kind as i32, localhost_ref: reference }), text)
}

/// SELinux options in CRI's terms.
pub fn se_linux(options: Option<&SELinuxOptions>) -> Option<cri::SeLinuxOption> {
    options.cloned().map(|o| cri::SeLinuxOption {
        user: o.user.unwrap_or_default(),
        role: o.role.unwrap_or_default(),
        r#type: o.type_.unwrap_or_default(),
        level: o.level.unwrap_or_default(),
    })
}

fn security(input: &Input<'_>) -> cri::LinuxSandboxSecurityContext {
    let pod = input.pod;
    let context = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let value = |v: Option<i64>| v.map(|value| cri::Int64Value { value });
    let mut groups = context.supplemental_groups.clone().unwrap_or_default();
    groups.extend(context.fs_group);
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: value(context.run_as_user),
        run_as_group: value(context.run_as_group.filter(|_| context.run_as_user.is_some())),
        supplemental_groups: groups,
        // A privileged container is refused in a sandbox that is not.
        privileged: spec::containers(pod).iter().any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true)),
        seccomp: Some(seccomp(context.seccomp_profile.as_ref(), input.seccomp)),
        apparmor: app_armor(context.app_armor_profile.as_ref(), input.app_armor).0,
        selinux_options: se_linux(context.se_linux_options.as_ref()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sandbox(spec: Value) -> PodSandboxConfig {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec })).unwrap();
        let dns = dns::Cluster { dns: "10.0.0.10".parse().unwrap(), domain: "cluster.local", host: "" };
        config(&Input { pod: &pod, attempt: 2, dns, cgroup_root: "/k", logs: Path::new("/logs"), seccomp: Path::new("/seccomp"), app_armor: true })
    }

    #[test]
    fn a_plain_pod_has_its_own_namespaces_and_an_absolute_cgroup() {
        let config =
            sandbox(json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "hostPort": 8080 }, { "containerPort": 81 }] }] }));
        assert_eq!(config.log_directory, "/logs/n_p_u");
        assert_eq!(config.hostname, "p");
        assert_eq!(config.port_mappings.len(), 1);
        let linux = config.linux.unwrap();
        assert_eq!(linux.cgroup_parent, "/k/besteffort/podu");
        let options = linux.security_context.unwrap().namespace_options.unwrap();
        assert_eq!((options.network(), options.pid(), options.ipc()), (NamespaceMode::Pod, NamespaceMode::Container, NamespaceMode::Pod));
    }

    #[test]
    fn profiles_reach_the_runtime_where_the_kernel_knows_them() {
        let profile = |kind: &str| AppArmorProfile { type_: kind.into(), localhost_profile: (kind == "Localhost").then(|| "web".into()) };
        for (kind, supported, expected) in [
            ("RuntimeDefault", true, "runtime/default"),
            ("Localhost", true, "localhost/web"),
            ("Unconfined", true, "unconfined"),
            ("Unconfined", false, ""),
        ] {
            let (structured, text) = app_armor(Some(&profile(kind)), supported);
            assert_eq!((structured.is_some(), text.as_str()), (supported, expected), "{kind}");
        }
        let config = sandbox(json!({ "containers": [{ "name": "a" }], "securityContext": {
            "seLinuxOptions": { "level": "s0:c1" }, "appArmorProfile": { "type": "RuntimeDefault" } } }));
        let context = config.linux.unwrap().security_context.unwrap();
        assert_eq!(context.selinux_options.unwrap().level, "s0:c1");
        assert!(context.apparmor.is_some());
    }

    #[test]
    fn host_namespaces_and_privilege_reach_the_sandbox() {
        let config = sandbox(json!({ "hostNetwork": true, "hostPID": true, "shareProcessNamespace": false,
            "containers": [{ "name": "a", "securityContext": { "privileged": true }, "ports": [{ "containerPort": 80, "hostPort": 80 }] }] }));
        assert_eq!((config.hostname.as_str(), config.port_mappings.len()), ("", 0));
        let context = config.linux.unwrap().security_context.unwrap();
        assert!(context.privileged);
        let options = context.namespace_options.unwrap();
        assert_eq!((options.network(), options.pid()), (NamespaceMode::Node, NamespaceMode::Node));
    }
}

//! Refuses pods that this node would run weaker than they ask, rather than ignoring in silence what the runtime ignores
//! (`pkg/kubelet/lifecycle/predicate.go` for the shape of a refusal).
//!
//! Pure.

use k8s_openapi::api::core::v1::{Pod, SecurityContext};

use super::spec;
use crate::kubelet::status::Failure;

/// What the node's kernel and runtime offer beyond the ordinary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Abilities {
    /// AppArmor is enabled in the kernel.
    pub app_armor: bool,
    /// SELinux is enabled in the kernel.
    pub selinux: bool,
}

/// Sysctls that are namespaced and harmless (`pkg/kubelet/sysctl/safe_sysctls.go`).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The reason not to run a pod here, if there is one.
pub fn refuse(pod: &Pod, abilities: Abilities) -> Option<Failure> {
    let failure = |reason: &str, message: String| Some(Failure { reason: reason.into(), message });
    let spec = spec::spec(pod);
    let security = spec.security_context.clone().unwrap_or_default();
    for sysctl in security.sysctls.iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return failure("SysctlForbidden", format!("forbidden sysctl: \"{}\" not allowlisted", sysctl.name));
        }
        if spec.host_network == Some(true) && name.starts_with("net.") {
            return failure("SysctlForbidden", format!("forbidden sysctl: \"{}\" not allowed with host net enabled", sysctl.name));
        }
        if spec.host_ipc == Some(true) && name.starts_with("kernel.") {
            return failure("SysctlForbidden", format!("forbidden sysctl: \"{}\" not allowed with host ipc enabled", sysctl.name));
        }
    }
    let unsupported = |what: &str| failure("UnsupportedByNode", format!("Pod was rejected: {what} not supported by this node's container runtime"));
    if spec.host_users == Some(false) {
        return unsupported("user namespaces (hostUsers: false) are");
    }
    if spec.resource_claims.iter().flatten().next().is_some() {
        return unsupported("resource claims are");
    }
    if spec.runtime_class_name.as_deref().is_some_and(|n| !n.is_empty()) {
        return unsupported("runtime classes are");
    }
    if security.supplemental_groups_policy.as_deref() == Some("Strict") {
        return unsupported("supplementalGroupsPolicy: Strict is");
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return failure("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".into());
    }
    let named = |profile: Option<&str>| matches!(profile, Some("Localhost" | "RuntimeDefault"));
    if !abilities.app_armor && named(security.app_armor_profile.as_ref().map(|p| p.type_.as_str())) {
        return failure("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host".into());
    }
    if !abilities.selinux && security.se_linux_options.is_some() {
        return unsupported("seLinuxOptions are");
    }
    spec::containers(pod).iter().find_map(|(_, container)| {
        if container.volume_devices.iter().flatten().next().is_some() {
            return unsupported("block volumes are");
        }
        if container.volume_mounts.iter().flatten().any(|m| m.recursive_read_only.as_deref() == Some("Enabled")) {
            return unsupported("recursive read-only mounts are");
        }
        container.security_context.as_ref().and_then(|security| refuse_container(security, abilities))
    })
}

fn refuse_container(security: &SecurityContext, abilities: Abilities) -> Option<Failure> {
    let failure = |reason: &str, message: String| Some(Failure { reason: reason.into(), message });
    let profile = security.app_armor_profile.as_ref().map(|p| p.type_.as_str());
    if !abilities.app_armor && matches!(profile, Some("Localhost" | "RuntimeDefault")) {
        return failure("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host".into());
    }
    if !abilities.selinux && security.se_linux_options.is_some() {
        return failure("UnsupportedByNode", "Pod was rejected: seLinuxOptions are not supported by this node's container runtime".into());
    }
    let capabilities = security.capabilities.clone().unwrap_or_default();
    let unknown = capabilities.add.iter().chain(&capabilities.drop).flatten().find(|c| !is_capability(c));
    unknown.and_then(|name| failure("UnsupportedByNode", format!("Pod was rejected: unknown capability \"{name}\"")))
}

/// Linux capabilities without their prefix. containerd 1.6 drops unknown names in silence.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

fn is_capability(name: &str) -> bool {
    let upper = name.to_uppercase();
    upper == "ALL" || CAPABILITIES.contains(&upper.strip_prefix("CAP_").unwrap_or(&upper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reason(spec: Value) -> Option<String> {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{ "name": "a" }]);
        }
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        refuse(&pod, Abilities::default()).map(|f| f.reason)
    }

    #[test]
    fn what_would_run_weaker_is_refused() {
        let container = |context: Value| json!({ "containers": [{ "name": "a", "securityContext": context }] });
        for (spec, expected) in [
            (json!({}), None),
            (json!({ "hostUsers": true }), None),
            (json!({ "hostUsers": false }), Some("UnsupportedByNode")),
            (json!({ "runtimeClassName": "gvisor" }), Some("UnsupportedByNode")),
            (json!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] } }), Some("SysctlForbidden")),
            (json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_syncookies", "value": "1" }] } }), None),
            (container(json!({ "capabilities": { "add": ["NET_ADMIN", "CAP_SYS_PTRACE"], "drop": ["ALL"] } })), None),
            (container(json!({ "capabilities": { "add": ["FLY"] } })), Some("UnsupportedByNode")),
            (container(json!({ "appArmorProfile": { "type": "RuntimeDefault" } })), Some("AppArmor")),
            (container(json!({ "appArmorProfile": { "type": "Unconfined" } })), None),
        ] {
            assert_eq!(reason(spec.clone()).as_deref(), expected, "{spec}");
        }
    }
}

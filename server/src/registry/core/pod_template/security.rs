//! Validation of security contexts (`ValidateSecurityContext`, `validatePodSpecSecurityContext`).

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};
use shared::field::{Error, ErrorList, Path};

use super::containers::descending;
use crate::registry::validation::{inclusive_range, one_of, required_one_of};

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// A pod's security context and its use of the host's namespaces.
pub fn pod(path: &Path, spec: &PodSpec, errors: &mut ErrorList) {
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        errors.push(Error::invalid(&path.child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    if spec.host_users == Some(false) {
        for (field, set) in [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)] {
            if set == Some(true) {
                errors.push(Error::forbidden(&path.child(field), "when `pod.Spec.HostUsers` is false"));
            }
        }
    }
    let Some(context) = &spec.security_context else { return };
    let path = path.child("securityContext");
    for (field, id) in [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        identity(&path.child(field), id, errors);
    }
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        identity(&path.child("supplementalGroups").index(index), Some(*group), errors);
    }
    for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = path.child("sysctls").index(index).child("name");
        if sysctl.name.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !is_sysctl(&sysctl.name) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(Error::invalid(&path, &sysctl.name, detail));
        }
    }
    one_of(&path.child("fsGroupChangePolicy"), context.fs_group_change_policy.as_deref(), &["Always", "OnRootMismatch"], errors);
    one_of(&path.child("supplementalGroupsPolicy"), context.supplemental_groups_policy.as_deref(), &["Merge", "Strict"], errors);
    one_of(&path.child("seLinuxChangePolicy"), context.se_linux_change_policy.as_deref(), &["MountOption", "Recursive"], errors);
    seccomp(&path.child("seccompProfile"), context.seccomp_profile.as_ref(), errors);
    app_armor(&path.child("appArmorProfile"), context.app_armor_profile.as_ref(), errors);
}

/// A container's security context.
pub fn container(path: &Path, context: Option<&SecurityContext>, errors: &mut ErrorList) {
    let Some(context) = context else { return };
    identity(&path.child("runAsUser"), context.run_as_user, errors);
    identity(&path.child("runAsGroup"), context.run_as_group, errors);
    one_of(&path.child("procMount"), context.proc_mount.as_deref(), &["Default", "Unmasked"], errors);
    seccomp(&path.child("seccompProfile"), context.seccomp_profile.as_ref(), errors);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(path, context, detail));
        }
        let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        if added.into_iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(path, context, detail));
        }
    }
    app_armor(&path.child("appArmorProfile"), context.app_armor_profile.as_ref(), errors);
}

/// A user or group id.
fn identity(path: &Path, id: Option<i64>, errors: &mut ErrorList) {
    if let Some(id) = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        errors.push(Error::invalid(path, id, &inclusive_range(0, i64::from(i32::MAX))));
    }
}

fn is_sysctl(name: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        bytes.first().is_some_and(|c| alphanumeric(*c))
            && bytes.last().is_some_and(|c| alphanumeric(*c))
            && bytes.iter().all(|c| alphanumeric(*c) || b"-_".contains(c))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn seccomp(path: &Path, profile: Option<&SeccompProfile>, errors: &mut ErrorList) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        errors.push(Error::required(&path.child("type"), "type is required when seccompProfile is set"));
    } else {
        one_of(&path.child("type"), Some(&profile.type_), &PROFILES, errors);
    }
    let file = path.child("localhostProfile");
    match (profile.type_ == "Localhost", &profile.localhost_profile) {
        (true, None) => errors.push(Error::required(&file, "must be set when seccomp type is Localhost")),
        (true, Some(value)) => descending(&file, value, errors),
        (false, Some(_)) => errors.push(Error::invalid(&file, profile, "can only be set when seccomp type is Localhost")),
        (false, None) => {}
    }
}

fn app_armor(path: &Path, profile: Option<&AppArmorProfile>, errors: &mut ErrorList) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        return errors.push(Error::required(&path.child("type"), "type is required when appArmorProfile is set"));
    }
    required_one_of(&path.child("type"), Some(&profile.type_), &PROFILES, errors);
    let file = path.child("localhostProfile");
    match (profile.type_ == "Localhost", profile.localhost_profile.as_deref()) {
        (true, None | Some("")) => errors.push(Error::required(&file, "must be set when AppArmor type is Localhost")),
        (true, Some(value)) if value.trim() != value => {
            errors.push(Error::invalid(&file, value, "must not be padded with whitespace"));
        }
        (false, Some(value)) => errors.push(Error::invalid(&file, value, "can only be set when AppArmor type is Localhost")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contradictions_in_a_context_are_named() {
        let of = |context: serde_json::Value| {
            let mut errors = Vec::new();
            container(&Path::new("c"), Some(&serde_json::from_value(context).unwrap()), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(of(json!({"runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}})).is_empty());
        assert_eq!(of(json!({"runAsUser": -1})), ["c.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"]);
        assert!(of(json!({"allowPrivilegeEscalation": false, "privileged": true}))[0].ends_with("to false and `privileged` to true"));
        assert_eq!(
            of(json!({"seccompProfile": {"type": "Localhost"}})),
            ["c.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"]
        );
        assert_eq!(
            of(json!({"appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}})),
            ["c.appArmorProfile.localhostProfile: Invalid value: \"x\": can only be set when AppArmor type is Localhost"]
        );
    }

    #[test]
    fn sysctl_names_are_checked() {
        assert!(is_sysctl("net.ipv4.ip_unprivileged_port_start") && is_sysctl("kernel/shm_rmid_forced"));
        assert!(!is_sysctl("Kernel.x") && !is_sysctl("a..b") && !is_sysctl(""));
    }
}

//! The CRI configuration of a container (`pkg/kubelet/kuberuntime/kuberuntime_container.go`, `security_context.go`).
//!
//! Pure, but for the sub paths and the files that have to exist before they can be mounted: [`mounts`] makes those.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_cri::v1::{self as cri, ContainerConfig};
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext, VolumeMount};

use super::plan::Start;
use super::spec::{self, Kind};
use super::{dns, sandbox};
use crate::kubelet::cgroups;
use crate::kubelet::env::expand::expand;
use crate::kubelet::runtime::{image_spec, labels};
use crate::kubelet::volumes::{Mounted, PodVolumes, subpath};

/// Hidden from containers unless `procMount: Unmasked`.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Read-only in containers unless `procMount: Unmasked`.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a container's configuration depends on.
pub struct Input<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Kind and restart count.
    pub start: &'a Start,
    /// The image as pulled.
    pub image_ref: &'a str,
    /// User of the image, numeric and by name.
    pub image_user: (Option<i64>, &'a str),
    /// Environment.
    pub env: &'a [(String, String)],
    /// Mounts, see [`mounts`].
    pub mounts: Vec<cri::Mount>,
    /// Container whose process namespace an ephemeral container joins.
    pub target_id: Option<String>,
    /// Memory of the node in bytes.
    pub node_memory: i64,
    /// Where localhost seccomp profiles are.
    pub seccomp: &'a Path,
    /// Whether the kernel has AppArmor.
    pub app_armor: bool,
}

/// The configuration of a container. The error is a message for `CreateContainerConfigError`.
pub fn config(input: &Input<'_>) -> Result<ContainerConfig, String> {
    let (pod, container) = (input.pod, input.container);
    let security = security(input)?;
    let lookup = |name: &str| input.env.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let words = |list: &Option<Vec<String>>| list.iter().flatten().map(|word| expand(word, lookup)).collect();
    Ok(ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: input.start.restart_count }),
        image: Some(cri::ImageSpec { user_specified_image: container.image.clone().unwrap_or_default(), ..image_spec(input.image_ref) }),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: input.env.iter().map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: input.mounts.clone(),
        labels: labels::container_labels(pod, &container.name),
        annotations: labels::container_annotations(pod, container, input.start.restart_count),
        log_path: log_path(&container.name, input.start.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig { resources: Some(resources(pod, container, input.node_memory)), security_context: Some(security) }),
        ..Default::default()
    })
}

/// Log file of an attempt, below the pod's log directory.
pub fn log_path(container: &str, restart_count: u32) -> String {
    format!("{container}/{restart_count}.log")
}

/// What a container is held to. `node_memory` in bytes.
pub fn resources(pod: &Pod, container: &Container, node_memory: i64) -> cri::LinuxContainerResources {
    // Without a limit of its own a container is held to the pod's.
    let bound = |name: &str| spec::limit(container, name).or_else(|| spec::pod_limit(pod, name));
    let limit = bound("cpu").map_or(0, |q| q.millis());
    let request = spec::request(container, "cpu").map_or(limit, |q| q.millis());
    cri::LinuxContainerResources {
        cpu_period: cgroups::PERIOD,
        cpu_quota: cgroups::quota(limit),
        cpu_shares: cgroups::shares(request),
        memory_limit_in_bytes: bound("memory").map_or(0, |q| q.value()),
        oom_score_adj: cgroups::oom_score_adj(pod, container, node_memory),
        ..Default::default()
    }
}

#[allow(deprecated, reason = "older runtimes read the AppArmor profile from its first field only")]
fn security(input: &Input<'_>) -> Result<cri::LinuxContainerSecurityContext, String> {
    let of_pod = input.pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = input.container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(of_pod.run_as_user);
    check_non_root(input, &own, &of_pod, user)?;
    let (image_uid, image_name) = input.image_user;
    let value = |v: Option<i64>| v.map(|value| cri::Int64Value { value });
    let mut groups = of_pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(of_pod.fs_group);
    let mut namespaces = sandbox::namespaces(input.pod);
    if let Some(target) = &input.target_id {
        namespaces.set_pid(cri::NamespaceMode::Target);
        namespaces.target_id.clone_from(target);
    }
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let list = |paths: &[&str]| if unmasked { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() };
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let app_armor_profile = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    let (app_armor, app_armor_text) = sandbox::app_armor(app_armor_profile, input.app_armor);
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces),
        // The runtime wants a user wherever there is a group, so the image's own is spelled out.
        run_as_user: value(user.or(image_uid.filter(|_| image_name.is_empty()))),
        run_as_username: if user.is_none() { image_name.to_owned() } else { String::new() },
        run_as_group: value(own.run_as_group.or(of_pod.run_as_group)),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups,
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: list(&MASKED),
        readonly_paths: list(&READ_ONLY),
        seccomp: Some(sandbox::seccomp(profile.filter(|_| !privileged), input.seccomp)),
        apparmor: app_armor,
        apparmor_profile: app_armor_text,
        selinux_options: sandbox::se_linux(own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref())),
        ..Default::default()
    })
}

/// `verifyRunAsNonRoot` in `pkg/kubelet/kuberuntime/security_context_others.go`.
fn check_non_root(input: &Input<'_>, own: &SecurityContext, of_pod: &PodSecurityContext, user: Option<i64>) -> Result<(), String> {
    if own.run_as_non_root.or(of_pod.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: \"{}\", container: {})", spec::title(input.pod), input.container.name);
    match (user, input.image_user) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _) => Ok(()),
        (None, (_, name)) if !name.is_empty() => {
            Err(format!("container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"))
        }
        (None, (Some(0) | None, _)) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, _) => Ok(()),
    }
}

/// The mounts of a container; makes sub paths, the hosts file and the termination log file. For the blocking threads.
pub fn mounts(place: &Place<'_>, volumes: &PodVolumes) -> Result<Vec<cri::Mount>, String> {
    let container = place.container;
    let mut list = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.get(&mount.name).ok_or_else(|| format!("volume \"{}\" is not mounted", mount.name))?;
        list.push(volume_mount(place, mount, index, volume)?);
    }
    let targets: Vec<String> = list.iter().map(|m: &cri::Mount| m.container_path.clone()).collect();
    if !targets.iter().any(|t| t == "/etc/hosts") {
        let path = place.dir.join("etc-hosts");
        let host = spec::host_network(place.pod).then(|| std::fs::read_to_string("/etc/hosts").unwrap_or_default());
        let (name, domain) = dns::host_name(place.pod, place.domain);
        let text = dns::hosts_file(place.pod, place.pod_ips, &name, &domain, host.as_deref());
        write_in_place(&path, &text, 0o644)?;
        list.push(plain("/etc/hosts", &path));
    }
    let last_words = container.termination_message_path.as_deref().unwrap_or_default();
    if !last_words.is_empty() {
        let path = place.dir.join("containers").join(&container.name).join(format!("{:08x}", rand::random::<u32>()));
        // Containers that do not run as root write to it as well.
        write_in_place(&path, "", 0o666)?;
        list.push(plain(last_words, &path));
    }
    Ok(list)
}

/// Where a container's mounts come from.
pub struct Place<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// `<root>/pods/<uid>`
    pub dir: &'a Path,
    /// The pod's addresses.
    pub pod_ips: &'a [std::net::IpAddr],
    /// Cluster domain.
    pub domain: &'a str,
    /// Environment, for `subPathExpr`.
    pub env: &'a [(String, String)],
}

fn plain(container_path: &str, host_path: &Path) -> cri::Mount {
    cri::Mount { container_path: container_path.into(), host_path: host_path.to_string_lossy().into_owned(), ..Default::default() }
}

/// Writes without replacing the file, which running containers have mounted. The mode holds whatever this process's umask is.
fn write_in_place(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("writing {}: {e}", path.display());
    if !std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fail)?;
        }
        std::fs::write(path, text).map_err(fail)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)
}

fn volume_mount(place: &Place<'_>, mount: &VolumeMount, index: usize, volume: &Mounted) -> Result<cri::Mount, String> {
    let sub = sub_path(mount, place.env)?;
    let host_path: PathBuf = if sub.is_empty() {
        volume.path.clone()
    } else {
        let target = place.dir.join("volume-subpaths").join(&mount.name).join(&place.container.name).join(index.to_string());
        subpath::prepare(&volume.path, &sub, &target)?
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    };
    let target = &mount.mount_path;
    Ok(cri::Mount {
        container_path: if target.starts_with('/') { target.clone() } else { format!("/{target}") },
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: mount.read_only == Some(true) || volume.read_only,
        propagation: propagation as i32,
        ..Default::default()
    })
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<String, String> {
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    if expression.is_empty() {
        return Ok(mount.sub_path.clone().unwrap_or_default());
    }
    let missing = std::cell::Cell::new(false);
    let expanded = expand(expression, |name| {
        let value = env.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        missing.set(missing.get() || value.is_none());
        value
    });
    if missing.get() {
        return Err(format!("missing value for \"{expression}\""));
    }
    Ok(expanded)
}

/// Whether the kind of container has lifecycle hooks and probes.
pub fn has_hooks(kind: Kind) -> bool {
    matches!(kind, Kind::Main | Kind::Sidecar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn build(spec: Value, image_user: (Option<i64>, &str)) -> Result<ContainerConfig, String> {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec })).unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        config(&Input {
            pod: &pod,
            container: &container,
            start: &Start { kind: Kind::Main, name: container.name.clone(), restart_count: 3 },
            image_ref: "sha256:1",
            image_user,
            env: &[("A".into(), "1".into())],
            mounts: vec![],
            target_id: None,
            node_memory: 1 << 30,
            seccomp: Path::new("/seccomp"),
            app_armor: true,
        })
    }

    #[test]
    fn commands_expand_and_limits_become_cgroup_values() {
        let config = build(
            json!({ "containers": [{ "name": "a", "image": "x", "command": ["sh"], "args": ["$(A)", "$(B)"],
                "resources": { "limits": { "cpu": "500m", "memory": "64Mi" } } }] }),
            (Some(0), ""),
        )
        .unwrap();
        assert_eq!(config.args, ["1", "$(B)"]);
        assert_eq!(config.log_path, "a/3.log");
        let linux = config.linux.unwrap();
        let resources = linux.resources.unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_shares, resources.memory_limit_in_bytes), (50_000, 512, 64 << 20));
        assert_eq!(linux.security_context.unwrap().namespace_options.unwrap().pid(), cri::NamespaceMode::Container);
    }

    #[test]
    fn non_root_is_verified_before_anything_runs() {
        let spec = |user: Value| json!({ "securityContext": { "runAsNonRoot": true, "runAsUser": user }, "containers": [{ "name": "a" }] });
        for (user, image, message) in [
            (json!(1000), (Some(0), ""), None),
            (json!(0), (Some(5), ""), Some("container's runAsUser breaks non-root policy")),
            (json!(null), (Some(0), ""), Some("container has runAsNonRoot and image will run as root")),
            (json!(null), (None, "web"), Some("container has runAsNonRoot and image has non-numeric user (web)")),
            (json!(null), (Some(7), ""), None),
        ] {
            let result = build(spec(user.clone()), image).err();
            assert_eq!(result.is_some(), message.is_some(), "{user} {image:?} {result:?}");
            assert!(result.unwrap_or_default().starts_with(message.unwrap_or_default()));
        }
    }

    #[test]
    fn files_get_their_mode_even_if_they_were_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/etc-hosts");
        write_in_place(&path, "x", 0o600).unwrap();
        write_in_place(&path, "x", 0o644).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_sub_path_expression_needs_its_variables() {
        let mount = |e: &str| VolumeMount { sub_path_expr: Some(e.into()), ..Default::default() };
        let env = [("POD".to_owned(), "p".to_owned())];
        assert_eq!(sub_path(&mount("x/$(POD)"), &env), Ok("x/p".into()));
        assert!(sub_path(&mount("$(NO)"), &env).is_err());
    }
}

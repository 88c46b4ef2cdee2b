//! The checks of the baseline and restricted levels as pure functions (`k8s.io/pod-security-admission/policy/check_*.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Capabilities, Lifecycle, LifecycleHandler, PodSpec, Probe, SELinuxOptions, SeccompProfile, SecurityContext, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Policy;

/// A level; the higher, the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Option<Self> {
        [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|l| l.name() == text)
    }
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// One failed check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Violation {
    pub reason: String,
    pub detail: String,
}

/// A container of any sort, as far as the checks look.
struct Container<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    host_ports: Vec<i32>,
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

struct View<'a> {
    meta: &'a ObjectMeta,
    spec: &'a PodSpec,
    containers: Vec<Container<'a>>,
    windows: bool,
    /// In a user namespace root is nobody outside of it.
    user_namespace: bool,
}

impl<'a> View<'a> {
    fn new(meta: &'a ObjectMeta, spec: &'a PodSpec) -> Self {
        let mut containers = Vec::new();
        // Upstream's order: init containers, containers, ephemeral containers.
        for c in spec.init_containers.iter().flatten().chain(&spec.containers) {
            containers.push(Container {
                name: &c.name,
                security: c.security_context.as_ref(),
                host_ports: c.ports.iter().flatten().filter_map(|p| p.host_port).filter(|p| *p != 0).collect(),
                probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
                lifecycle: c.lifecycle.as_ref(),
            });
        }
        for c in spec.ephemeral_containers.iter().flatten() {
            containers.push(Container {
                name: &c.name,
                security: c.security_context.as_ref(),
                host_ports: c.ports.iter().flatten().filter_map(|p| p.host_port).filter(|p| *p != 0).collect(),
                probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
                lifecycle: c.lifecycle.as_ref(),
            });
        }
        let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
        View { meta, spec, containers, windows, user_namespace: spec.host_users == Some(false) }
    }

    /// Names of the containers whose security context a check objects to.
    fn bad(&self, mut check: impl FnMut(Option<&'a SecurityContext>) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|c| check(c.security)).map(|c| c.name).collect()
    }
}

type Found = Option<(String, String)>;
type Check = fn(&View<'_>) -> Found;

/// Minor version a check applies from, and the check; in the order upstream reports them.
const BASELINE: &[(u32, Check)] = &[
    (0, app_armor),
    (0, capabilities_baseline),
    (0, host_namespaces),
    (0, host_path),
    (0, host_ports),
    (34, host_probes),
    (0, privileged),
    (0, proc_mount),
    (0, selinux),
    (0, seccomp_baseline),
    (0, sysctls),
    (0, windows_host_process),
];

/// As [`BASELINE`], for what the restricted level adds.
const RESTRICTED: &[(u32, Check)] = &[
    (8, privilege_escalation),
    (22, capabilities_restricted),
    (0, restricted_volumes),
    (0, run_as_non_root),
    (23, run_as_user),
    (19, seccomp_restricted),
];

/// Baseline checks that a restricted one stands in for.
const OVERLAPPING: &[Check] = &[capabilities_baseline, host_path, seccomp_baseline];

/// What a pod violates at a level, baseline first.
pub(in super::super) fn violations(policy: &Policy, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
    if policy.level == Level::Privileged {
        return Vec::new();
    }
    let view = View::new(meta, spec);
    let restricted = policy.level == Level::Restricted;
    let applies = |since: &u32| policy.minor.is_none_or(|minor| minor >= *since);
    let overlaps = |check: &Check| restricted && OVERLAPPING.iter().any(|o| std::ptr::fn_addr_eq(*o, *check));
    let baseline = BASELINE.iter().filter(|(_, check)| !overlaps(check));
    let more = RESTRICTED.iter().filter(|_| restricted);
    let found = baseline.chain(more).filter(|(since, _)| applies(since)).filter_map(|(_, check)| check(&view));
    found.map(|(reason, detail)| Violation { reason, detail }).collect()
}

fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|n| format!("{:?}", n.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'s>(one: &'s str, many: &'s str, count: usize) -> &'s str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`; `None` when neither.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".into()),
        (false, false) => Some(containers(names)),
        (true, false) => Some(format!("pod and {}", containers(names))),
    }
}

fn found(reason: &str, detail: String) -> Found {
    Some((reason.to_owned(), detail))
}

fn app_armor(view: &View<'_>) -> Found {
    let mut values = BTreeSet::new();
    let mut bad = |profile: Option<&str>| profile.is_some_and(|p| !matches!(p, "RuntimeDefault" | "Localhost") && values.insert(p.to_owned()) | true);
    let pod = bad(view.spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref()).map(|p| p.type_.as_str()));
    let names = view.bad(|s| bad(s.and_then(|s| s.app_armor_profile.as_ref()).map(|p| p.type_.as_str())));
    let annotated = view.meta.annotations.iter().flatten().filter(|(key, value)| {
        key.starts_with("container.apparmor.security.beta.kubernetes.io/")
            && !value.is_empty()
            && *value != "runtime/default"
            && !value.starts_with("localhost/")
    });
    let annotations: Vec<String> = annotated.map(|(key, value)| format!("{key}={value:?}")).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len() + annotations.len());
    if !annotations.is_empty() {
        return found(reason, annotations.join(", "));
    }
    let setters = setters(pod, &names)?;
    found(reason, format!("{setters} must not set AppArmor profile type to {}", quoted(&values)))
}

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add capabilities outside a set, and which.
fn added<'a>(view: &View<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<String>) {
    let mut values = BTreeSet::new();
    let names = view.bad(|s| {
        let add = s.and_then(|s| s.capabilities.as_ref()).and_then(|c: &Capabilities| c.add.as_deref()).unwrap_or_default();
        let bad: Vec<&String> = add.iter().filter(|c| !allowed.contains(&c.as_str())).collect();
        values.extend(bad.iter().map(|c| (*c).clone()));
        !bad.is_empty()
    });
    (names, values)
}

fn capabilities_baseline(view: &View<'_>) -> Found {
    let (names, values) = added(view, DEFAULT_CAPABILITIES);
    let detail = || format!("{} must not include {} in securityContext.capabilities.add", containers(&names), quoted(&values));
    if names.is_empty() { None } else { found("non-default capabilities", detail()) }
}

fn capabilities_restricted(view: &View<'_>) -> Found {
    if view.windows {
        return None;
    }
    let drops_all = |s: Option<&SecurityContext>| {
        s.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.drop.as_ref()).is_some_and(|d| d.iter().any(|c| c == "ALL"))
    };
    let missing = view.bad(|s| !drops_all(s));
    let (adding, values) = added(view, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&missing)));
    }
    if !adding.is_empty() {
        details.push(format!("{} must not include {} in securityContext.capabilities.add", containers(&adding), quoted(&values)));
    }
    if details.is_empty() { None } else { found("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(view: &View<'_>) -> Found {
    let used = [(view.spec.host_network, "hostNetwork=true"), (view.spec.host_pid, "hostPID=true"), (view.spec.host_ipc, "hostIPC=true")];
    let used: Vec<&str> = used.into_iter().filter(|(set, _)| *set == Some(true)).map(|(_, name)| name).collect();
    if used.is_empty() { None } else { found("host namespaces", used.join(", ")) }
}

fn host_path(view: &View<'_>) -> Found {
    let names: Vec<&str> = view.spec.volumes.iter().flatten().filter(|v| v.host_path.is_some()).map(|v| v.name.as_str()).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names));
    if names.is_empty() { None } else { found("hostPath volumes", detail()) }
}

fn host_ports(view: &View<'_>) -> Found {
    let bad: Vec<&Container<'_>> = view.containers.iter().filter(|c| !c.host_ports.is_empty()).collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<&str> = bad.iter().map(|c| c.name).collect();
    // Sorted as text, as upstream's string set is.
    let ports: BTreeSet<String> = bad.iter().flat_map(|c| &c.host_ports).map(ToString::to_string).collect();
    let list = ports.iter().cloned().collect::<Vec<_>>().join(", ");
    let (verb, noun) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", ports.len()));
    found("hostPort", format!("{} {verb} {noun} {list}", containers(&names)))
}

fn host_probes(view: &View<'_>) -> Found {
    let (mut names, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in &view.containers {
        let of_probe = |p: &Probe| [p.http_get.as_ref().and_then(|h| h.host.clone()), p.tcp_socket.as_ref().and_then(|t| t.host.clone())];
        let of_handler =
            |h: &LifecycleHandler| [h.http_get.as_ref().and_then(|h| h.host.clone()), h.tcp_socket.as_ref().and_then(|t| t.host.clone())];
        let handlers = container.lifecycle.into_iter().flat_map(|l| [l.post_start.as_ref(), l.pre_stop.as_ref()]).flatten();
        let given = container.probes.iter().flatten().flat_map(|p| of_probe(p)).chain(handlers.flat_map(of_handler));
        for host in given.flatten().filter(|h| !h.is_empty()) {
            names.insert(container.name);
            hosts.insert(host);
        }
    }
    if names.is_empty() {
        return None;
    }
    let list: Vec<&str> = names.into_iter().collect();
    let (verb, noun) = (plural("uses", "use", list.len()), plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()));
    found("probe or lifecycle host", format!("{} {verb} {noun} {}", containers(&list), quoted(&hosts)))
}

fn privileged(view: &View<'_>) -> Found {
    let names = view.bad(|s| s.is_some_and(|s| s.privileged == Some(true)));
    if names.is_empty() { None } else { found("privileged", format!("{} must not set securityContext.privileged=true", containers(&names))) }
}

fn proc_mount(view: &View<'_>) -> Found {
    if view.user_namespace {
        return None;
    }
    let mut values = BTreeSet::new();
    let names = view.bad(|s| {
        let bad = s.and_then(|s| s.proc_mount.as_ref()).filter(|p| *p != "Default");
        values.extend(bad.cloned());
        bad.is_some()
    });
    let detail = || format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(&values));
    if names.is_empty() { None } else { found("procMount", detail()) }
}

fn selinux(view: &View<'_>) -> Found {
    const TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |options: Option<&SELinuxOptions>| {
        let Some(options) = options else { return false };
        let set = |v: &Option<String>| v.as_ref().is_some_and(|v| !v.is_empty());
        let wrong_type = options.type_.as_ref().filter(|t| !TYPES.contains(&t.as_str()));
        types.extend(wrong_type.cloned());
        user |= set(&options.user);
        role |= set(&options.role);
        wrong_type.is_some() || set(&options.user) || set(&options.role)
    };
    let pod = bad(view.spec.security_context.as_ref().and_then(|s| s.se_linux_options.as_ref()));
    let names = view.bad(|s| bad(s.and_then(|s| s.se_linux_options.as_ref())));
    let setters = setters(pod, &names)?;
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    data.extend(user.then(|| "user may not be set".to_owned()));
    data.extend(role.then(|| "role may not be set".to_owned()));
    found("seLinuxOptions", format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

fn good_seccomp(profile: &SeccompProfile) -> bool {
    matches!(profile.type_.as_str(), "RuntimeDefault" | "Localhost")
}

/// Who sets a bad seccomp profile, and which.
fn bad_seccomp(view: &View<'_>) -> Found {
    let mut values = BTreeSet::new();
    let mut bad = |profile: Option<&SeccompProfile>| {
        let wrong = profile.filter(|p| !good_seccomp(p));
        values.extend(wrong.map(|p| p.type_.clone()));
        wrong.is_some()
    };
    let pod = bad(view.spec.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref()));
    let names = view.bad(|s| bad(s.and_then(|s| s.seccomp_profile.as_ref())));
    let setters = setters(pod, &names)?;
    found("seccompProfile", format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(&values)))
}

fn seccomp_baseline(view: &View<'_>) -> Found {
    bad_seccomp(view)
}

fn seccomp_restricted(view: &View<'_>) -> Found {
    if view.windows {
        return None;
    }
    if let Some(bad) = bad_seccomp(view) {
        return Some(bad);
    }
    if view.spec.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref()).is_some_and(good_seccomp) {
        return None;
    }
    let names = view.bad(|s| s.and_then(|s| s.seccomp_profile.as_ref()).is_none());
    let detail = || format!("pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"", containers(&names));
    if names.is_empty() { None } else { found("seccompProfile", detail()) }
}

fn sysctls(view: &View<'_>) -> Found {
    const ALLOWED: &[&str] = &[
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
    let set = view.spec.security_context.iter().filter_map(|s| s.sysctls.as_ref()).flatten();
    let bad: Vec<&str> = set.map(|s| s.name.as_str()).filter(|n| !ALLOWED.contains(n)).collect();
    if bad.is_empty() { None } else { found("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(view: &View<'_>) -> Found {
    let set = |o: Option<&k8s_openapi::api::core::v1::WindowsSecurityContextOptions>| o.is_some_and(|o| o.host_process == Some(true));
    let pod = set(view.spec.security_context.as_ref().and_then(|s| s.windows_options.as_ref()));
    let names = view.bad(|s| set(s.and_then(|s| s.windows_options.as_ref())));
    let setters = setters(pod, &names)?;
    found("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn privilege_escalation(view: &View<'_>) -> Found {
    if view.windows {
        return None;
    }
    let names = view.bad(|s| s.and_then(|s| s.allow_privilege_escalation) != Some(false));
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    if names.is_empty() { None } else { found("allowPrivilegeEscalation != false", detail()) }
}

/// The type of a volume the restricted level does not allow.
fn restricted_type(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
        || volume.image.is_some();
    if allowed {
        return None;
    }
    let types = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.fc.is_some(), "fc"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
    ];
    types.into_iter().find(|(set, _)| *set).map(|(_, name)| name).or(Some("unknown"))
}

fn restricted_volumes(view: &View<'_>) -> Found {
    let bad: Vec<(&str, &str)> = view.spec.volumes.iter().flatten().filter_map(|v| Some((v.name.as_str(), restricted_type(v)?))).collect();
    if bad.is_empty() {
        return None;
    }
    let types: BTreeSet<&str> = bad.iter().map(|(_, t)| *t).collect();
    let (noun, verb) = (plural("volume", "volumes", bad.len()), plural("uses", "use", bad.len()));
    let kind = plural("restricted volume type", "restricted volume types", types.len());
    found("restricted volume types", format!("{noun} {} {verb} {kind} {}", quoted(bad.iter().map(|(n, _)| n)), quoted(&types)))
}

fn run_as_non_root(view: &View<'_>) -> Found {
    if view.user_namespace {
        return None;
    }
    let pod = view.spec.security_context.as_ref().and_then(|s| s.run_as_non_root);
    let explicit = view.bad(|s| s.and_then(|s| s.run_as_non_root) == Some(false));
    if let Some(setters) = setters(pod == Some(false), &explicit) {
        return found("runAsNonRoot != true", format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let implicit = view.bad(|s| pod != Some(true) && s.and_then(|s| s.run_as_non_root).is_none());
    let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit));
    if implicit.is_empty() { None } else { found("runAsNonRoot != true", detail()) }
}

fn run_as_user(view: &View<'_>) -> Found {
    if view.user_namespace {
        return None;
    }
    let pod = view.spec.security_context.as_ref().and_then(|s| s.run_as_user) == Some(0);
    let names = view.bad(|s| s.and_then(|s| s.run_as_user) == Some(0));
    let setters = setters(pod, &names)?;
    found("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

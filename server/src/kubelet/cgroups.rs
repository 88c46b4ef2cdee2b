//! Cgroups of pods: the arithmetic from requests and limits, the pod's own group, and its removal (`pkg/kubelet/cm`).
//!
//! Owns the groups below the configured root, in every hierarchy. The runtime makes the containers' groups inside them.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::pods::spec::{self, Kind};
use super::volumes::mounts;

/// CFS period, in microseconds.
pub const PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1000;

/// CPU shares of a number of millicores.
pub fn shares(millicores: i64) -> i64 {
    if millicores == 0 { MIN_SHARES } else { (millicores * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// CFS quota of a limit in millicores, in microseconds a period; 0 means no limit.
pub fn quota(millicores: i64) -> i64 {
    if millicores == 0 { 0 } else { (millicores * PERIOD / 1000).max(MIN_QUOTA) }
}

/// CPU weight (cgroup v2) of shares, by the formula that runc uses.
fn weight(shares: i64) -> i64 {
    1 + ((shares - 2) * 9999) / 262_142
}

/// How likely the kernel is to kill a container for want of memory (`pkg/kubelet/qos/policy.go`).
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i64) -> i64 {
    if pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= 2_000_000_000) {
        return -997;
    }
    match spec::qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let score_of = memory_share(pod, container);
            let score = 1000 - 1000 * score_of / node_memory.max(1);
            match score {
                // Above guaranteed pods, below best effort ones.
                s if s < 3 => 3,
                1000 => 999,
                s => s,
            }
        }
    }
}

/// A container's memory request; what the pod requests beyond its containers' is shared evenly.
fn memory_share(pod: &Pod, container: &Container) -> i64 {
    let own = spec::request(container, "memory").map_or(0, |q| q.value());
    let Some(whole) = spec::pod_request(pod, "memory") else { return own };
    let lasting: Vec<Container> =
        spec::containers(pod).into_iter().filter(|(kind, _)| matches!(kind, Kind::Main | Kind::Sidecar)).map(|(_, c)| c).collect();
    let named: i64 = lasting.iter().map(|c| spec::request(c, "memory").map_or(0, |q| q.value())).sum();
    let count = i64::try_from(lasting.len()).unwrap_or(1).max(1);
    own + (whole.value() - named).max(0) / count
}

/// What a pod may use altogether: CPU shares, CPU quota and memory limit, each `None` where there is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodLimits {
    /// CPU shares.
    pub shares: i64,
    /// Microseconds a period, if every container has a CPU limit.
    pub quota: Option<i64>,
    /// Bytes, if every container has a memory limit.
    pub memory: Option<i64>,
}

/// `ResourceConfigForPod` in `pkg/kubelet/cm/helpers_linux.go`: main containers and sidecars together, or the largest init container;
/// what the pod names for itself goes before both.
pub fn pod_limits(pod: &Pod) -> PodLimits {
    let all: Vec<(Kind, Container)> = spec::containers(pod).into_iter().filter(|(k, _)| *k != Kind::Ephemeral).collect();
    let amount = |c: &Container, limit: bool, name: &str| {
        let found = if limit { spec::limit(c, name) } else { spec::request(c, name).or_else(|| spec::limit(c, name)) };
        found.map(|q| if name == "cpu" { q.millis() } else { q.value() })
    };
    let total = |limit: bool, name: &str| {
        let of = |kinds: &[Kind]| all.iter().filter(|(k, _)| kinds.contains(k)).map(|(_, c)| amount(c, limit, name).unwrap_or(0)).collect::<Vec<_>>();
        let together: i64 = of(&[Kind::Main, Kind::Sidecar]).iter().sum();
        together.max(of(&[Kind::Init]).into_iter().max().unwrap_or(0))
    };
    let bounded = |name: &str| !all.is_empty() && all.iter().all(|(_, c)| amount(c, true, name).is_some());
    let limit = |name: &str, whole: Option<i64>| whole.or_else(|| bounded(name).then(|| total(true, name)));
    PodLimits {
        shares: shares(cpu_request(pod, || total(false, "cpu"))),
        quota: limit("cpu", spec::pod_limit(pod, "cpu").map(|q| q.millis())).map(quota),
        memory: limit("memory", spec::pod_limit(pod, "memory").map(|q| q.value())),
    }
}

/// Millicores: the pod's own request, or its own limit where there is none, else what its containers request.
fn cpu_request(pod: &Pod, of_containers: impl FnOnce() -> i64) -> i64 {
    let whole = spec::pod_request(pod, "cpu").or_else(|| spec::pod_limit(pod, "cpu"));
    whole.map_or_else(of_containers, |q| q.millis())
}

/// CPU shares of the burstable pods together: what they request (`setCPUCgroupConfig` in `pkg/kubelet/cm/qos_container_manager_linux.go`).
pub fn burstable_shares<'a>(pods: impl Iterator<Item = &'a Pod>) -> i64 {
    let burstable = pods.filter(|p| spec::qos_class(p) == "Burstable");
    shares(burstable.map(|p| crate::scheduler::resources::pod_requests(p).milli_cpu).sum())
}

/// The cgroup of a pod below the root: guaranteed pods directly, others under their class.
pub fn pod_path(root: &str, pod: &Pod) -> String {
    pod_path_of(root, spec::qos_class(pod), spec::uid(pod))
}

fn pod_path_of(root: &str, class: &str, uid: &str) -> String {
    let root = root.trim_end_matches('/');
    match class {
        "Guaranteed" => format!("{root}/pod{uid}"),
        class => format!("{root}/{}/pod{uid}", class.to_lowercase()),
    }
}

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug)]
struct Tree {
    point: PathBuf,
    unified: bool,
    controllers: Vec<String>,
}

/// The cgroup file systems of this machine.
#[derive(Clone, Debug, Default)]
pub struct Cgroups {
    trees: Vec<Tree>,
}

impl Cgroups {
    /// Reads the mount table.
    pub fn discover() -> io::Result<Self> {
        let mut trees: Vec<Tree> = Vec::new();
        for mount in mounts::table()? {
            let unified = mount.kind == "cgroup2";
            // The same hierarchy may be mounted twice (a bind mount); the first place does.
            if (unified || mount.kind == "cgroup") && !trees.iter().any(|t| t.point == mount.point) {
                trees.push(Tree { point: mount.point, unified, controllers: mount.options.split(',').map(Into::into).collect() });
            }
        }
        Ok(Cgroups { trees })
    }

    /// Whether the only hierarchy is cgroup v2.
    pub fn is_unified(&self) -> bool {
        !self.trees.is_empty() && self.trees.iter().all(|t| t.unified)
    }

    fn controller(&self, name: &str) -> Option<&Tree> {
        self.trees.iter().find(|t| !t.unified && t.controllers.iter().any(|c| c == name))
    }

    /// A file of a group: `controller` picks the v1 hierarchy; on v2 there is only one.
    pub fn file(&self, controller: &str, group: &str, v1: &str, v2: &str) -> Option<PathBuf> {
        if self.is_unified() {
            return Some(self.trees.first()?.point.join(group.trim_start_matches('/')).join(v2));
        }
        Some(self.controller(controller)?.point.join(group.trim_start_matches('/')).join(v1))
    }

    /// Makes a pod's group and sets its bounds.
    pub fn create(&self, group: &str, limits: &PodLimits) -> io::Result<()> {
        self.set_shares(group, limits.shares)?;
        if let Some(quota) = limits.quota {
            self.set(group, ["cpu", "cpu.cfs_quota_us", "cpu.max"], quota.to_string(), format!("{quota} {PERIOD}"))?;
        }
        if let Some(memory) = limits.memory {
            self.set(group, ["memory", "memory.limit_in_bytes", "memory.max"], memory.to_string(), memory.to_string())?;
        }
        Ok(())
    }

    /// Weighs the classes against each other: best effort pods get next to nothing, burstable ones `burstable` shares together, and
    /// guaranteed ones stand beside them with their own.
    pub fn weigh_classes(&self, root: &str, burstable: i64) -> io::Result<()> {
        let root = root.trim_end_matches('/');
        self.set_shares(&format!("{root}/besteffort"), MIN_SHARES)?;
        self.set_shares(&format!("{root}/burstable"), burstable)
    }

    fn set_shares(&self, group: &str, shares: i64) -> io::Result<()> {
        self.set(group, ["cpu", "cpu.shares", "cpu.weight"], shares.to_string(), weight(shares).to_string())
    }

    /// Writes a value of a group, which is made if need be: controller and names of the file on v1 and v2, values for both.
    fn set(&self, group: &str, [controller, v1, v2]: [&str; 3], old: String, new: String) -> io::Result<()> {
        let Some(path) = self.file(controller, group, v1, v2) else { return Ok(()) };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        if self.is_unified() {
            self.enable(group)?;
        }
        std::fs::write(&path, if self.is_unified() { new } else { old })
    }

    /// On v2, controllers have to be handed down level by level.
    fn enable(&self, group: &str) -> io::Result<()> {
        let Some(tree) = self.trees.first() else { return Ok(()) };
        let mut dir = tree.point.clone();
        for part in Path::new(group.trim_start_matches('/')).parent().iter().flat_map(|p| p.components()) {
            // A controller that is missing here is missing for everyone; the write of its limit will say so.
            let _ = std::fs::write(dir.join("cgroup.subtree_control"), "+cpu +memory +pids");
            dir.push(part);
        }
        let _ = std::fs::write(dir.join("cgroup.subtree_control"), "+cpu +memory +pids");
        Ok(())
    }

    /// Removes a group with the empty groups below it, in every hierarchy. Fails if a process still lives there.
    pub fn remove(&self, group: &str) -> io::Result<()> {
        for tree in &self.trees {
            remove_tree(&tree.point.join(group.trim_start_matches('/')))?;
        }
        Ok(())
    }

    /// Removes the groups of pods that do not live, left over from earlier runs.
    pub fn remove_strangers(&self, root: &str, lives: impl Fn(&str) -> bool) {
        for tree in &self.trees {
            let root = tree.point.join(root.trim_start_matches('/'));
            for dir in [root.clone(), root.join("burstable"), root.join("besteffort")] {
                for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let stranger = name.strip_prefix("pod").is_some_and(|uid| !lives(uid));
                    if stranger && let Err(error) = remove_tree(&entry.path()) {
                        tracing::debug!(%name, %error, "cgroup not removed");
                    }
                }
            }
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: Value, init: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "uid": "u" }, "spec": { "containers": containers, "initContainers": init } })).unwrap()
    }

    fn res(requests: Value, limits: Value) -> Value {
        json!({ "name": "a", "resources": { "requests": requests, "limits": limits } })
    }

    #[test]
    fn cpu_arithmetic_is_upstreams() {
        for (millicores, shares_, quota_) in
            [(0, 2, 0), (1, 2, 1000), (10, 10, 1000), (100, 102, 10_000), (1000, 1024, 100_000), (1500, 1536, 150_000)]
        {
            assert_eq!((shares(millicores), quota(millicores)), (shares_, quota_), "{millicores}");
        }
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn a_pod_is_bounded_only_if_all_its_containers_are() {
        let both = res(json!({ "cpu": "100m" }), json!({ "cpu": "200m", "memory": "1Mi" }));
        let half = res(json!({ "cpu": "100m" }), json!({ "cpu": "200m" }));
        let limits = pod_limits(&pod(json!([both, half]), json!([])));
        assert_eq!(limits, PodLimits { shares: 204, quota: Some(40_000), memory: None });
        let limits = pod_limits(&pod(json!([both]), json!([res(json!({ "cpu": "1" }), json!({ "cpu": "1", "memory": "5Mi" }))])));
        assert_eq!(limits, PodLimits { shares: 1024, quota: Some(100_000), memory: Some(5 << 20) });
    }

    #[test]
    fn what_a_pod_names_for_itself_goes_before_its_containers() {
        let of = |resources: Value, container: Value| -> Pod {
            serde_json::from_value(json!({ "metadata": { "uid": "u" }, "spec": { "resources": resources, "containers": [container] } })).unwrap()
        };
        let small = res(json!({ "cpu": "100m", "memory": "100" }), json!({}));
        let pod = of(json!({ "requests": { "cpu": "500m", "memory": "500" }, "limits": { "cpu": "1", "memory": "5Mi" } }), small.clone());
        assert_eq!(pod_limits(&pod), PodLimits { shares: 512, quota: Some(100_000), memory: Some(5 << 20) });
        assert_eq!(oom_score_adj(&pod, &pod.spec.as_ref().unwrap().containers[0], 1000), 500);
        let pod = of(json!({ "limits": { "cpu": "2" } }), small);
        assert_eq!(pod_limits(&pod), PodLimits { shares: 2048, quota: Some(200_000), memory: None });
    }

    #[test]
    fn classes_are_weighed_by_what_burstable_pods_request() {
        let burstable = pod(json!([res(json!({ "cpu": "250m" }), json!({}))]), json!([]));
        let others = [pod(json!([{ "name": "a" }]), json!([])), pod(json!([res(json!({}), json!({ "cpu": "1", "memory": "1Mi" }))]), json!([]))];
        assert_eq!(burstable_shares([&burstable, &burstable].into_iter().chain(&others)), 512);
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups { trees: vec![Tree { point: dir.path().to_owned(), unified: true, controllers: vec![] }] };
        cgroups.weigh_classes("/k/", 1024).unwrap();
        let weight = |class: &str| std::fs::read_to_string(dir.path().join("k").join(class).join("cpu.weight")).unwrap();
        assert_eq!((weight("besteffort"), weight("burstable")), ("1".into(), "39".into()));
    }

    #[test]
    fn paths_follow_the_qos_class() {
        assert_eq!(pod_path("/k/kubepods", &pod(json!([{ "name": "a" }]), json!([]))), "/k/kubepods/besteffort/podu");
        let guaranteed = pod(json!([res(json!({}), json!({ "cpu": "1", "memory": "1Mi" }))]), json!([]));
        assert_eq!(pod_path("/k/kubepods/", &guaranteed), "/k/kubepods/podu");
    }

    #[test]
    fn oom_scores_order_the_classes() {
        let score = |c: Value| {
            let pod = pod(json!([c]), json!([]));
            oom_score_adj(&pod, &pod.spec.as_ref().unwrap().containers[0], 1000)
        };
        assert_eq!(score(json!({ "name": "a" })), 1000);
        assert_eq!(score(res(json!({}), json!({ "cpu": "1", "memory": "100" }))), -997);
        assert_eq!(score(res(json!({ "memory": "250" }), json!({}))), 750);
        assert_eq!(score(res(json!({ "memory": "1000" }), json!({}))), 3);
        assert_eq!(score(res(json!({ "cpu": "1" }), json!({}))), 999);
    }
}

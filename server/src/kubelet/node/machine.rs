//! What this machine is and has: processors, memory, disk, kernel, operating system.
//!
//! Reads /proc, /etc and statfs. Parsing is pure.

use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;

use crate::kubelet::env::downward::Allocatable;

/// Version reported as `kubeletVersion`.
pub use crate::VERSION;

/// What the machine offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Thousandths of a CPU.
    pub millicores: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the file system that holds the kubelet's directory.
    pub storage: i64,
}

impl Machine {
    /// Looks at this machine. `root` is on the file system whose size counts.
    pub fn discover(root: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|t| meminfo(&t, "MemTotal")).unwrap_or(0);
        Machine { millicores: i64::try_from(cpus).unwrap_or(1) * 1000, memory, storage: disk(root).map_or(0, |d| d.total) }
    }

    /// What stands in for absent limits.
    pub fn allocatable(&self) -> Allocatable {
        Allocatable { millicores: self.millicores, memory: self.memory, storage: self.storage }
    }
}

/// A field of /proc/meminfo in bytes.
pub fn meminfo(text: &str, field: &str) -> Option<i64> {
    let line = text.lines().find(|l| l.strip_prefix(field).is_some_and(|r| r.starts_with(':')))?;
    line.split_whitespace().nth(1)?.parse::<i64>().ok().map(|kib| kib * 1024)
}

/// Size and use of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes altogether.
    pub total: i64,
    /// Bytes that are left for ordinary users.
    pub available: i64,
    /// Inodes altogether.
    pub inodes: i64,
    /// Inodes that are left.
    pub inodes_free: i64,
}

/// Size and use of the file system of a path.
pub fn disk(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Some(Disk { total: bytes(stat.f_blocks), available: bytes(stat.f_bavail), inodes: count(stat.f_files), inodes_free: count(stat.f_ffree) })
}

/// Go's name of this processor.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `status.nodeInfo`.
pub fn info(runtime_version: &str) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: arch().into(),
        operating_system: "linux".into(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        os_image: pretty_name(&read("/etc/os-release")).unwrap_or_else(|| "Linux".into()),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        container_runtime_version: runtime_version.into(),
        kubelet_version: VERSION.into(),
        // Deprecated, and empty since 1.33.
        kube_proxy_version: String::new(),
        swap: None,
    }
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_and_os_release_are_read() {
        let text = "MemTotal:       24576000 kB\nMemFree:         1000 kB\nMemAvailable:    2000 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), Some(2_048_000));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert!(Machine::discover(Path::new("/")).memory > 0);
    }
}

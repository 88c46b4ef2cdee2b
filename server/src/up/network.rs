//! The node's own address, and what an instance leaves on the machine besides files.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::instance::Instance;

/// The address this machine is known by: that of the default route, without sending anything.
///
/// # Errors
/// There is no route at all.
pub fn node_ip() -> Result<IpAddr> {
    // Connecting a UDP socket only asks the routing table. 192.0.2.0/24 is reserved for documentation.
    for target in ["192.0.2.1:9", "10.255.255.255:9", "[2001:db8::1]:9"] {
        let any = if target.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        if let Ok(socket) = UdpSocket::bind(any)
            && socket.connect(target).is_ok()
            && let Ok(address) = socket.local_addr()
            && !address.ip().is_loopback()
            && !address.ip().is_unspecified()
        {
            return Ok(address.ip());
        }
    }
    bail!("this machine has no network address besides loopback: name one with --node-ip, or connect it to a network")
}

/// Removes the instance's bridge, mounts, cgroups and run directory. What is not there is fine.
pub fn remove_leftovers(instance: &Instance) {
    let _ = Command::new("ip").args(["link", "delete", &instance.bridge()]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    unmount_below(&instance.data);
    unmount_below(&instance.run);
    remove_cgroups(&instance.cgroup());
    let _ = std::fs::remove_dir_all(&instance.run);
}

/// Unmounts everything mounted at or below a directory, the deepest first.
pub fn unmount_below(dir: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        // The kernel writes a space as \040.
        .map(|point| point.replace("\\040", " "))
        .filter(|point| Path::new(point).starts_with(dir))
        .collect();
    points.sort_by_key(|p| std::cmp::Reverse(p.len()));
    for point in points {
        if let Err(error) = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH) {
            tracing::warn!(%point, %error, "not unmounted");
        }
    }
}

/// Removes an empty cgroup subtree from every hierarchy.
fn remove_cgroups(path: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let relative = path.trim_start_matches('/');
    let mut trees = vec![root.join(relative)];
    if let Ok(entries) = std::fs::read_dir(root) {
        trees.extend(entries.flatten().map(|e| e.path().join(relative)));
    }
    for tree in trees.into_iter().filter(|t| t.is_dir()) {
        remove_cgroup_tree(&tree);
    }
}

fn remove_cgroup_tree(dir: &Path) {
    if let Ok(entries) = std::fs::read_dir(dir) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            remove_cgroup_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

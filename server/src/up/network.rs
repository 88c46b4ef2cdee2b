//! The node's own address, and what an instance leaves on the machine besides files.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::instance::Instance;
use crate::kubelet::volumes::mounts;

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
///
/// # Errors
/// Something stays mounted below the instance's directories. Then nothing below them may be deleted.
pub fn remove_leftovers(instance: &Instance) -> Result<()> {
    let _ = Command::new("ip").args(["link", "delete", &instance.bridge()]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    for dir in [&instance.data, &instance.run] {
        mounts::unmount_tree(dir).with_context(|| format!("unmount what is mounted below {}", dir.display()))?;
    }
    remove_cgroups(&instance.cgroup());
    let _ = std::fs::remove_dir_all(&instance.run);
    Ok(())
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

//! Mounting and unmounting below the kubelet's directory, and reading the mount table.
//!
//! File system work for the blocking threads.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Whether it propagates to other mount namespaces.
    pub shared: bool,
    /// Type of the file system.
    pub kind: String,
    /// Options of the file system; for cgroup v1 they name the controllers.
    pub options: String,
}

/// Every mount of this process's namespace, in the order of mounting.
pub fn table() -> io::Result<Vec<Mount>> {
    Ok(std::fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let fields: Vec<&str> = left.split(' ').collect();
    let mut after = right.split(' ');
    let kind = after.next()?.to_owned();
    let options = after.nth(1).unwrap_or_default().to_owned();
    let shared = fields.iter().skip(6).any(|f| f.starts_with("shared:"));
    Some(Mount { point: unescape(fields.get(4)?), shared, kind, options })
}

/// The kernel writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\').then(|| text.get(at + 1..at + 4)).flatten().and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Whether something is mounted exactly there.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(table()?.iter().any(|m| m.point == path))
}

/// Mounts a tmpfs unless one is there already. `size` in bytes.
pub fn tmpfs(target: &Path, size: Option<i64>, mode: u32) -> io::Result<()> {
    let target = target.canonicalize()?;
    if is_mounted(&target)? {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size {
        options.push_str(&format!(",size={size}"));
    }
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    Ok(rustix::mount::mount("tmpfs", &target, "tmpfs", MountFlags::empty(), options.as_c_str())?)
}

/// Mounts what `source` names at `target` as well, with everything below it.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind_recursive(source, target)?)
}

/// Makes mounts below `dir` reach containers that ask for propagation, and a containerd in a mount namespace of its own.
pub fn share(dir: &Path) -> io::Result<()> {
    let dir = dir.canonicalize()?;
    let table = table()?;
    let holder = table.iter().filter(|m| dir.starts_with(&m.point)).max_by_key(|m| m.point.components().count());
    if holder.is_some_and(|m| m.shared) {
        return Ok(());
    }
    if holder.is_none_or(|m| m.point != dir) {
        bind(&dir, &dir)?;
    }
    Ok(rustix::mount::mount_change(&dir, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

/// Unmounts everything below `dir` (not `dir` itself), deepest first. Fails if anything stays mounted.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    let dir = dir.canonicalize()?;
    let below = |table: Vec<Mount>| -> Vec<PathBuf> {
        let points = table.into_iter().map(|m| m.point);
        points.filter(|p| p.starts_with(&dir) && *p != dir).collect()
    };
    let mut points = below(table()?);
    points.reverse();
    points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    for point in points {
        if rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW).is_err() {
            rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
        }
    }
    match below(table()?).first() {
        Some(left) => Err(io::Error::other(format!("{} is still mounted", left.display()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_escapes_and_flags() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:1 - cgroup cgroup rw,cpu,cpuacct";
        let mount = parse(line).unwrap();
        assert_eq!(mount.point, PathBuf::from("/mnt 2"));
        assert!(mount.shared);
        assert_eq!((mount.kind.as_str(), mount.options.as_str()), ("cgroup", "rw,cpu,cpuacct"));
        assert!(!parse("36 35 98:0 / /x rw - tmpfs tmpfs rw").unwrap().shared);
    }

    #[test]
    fn tearing_down_leaves_what_was_mounted_intact() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (data, pod) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(data.path().join("precious"), "x").unwrap();
        let point = pod.path().join("volumes/a");
        std::fs::create_dir_all(&point).unwrap();
        bind(data.path(), &point).unwrap();
        unmount_below(pod.path()).unwrap();
        std::fs::remove_dir_all(pod.path()).unwrap();
        assert!(data.path().join("precious").exists());
    }
}

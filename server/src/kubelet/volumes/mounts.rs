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

/// Mounts what `source` names at `target` as well, without what is mounted below it, as upstream does for sub paths.
///
/// Mounts that appear in the source reach the target and those waiting for propagation from it, but nothing done below the target
/// ever reaches the source.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(source, target)?;
    let cut = rustix::mount::mount_change(target, MountPropagationFlags::DOWNSTREAM)
        .and_then(|()| rustix::mount::mount_change(target, MountPropagationFlags::SHARED));
    cut.inspect_err(|_| {
        let _ = rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
    })?;
    Ok(())
}

/// Unmounts what is mounted at `point`, together with what is mounted below it, here and not where it came from.
pub fn unmount(point: &Path) -> io::Result<()> {
    detach_from_origin(point)?;
    if rustix::mount::unmount(point, UnmountFlags::NOFOLLOW).is_err() {
        rustix::mount::unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// A mount may be the peer of one of the host's (`mount --rbind /sys`): unmounting below it would unmount the host's as well.
fn detach_from_origin(point: &Path) -> io::Result<()> {
    match rustix::mount::mount_change(point, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC) {
        // Not mounted any more: it went with another one.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
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
        rustix::mount::mount_bind_recursive(&dir, &dir)?;
    }
    Ok(rustix::mount::mount_change(&dir, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

/// Unmounts everything below `dir` (not `dir` itself), deepest first. Fails if anything stays mounted.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    let dir = dir.canonicalize()?;
    unmount_all(|point| point.starts_with(&dir) && point != dir)
}

/// [`unmount_below`], and `dir` itself. A directory that does not exist has nothing mounted.
pub fn unmount_tree(dir: &Path) -> io::Result<()> {
    let dir = match dir.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    unmount_all(|point| point.starts_with(&dir))
}

fn unmount_all(chosen: impl Fn(&Path) -> bool) -> io::Result<()> {
    let chosen = |table: Vec<Mount>| -> Vec<PathBuf> { table.into_iter().map(|m| m.point).filter(|p| chosen(p)).collect() };
    let mut points = chosen(table()?);
    // From the top, before anything below is touched.
    for point in &points {
        detach_from_origin(point)?;
    }
    points.reverse();
    points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    for point in &points {
        match unmount(point) {
            // It went with another one, or was busy; the second look at the table tells.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {}
            other => other?,
        }
    }
    match chosen(table()?).first() {
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

    #[test]
    fn what_is_mounted_below_a_source_is_neither_bound_nor_unmounted() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (host, pod) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inner = host.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        tmpfs(host.path(), None, 0o755).unwrap();
        rustix::mount::mount_change(host.path(), MountPropagationFlags::SHARED).unwrap();
        std::fs::create_dir(&inner).unwrap();
        tmpfs(&inner, None, 0o755).unwrap();
        let (plain, recursive) = (pod.path().join("plain"), pod.path().join("recursive"));
        std::fs::create_dir(&plain).unwrap();
        std::fs::create_dir(&recursive).unwrap();
        bind(host.path(), &plain).unwrap();
        assert!(!is_mounted(&plain.join("inner")).unwrap());
        // What an earlier version or another program bound with all its peers.
        rustix::mount::mount_bind_recursive(host.path(), &recursive).unwrap();
        assert!(is_mounted(&recursive.join("inner")).unwrap());
        unmount_below(pod.path()).unwrap();
        assert!(is_mounted(&inner).unwrap(), "the host's own mount is gone");
        unmount_tree(host.path()).unwrap();
        assert!(!is_mounted(host.path()).unwrap());
    }
}

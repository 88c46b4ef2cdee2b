//! `subPath` mounts: opened beneath the volume, so that no link made by a container leads out of it (`pkg/volume/util/subpath`).
//!
//! What was opened is bind-mounted by its file descriptor at `<pod>/volume-subpaths/<volume>/<container>/<index>`; the runtime
//! then mounts that path, and a link swapped in later changes nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::mounts;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// Makes `sub` of the volume available under a path that cannot be redirected; missing directories are created.
pub fn prepare(volume: &Path, sub: &str, target: &Path) -> Result<PathBuf, String> {
    let fail = |e: io::Error| format!("failed to prepare subPath for volumeMount: {e}");
    let opened = open(volume, sub).map_err(fail)?;
    let meta = rustix::fs::fstat(&opened).map_err(|e| fail(e.into()))?;
    let is_dir = rustix::fs::FileType::from_raw_mode(meta.st_mode).is_dir();
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    if is_dir {
        std::fs::create_dir_all(target).map_err(fail)?;
    } else if !target.exists() {
        std::fs::write(target, "").map_err(fail)?;
    }
    let canonical = target.canonicalize().map_err(fail)?;
    if mounts::is_mounted(&canonical).map_err(fail)? {
        // A restarted container gets what the path names now, for instance the newest file of a ConfigMap.
        mounts::unmount(&canonical).map_err(fail)?;
    }
    mounts::bind(Path::new(&format!("/proc/self/fd/{}", opened.as_raw_fd())), &canonical).map_err(fail)?;
    Ok(target.to_owned())
}

/// Opens a path beneath the volume, following only links that stay inside.
fn open(volume: &Path, sub: &str) -> io::Result<OwnedFd> {
    if Path::new(sub).components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "must be relative and must not contain '..'"));
    }
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(&root, sub, flags, Mode::empty(), BENEATH) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return Ok(other?),
    }
    // New directories get the volume's mode, so that whoever may write to the volume may write to them.
    let mode = rustix::fs::fstat(&root)?.st_mode & 0o7777;
    let mut current = root;
    for part in Path::new(sub).components().filter(|c| matches!(c, Component::Normal(_))) {
        let name = part.as_os_str();
        current = match rustix::fs::openat2(current.as_fd(), name, flags, Mode::empty(), BENEATH) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(current.as_fd(), name, Mode::from_raw_mode(0o755))?;
                let made =
                    rustix::fs::openat2(current.as_fd(), name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), BENEATH)?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
                made
            }
            other => other?,
        };
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_leave_the_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("in")).unwrap();
        std::fs::create_dir_all(dir.path().join("outside")).unwrap();
        for (link, to) in [("absolute", "/etc"), ("up", "../outside"), ("inside", "in")] {
            std::os::unix::fs::symlink(to, volume.join(link)).unwrap();
        }
        for bad in ["absolute", "absolute/passwd", "up", "../outside", "/etc"] {
            assert!(open(&volume, bad).is_err(), "{bad}");
        }
        for good in ["in", "inside", "new/dir", "inside/deeper"] {
            assert!(open(&volume, good).is_ok(), "{good}");
        }
        assert!(volume.join("in/deeper").is_dir());
        let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o7777;
        assert_eq!(mode(&volume.join("new/dir")), mode(&volume));
    }
}

//! Gives a volume to the pod's `fsGroup` (`pkg/volume/volume_linux.go`).
//!
//! File system work for the blocking threads. Links are given away themselves, never what they lead to.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// What the group may do with files.
const FILE: u32 = 0o660;
/// What the group may do with directories; what is made in them is the group's as well.
const DIRECTORY: u32 = FILE | 0o110 | 0o2000;

/// Makes everything in a volume readable and writable by the group. `only_on_mismatch` trusts the volume's own directory:
/// `fsGroupChangePolicy: OnRootMismatch`.
pub fn give(volume: &Path, group: u32, only_on_mismatch: bool) -> io::Result<()> {
    let root = volume.metadata()?;
    let fits = root.gid() == group && root.permissions().mode() & DIRECTORY == DIRECTORY;
    if only_on_mismatch && fits {
        return Ok(());
    }
    // The directory last, so that an interrupted run is noticed.
    let mut pending: Vec<PathBuf> = vec![volume.to_owned()];
    let mut seen = 0;
    while seen < pending.len() {
        let next = pending[seen].clone();
        seen += 1;
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else {
                lchown(entry.path(), None, Some(group))?;
                if !kind.is_symlink() {
                    add_mode(&entry.path(), FILE)?;
                }
            }
        }
    }
    for directory in pending.iter().rev() {
        lchown(directory, None, Some(group))?;
        add_mode(directory, DIRECTORY)?;
    }
    Ok(())
}

fn add_mode(path: &Path, bits: u32) -> io::Result<()> {
    let mode = path.symlink_metadata()?.permissions().mode() & 0o7777;
    if mode & bits == bits { Ok(()) } else { std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | bits)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_a_volume_becomes_the_groups_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("v"), dir.path().join("outside"));
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        for file in [volume.join("sub/a"), outside.clone()] {
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        // A group that this user has, whoever runs the test.
        let group = dir.path().metadata().unwrap().gid();
        give(&volume, group, false).unwrap();
        assert_eq!((mode(&volume.join("sub/a")), mode(&outside)), (0o660, 0o600));
        assert_eq!(mode(&volume.join("sub")) & DIRECTORY, DIRECTORY);
        std::fs::write(volume.join("new"), "").unwrap();
        std::fs::set_permissions(volume.join("new"), std::fs::Permissions::from_mode(0o600)).unwrap();
        give(&volume, group, true).unwrap();
        assert_eq!(mode(&volume.join("new")), 0o600, "the root fits, so nothing is looked at");
        give(&volume, group, false).unwrap();
        assert_eq!(mode(&volume.join("new")), 0o660);
    }
}

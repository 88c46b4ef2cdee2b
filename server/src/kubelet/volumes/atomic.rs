//! Replaces the files of a volume in one step, as readers see it (`pkg/volume/util/atomic_writer.go`).
//!
//! Layout: `<key>` → `..data/<key>`, `..data` → `..2026_01_02_03_04_05.123456789`, the directory that holds the files.
//! The swap is the rename of `..data`. Pure file system work; the caller keeps it off the async threads.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path};

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Contents.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// User that it belongs to, if not this process's.
    pub owner: Option<u32>,
}

/// Files by their path in the volume.
pub type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes the volume hold exactly these files. Does nothing if it does already.
pub fn write(target: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    for path in files.keys() {
        check(path)?;
    }
    let old = std::fs::read_link(target.join(DATA)).ok();
    if let Some(old) = &old
        && read(&target.join(old)).is_ok_and(|present| present == with_group_bits(files, group))
    {
        return link(target, files);
    }
    let now = k8s_openapi::jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S%.9f").to_string();
    let fresh = target.join(&now);
    std::fs::DirBuilder::new().mode(0o755).create(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
    own_directory(&fresh, group)?;
    for (path, file) in files {
        write_file(&fresh, path, file, group)?;
    }
    let staging = target.join(DATA_NEW);
    let _ = std::fs::remove_file(&staging);
    symlink(&now, &staging)?;
    std::fs::rename(&staging, target.join(DATA))?;
    link(target, files)?;
    if let Some(old) = old {
        std::fs::remove_dir_all(target.join(old))?;
    }
    Ok(())
}

/// Paths stay inside the volume and out of the writer's own names.
fn check(path: &str) -> io::Result<()> {
    let bad = path.is_empty() || path.starts_with("..") || Path::new(path).components().any(|c| !matches!(c, Component::Normal(_)));
    if bad {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path in volume: {path}")));
    }
    Ok(())
}

/// What files look like once they belong to a group: readable by it. The owner never changes, so it is not compared.
fn with_group_bits(files: &Files, group: Option<u32>) -> Files {
    let bits = if group.is_some() { 0o440 } else { 0 };
    files.iter().map(|(path, file)| (path.clone(), File { mode: file.mode | bits, bytes: file.bytes.clone(), owner: None })).collect()
}

fn write_file(dir: &Path, path: &str, file: &File, group: Option<u32>) -> io::Result<()> {
    let full = dir.join(path);
    let mut parent = dir.to_owned();
    for part in Path::new(path).parent().iter().flat_map(|p| p.components()) {
        parent.push(part);
        if !parent.exists() {
            std::fs::DirBuilder::new().mode(0o755).create(&parent)?;
            own_directory(&parent, group)?;
        }
    }
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    let mut handle = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full)?;
    handle.write_all(&file.bytes)?;
    if group.is_some() || file.owner.is_some() {
        chown(&full, file.owner, group)?;
    }
    // Not at creation: the process's umask would apply.
    handle.set_permissions(std::fs::Permissions::from_mode(mode))
}

fn own_directory(dir: &Path, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        chown(dir, None, group)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o2775))?;
    }
    Ok(())
}

/// Every file below a directory.
fn read(dir: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
                continue;
            }
            let name = entry.path().strip_prefix(dir).map_err(io::Error::other)?.to_string_lossy().into_owned();
            files.insert(name, File { bytes: std::fs::read(entry.path())?, mode: entry.metadata()?.permissions().mode() & 0o7777, owner: None });
        }
    }
    Ok(files)
}

/// Gives every first path component its link, and removes the links of those that are gone.
fn link(target: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &wanted {
        let path = target.join(name);
        if std::fs::symlink_metadata(&path).is_err() {
            symlink(Path::new(DATA).join(name), &path)?;
        }
    }
    for entry in std::fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(path, text)| ((*path).to_owned(), File { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None })).collect()
    }

    fn visible(dir: &Path) -> Vec<(String, String)> {
        let mut list: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .filter(|e| !e.file_name().to_string_lossy().starts_with(".."))
            .filter(|e| e.path().is_file())
            .map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(e.path()).unwrap()))
            .collect();
        list.sort();
        list
    }

    #[test]
    fn files_appear_change_and_vanish_through_one_swap() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("b/c", "2")]), None).unwrap();
        assert_eq!(visible(dir.path()), [("a".into(), "1".into())]);
        assert_eq!(std::fs::read_to_string(dir.path().join("b/c")).unwrap(), "2");
        let first = std::fs::read_link(dir.path().join(DATA)).unwrap();
        write(dir.path(), &files(&[("a", "1"), ("b/c", "2")]), None).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join(DATA)).unwrap(), first, "an equal payload must not swap");
        write(dir.path(), &files(&[("a", "3"), ("d", "4")]), None).unwrap();
        assert_eq!(visible(dir.path()), [("a".into(), "3".into()), ("d".into(), "4".into())]);
        assert!(!dir.path().join(first).exists(), "the old directory is removed");
        assert!(std::fs::symlink_metadata(dir.path().join("b")).is_err());
        let mode = std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/passwd", "a/../../x", "..data", ""] {
            assert!(write(dir.path(), &files(&[(path, "x")]), None).is_err(), "{path}");
        }
    }
}

//! Opens log files beneath a pod's log directory without following links out of it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Opens `<dir>/<relative>` for reading; a link anywhere on the way is an error.
pub fn open(dir: &Path, relative: &str) -> io::Result<File> {
    let root = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_parents_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/0.log"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a/1.log")).unwrap();
        assert!(open(dir.path(), "a/0.log").is_ok());
        for bad in ["a/1.log", "../x", "a", "/etc/passwd"] {
            assert!(open(dir.path(), bad).is_err(), "{bad}");
        }
    }
}

//! Secret files: 0600 in directories of 0700, written whole or not at all, refused when others could read them.
//!
//! Owns every write below the data directory's `pki`. Must never log a file's content.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::PkiError;

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::Io { action, path, source }
}

/// Makes a private directory and its parents, or checks that the existing one is private.
pub(super) fn private_dir(path: &Path) -> Result<(), PkiError> {
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path, "creating"))?;
    }
    let meta = std::fs::metadata(path).map_err(io(path, "reading"))?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PkiError::Mode { path: path.to_owned(), mode, wanted: "700" });
    }
    owned(path, meta.uid())
}

fn owned(path: &Path, uid: u32) -> Result<(), PkiError> {
    let own = rustix::process::geteuid().as_raw();
    if uid == own || uid == 0 { Ok(()) } else { Err(PkiError::Owner { path: path.to_owned(), uid, own }) }
}

/// A private file's text; `None` when it does not exist.
pub(super) fn read_private(path: &Path) -> Result<Option<String>, PkiError> {
    read_checked(path, true)
}

/// Any file's text; `None` when it does not exist.
pub(super) fn read_public(path: &Path) -> Result<Option<String>, PkiError> {
    read_checked(path, false)
}

fn read_checked(path: &Path, private: bool) -> Result<Option<String>, PkiError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(path, "opening")(error)),
    };
    if private {
        // Asked of the open file, so that nothing can be swapped in between.
        let meta = file.metadata().map_err(io(path, "reading"))?;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(PkiError::Mode { path: path.to_owned(), mode, wanted: "600" });
        }
        owned(path, meta.uid())?;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(io(path, "reading"))?;
    Ok(Some(text))
}

/// Writes a file under another name next to it and renames it into place: readers see the old or the new content.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    // The parent of a bare file name is empty.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}.tmp", uuid::Uuid::new_v4().simple()));
    let outcome = write_new(&temporary, content, mode).and_then(|()| std::fs::rename(&temporary, path).map_err(io(path, "writing")));
    if outcome.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    outcome?;
    sync_dir(dir)
}

/// Makes what was renamed or removed in a directory last.
pub(super) fn sync_dir(dir: &Path) -> Result<(), PkiError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(io(dir, "syncing"))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(io(path, "creating"))?;
    // The umask may have taken bits away, which a file that is replaced must not lose.
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(io(path, "creating"))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io(path, "writing"))
}

/// Held while the directory is looked through and written; a second server on the same directory waits.
pub(super) struct DirLock(#[allow(dead_code, reason = "the lock lives as long as the file is open")] File);

pub(super) fn lock_dir(dir: &Path) -> Result<DirLock, PkiError> {
    let path: PathBuf = dir.join(".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io(&path, "opening"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|e| io(&path, "locking")(e.into()))?;
    Ok(DirLock(file))
}

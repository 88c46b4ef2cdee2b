//! hostPath volumes and their types (`pkg/volume/hostpath/host_path.go`).
//!
//! File system work for the blocking threads; creates what the type asks for and nothing else.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Checks or makes the path as its type asks; no type, no check.
pub fn prepare(path: &str, kind: &str) -> Result<PathBuf, String> {
    let target = Path::new(path);
    let text = |e: std::io::Error| e.to_string();
    match kind {
        "DirectoryOrCreate" if !target.exists() => {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(target).map_err(text)?;
        }
        "FileOrCreate" if !target.exists() => {
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(target).map_err(text)?;
        }
        // The runtime makes a missing path a directory, as upstream's do.
        "" => return Ok(target.to_owned()),
        _ => {}
    }
    let found = std::fs::metadata(target).map_err(|_| failed(path, kind))?.file_type();
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    if fits { Ok(target.to_owned()) } else { Err(failed(path, kind)) }
}

fn failed(path: &str, kind: &str) -> String {
    let wanted = match kind {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        "BlockDevice" => "a block device",
        _ => "usable",
    };
    format!("hostPath type check failed: {path} is not {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_created() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        assert!(prepare(&at("new/dir"), "DirectoryOrCreate").unwrap().is_dir());
        assert!(prepare(&at("file"), "FileOrCreate").unwrap().is_file());
        assert_eq!(prepare(&at("file"), "Directory"), Err(format!("hostPath type check failed: {} is not a directory", at("file"))));
        assert_eq!(prepare(&at("none"), "File"), Err(format!("hostPath type check failed: {} is not a file", at("none"))));
        assert!(prepare(&at("none"), "").is_ok());
        assert!(prepare("/dev/null", "CharDevice").is_ok());
    }
}

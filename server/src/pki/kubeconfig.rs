//! Writing kubeconfigs: the administrator's own file, and a context merged into the user's file without touching the rest of it.

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_yaml::{Mapping, Value};

use super::{Pair, PkiError, files};

/// One cluster, user and context, all of the same name.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// Name of the context, cluster and user, e.g. `kserver`.
    pub name: &'a str,
    /// `https://host:port`
    pub server: &'a str,
    /// The CA's certificate, PEM.
    pub ca: &'a str,
    /// The client's certificate and key.
    pub client: &'a Pair,
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Mapping(pairs.iter().map(|(k, v)| (text(*k), v.clone())).collect())
}

impl Context<'_> {
    fn entries(&self) -> [(&'static str, &'static str, Value); 3] {
        let cluster = map(&[("certificate-authority-data", text(STANDARD.encode(self.ca))), ("server", text(self.server))]);
        let user = map(&[
            ("client-certificate-data", text(STANDARD.encode(&self.client.certificate))),
            ("client-key-data", text(STANDARD.encode(&self.client.key))),
        ]);
        let context = map(&[("cluster", text(self.name)), ("user", text(self.name))]);
        [("clusters", "cluster", cluster), ("contexts", "context", context), ("users", "user", user)]
    }

    /// The kubeconfig that has this context and nothing else.
    pub fn document(&self) -> String {
        // A fresh document cannot fail to merge.
        self.merge("").unwrap_or_default()
    }

    /// `existing` with this context added or replaced. Everything else keeps its place; the current context changes only where none is set.
    ///
    /// # Errors
    /// What is wrong with `existing`.
    pub fn merge(&self, existing: &str) -> Result<String, String> {
        let mut root = match serde_yaml::from_str::<Value>(existing).map_err(|e| e.to_string())? {
            Value::Null => Mapping::new(),
            Value::Mapping(root) => root,
            _ => return Err("it is not a kubeconfig: expected a mapping".into()),
        };
        root.entry(text("apiVersion")).or_insert_with(|| text("v1"));
        root.entry(text("kind")).or_insert_with(|| text("Config"));
        for (list, field, value) in self.entries() {
            let slot = root.entry(text(list)).or_insert_with(|| Value::Sequence(Vec::new()));
            if slot.is_null() {
                *slot = Value::Sequence(Vec::new());
            }
            let Value::Sequence(items) = slot else { return Err(format!("{list} is not a list")) };
            merge_item(items, self.name, field, value);
        }
        let current = root.entry(text("current-context")).or_insert_with(|| text(""));
        if current.is_null() || current.as_str() == Some("") {
            *current = text(self.name);
        }
        serde_yaml::to_string(&root).map_err(|e| e.to_string())
    }

    /// Writes [`Self::document`] to a private file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), PkiError> {
        files::write(path, self.document().as_bytes(), 0o600)
    }

    /// Merges the context into a kubeconfig, creating it (0600) if needed. The file's mode and a symbolic link to it are kept.
    /// Takes the lock kubectl takes (`<file>.lock`).
    ///
    /// # Errors
    /// When the file is locked, cannot be parsed, or cannot be written; it is then as it was.
    pub fn merge_into(&self, path: &Path) -> Result<(), PkiError> {
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
            files::private_dir(dir)?;
        }
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let _lock = Lock::take(&path)?;
        let existing = files::read_public(&path)?;
        let mode = match std::fs::metadata(&path) {
            Ok(meta) => meta.permissions().mode() & 0o777,
            Err(_) => 0o600,
        };
        let existing = existing.unwrap_or_default();
        let merged = self.merge(&existing).map_err(|reason| PkiError::Corrupt { path: path.clone(), reason })?;
        if merged == existing { Ok(()) } else { files::write(&path, merged.as_bytes(), mode) }
    }
}

/// Replaces what we set in the item of that name, or appends one; further fields of an existing item stay.
fn merge_item(items: &mut Vec<Value>, name: &str, field: &str, value: Value) {
    let found = items.iter_mut().filter_map(Value::as_mapping_mut).find(|i| i.get("name").and_then(Value::as_str) == Some(name));
    let Some(item) = found else {
        items.push(map(&[(field, value), ("name", text(name))]));
        return;
    };
    let body = item.entry(text(field)).or_insert_with(|| Value::Mapping(Mapping::new()));
    if let (Value::Mapping(old), Value::Mapping(new)) = (&mut *body, &value) {
        for stale in ["certificate-authority", "insecure-skip-tls-verify", "client-certificate", "client-key", "token", "tokenFile"] {
            old.remove(stale);
        }
        old.extend(new.clone());
    } else {
        *body = value;
    }
}

/// kubectl's lock on a kubeconfig: a file that exists while someone writes.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, PkiError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&lock) {
            Ok(_) => Ok(Lock(lock)),
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                let reason = format!("another program is writing it; if none is, run: rm {}", lock.display());
                Err(PkiError::Corrupt { path: path.to_owned(), reason })
            }
            Err(source) => Err(PkiError::Io { action: "locking", path: lock, source }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        Pair { certificate: "CERT".into(), key: "KEY".into() }
    }

    fn context(client: &Pair) -> Context<'_> {
        Context { name: "kserver", server: "https://127.0.0.1:6443", ca: "CA", client }
    }

    const EXISTING: &str = "kind: Config\nx-mine: kept\ncontexts:\n- name: other\n  context:\n    cluster: other\n    user: other\n    namespace: n\n- name: kserver\n  context:\n    cluster: old\n    user: old\n    namespace: mine\ncurrent-context: other\nclusters: null\n";

    #[test]
    fn merging_keeps_what_it_does_not_know() {
        let pair = pair();
        let merged = context(&pair).merge(EXISTING).unwrap();
        let value: Value = serde_yaml::from_str(&merged).unwrap();
        assert_eq!(value["x-mine"], "kept");
        assert_eq!(value["current-context"], "other");
        assert_eq!(value["contexts"][0]["context"]["namespace"], "n");
        assert_eq!(value["contexts"][1]["context"]["namespace"], "mine");
        assert_eq!(value["contexts"][1]["context"]["cluster"], "kserver");
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert!(merged.starts_with("kind: Config\nx-mine: kept\n"), "the order stays: {merged}");
        assert_eq!(context(&pair).merge(&merged).unwrap(), merged, "merging twice changes nothing");
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_link_and_is_left_alone_when_it_is_broken_or_locked() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("config"));
        std::fs::write(&real, EXISTING).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let pair = pair();
        context(&pair).merge_into(&link).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(std::fs::read_to_string(&real).unwrap().contains("https://127.0.0.1:6443"));
        for broken in ["- a list", "a: [", "contexts: 3"] {
            std::fs::write(&real, broken).unwrap();
            assert!(context(&pair).merge_into(&link).is_err());
            assert_eq!(std::fs::read_to_string(&real).unwrap(), broken);
        }
        std::fs::write(dir.path().join("real.lock"), "").unwrap();
        assert!(context(&pair).merge_into(&link).unwrap_err().to_string().contains("rm "));
    }

    #[test]
    fn a_new_file_is_private_and_selects_the_context() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/config");
        let pair = pair();
        context(&pair).merge_into(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let value: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["current-context"], "kserver");
    }
}

//! One kubeconfig file as a value: read, change, write back.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::client::config;
use crate::print::yaml;

/// A file and what is in it.
pub(super) struct File {
    pub path: PathBuf,
    pub value: Value,
}

impl File {
    /// Reads a file; one that is not there is empty.
    pub(super) fn read(path: &Path) -> Result<File> {
        let value = match std::fs::read_to_string(path) {
            Ok(text) => serde_yaml::from_str(&text).map_err(|e| anyhow!("error loading config file {:?}: {e}", path.display().to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error).with_context(|| format!("error loading config file {:?}", path.display().to_string())),
        };
        let value = if value.is_object() {
            value
        } else {
            json!({ "apiVersion": "v1", "kind": "Config", "clusters": null, "contexts": null, "users": null, "current-context": "" })
        };
        Ok(File { path: path.to_owned(), value })
    }

    /// Writes the file in one step, keeping its mode; a new one is for its owner only.
    pub(super) fn write(&self) -> Result<()> {
        let directory = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        // A link stays a link: what it leads to is replaced.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let mode = std::fs::metadata(&target).map_or(0o600, |m| m.permissions().mode() & 0o777);
        let lock = Lock::take(&self.path)?;
        let mut temporary = tempfile::NamedTempFile::new_in(target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        temporary.write_all(self.text().as_bytes())?;
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        temporary.persist(&target).map_err(|e| e.error).with_context(|| format!("cannot write {}", target.display()))?;
        drop(lock);
        Ok(())
    }

    fn text(&self) -> String {
        let mut value = self.value.clone();
        for field in ["clusters", "contexts", "users"] {
            if let Some(entries) = value[field].as_array_mut() {
                entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
            }
        }
        yaml::to_string(&value)
    }

    /// The entry of a name.
    pub(super) fn entry(&self, list: &str, name: &str) -> Option<&Value> {
        self.value[list].as_array()?.iter().find(|e| e["name"] == name)
    }

    /// The entry of a name, to change; made where there is none.
    pub(super) fn entry_mut(&mut self, list: &str, name: &str) -> &mut Value {
        if !self.value[list].is_array() {
            self.value[list] = json!([]);
        }
        let inner = inner(list);
        let entries = self.value[list].as_array_mut().map(std::mem::take).unwrap_or_default();
        let mut entries = entries;
        let at = match entries.iter().position(|e| e["name"] == name) {
            Some(at) => at,
            None => {
                entries.push(json!({ "name": name, inner: {} }));
                entries.len() - 1
            }
        };
        self.value[list] = Value::Array(entries);
        &mut self.value[list][at][inner]
    }

    /// Removes an entry; says whether there was one.
    pub(super) fn remove(&mut self, list: &str, name: &str) -> bool {
        let Some(entries) = self.value[list].as_array_mut() else { return false };
        let before = entries.len();
        entries.retain(|e| e["name"] != name);
        entries.len() != before
    }
}

/// The field below an entry's name.
pub(super) fn inner(list: &str) -> &'static str {
    match list {
        "clusters" => "cluster",
        "contexts" => "context",
        _ => "user",
    }
}

/// Other programs that change kubeconfig files respect `config.lock`, and so does this one.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Lock> {
        let lock = PathBuf::from(format!("{}.lock", path.display()));
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => anyhow!("open {}: file exists", lock.display()),
            _ => anyhow!("open {}: {e}", lock.display()),
        })?;
        Ok(Lock(lock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _removed = std::fs::remove_file(&self.0);
    }
}

/// The file that holds an entry, else the one new entries go to.
pub(super) fn holding(ctx: &Ctx, list: &str, name: &str) -> Result<File> {
    let files = config::files(&ctx.global);
    for path in &files {
        let file = File::read(path)?;
        if file.entry(list, name).is_some() {
            return Ok(file);
        }
    }
    File::read(&default_path(&files))
}

/// The file that names the current context, else the one new entries go to.
pub(super) fn holding_current(ctx: &Ctx) -> Result<File> {
    let files = config::files(&ctx.global);
    for path in &files {
        let file = File::read(path)?;
        if file.value["current-context"].as_str().is_some_and(|c| !c.is_empty()) {
            return Ok(file);
        }
    }
    File::read(&default_path(&files))
}

/// Of several files the last that exists.
pub(super) fn default_path(files: &[PathBuf]) -> PathBuf {
    files.iter().rev().find(|f| f.exists()).or(files.last()).cloned().unwrap_or_else(|| config::home().join(".kube/config"))
}

/// All files laid over each other, the first ones winning.
pub fn merged(ctx: &Ctx) -> Result<Value> {
    let files = config::files(&ctx.global);
    let mut merged = json!({ "apiVersion": "v1", "kind": "Config" });
    for path in &files {
        if !path.exists() {
            continue;
        }
        let file = File::read(path)?;
        for (field, value) in file.value.as_object().into_iter().flatten() {
            match (value, merged.get(field)) {
                (Value::Array(more), Some(Value::Array(_))) => {
                    for entry in more {
                        let known = merged[field].as_array().into_iter().flatten().any(|e| e["name"] == entry["name"]);
                        if let Some(list) = merged[field].as_array_mut().filter(|_| !known) {
                            list.push(entry.clone());
                        }
                    }
                }
                (_, Some(old)) if old.as_str().is_none_or(|s| !s.is_empty()) => {}
                (value, _) => merged[field] = value.clone(),
            }
        }
    }
    Ok(merged)
}

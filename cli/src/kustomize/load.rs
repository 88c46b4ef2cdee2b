//! Where a kustomization lies: finds and reads its files, and lets none lie outside of its directory.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

use super::spec::Kustomization;
use crate::errors;

const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// A directory with a kustomization, and those it was reached through.
#[derive(Debug)]
pub struct Root {
    /// The directory without links.
    pub directory: PathBuf,
    parents: Vec<PathBuf>,
    /// Files may lie anywhere.
    unrestricted: bool,
}

impl Root {
    /// The directory a user names.
    pub fn open(path: &str, unrestricted: bool) -> Result<Root> {
        let directory = directory(Path::new(path)).map_err(|e| anyhow!("must build at directory: {e}"))?;
        Ok(Root { directory, parents: Vec::new(), unrestricted })
    }

    /// The directory that a kustomization names.
    pub fn enter(&self, path: &str) -> Result<Root> {
        let directory = directory(&self.directory.join(path)).map_err(|e| anyhow!("must build at directory: {e}"))?;
        let parents: Vec<PathBuf> = self.parents.iter().chain([&self.directory]).cloned().collect();
        if let Some(visited) = parents.iter().find(|p| p.starts_with(&directory)) {
            bail!("cycle detected: candidate root '{}' contains visited root '{}'", directory.display(), visited.display());
        }
        Ok(Root { directory, parents, unrestricted: self.unrestricted })
    }

    /// The kustomization that lies here.
    pub fn kustomization(&self) -> Result<Kustomization> {
        let found: Vec<PathBuf> = NAMES.iter().map(|name| self.directory.join(name)).filter(|path| path.is_file()).collect();
        match found.as_slice() {
            [] => bail!(
                "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{}'",
                self.directory.display()
            ),
            [one] => Kustomization::parse(&std::fs::read_to_string(one).map_err(|e| anyhow!("{}", errors::io("open", &one.to_string_lossy(), &e)))?),
            _ => bail!("Found multiple kustomization files under: {}", self.directory.display()),
        }
    }

    /// Reads a file that the kustomization names.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        if is_remote(path) {
            bail!("kctl builds kustomizations from local files only: fetch {path} first");
        }
        let file = resolved(&self.directory.join(path))?;
        if file.is_dir() {
            bail!("'{}' must resolve to a file", file.display());
        }
        if !self.unrestricted && !file.starts_with(&self.directory) {
            bail!("security; file '{}' is not in or below '{}'", file.display(), self.directory.display());
        }
        std::fs::read(&file).map_err(|e| anyhow!("{}", errors::io("open", &file.to_string_lossy(), &e)))
    }
}

/// Whether a resource lies on another machine.
pub fn is_remote(path: &str) -> bool {
    ["https://", "http://", "git@", "ssh://", "git::", "github.com/"].iter().any(|scheme| path.starts_with(scheme))
}

fn directory(path: &Path) -> Result<PathBuf> {
    let found = resolved(path).map_err(|e| anyhow!("not a valid directory: {e}"))?;
    if !found.is_dir() {
        bail!("'{}': file is not directory", found.display());
    }
    Ok(found)
}

/// A path without links and dots.
fn resolved(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| {
        let absolute = tidy(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let shown = if path.is_absolute() { absolute.clone() } else { path.to_owned() };
        anyhow!("evalsymlink failure on '{}' : {}", shown.display(), errors::io("lstat", &absolute.to_string_lossy(), &error))
    })
}

/// Takes `.` and `..` out of a path that leads nowhere.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(tidied.pop()),
            std::path::Component::CurDir => {}
            part => tidied.push(part),
        }
    }
    tidied
}

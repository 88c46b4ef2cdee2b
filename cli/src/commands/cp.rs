//! `cp`: files to and from containers, as tar over exec.

use std::io::{Read, Seek};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use tokio_util::io::{InspectReader, InspectWriter};

use super::{exec, pods};
use crate::app::Ctx;
use crate::discovery::escape;
use crate::progress::Transfer;
use crate::resource::Info;
use crate::stream::Streams;

/// Copy files and directories to and from containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// SOURCE and DESTINATION, one of them [NAMESPACE/]POD:PATH
    #[arg(value_name = "SRC DEST")]
    pub args: Vec<String>,
    /// Container name. If omitted, use the default container or the first container in the pod
    #[arg(short = 'c', long)]
    pub container: Option<String>,
    /// The copied file/directory's ownership and permissions will not be preserved in the container
    #[arg(long)]
    pub no_preserve: bool,
    /// Set number of retries to complete a copy operation from a container
    #[arg(long, default_value_t = 0)]
    pub retries: i32,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Local(PathBuf),
    Remote { namespace: Option<String>, pod: String, path: String },
}

fn place(text: &str) -> Result<Place> {
    // A path that begins like one is local, whatever colons it holds.
    let local = text.starts_with(['/', '.']) || !text.contains(':');
    if local {
        return Ok(Place::Local(PathBuf::from(text)));
    }
    let (head, path) = text.split_once(':').unwrap_or((text, ""));
    if path.is_empty() {
        bail!("filepath can not be empty");
    }
    let parts: Vec<&str> = head.split('/').collect();
    Ok(match parts.as_slice() {
        [pod] => Place::Remote { namespace: None, pod: (*pod).to_owned(), path: path.to_owned() },
        [namespace, pod] => Place::Remote { namespace: Some((*namespace).to_owned()), pod: (*pod).to_owned(), path: path.to_owned() },
        _ => bail!("{text:?} does not match '[<namespace>/]<pod>:<path>'"),
    })
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let [source, target] = self.args.as_slice() else { bail!("source and destination are required") };
        match (place(source)?, place(target)?) {
            (Place::Local(from), Place::Remote { namespace, pod, path }) => self.upload(ctx, &from, namespace, &pod, &path).await,
            (Place::Remote { namespace, pod, path }, Place::Local(to)) => {
                let mut left = self.retries;
                loop {
                    match self.download(ctx, namespace.clone(), &pod, &path, &to).await {
                        Err(error) if left != 0 => {
                            eprintln!("Copy failed, trying again: {error}");
                            left -= 1;
                        }
                        done => return done,
                    }
                }
            }
            (Place::Remote { .. }, Place::Remote { .. }) => bail!("one of src or dest must be a local file specification"),
            (Place::Local(_), Place::Local(_)) => bail!("one of src or dest must be a remote file specification"),
        }
    }

    async fn pod(&self, ctx: &Ctx, namespace: Option<String>, name: &str) -> Result<(Info, String)> {
        let kind = pods::kind();
        let namespace = match namespace {
            Some(namespace) => namespace,
            None => ctx.namespace()?,
        };
        let object = ctx.client().await?.get(&kind.object(Some(&namespace), name)).await?;
        let info = Info { kind: std::rc::Rc::new(kind), namespace: Some(namespace), name: name.to_owned(), object, source: String::new() };
        let container = pods::container(&pods::typed(&info)?, self.container.as_deref(), false)?;
        Ok((info, container))
    }

    async fn upload(&self, ctx: &Ctx, from: &Path, namespace: Option<String>, pod: &str, path: &str) -> Result<()> {
        if !from.exists() {
            bail!("{} doesn't exist in local filesystem", from.display());
        }
        let (info, container) = self.pod(ctx, namespace, pod).await?;
        let mut target = path.to_owned();
        // An existing directory takes the source in under its own name.
        let probe = ["test".to_owned(), "-d".to_owned(), path.to_owned()];
        let query = format!("container={}&stdout=true&stderr=true", escape(&container));
        let silent = Streams { stdin: None, stdout: Box::new(tokio::io::sink()), stderr: Box::new(tokio::io::sink()), tty: false };
        let is_directory = match exec_quietly(ctx, &info, &probe, &query, silent).await {
            Ok(is_directory) => is_directory,
            Err(error) => return Err(error),
        };
        let base = from.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if is_directory {
            target = format!("{}/{base}", path.trim_end_matches('/'));
        } else if path.ends_with('/') {
            bail!("the destination {path} is no directory in the container");
        }
        let (directory, name) = match target.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some((directory, name)) => (directory, name),
            None => (".", target.as_str()),
        };
        let archive = pack(from, name)?;
        let mut command: Vec<String> = ["tar", "-xmf", "-", "-C", directory].map(String::from).to_vec();
        if self.no_preserve {
            command.splice(1..1, ["--no-same-permissions".to_owned(), "--no-same-owner".to_owned()]);
        }
        let query = format!("container={}&stdin=true&stdout=true&stderr=true", escape(&container));
        let mut transfer = Transfer::new(&base, archive.metadata().ok().map(|m| m.len()));
        let archive = InspectReader::new(tokio::fs::File::from_std(archive), move |bytes| transfer.passed(bytes));
        let streams =
            Streams { stdin: Some(Box::new(archive)), stdout: Box::new(tokio::io::stdout()), stderr: Box::new(tokio::io::stderr()), tty: false };
        exec::exec(ctx, &info, &command, &query, streams).await
    }

    async fn download(&self, ctx: &Ctx, namespace: Option<String>, pod: &str, path: &str, to: &Path) -> Result<()> {
        let (info, container) = self.pod(ctx, namespace, pod).await?;
        let command = ["tar", "cf", "-", path].map(String::from);
        let query = format!("container={}&stdout=true&stderr=true", escape(&container));
        let mut archive = tempfile::tempfile()?;
        let mut transfer = Transfer::new(path.rsplit('/').next().unwrap_or(path), None);
        let file = InspectWriter::new(tokio::fs::File::from_std(archive.try_clone()?), move |bytes| transfer.passed(bytes));
        let streams = Streams { stdin: None, stdout: Box::new(file), stderr: Box::new(tokio::io::stderr()), tty: false };
        exec::exec(ctx, &info, &command, &query, streams).await?;
        archive.rewind()?;
        unpack(archive, path, to)
    }
}

/// Whether a command succeeded, without a word about it.
async fn exec_quietly(ctx: &Ctx, info: &Info, command: &[String], query: &str, streams: Streams<'_>) -> Result<bool> {
    let words: String = command.iter().map(|word| format!("command={}&", escape(word))).collect();
    match crate::stream::test(ctx, &format!("{}/exec?{words}{query}", info.path()), streams).await {
        Ok(code) => Ok(code == 0),
        Err(error) => Err(error),
    }
}

/// A tar of a file or directory under a new name, read from its start.
fn pack(from: &Path, name: &str) -> Result<std::fs::File> {
    let mut builder = tar::Builder::new(tempfile::tempfile()?);
    builder.follow_symlinks(false);
    if from.is_dir() {
        builder.append_dir_all(name, from).with_context(|| format!("cannot read {}", from.display()))?;
    } else {
        builder.append_path_with_name(from, name).with_context(|| format!("cannot read {}", from.display()))?;
    }
    let mut file = builder.into_inner()?;
    file.rewind()?;
    Ok(file)
}

/// Unpacks what `tar cf - path` made: the last part of the path becomes `to`, or goes into it where that is a directory.
fn unpack(archive: impl Read, path: &str, to: &Path) -> Result<()> {
    let prefix = PathBuf::from(path.trim_start_matches('/').trim_end_matches('/'));
    let prefix: PathBuf = prefix.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    let base = prefix.file_name().map(PathBuf::from).unwrap_or_default();
    let root = if to.is_dir() { to.join(&base) } else { to.to_owned() };
    let mut found = false;
    let mut reader = tar::Archive::new(archive);
    for entry in reader.entries()? {
        let mut entry = entry?;
        found = true;
        let name = entry.path()?.into_owned();
        let clean: PathBuf = name.components().filter(|c| matches!(c, Component::Normal(_))).collect();
        if name.components().any(|c| matches!(c, Component::ParentDir)) {
            bail!("tar contents corrupted: {} leads out of the destination", name.display());
        }
        let relative = clean.strip_prefix(&prefix).unwrap_or(&clean);
        let target = if relative.as_os_str().is_empty() { root.clone() } else { root.join(relative) };
        match entry.header().entry_type() {
            tar::EntryType::Directory => std::fs::create_dir_all(&target)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if let Some(parent) = target.parent().filter(|p| !p.as_os_str().is_empty()) {
                    std::fs::create_dir_all(parent)?;
                }
                let mut file = std::fs::File::create(&target).with_context(|| format!("cannot write {}", target.display()))?;
                std::io::copy(&mut entry, &mut file)?;
            }
            // A link could lead anywhere on this machine.
            tar::EntryType::Symlink | tar::EntryType::Link => {
                eprintln!("warning: skipping symlink: {:?} -> {:?}", target.display().to_string(), entry.link_name()?.unwrap_or_default())
            }
            _ => {}
        }
    }
    if !found {
        return Err(anyhow!("{path} is empty or not there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        for (text, wanted) in [
            ("/tmp/x", Place::Local("/tmp/x".into())),
            ("./a:b", Place::Local("./a:b".into())),
            ("x", Place::Local("x".into())),
            ("p:/tmp", Place::Remote { namespace: None, pod: "p".into(), path: "/tmp".into() }),
            ("n/p:t", Place::Remote { namespace: Some("n".into()), pod: "p".into(), path: "t".into() }),
        ] {
            assert_eq!(place(text).unwrap(), wanted);
        }
        assert!(place("p:").is_err());
    }

    #[test]
    fn what_is_packed_unpacks_the_same() {
        let here = tempfile::tempdir().unwrap();
        let source = here.path().join("src");
        std::fs::create_dir_all(source.join("d")).unwrap();
        std::fs::write(source.join("d/f"), "text").unwrap();
        let archive = pack(&source, "var/dst").unwrap();
        let target = here.path().join("out");
        unpack(archive, "/var/dst", &target).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("d/f")).unwrap(), "text");
    }

    #[test]
    fn nothing_leaves_the_destination() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.as_old_mut().name[..9].copy_from_slice(b"../../evl");
        header.set_cksum();
        builder.append(&header, &b"x"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let here = tempfile::tempdir().unwrap();
        assert!(unpack(&bytes[..], "/x", &here.path().join("a")).unwrap_err().to_string().contains("leads out"));
    }
}

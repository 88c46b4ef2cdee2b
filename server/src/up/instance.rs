//! An instance's place on the machine: its data directory, its run directory, its lock, and the record of who runs it.
//!
//! Everything the instance names on the machine (bridge, nftables table, cgroup) is derived from the data directory's path,
//! so that two instances never meet and a later process finds what an earlier one left.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::child;

/// What a running instance says of itself in `<data>/instance.json`; kept after it ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Process id of the last `kserver up`.
    pub pid: u32,
    /// Its start time, in clock ticks since boot.
    pub start_time: u64,
    /// Ids and start times of its children.
    pub children: Vec<(u32, u64)>,
    /// API server's port.
    pub secure_port: u16,
    /// Ports of the private etcd: clients, peers.
    pub etcd_ports: Option<(u16, u16)>,
    /// Port of the kubelet.
    pub kubelet_port: u16,
    /// Port of the cluster DNS.
    pub dns_port: u16,
    /// Whether it runs containers, and not only simulated nodes.
    pub uses_containers: bool,
    /// The runtime's socket, when it is not the private one.
    pub runtime_endpoint: Option<PathBuf>,
    /// Directory of its sockets.
    pub run: PathBuf,
    /// Name of the node.
    pub node_name: String,
    /// Service range, for the rules to remove.
    pub service_cidr: String,
}

/// A data directory and what is derived from it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The data directory.
    pub data: PathBuf,
    /// Short-lived files: sockets, containerd's state. Gone after a reboot.
    pub run: PathBuf,
    /// Eight hex digits that name the instance on the machine.
    pub id: String,
}

/// The lock on a data directory; held while the instance runs.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Instance {
    /// The instance of a data directory, which need not exist.
    pub fn new(data: PathBuf) -> Self {
        let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
        let id: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
        let base = if rustix::process::geteuid().is_root() {
            PathBuf::from("/run/kserver")
        } else {
            std::env::var_os("XDG_RUNTIME_DIR")
                .map_or_else(|| std::env::temp_dir().join(format!("kserver-{}", rustix::process::geteuid().as_raw())), PathBuf::from)
        };
        Instance { run: base.join(&id), data, id }
    }

    /// Name of the pods' bridge (at most 15 bytes).
    pub fn bridge(&self) -> String {
        format!("kserver-{}", &self.id[..6])
    }
    /// Name of the nftables table.
    pub fn table(&self) -> String {
        format!("kserver-{}", self.id)
    }
    /// Cgroup that holds the pods'.
    pub fn cgroup(&self) -> String {
        format!("/kserver-{}", self.id)
    }
    /// The private containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.run.join("containerd/containerd.sock")
    }
    /// Where logs go.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }
    /// Log of the detached process.
    pub fn log_file(&self) -> PathBuf {
        self.logs().join("kserver.log")
    }
    /// Credentials of the administrator.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }
    fn record_file(&self) -> PathBuf {
        self.data.join("instance.json")
    }

    /// Creates the directories, for this user only.
    ///
    /// # Errors
    /// A directory cannot be made, or exists with another owner or open to others.
    pub fn create_dirs(&self) -> Result<()> {
        for dir in [&self.data, &self.run, &self.logs()] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("create {}", dir.display()))?;
            let meta = dir.metadata()?;
            if meta.uid() != rustix::process::geteuid().as_raw() {
                bail!("{} belongs to another user: choose another directory with --data-dir", dir.display());
            }
            if meta.permissions().mode() & 0o077 != 0 {
                bail!("{} is open to other users: run `chmod 700 {}`", dir.display(), dir.display());
            }
        }
        Ok(())
    }

    /// Takes the instance's lock.
    ///
    /// # Errors
    /// Another process has it; the text names it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.data.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).with_context(|| format!("open {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = self.record().ok().flatten().map_or(0, |r| r.pid);
            bail!("a kserver (pid {pid}) is already running on {}: stop it with `kserver down{}`", self.data.display(), self.flag());
        }
        Ok(Lock(file))
    }

    /// ` --data-dir DIR` for messages; empty for the default directory.
    pub fn flag(&self) -> String {
        let default = super::Where { data_dir: None }.data_dir().ok();
        if default.as_deref() == Some(&self.data) { String::new() } else { format!(" --data-dir {}", self.data.display()) }
    }

    /// The record of the last run, if there was one.
    ///
    /// # Errors
    /// It cannot be read or is damaged.
    pub fn record(&self) -> Result<Option<Record>> {
        let path = self.record_file();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        match serde_json::from_slice(&text) {
            Ok(record) => Ok(Some(record)),
            Err(error) => bail!("{} is damaged ({error}): remove that file and try again", path.display()),
        }
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.record_file();
        write_atomically(&path, &serde_json::to_vec_pretty(record)?, 0o600).with_context(|| format!("write {}", path.display()))
    }

    /// The record of the instance if its process is running.
    ///
    /// # Errors
    /// See [`Self::record`].
    pub fn running(&self) -> Result<Option<Record>> {
        Ok(self.record()?.filter(|r| child::is_running(r.pid, r.start_time)))
    }
}

/// Writes a file so that a crash leaves the old or the new one, whole.
///
/// # Errors
/// Any step's.
pub fn write_atomically(path: &Path, contents: &[u8], mode: u32) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(mode)).tempfile_in(dir)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

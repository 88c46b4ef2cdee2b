//! What must be true before anything is started, each failure one line with its fix.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Programs an instance needs.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// etcd, unless an existing one is used.
    pub etcd: PathBuf,
    /// containerd, unless an existing one is used.
    pub containerd: PathBuf,
    /// Directory of the CNI plugins.
    pub cni: PathBuf,
}

/// A program on PATH, or where distributions put administrators' programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn need(name: &str, package: &str) -> Result<PathBuf> {
    match find_program(name) {
        Some(path) => Ok(path),
        None => bail!("{name} is not installed: run `make deps`, or on Debian `apt-get install {package}`"),
    }
}

/// Finds every program, or says which is missing and how to get it.
///
/// # Errors
/// The first that is missing.
pub fn programs(own_etcd: bool, own_containerd: bool, containers: bool) -> Result<Programs> {
    let mut programs = Programs::default();
    if own_etcd {
        programs.etcd = need("etcd", "etcd-server")?;
    }
    if containers {
        if own_containerd {
            programs.containerd = need("containerd", "containerd")?;
            need("runc", "runc")?;
        }
        need("ctr", "containerd")?;
        need("nft", "nftables")?;
        need("ip", "iproute2")?;
        let dirs = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
        match dirs.iter().map(Path::new).find(|dir| dir.join("bridge").is_file() && dir.join("host-local").is_file()) {
            Some(dir) => programs.cni = dir.to_owned(),
            None => bail!(
                "the CNI plugins are not installed (looked in {}): run `make deps`, or on Debian `apt-get install containernetworking-plugins`",
                dirs.join(", ")
            ),
        }
    }
    Ok(programs)
}

/// Refuses to run containers without root.
///
/// # Errors
/// The effective user is not root.
pub fn root_for_containers() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!("containers need root: run it as root, or add `--simulated-nodes 1` for a whole control plane without containers")
}

/// Checks that nothing listens on a TCP port.
///
/// # Errors
/// Something does; the text names the flag that chooses another.
pub fn port_is_free(address: IpAddr, port: u16, flag: &str) -> Result<()> {
    let deadline = Instant::now() + RELEASE_LIMIT;
    let mut bound = TcpListener::bind(SocketAddr::new(address, port));
    // A kserver that was just killed keeps its socket until the kernel has ended its last thread.
    while bound.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        bound = TcpListener::bind(SocketAddr::new(address, port));
    }
    match bound {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("port {port} is taken: stop what listens there, or choose another with {flag}")
        }
        Err(error) => bail!("cannot listen on {address}:{port} ({error}): choose another with {flag}"),
    }
}

/// Picks a TCP port that is free on loopback, preferring `preferred` when it is not 0.
///
/// # Errors
/// No port is free.
pub fn pick_port(address: IpAddr, preferred: u16) -> Result<u16> {
    let try_bind = |port| TcpListener::bind(SocketAddr::new(address, port)).and_then(|l| l.local_addr());
    if preferred != 0
        && let Ok(address) = try_bind(preferred)
    {
        return Ok(address.port());
    }
    Ok(try_bind(0)?.port())
}

/// How long a port that a dying process still holds is waited for.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);
/// Loopback.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

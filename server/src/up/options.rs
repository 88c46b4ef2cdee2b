//! The flags of `kserver up`, and the one that finds an instance again.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Finds an instance.
#[derive(Args, Clone, Debug)]
pub struct Where {
    /// Directory that holds the cluster's state [default: /var/lib/kserver for root, else ~/.local/share/kserver]
    #[arg(long, value_name = "DIR", env = "KSERVER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Where {
    /// The data directory: absolute, defaults filled in.
    ///
    /// # Errors
    /// No home directory to default to, or no current directory to resolve a relative path against.
    pub fn data_dir(&self) -> anyhow::Result<PathBuf> {
        let dir = match &self.data_dir {
            Some(dir) => dir.clone(),
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/kserver"),
            None => {
                let base = std::env::var_os("XDG_DATA_HOME")
                    .map(PathBuf::from)
                    .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
                base.ok_or_else(|| anyhow::anyhow!("neither HOME nor XDG_DATA_HOME is set: name a directory with --data-dir"))?.join("kserver")
            }
        };
        Ok(std::path::absolute(dir)?)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// An IPv4 network such as `10.96.0.0/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Network address.
    pub network: std::net::Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an IPv4 network such as 10.96.0.0/12");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let network: std::net::Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if prefix == 0 || prefix > 28 {
            return Err(format!("{text:?}: the prefix length must be 1 to 28"));
        }
        let mask = u32::MAX << (32 - prefix);
        if network.to_bits() & !mask != 0 {
            let fixed = std::net::Ipv4Addr::from_bits(network.to_bits() & mask);
            return Err(format!("{text:?} has bits set after its prefix: write {fixed}/{prefix}"));
        }
        Ok(Cidr { network, prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Cidr {
    /// The `n`th address, counted from the network address.
    pub fn nth(&self, n: u32) -> std::net::Ipv4Addr {
        std::net::Ipv4Addr::from_bits(self.network.to_bits().wrapping_add(n))
    }
    /// Whether an address lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        (address.to_bits() ^ self.network.to_bits()) >> (32 - self.prefix) == 0
    }
    /// Whether the two networks share an address.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        let mask = u32::MAX << (32 - self.prefix.min(other.prefix));
        self.network.to_bits() & mask == other.network.to_bits() & mask
    }
}

/// The flags of `kserver up`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the state is
    #[command(flatten)]
    pub place: Where,
    /// Address the API server listens on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port of the API server; 0 picks a free one and keeps it
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,
    /// Existing etcd to use, instead of a private one
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// CA of the existing etcd
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate for the existing etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Socket of an existing containerd to use, instead of a private one
    #[arg(long, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    /// Addresses of Services
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: Cidr,
    /// Addresses of pods; each node gets a /24 of it
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub pod_cidr: Cidr,
    /// Name of this machine's node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this machine's node [default: the one of the default route]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Run N nodes whose pods go through their phases with no containers, in place of this machine's node
    #[arg(long, value_name = "N")]
    pub simulated_nodes: Option<u32>,
    /// kubeconfig to add the context `kserver` to [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// File to log every request to, one JSON line each: who did what to which object, never what is in it
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or directives such as kserver::kubelet=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn a_network_is_refused_with_the_fix() {
        assert_eq!("10.96.0.1/12".parse::<Cidr>().unwrap_err(), "\"10.96.0.1/12\" has bits set after its prefix: write 10.96.0.0/12");
        assert!("10.96.0.0".parse::<Cidr>().is_err() && "10.96.0.0/40".parse::<Cidr>().is_err());
        assert_eq!("10.96.0.0/12".parse::<Cidr>().unwrap().nth(10).to_string(), "10.96.0.10");
    }

    #[test]
    fn overlaps_are_found() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        assert!(cidr("10.0.0.0/8").overlaps(&cidr("10.96.0.0/12")));
        assert!(!cidr("10.244.0.0/16").overlaps(&cidr("10.96.0.0/12")));
        let inside = |ip: &str| cidr("10.96.0.0/12").contains(ip.parse().unwrap());
        assert!(inside("10.96.0.0") && inside("10.111.255.255") && !inside("10.112.0.0") && !inside("fd00::1"));
    }
}

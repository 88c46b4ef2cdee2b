//! Keys and certificates of the cluster: three separate authorities, the certificates of every component, the keys that sign
//! ServiceAccount tokens, and the key that encrypts Secrets at rest.
//!
//! Owns `<data>/pki`. What is missing is made, what nears its end is renewed, what is damaged or open to others stops the start with one
//! line that says what to do. Must never print a key.
//!
//! | file | what |
//! |---|---|
//! | `ca` | authority of API clients and of the API server's own certificate |
//! | `kubelet-ca` | authority of the kubelets' serving certificates |
//! | `etcd/ca` | authority of a private etcd: its server and its clients |
//! | `sa.key`, `sa-*.key` | ServiceAccount token keys: the first signs, all verify |
//! | `encryption.keys` | keys of Secrets at rest |

mod authority;
pub mod encryption;
mod files;
pub mod kubeconfig;
mod tls;
pub mod token_keys;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::api::authn::tokens::TokenIssuer;

pub use authority::{Authority, Pair, Subject};
pub use tls::{LiveCertificate, ServingCertificate, client_config, live_client_config, server_config};

/// Why the keys cannot be used. Each message is one line and names the remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file system said no.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Others could read or change a private file.
    #[error("{} is open to other users (mode {mode:04o}); run: chmod {wanted} {}", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: &'static str,
    },
    /// A private file belongs to someone else.
    #[error("{} belongs to user {uid}, but this is user {own}; run: chown {own} {}", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Who runs this.
        own: u32,
    },
    /// A file does not hold what it should.
    #[error("{} cannot be used: {reason}; restore it, or move it and its partner away to have new ones made", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("making {}: {source}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// rustls refused a certificate or key.
    #[error("TLS configuration: {0}")]
    Tls(String),
}

/// What the certificates are made for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory, e.g. `<data>/pki`.
    pub dir: PathBuf,
    /// Name of this machine's node.
    pub node: String,
    /// Further DNS names of the API server.
    pub names: Vec<String>,
    /// Addresses of this machine.
    pub ips: Vec<IpAddr>,
    /// First address of the service range.
    pub service_ip: Ipv4Addr,
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
}

/// The authorities and the certificates of the API server and its private etcd.
pub struct Pki {
    dir: PathBuf,
    /// Authority of API clients and the API server.
    pub cluster: Authority,
    /// Authority of the kubelets' serving certificates.
    pub kubelet: Authority,
    /// Authority of the private etcd.
    pub etcd: Authority,
    /// What the API server shows its clients.
    pub apiserver: Pair,
    /// What the API server shows kubelets.
    pub apiserver_kubelet_client: Pair,
    /// What the API server shows etcd.
    pub apiserver_etcd_client: Pair,
    /// What etcd shows its clients and peers.
    pub etcd_server: Pair,
    /// The administrator's client certificate.
    pub admin: Pair,
}

/// The API server's names inside the cluster.
fn apiserver_subject(config: &Config) -> Subject {
    let qualified = format!("kubernetes.default.svc.{}", config.domain);
    let mut dns = vec!["kubernetes", "kubernetes.default", "kubernetes.default.svc", &qualified, "localhost", &config.node];
    dns.extend(config.names.iter().map(String::as_str));
    let mut ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(config.service_ip)];
    ips.extend(&config.ips);
    Subject::server("kube-apiserver", &dns, &ips)
}

impl Pki {
    /// Everything in the directory, made or renewed where needed.
    ///
    /// # Errors
    /// When a file cannot be read or written, is open to others, or is damaged.
    pub fn load_or_create(config: &Config) -> Result<Self, PkiError> {
        Self::load_at(config, Timestamp::now())
    }

    fn load_at(config: &Config, now: Timestamp) -> Result<Self, PkiError> {
        let dir = config.dir.as_path();
        files::private_dir(dir)?;
        files::private_dir(&dir.join("etcd"))?;
        let _lock = files::lock_dir(dir)?;
        let cluster = Authority::load_or_create(&dir.join("ca"), "kubernetes", now)?;
        let kubelet = Authority::load_or_create(&dir.join("kubelet-ca"), "kubelet-serving", now)?;
        let etcd = Authority::load_or_create(&dir.join("etcd/ca"), "etcd-ca", now)?;
        let mut etcd_names = Subject::server(&config.node, &["localhost", &config.node], &{
            let mut ips = config.ips.clone();
            ips.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
            ips
        });
        // etcd speaks to its peers, and its gateway to itself, with its server certificate.
        etcd_names.client = true;
        token_keys::signing(dir)?;
        Ok(Pki {
            apiserver: cluster.load_or_issue(&dir.join("apiserver"), &apiserver_subject(config), now)?,
            // The kubelet authorizes it by this group, which may reach every node's API.
            apiserver_kubelet_client: cluster.load_or_issue(
                &dir.join("apiserver-kubelet-client"),
                &Subject::client("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"]),
                now,
            )?,
            apiserver_etcd_client: etcd.load_or_issue(
                &dir.join("apiserver-etcd-client"),
                &Subject::client("kube-apiserver-etcd-client", &[]),
                now,
            )?,
            etcd_server: etcd.load_or_issue(&dir.join("etcd/server"), &etcd_names, now)?,
            admin: cluster.load_or_issue(&dir.join("admin"), &Subject::client("kubernetes-admin", &["kubeadm:cluster-admins"]), now)?,
            dir: dir.to_owned(),
            cluster,
            kubelet,
            etcd,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn issue(&self, authority: &Authority, file: &str, subject: &Subject) -> Result<Pair, PkiError> {
        let _lock = files::lock_dir(&self.dir)?;
        authority.load_or_issue(&self.dir.join(file), subject, Timestamp::now())
    }

    /// The client certificate of a component, e.g. `system:kube-scheduler`; kept in `<short name>.crt`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn component(&self, user: &str) -> Result<Pair, PkiError> {
        let file = user.trim_start_matches("system:").replace([':', '/'], "-");
        self.issue(&self.cluster, &file, &Subject::client(user, &[]))
    }

    /// A kubelet's client certificate: user `system:node:<name>` in `system:nodes`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn node_client(&self, node: &str) -> Result<Pair, PkiError> {
        let subject = Subject::client(&format!("system:node:{node}"), &["system:nodes"]);
        self.issue(&self.cluster, &format!("kubelet-client-{}", safe(node)), &subject)
    }

    /// A kubelet's serving certificate, of the authority that only the API server's kubelet client trusts.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn kubelet_serving(&self, node: &str, names: &[&str], ips: &[IpAddr]) -> Result<Pair, PkiError> {
        let mut dns = vec![node];
        dns.extend(names);
        let mut subject = Subject::server(&format!("system:node:{node}"), &dns, ips);
        subject.groups = vec!["system:nodes".into()];
        self.issue(&self.kubelet, &format!("kubelet-serving-{}", safe(node)), &subject)
    }

    /// The signer and verifier of ServiceAccount tokens; see [`token_keys`].
    ///
    /// # Errors
    /// When a key file is damaged or open to others.
    pub fn token_issuer(&self) -> Result<TokenIssuer, PkiError> {
        token_keys::issuer(&self.dir)
    }

    /// The keys of Secrets at rest; see [`encryption`].
    ///
    /// # Errors
    /// When the file is damaged or open to others.
    pub fn encryption_keys(&self) -> Result<encryption::Keys, PkiError> {
        let _lock = files::lock_dir(&self.dir)?;
        let path = self.dir.join("encryption.keys");
        let corrupt = |reason: String| PkiError::Corrupt { path: path.clone(), reason };
        if let Some(text) = files::read_private(&path)? {
            return encryption::Keys::parse(&text).map_err(|e| corrupt(e.to_string()));
        }
        let text = encryption::Keys::generate(&Timestamp::now().as_second().to_string());
        files::write(&path, text.as_bytes(), 0o600)?;
        encryption::Keys::parse(&text).map_err(|e| corrupt(e.to_string()))
    }
}

/// A node's name as part of a file name. Node names hold no slash; this makes sure.
fn safe(node: &str) -> String {
    node.replace(['/', '\0'], "-")
}

#[cfg(test)]
mod tests;

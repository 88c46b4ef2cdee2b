//! From kubeconfig files, flags and environment to the settings of one connection (`k8s.io/client-go/tools/clientcmd`).
//!
//! Owns reading and merging; writing is the `config` command's.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine;

use super::kubeconfig::{Cluster, Kubeconfig, Secret, User};
use crate::app::Global;
use crate::errors::Plain;

/// Everything needed to connect.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Server URL without a trailing slash.
    pub server: String,
    /// Root certificates in PEM; none means the system's.
    pub ca: Option<Vec<u8>>,
    /// Do not check the server's certificate.
    pub insecure: bool,
    /// The name the server's certificate must carry, if not the host's.
    pub tls_server_name: Option<String>,
    /// Proxy URL of the cluster entry.
    pub proxy: Option<String>,
    /// The user's credentials.
    pub user: User,
    /// The user entry's name, for messages.
    pub user_name: String,
    /// The cluster entry, for exec plugins that want it.
    pub cluster: Cluster,
    /// Namespace of the context or flag.
    pub namespace: String,
    /// Whether the namespace was given by flag.
    pub namespace_given: bool,
    /// Limit for one request; none waits for ever.
    pub request_timeout: Option<Duration>,
    /// Whether a credential plugin may run is the user's preference.
    pub preference: Option<crate::kuberc::Preference>,
    /// Extra values for impersonation, from `--as-user-extra`.
    pub impersonate_extra: Vec<(String, String)>,
}

impl Settings {
    /// The URL requests start with: the server's, with the certificate's name as host if one is set.
    pub fn base_url(&self) -> Result<String> {
        let server = self.server.trim_end_matches('/');
        Ok(match &self.tls_server_name {
            Some(name) => {
                let host = self.authority();
                let port = host.rsplit_once(':').filter(|(_, p)| p.parse::<u16>().is_ok()).map_or("443", |(_, p)| p);
                server.replacen(&host, &format!("{name}:{port}"), 1)
            }
            None => server.to_owned(),
        })
    }
    fn authority(&self) -> String {
        let rest = self.server.split_once("://").map_or(self.server.as_str(), |(_, r)| r);
        rest.split('/').next().unwrap_or_default().to_owned()
    }
    /// The host without its port.
    pub fn host_name(&self) -> String {
        let authority = self.authority();
        let name = match authority.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => &authority,
        };
        name.trim_matches(['[', ']']).to_owned()
    }
    /// Where the certificate's name really lives: set only with `tls-server-name`.
    pub fn resolve(&self) -> Result<Option<(String, Vec<SocketAddr>)>> {
        let Some(name) = &self.tls_server_name else { return Ok(None) };
        let authority = self.authority();
        let with_port =
            if authority.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok()) { authority } else { format!("{authority}:443") };
        let addresses = with_port.to_socket_addrs().with_context(|| format!("cannot resolve {with_port}"))?.collect();
        Ok(Some((name.clone(), addresses)))
    }
}

/// The kubeconfig files in order of precedence: the flag, `$KUBECONFIG`, or `~/.kube/config`.
pub fn files(global: &Global) -> Vec<PathBuf> {
    if let Some(file) = &global.kubeconfig {
        return vec![PathBuf::from(file)];
    }
    match std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()) {
        Some(list) => std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()).collect(),
        None => vec![home().join(".kube/config")],
    }
}

/// The home directory, `/` when there is none.
pub fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// All files merged; an explicit file must exist.
pub fn read(global: &Global) -> Result<Kubeconfig> {
    let mut merged = Kubeconfig::default();
    for file in files(global) {
        if !file.exists() {
            if global.kubeconfig.is_some() {
                bail!("stat {}: no such file or directory", file.display());
            }
            continue;
        }
        merged = merged.merge(Kubeconfig::read(&file)?);
    }
    Ok(merged)
}

/// The settings of the chosen context with the flags applied.
pub fn load(global: &Global) -> Result<Settings> {
    let config = read(global)?;
    let context_name = global.context.clone().or_else(|| config.current_context.clone()).filter(|c| !c.is_empty());
    let context = match &context_name {
        Some(name) => match config.contexts.iter().find(|c| &c.name == name) {
            Some(named) => Some(named.context.clone()),
            None if global.context.is_some() => {
                return Err(Plain(format!("Error in configuration: context was not found for specified context: {name}")).into());
            }
            None => None,
        },
        None => None,
    };
    let cluster_name = global.cluster.clone().or_else(|| context.as_ref().map(|c| c.cluster.clone()).filter(|c| !c.is_empty()));
    let user_name = global.user.clone().or_else(|| context.as_ref().and_then(|c| c.user.clone()));
    let cluster = match &cluster_name {
        Some(name) => match config.clusters.iter().find(|c| &c.name == name) {
            Some(named) => named.cluster.clone(),
            None if global.cluster.is_some() => bail!("no server found for cluster {name:?}"),
            None => Cluster::default(),
        },
        None => Cluster::default(),
    };
    let user = match &user_name {
        Some(name) => match config.users.iter().find(|u| &u.name == name) {
            Some(named) => named.user.clone(),
            None if global.user.is_some() => bail!("auth info {name:?} does not exist"),
            None => User::default(),
        },
        None => User::default(),
    };
    let mut settings = if config.clusters.is_empty() && global.server.is_none() && in_cluster() {
        from_service_account()?
    } else {
        from_entries(cluster, user, cluster_name.as_deref().unwrap_or_default())?
    };
    settings.user_name = user_name.clone().unwrap_or_default();
    if let Some(namespace) = context.and_then(|c| c.namespace).filter(|n| !n.is_empty()) {
        settings.namespace = namespace;
    }
    apply_flags(&mut settings, global, cluster_name.as_deref().unwrap_or_default(), user_name.as_deref().unwrap_or_default())?;
    Ok(settings)
}

/// Why a file that a named entry or a flag points to cannot be read.
pub(super) fn unreadable(what: &str, file: &str, of: &str, error: &std::io::Error) -> anyhow::Error {
    anyhow!("unable to read {what} {file} for {of} due to {}", crate::errors::io("open", file, error))
}

fn from_entries(cluster: Cluster, user: User, name: &str) -> Result<Settings> {
    let ca = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) if !data.is_empty() => {
            Some(base64::engine::general_purpose::STANDARD.decode(data.trim()).context("certificate-authority-data is not base64")?)
        }
        (_, Some(file)) if !file.is_empty() => Some(std::fs::read(file).map_err(|e| unreadable("certificate-authority", file, name, &e))?),
        _ => None,
    };
    Ok(Settings {
        server: cluster.server.clone().filter(|s| !s.is_empty()).unwrap_or_else(|| "http://localhost:8080".into()),
        ca,
        insecure: cluster.insecure_skip_tls_verify.unwrap_or(false),
        tls_server_name: cluster.tls_server_name.clone().filter(|s| !s.is_empty()),
        proxy: cluster.proxy_url.clone().filter(|s| !s.is_empty()),
        user,
        cluster,
        namespace: "default".into(),
        ..Settings::default()
    })
}

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && std::path::Path::new(SERVICE_ACCOUNT).join("token").exists()
}

/// Inside a pod: the service account's token and namespace.
fn from_service_account() -> Result<Settings> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").unwrap_or_default();
    let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".into());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let user = User { token_file: Some(format!("{SERVICE_ACCOUNT}/token")), ..User::default() };
    let namespace = std::fs::read_to_string(format!("{SERVICE_ACCOUNT}/namespace")).map(|n| n.trim().to_owned()).ok();
    Ok(Settings {
        server: format!("https://{host}:{port}"),
        ca: std::fs::read(format!("{SERVICE_ACCOUNT}/ca.crt")).ok(),
        user,
        namespace: namespace.filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into()),
        ..Settings::default()
    })
}

fn apply_flags(settings: &mut Settings, global: &Global, cluster: &str, user_name: &str) -> Result<()> {
    if let Some(server) = &global.server {
        settings.server = if server.contains("://") { server.clone() } else { format!("http://{server}") };
    }
    settings.server = settings.server.trim_end_matches('/').to_owned();
    settings.preference.clone_from(&global.preference);
    if let Some(file) = &global.certificate_authority {
        settings.ca = Some(std::fs::read(file).map_err(|e| unreadable("certificate-authority", file, cluster, &e))?);
        if global.insecure_skip_tls_verify {
            bail!("specifying a root certificates file with the insecure flag is not allowed");
        }
    }
    settings.insecure |= global.insecure_skip_tls_verify;
    if let Some(name) = &global.tls_server_name {
        settings.tls_server_name = Some(name.clone());
    }
    let user = &mut settings.user;
    if let Some(token) = &global.token {
        (user.token, user.token_file, user.exec) = (Some(Secret(token.clone())), None, None);
    }
    if let Some(name) = &global.username {
        user.username = Some(name.clone());
    }
    if let Some(password) = &global.password {
        user.password = Some(Secret(password.clone()));
    }
    if let Some(file) = &global.client_certificate {
        (user.client_certificate, user.client_certificate_data) = (Some(file.clone()), None);
    }
    if let Some(file) = &global.client_key {
        (user.client_key, user.client_key_data) = (Some(file.clone()), None);
    }
    if let Some(name) = &global.as_user {
        user.impersonate = Some(name.clone());
    }
    if !global.as_group.is_empty() {
        user.impersonate_groups.clone_from(&global.as_group);
    }
    if let Some(uid) = &global.as_uid {
        user.impersonate_uid = Some(uid.clone());
    }
    for pair in &global.as_user_extra {
        let (key, value) = pair.split_once('=').ok_or_else(|| anyhow!("invalid --as-user-extra {pair:?}: expected key=value"))?;
        settings.impersonate_extra.push((key.to_owned(), value.to_owned()));
    }
    let more = !user.impersonate_groups.is_empty() || user.impersonate_uid.is_some() || !settings.impersonate_extra.is_empty();
    if user.impersonate.is_none() && more {
        bail!("requesting uid, groups or user-extra for {user_name} without impersonating a user");
    }
    if let Some(namespace) = global.namespace.as_ref().filter(|n| !n.is_empty()) {
        settings.namespace = namespace.clone();
        settings.namespace_given = true;
    }
    settings.request_timeout = match global.request_timeout.as_deref() {
        None | Some("0" | "") => None,
        Some(text) => {
            let duration = match text.parse::<u64>() {
                Ok(seconds) => Duration::from_secs(seconds),
                Err(_) => crate::duration::parse(text).map_err(|_| {
                    anyhow!("Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding time unit (e.g. 1s | 2m | 3h)")
                })?,
            };
            (!duration.is_zero()).then_some(duration)
        }
    };
    Ok(())
}

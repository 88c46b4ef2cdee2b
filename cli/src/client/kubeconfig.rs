//! Kubeconfig files as they are written: reading and merging (`k8s.io/client-go/tools/clientcmd/api/v1`).
//!
//! Owns what is needed to connect; the `config` commands edit the files themselves, and keep what is not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::manifest::{diagnose, tree};

/// One file, or several as one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    /// Servers.
    #[serde(deserialize_with = "or_default")]
    pub clusters: Vec<NamedCluster>,
    /// Credentials.
    #[serde(deserialize_with = "or_default")]
    pub users: Vec<NamedUser>,
    /// Pairs of the two, with a namespace.
    #[serde(deserialize_with = "or_default")]
    pub contexts: Vec<NamedContext>,
    /// The context to use.
    pub current_context: Option<String>,
}

/// An entry of `clusters`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NamedCluster {
    /// Its name.
    pub name: String,
    /// What it stands for.
    #[serde(default, deserialize_with = "or_default")]
    pub cluster: Cluster,
}

/// An entry of `users`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NamedUser {
    /// Its name.
    pub name: String,
    /// What it stands for.
    #[serde(default, deserialize_with = "or_default")]
    pub user: User,
}

/// An entry of `contexts`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NamedContext {
    /// Its name.
    pub name: String,
    /// What it stands for.
    #[serde(default, deserialize_with = "or_default")]
    pub context: Context,
}

/// Which server as which user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Context {
    /// Name of a cluster.
    pub cluster: String,
    /// Name of a user.
    pub user: Option<String>,
    /// Namespace of what names none.
    pub namespace: Option<String>,
}

/// How a server is reached and known.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    /// URL.
    pub server: Option<String>,
    /// Whether any certificate will do.
    pub insecure_skip_tls_verify: Option<bool>,
    /// File with the certificates to trust.
    pub certificate_authority: Option<String>,
    /// The same in Base64.
    pub certificate_authority_data: Option<String>,
    /// Proxy to go through.
    pub proxy_url: Option<String>,
    /// The name its certificate must carry.
    pub tls_server_name: Option<String>,
    /// What others keep here; exec plugins are given theirs.
    #[serde(deserialize_with = "or_default")]
    pub extensions: Vec<Extension>,
}

/// Something that this client has no use for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Whose it is.
    pub name: String,
    /// What it is.
    pub extension: Value,
}

/// How a user is proved.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    /// For basic authentication.
    pub username: Option<String>,
    /// For basic authentication.
    pub password: Option<Secret>,
    /// Bearer token.
    pub token: Option<Secret>,
    /// File with a bearer token.
    #[serde(rename = "tokenFile")]
    pub token_file: Option<String>,
    /// File with a certificate.
    pub client_certificate: Option<String>,
    /// The same in Base64.
    pub client_certificate_data: Option<String>,
    /// File with the certificate's key.
    pub client_key: Option<String>,
    /// The same in Base64.
    pub client_key_data: Option<Secret>,
    /// User to act as.
    #[serde(rename = "as")]
    pub impersonate: Option<String>,
    /// Uid to act as.
    #[serde(rename = "as-uid")]
    pub impersonate_uid: Option<String>,
    /// Groups to act as.
    #[serde(rename = "as-groups", deserialize_with = "or_default")]
    pub impersonate_groups: Vec<String>,
    /// Extra values to act with.
    #[serde(rename = "as-user-extra", deserialize_with = "or_default")]
    pub impersonate_extra: BTreeMap<String, Vec<String>>,
    /// A program that gives credentials.
    pub exec: Option<Exec>,
    /// What came before such programs.
    pub auth_provider: Option<AuthProvider>,
}

/// A program that gives credentials.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exec {
    /// Version of what it reads and writes.
    pub api_version: Option<String>,
    /// The program.
    pub command: String,
    /// Its arguments.
    #[serde(deserialize_with = "or_default")]
    pub args: Vec<String>,
    /// Its environment beside our own.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<Variable>,
    /// What to say when it is not there.
    pub install_hint: Option<String>,
    /// `Never`, `IfAvailable` or `Always`.
    pub interactive_mode: Option<String>,
    /// Whether it wants to know the server.
    #[serde(deserialize_with = "or_default")]
    pub provide_cluster_info: bool,
}

/// A variable of an environment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Removed upstream; known to say so.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuthProvider {
    /// Which it was.
    pub name: String,
}

/// Text that must not appear in a log.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Secret {
    /// The text, if there is any.
    pub fn text(of: &Option<Secret>) -> Option<&str> {
        of.as_ref().map(|s| s.0.as_str()).filter(|s| !s.is_empty())
    }
}

/// Null is what is not there, as in Go.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Kubeconfig {
    /// Reads a file; what it names by relative paths lies beside it.
    pub fn read(file: &Path) -> Result<Kubeconfig> {
        let name = file.display().to_string();
        let failed = |error: anyhow::Error| anyhow!("error loading config file {name:?}: {error}");
        let text = std::fs::read_to_string(file).map_err(|e| failed(anyhow!(crate::errors::io("open", &name, &e))))?;
        let mut config = Self::parse(&name, &text).map_err(failed)?;
        config.anchor(file.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    fn parse(name: &str, text: &str) -> Result<Kubeconfig> {
        let documents = tree::documents(text).map_err(|faults| diagnose::explain(name, text, faults))?;
        match documents.first().map(tree::Node::to_json) {
            None | Some(Value::Null) => Ok(Kubeconfig::default()),
            Some(value) => Ok(serde_json::from_value(value)?),
        }
    }

    fn anchor(&mut self, directory: &Path) {
        let anchored = |path: &mut Option<String>| {
            if let Some(path) = path.as_mut().filter(|p| !p.is_empty()) {
                *path = directory.join(&*path).to_string_lossy().into_owned();
            }
        };
        for NamedCluster { cluster, .. } in &mut self.clusters {
            anchored(&mut cluster.certificate_authority);
        }
        for NamedUser { user, .. } in &mut self.users {
            [&mut user.token_file, &mut user.client_certificate, &mut user.client_key].into_iter().for_each(anchored);
            // A bare name is looked for on the PATH.
            if let Some(exec) = user.exec.as_mut().filter(|e| e.command.contains('/')) {
                exec.command = directory.join(&exec.command).to_string_lossy().into_owned();
            }
        }
    }

    /// Adds what another file holds; what is there already wins.
    pub fn merge(mut self, next: Kubeconfig) -> Kubeconfig {
        let Kubeconfig { clusters, users, contexts, current_context } = next;
        let (known_clusters, known_users, known_contexts) = (self.clusters.len(), self.users.len(), self.contexts.len());
        self.clusters.extend(clusters);
        self.users.extend(users);
        self.contexts.extend(contexts);
        first_of_each(&mut self.clusters, known_clusters, |c| &c.name);
        first_of_each(&mut self.users, known_users, |u| &u.name);
        first_of_each(&mut self.contexts, known_contexts, |c| &c.name);
        self.current_context = self.current_context.filter(|c| !c.is_empty()).or(current_context);
        self
    }
}

/// Drops what comes behind the first so many and bears a name of theirs.
fn first_of_each<T>(entries: &mut Vec<T>, known: usize, name: fn(&T) -> &String) {
    let names: Vec<String> = entries[..known].iter().map(|e| name(e).clone()).collect();
    let mut at = 0;
    entries.retain(|entry| {
        at += 1;
        at <= known || !names.contains(name(entry))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_with_nulls_and_merged_with_the_first_winning() {
        let first = Kubeconfig::parse("a", "clusters: null\nusers:\n- name: u\n  user: {token: a, exec: null}\ncurrent-context: ''\n").unwrap();
        let second = Kubeconfig::parse("b", "users:\n- {name: u, user: {token: b}}\n- {name: v, user: null}\ncurrent-context: c\n").unwrap();
        let both = first.merge(second);
        assert_eq!(both.users.iter().map(|u| u.name.as_str()).collect::<Vec<_>>(), ["u", "v"]);
        assert_eq!(Secret::text(&both.users[0].user.token), Some("a"));
        assert_eq!(both.current_context.as_deref(), Some("c"));
        assert!(!format!("{both:?}").contains("\"a\""), "a token is shown");
        assert!(Kubeconfig::parse("c", "").unwrap().users.is_empty());
    }

    #[test]
    fn what_does_not_parse_is_told_with_its_place() {
        let error = Kubeconfig::parse("x.config", "users:\n- name: u\n user: {}\n").unwrap_err().to_string();
        assert!(error.contains("x.config: ") && error.contains("line 3"), "{error}");
        assert!(Kubeconfig::parse("x", "clusters: 3\n").is_err());
    }

    #[test]
    fn relative_paths_lie_beside_the_file() {
        let mut config = Kubeconfig::parse("c", "users:\n- name: u\n  user: {tokenFile: t, client-key: /k, exec: {command: ./p}}\n").unwrap();
        config.anchor(Path::new("/etc"));
        let user = &config.users[0].user;
        assert_eq!((user.token_file.as_deref(), user.client_key.as_deref()), (Some("/etc/t"), Some("/k")));
        assert_eq!(user.exec.as_ref().unwrap().command, "/etc/./p");
    }
}

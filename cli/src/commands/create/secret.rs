//! `create secret`: generic, docker-registry and tls.

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::generate::{CommonArgs, one_name};
use super::keys::{self, KeyArgs};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a secret with specified type
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub kind: Type,
}

/// The types that flags can describe.
#[derive(Debug, clap::Subcommand)]
pub enum Type {
    Generic(Generic),
    DockerRegistry(DockerRegistry),
    Tls(Tls),
}

/// Create a secret from a local file, directory, or literal value
#[derive(Debug, clap::Args)]
pub struct Generic {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// The type of secret to create
    #[arg(long = "type", default_value = "")]
    pub kind: String,
}

/// Create a secret for use with a Docker registry
#[derive(Debug, clap::Args)]
pub struct DockerRegistry {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Server location for Docker registry
    #[arg(long, default_value = "https://index.docker.io/v1/")]
    pub docker_server: String,
    /// Username for Docker registry authentication
    #[arg(long, default_value = "")]
    pub docker_username: String,
    /// Password for Docker registry authentication
    #[arg(long, default_value = "")]
    pub docker_password: String,
    /// Email for Docker registry
    #[arg(long, default_value = "")]
    pub docker_email: String,
    /// Key files can be specified using their file path, or key=path
    #[arg(long, value_delimiter = ',')]
    pub from_file: Vec<String>,
    /// Append a hash of the secret to its name
    #[arg(long)]
    pub append_hash: bool,
}

/// Create a TLS secret
#[derive(Debug, clap::Args)]
pub struct Tls {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Path to PEM encoded public key certificate
    #[arg(long, default_value = "")]
    pub cert: String,
    /// Path to private key associated with given certificate
    #[arg(long, default_value = "")]
    pub key: String,
    /// Append a hash of the secret to its name
    #[arg(long)]
    pub append_hash: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.kind {
            Type::Generic(args) => args.run(ctx).await,
            Type::DockerRegistry(args) => args.run(ctx).await,
            Type::Tls(args) => args.run(ctx).await,
        }
    }
}

async fn create(ctx: &Ctx, common: &CommonArgs, name: &str, kind: &str, data: Map<String, Value>, hash: bool) -> Result<()> {
    let mut name = name.to_owned();
    if hash {
        let content = json!({ "kind": "Secret", "type": kind, "name": name, "data": data });
        name = format!("{name}-{}", keys::hash(&content));
    }
    let mut secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name } });
    if !data.is_empty() {
        secret["data"] = Value::Object(data);
    }
    if !kind.is_empty() {
        secret["type"] = Value::String(kind.to_owned());
    }
    common.create(ctx, &Kind::built_in("", "v1", "Secret", "secrets", true), secret).await
}

fn encoded(keys: impl IntoIterator<Item = (String, Vec<u8>)>) -> Map<String, Value> {
    keys.into_iter().map(|(k, v)| (k, Value::String(STANDARD.encode(v)))).collect()
}

impl Generic {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create secret generic")?;
        let data = encoded(keys::read(&self.keys, &format!("Secret {name:?}"))?);
        create(ctx, &self.common, &name, &self.kind, data, self.keys.append_hash).await
    }
}

impl DockerRegistry {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        const KEY: &str = ".dockerconfigjson";
        let name = one_name(&self.names, "create secret docker-registry")?;
        let data = if self.from_file.is_empty() {
            let missing: Vec<&str> = [("docker-username", &self.docker_username), ("docker-password", &self.docker_password)]
                .iter()
                .filter(|(_, v)| v.is_empty())
                .map(|(n, _)| *n)
                .collect();
            if !missing.is_empty() || self.docker_server.is_empty() {
                bail!("either --from-file or the combination of --docker-username, --docker-password and --docker-server is required");
            }
            encoded([(KEY.to_owned(), self.config().into_bytes())])
        } else {
            let args = KeyArgs { from_file: self.from_file.clone(), ..KeyArgs::default() };
            let mut keys = keys::read(&args, &format!("Secret {name:?}"))?;
            // Any one file will do for the key the kubelet looks for.
            if keys.len() == 1
                && let Some((_, bytes)) = keys.pop_first()
            {
                keys.insert(KEY.to_owned(), bytes);
            }
            encoded(keys)
        };
        create(ctx, &self.common, &name, "kubernetes.io/dockerconfigjson", data, self.append_hash).await
    }

    /// The registry configuration, its fields in the order upstream writes them.
    fn config(&self) -> String {
        let text = |s: &str| shared::gojson::string(s);
        let auth = STANDARD.encode(format!("{}:{}", self.docker_username, self.docker_password));
        let email = if self.docker_email.is_empty() { String::new() } else { format!("\"email\":{},", text(&self.docker_email)) };
        format!(
            "{{\"auths\":{{{}:{{\"username\":{},\"password\":{},{email}\"auth\":{}}}}}}}",
            text(&self.docker_server),
            text(&self.docker_username),
            text(&self.docker_password),
            text(&auth)
        )
    }
}

impl Tls {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create secret tls")?;
        if self.key.is_empty() || self.cert.is_empty() {
            bail!("key and cert must be specified");
        }
        let read = |path: &str| std::fs::read(path).map_err(|e| anyhow!("Cannot read file {path}, {}", crate::errors::io("open", path, &e)));
        let (certificate, key) = (read(&self.cert)?, read(&self.key)?);
        check_pair(&certificate, &key)?;
        let data = encoded([("tls.crt".to_owned(), certificate), ("tls.key".to_owned(), key)]);
        create(ctx, &self.common, &name, "kubernetes.io/tls", data, self.append_hash).await
    }
}

/// The key must be the certificate's own, as the server checks too.
fn check_pair(certificate: &[u8], key: &[u8]) -> Result<()> {
    let chain: Vec<_> = rustls_pemfile::certs(&mut &*certificate).collect::<Result<_, _>>().context("tls: failed to parse certificate")?;
    let key = rustls_pemfile::private_key(&mut &*key).context("tls: failed to parse private key")?;
    if chain.is_empty() {
        bail!("tls: failed to find any PEM data in certificate input");
    }
    let Some(key) = key else { bail!("tls: failed to find any PEM data in key input") };
    let signing = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|e| anyhow!("tls: failed to parse private key: {e}"))?;
    rustls::sign::CertifiedKey::new(chain, signing).keys_match().or_else(|error| match error {
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown) => Ok(()),
        _ => bail!("tls: private key does not match public key"),
    })
}

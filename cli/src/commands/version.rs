//! `version`: of this program and of the server.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::outln;
use crate::print;

/// The API version this program was written for.
pub const KUBERNETES: &str = "v1.36.0";
/// The kustomize whose output `kustomize` and `-k` give.
const KUSTOMIZE: &str = "v5.8.1";

/// Print the client and server version information
#[derive(Debug, clap::Args)]
pub struct Args {
    /// If true, shows client version only (no server required)
    #[arg(long)]
    pub client: bool,
    /// One of 'yaml' or 'json'
    #[arg(short = 'o', long, default_value = "")]
    pub output: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if !matches!(self.output.as_str(), "" | "json" | "yaml") {
            bail!("--output must be 'yaml' or 'json'");
        }
        let own = json!({
            "major": "1", "minor": "36", "gitVersion": format!("{KUBERNETES}+kctl.{}", env!("CARGO_PKG_VERSION")), "platform": format!("{}/{}", std::env::consts::OS, arch()),
            "compiler": "rustc", "goVersion": "", "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        });
        let server = if self.client { None } else { Some(server(ctx).await) };
        match self.output.as_str() {
            "" => {
                outln!("Client Version: {}", own["gitVersion"].as_str().unwrap_or_default());
                outln!("Kustomize Version: {KUSTOMIZE}");
                if let Some(Ok(server)) = &server {
                    outln!("Server Version: {}", server["gitVersion"].as_str().unwrap_or_default());
                }
            }
            format => {
                let mut all = json!({ "clientVersion": own, "kustomizeVersion": KUSTOMIZE });
                if let Some(Ok(server)) = &server {
                    all["serverVersion"] = server.clone();
                }
                print::emit(&if format == "json" { shared::gojson::indented(&all, "  ") + "\n" } else { print::yaml::to_string(&all) })?;
            }
        }
        if let Some(Ok(server)) = &server
            && let Some(warning) = skew(own["gitVersion"].as_str().unwrap_or_default(), server["gitVersion"].as_str().unwrap_or_default())
        {
            print::note(&warning);
        }
        server.transpose().map(drop)
    }
}

/// The warning about two versions that are more than one minor version apart.
fn skew(client: &str, server: &str) -> Option<String> {
    let parse = |version: &str| {
        let (major, rest) = version.strip_prefix('v')?.split_once('.')?;
        Some((major.parse::<i64>().ok()?, rest.split('.').next()?.parse::<i64>().ok()?))
    };
    let (client, server) = (parse(client)?, parse(server)?);
    (client.0 != server.0 || (client.1 - server.1).abs() > 1).then(|| {
        format!(
            "WARNING: version difference between client ({}.{}) and server ({}.{}) exceeds the supported minor version skew of +/-1",
            client.0, client.1, server.0, server.1
        )
    })
}

async fn server(ctx: &Ctx) -> Result<Value> {
    ctx.client().await?.get("/version").await
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::skew;

    #[test]
    fn versions_may_be_one_minor_apart() {
        assert_eq!(skew("v1.36.0+kctl.0.1.0", "v1.35.4"), None);
        assert_eq!(skew("v1.36.0", "v1.37.0-alpha.1"), None);
        assert_eq!(
            skew("v1.36.0", "v1.34.0").unwrap(),
            "WARNING: version difference between client (1.36) and server (1.34) exceeds the supported minor version skew of +/-1"
        );
    }
}

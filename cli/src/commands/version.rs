//! `version`: of this program and of the server.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::outln;
use crate::print;

/// The API version this program was written for.
pub const KUBERNETES: &str = "v1.36.0";

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
            "compiler": "rustc",
        });
        let server = if self.client { None } else { Some(server(ctx).await) };
        match self.output.as_str() {
            "" => {
                outln!("Client Version: {}", own["gitVersion"].as_str().unwrap_or_default());
                if let Some(Ok(server)) = &server {
                    outln!("Server Version: {}", server["gitVersion"].as_str().unwrap_or_default());
                }
            }
            format => {
                let mut all = json!({ "clientVersion": own });
                if let Some(Ok(server)) = &server {
                    all["serverVersion"] = server.clone();
                }
                print::emit(&if format == "json" { shared::gojson::indented(&all, "  ") + "\n" } else { print::yaml::to_string(&all) })?;
            }
        }
        server.transpose().map(drop)
    }
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

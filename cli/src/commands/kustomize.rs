//! `kustomize`: prints what a kustomization makes.

use anyhow::{Result, anyhow, bail};

use crate::app::Ctx;
use crate::errors;
use crate::kustomize;
use crate::print;

/// Build a kustomization target from a directory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory that holds a kustomization.yaml; the current one when omitted
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub directories: Vec<String>,
    /// If specified, write output to this path
    #[arg(short = 'o', long, default_value = "", value_name = "FILE")]
    pub output: String,
    /// If set to 'LoadRestrictionsNone', local kustomizations may load files from outside their root
    #[arg(long, default_value = "LoadRestrictionsRootOnly")]
    pub load_restrictor: String,
    /// Accepted for scripts that give it; kctl runs no plugins
    #[arg(long, hide = true)]
    pub enable_alpha_plugins: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, _ctx: &Ctx) -> Result<()> {
        let directory = match self.directories.as_slice() {
            [] => ".",
            [one] => one,
            _ => bail!("specify one path to kustomization.yaml"),
        };
        let unrestricted = match self.load_restrictor.as_str() {
            "LoadRestrictionsRootOnly" | "rootOnly" => false,
            "LoadRestrictionsNone" | "none" => true,
            other => bail!("illegal flag value --load-restrictor {other}; legal values: [LoadRestrictionsRootOnly LoadRestrictionsNone]"),
        };
        let text = kustomize::text(&kustomize::build(directory, unrestricted)?);
        if self.output.is_empty() {
            return print::emit(&text);
        }
        std::fs::write(&self.output, text).map_err(|e| anyhow!("{}", errors::io("open", &self.output, &e)))
    }
}

//! `create namespace`

use anyhow::Result;
use serde_json::json;

use super::generate::{CommonArgs, metadata, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a namespace with the specified name
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create namespace")?;
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata(&name), "spec": {}, "status": {} });
        self.common.create(ctx, &Kind::built_in("", "v1", "Namespace", "namespaces", false), namespace).await
    }
}

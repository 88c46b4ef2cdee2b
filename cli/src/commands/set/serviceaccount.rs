//! `set serviceaccount`

use anyhow::{Result, bail};
use serde_json::Value;

use super::change::ChangeArgs;
use crate::app::Ctx;
use crate::podspec;

/// Update the service account of a resource
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources, then the name of the service account
    #[arg(value_name = "TYPE NAME SERVICE_ACCOUNT", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let Some((account, resources)) = self.args.split_last() else { bail!("serviceaccount is required") };
        let (infos, failures) = self.change.infos(ctx, resources).await?;
        let change = ChangeArgs { what: Some("ServiceAccountName"), always: true, ..self.change.clone() };
        change
            .apply(ctx, infos, failures, "serviceaccount updated", |object, _| {
                if let Some(spec) = podspec::spec_of_mut(object) {
                    spec.insert("serviceAccountName".into(), Value::String(account.clone()));
                }
                Ok(())
            })
            .await
    }
}

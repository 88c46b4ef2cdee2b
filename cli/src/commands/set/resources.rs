//! `set resources`

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::change::{ChangeArgs, matches_pattern};
use crate::app::Ctx;
use crate::commands::create::amounts;
use crate::podspec;

/// Update resource requests/limits on objects with pod templates
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// The names of containers in the selected pod templates to change - may use wildcards
    #[arg(short = 'c', long, default_value = "*")]
    pub containers: String,
    /// The resource requirement limits for this container. For example, 'cpu=100m,memory=256Mi'
    #[arg(long, default_value = "")]
    pub limits: String,
    /// The resource requirement requests for this container. For example, 'cpu=100m,memory=256Mi'
    #[arg(long, default_value = "")]
    pub requests: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.limits.is_empty() && self.requests.is_empty() {
            bail!("you must specify an update to requests or limits (in the form of --requests/--limits)");
        }
        let mut wanted = json!({});
        for (field, text) in [("limits", &self.limits), ("requests", &self.requests)] {
            if !text.is_empty() {
                wanted[field] = amounts(text)?;
            }
        }
        let (infos, failures) = self.change.infos(ctx, &self.args).await?;
        let change = ChangeArgs { what: Some("resources update to pod template"), ..self.change.clone() };
        change
            .apply(ctx, infos, failures, "resource requirements updated", |object, _| {
                let Some(spec) = podspec::spec_of_mut(object) else { return Ok(()) };
                let mut found = false;
                for container in
                    podspec::containers_mut(spec).into_iter().filter(|c| matches_pattern(&self.containers, c["name"].as_str().unwrap_or_default()))
                {
                    found = true;
                    merge(container, &wanted);
                }
                if !found {
                    bail!("unable to find container named {}", self.containers);
                }
                Ok(())
            })
            .await
    }
}

fn merge(container: &mut Value, wanted: &Value) {
    for (field, amounts) in wanted.as_object().into_iter().flatten() {
        for (resource, amount) in amounts.as_object().into_iter().flatten() {
            container["resources"][field][resource] = amount.clone();
        }
    }
}

//! `set selector`: of services.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::change::{ChangeArgs, split_pairs};
use crate::app::Ctx;

/// Set the selector on a resource
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources, then the selector as KEY=VALUE pairs
    #[arg(value_name = "TYPE NAME KEY=VALUE", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// If non-empty, the selectors update will only succeed if this is the current resource-version for the object
    #[arg(long, default_value = "")]
    pub resource_version: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let (resources, pairs) = split_pairs(&self.args);
        if resources.is_empty() && self.change.files.is_empty() {
            bail!("one or more resources must be specified as <resource> <name> or <resource>/<name>");
        }
        // The last word is the selector, whatever it looks like.
        if let (true, [before @ .., last]) = (pairs.is_empty(), resources.as_slice()) {
            self.change.infos(ctx, before).await?;
            let (key, values) = last.split_once(" in (").unwrap_or((last, ")"));
            bail!("match expression [{{{key} In [{}]}}] not supported on this object", values.trim_end_matches(')').replace(',', " "));
        }
        let mut selector = Map::new();
        for pair in pairs.iter().flat_map(|p| p.split(',')) {
            let Some((key, value)) = pair.split_once('=') else { bail!("invalid selector {pair:?}: expected key=value") };
            selector.insert(key.to_owned(), Value::String(value.to_owned()));
        }
        if selector.is_empty() {
            bail!("one selector is required");
        }
        let (infos, failures) = self.change.infos(ctx, &resources).await?;
        self.change
            .apply(ctx, infos, failures, "selector updated", |object, info| {
                if info.kind.kind != "Service" {
                    bail!("setting a selector is only supported for Services");
                }
                if !self.resource_version.is_empty() {
                    object["metadata"]["resourceVersion"] = Value::String(self.resource_version.clone());
                }
                object["spec"]["selector"] = Value::Object(selector.clone());
                Ok(())
            })
            .await
    }
}

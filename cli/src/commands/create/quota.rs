//! `create quota`

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};
use shared::quantity::Quantity;

use super::generate::{CommonArgs, metadata, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a quota with the specified name, hard limits, and optional scopes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// A comma-delimited set of resource=quantity pairs that define a hard limit
    #[arg(long, default_value = "")]
    pub hard: String,
    /// A comma-delimited set of quota scopes that must all match each object tracked by the quota
    #[arg(long, default_value = "")]
    pub scopes: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create quota")?;
        let mut spec = Map::new();
        if !self.hard.is_empty() {
            spec.insert("hard".into(), amounts(&self.hard)?);
        }
        if !self.scopes.is_empty() {
            let mut scopes: Vec<&str> = Vec::new();
            for scope in self.scopes.split(',') {
                if scopes.contains(&scope) {
                    bail!("duplicate scope {scope:?} is not allowed");
                }
                scopes.push(scope);
            }
            spec.insert("scopes".into(), json!(scopes));
        }
        let quota = json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata(&name), "spec": spec, "status": {} });
        self.common.create(ctx, &Kind::built_in("", "v1", "ResourceQuota", "resourcequotas", true), quota).await
    }
}

/// `cpu=1,memory=1Gi` in canonical notation.
pub fn amounts(text: &str) -> Result<Value> {
    let mut amounts = Map::new();
    for pair in text.split(',') {
        let mut parts = pair.split('=');
        let (Some(resource), Some(amount), None) = (parts.next(), parts.next(), parts.next()) else {
            bail!("Invalid argument syntax {pair}, expected <resource>=<value>");
        };
        let quantity: Quantity = amount.parse().map_err(|e| anyhow!("{e}"))?;
        amounts.insert(resource.to_owned(), Value::String(quantity.to_string()));
    }
    Ok(Value::Object(amounts))
}

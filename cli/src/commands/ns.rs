//! `ns`: shows the namespaces, or makes one of them the context's own (kctl only).

use anyhow::Result;
use serde_json::Value;

use super::config;
use crate::app::Ctx;
use crate::discovery::Kind;
use crate::errors;
use crate::outln;
use crate::print::{self, style, table::Layout};
use crate::resource;

/// Show the namespaces, or set the one of the current context (kctl only)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The namespace to work in
    #[arg(value_name = "NAME", add = crate::commands::complete::namespaces())]
    pub name: Option<String>,
    /// Set it even when the server does not have it, or cannot be asked
    #[arg(short = 'f', long)]
    pub force: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let kind = Kind::built_in("", "v1", "Namespace", "namespaces", false);
        let Some(name) = &self.name else { return list(ctx, &kind).await };
        if !self.force
            && let Err(error) = ctx.client().await?.get(&kind.object(None, name)).await
        {
            if errors::is_not_found(&error) {
                suggest(ctx, &kind, name).await;
            }
            return Err(error);
        }
        let context = config::set_namespace(ctx, name)?;
        outln!("Context {context:?} now works in namespace {name:?}.");
        Ok(())
    }
}

async fn list(ctx: &Ctx, kind: &Kind) -> Result<()> {
    let current = ctx.namespace()?;
    let found = resource::list_all(ctx, &kind.collection(None), &[], 500).await?;
    let mut rows = vec![["CURRENT", "NAME", "STATUS"].map(String::from).to_vec()];
    for item in found["items"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mark = if item["metadata"]["name"] == *current { "*" } else { "" };
        rows.push(vec![mark.to_owned(), text(&item["metadata"]["name"]), text(&item["status"]["phase"])]);
    }
    print::emit(&Layout::default().rows(&rows, true))
}

/// A name close to a mistyped one; whoever may not list namespaces gets none.
async fn suggest(ctx: &Ctx, kind: &Kind, name: &str) {
    let Ok(found) = resource::list_all(ctx, &kind.collection(None), &[], 500).await else { return };
    let names: Vec<String> =
        found["items"].as_array().into_iter().flatten().filter_map(|n| n["metadata"]["name"].as_str().map(ToOwned::to_owned)).collect();
    if let Some(near) = crate::suggest::close(name, names, 2).first() {
        style::hint(&format!("hint: did you mean {near:?}? `--force` sets a namespace that is not there"));
    }
}

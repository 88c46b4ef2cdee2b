//! `ctx`: shows the contexts of the kubeconfig, or makes one of them the current one (kctl only).

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::config;
use crate::app::Ctx;
use crate::outln;
use crate::print::{self, style, table::Layout};

/// Show the contexts, or switch to one; "-" is the one before (kctl only)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The context to switch to
    #[arg(value_name = "NAME | -", add = crate::commands::complete::contexts(), allow_hyphen_values = true)]
    pub name: Option<String>,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let config = config::merged(ctx)?;
        let current = config["current-context"].as_str().unwrap_or_default().to_owned();
        match self.name.as_deref() {
            None => list(&config, &current),
            Some("-") => {
                let before = std::fs::read_to_string(memory(ctx)).map_err(|_| anyhow!("no context was left with `kctl ctx` so far"))?;
                switch(ctx, &current, before.trim())
            }
            Some(name) => switch(ctx, &current, name),
        }
    }
}

/// Where the context before is kept.
fn memory(ctx: &Ctx) -> PathBuf {
    ctx.cache_dir().join("kctl/previous-context")
}

fn switch(ctx: &Ctx, current: &str, name: &str) -> Result<()> {
    if let Err(error) = config::use_context(ctx, name) {
        let names = config::merged(ctx)?["contexts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["name"].as_str().map(ToOwned::to_owned))
            .collect::<Vec<_>>();
        if let Some(near) = crate::suggest::close(name, names, 2).first() {
            style::hint(&format!("hint: did you mean {near:?}?"));
        }
        return Err(error);
    }
    if current != name {
        let file = memory(ctx);
        // Only `-` needs it: a cache that cannot be written is no reason to fail.
        let kept = file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&file, current));
        drop(kept);
    }
    outln!("Switched to context {name:?}.");
    Ok(())
}

fn list(config: &Value, current: &str) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = vec![["CURRENT", "NAME", "NAMESPACE", "SERVER"].map(String::from).to_vec()];
    for entry in config["contexts"].as_array().into_iter().flatten() {
        let cluster = config["clusters"].as_array().into_iter().flatten().find(|c| c["name"] == entry["context"]["cluster"]);
        let namespace = Some(text(&entry["context"]["namespace"])).filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        let mark = if entry["name"] == current { "*" } else { "" };
        rows.push(vec![mark.to_owned(), text(&entry["name"]), namespace, cluster.map_or_else(String::new, |c| text(&c["cluster"]["server"]))]);
    }
    print::emit(&Layout::default().rows(&rows, true))
}

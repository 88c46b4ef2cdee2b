//! `describe`: the details of objects and what belongs to them.

use anyhow::{Result, bail};

use crate::app::Ctx;
use crate::describe;
use crate::errors;
use crate::manifest::FileArgs;
use crate::print;
use crate::resource::{Info, Query, SelectorArgs, Target};

/// Show details of a specific resource or group of resources
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources; a name may be a prefix
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub selector: SelectorArgs,
    /// If true, display events related to the described object (by default only when a single one is described)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub show_events: Option<bool>,
    /// Return large lists in chunks rather than all at once. Pass 0 to disable
    #[arg(long, default_value_t = 500)]
    pub chunk_size: usize,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.args.is_empty() && self.files.is_empty() {
            bail!("You must specify the type of resource to describe. Use \"kctl api-resources\" for a complete list of supported resources.");
        }
        let query =
            Query { args: self.args.clone(), files: self.files.clone(), kinds_mean_all: true, chunk_size: self.chunk_size, ..Query::default() }
                .select(&self.selector);
        let (infos, mut failures) = query.infos(ctx).await?;
        let show_events = self.show_events.unwrap_or(infos.len() == 1 && failures.is_empty());
        let exact = !infos.is_empty();
        let infos = self.with_prefix(ctx, &query, infos, &mut failures).await?;
        if infos.is_empty() && failures.is_empty() {
            if self.selector.all_namespaces {
                eprintln!("No resources found");
            } else {
                eprintln!("No resources found in {} namespace.", ctx.namespace()?);
            }
        }
        // What is missing among several objects keeps the others from being described where each is named with its kind.
        if exact && !failures.is_empty() && self.args.first().is_some_and(|a| a.contains('/')) {
            return errors::collect(failures);
        }
        for (index, info) in infos.iter().enumerate() {
            match describe::describe(ctx, info, show_events).await {
                Ok(text) if exact => print::emit(&format!("{}{text}", if index > 0 { "\n\n" } else { "" }))?,
                Ok(text) => print::emit(&format!("{text}\n"))?,
                Err(error) => failures.push(error),
            }
        }
        errors::collect(failures)
    }

    /// A single name that does not exist may be the beginning of others.
    async fn with_prefix(&self, ctx: &Ctx, query: &Query, mut infos: Vec<Info>, failures: &mut Vec<anyhow::Error>) -> Result<Vec<Info>> {
        let not_found = failures.len() == 1 && infos.is_empty() && errors::is_not_found(&failures[0]) && self.files.is_empty();
        if !not_found {
            return Ok(infos);
        }
        if let [Target::One { kind, namespace, name }] = query.targets(ctx).await?.as_slice() {
            let list = Target::List { kind: kind.clone(), namespace: namespace.clone() };
            infos = query.fetch(ctx, &list).await?.into_iter().filter(|i| i.name.starts_with(name.as_str())).collect();
            if !infos.is_empty() {
                failures.clear();
            }
        }
        Ok(infos)
    }
}

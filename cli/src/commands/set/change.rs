//! What every `set` command does with an object: change a copy, send the difference, tell.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::app::Ctx;
use crate::errors;
use crate::manifest::FileArgs;
use crate::podspec;
use crate::print::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resource::{Info, Query, SelectorArgs, query_string};

/// The flags every `set` command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub selector: SelectorArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Select all resources, in the namespace of the specified resource types
    #[arg(long)]
    pub all: bool,
    /// If true, will NOT contact api-server but run locally
    #[arg(long)]
    pub local: bool,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-set")]
    pub field_manager: String,
    /// Record current command in the resource annotation (deprecated upstream, and ignored)
    #[arg(long, hide = true)]
    pub record: bool,
    /// How a failure names what was to be changed.
    #[arg(skip)]
    pub what: Option<&'static str>,
    /// What is as wanted already is sent and told all the same.
    #[arg(skip)]
    pub always: bool,
}

impl ChangeArgs {
    /// The objects to change.
    pub async fn infos(&self, ctx: &Ctx, resources: &[String]) -> Result<(Vec<Info>, Vec<anyhow::Error>)> {
        if self.local {
            if self.dry_run.mode()? == DryRun::Server {
                bail!("cannot specify --local and --dry-run=server - did you mean --dry-run=client?");
            }
            if self.files.is_empty() {
                bail!(
                    "you must specify resources by --filename when --local is set.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'"
                );
            }
        }
        let query = Query { args: resources.to_vec(), files: self.files.clone(), all: self.all, local: self.local, ..Query::default() };
        query.select(&self.selector).infos(ctx).await
    }

    /// Applies a change to every object and prints `verb` for those it changed. Unchanged objects are passed over in silence.
    pub async fn apply(
        &self,
        ctx: &Ctx,
        infos: Vec<Info>,
        mut failures: Vec<anyhow::Error>,
        verb: &str,
        mut change: impl FnMut(&mut Value, &Info) -> Result<()>,
    ) -> Result<()> {
        let dry_run = self.dry_run.mode()?;
        let mut printer = Printer::new(&self.output, dry_run.suffix())?;
        let mut changed = Vec::new();
        for info in infos {
            let mut after = info.object.clone();
            match change(&mut after, &info) {
                Ok(()) => {}
                // What could be changed before the failure still is.
                Err(error) => failures.push(error),
            }
            changed.push((info, after));
        }
        for (info, after) in changed {
            if after == info.object && !self.always {
                continue;
            }
            let done = self.send(ctx, &info, after, dry_run).await;
            if let Err(error) = done.and_then(|object| printer.done(&object, verb)) {
                failures.push(error);
            }
        }
        errors::collect(failures)
    }

    async fn send(&self, ctx: &Ctx, info: &Info, mut after: Value, dry_run: DryRun) -> Result<Value> {
        if self.local || dry_run == DryRun::Client {
            if self.local {
                podspec::as_go_prints(&mut after);
            }
            return Ok(after);
        }
        let (body, patch) = crate::apply::two_way(&info.object, &after, &info.kind);
        let mut pairs = vec![("fieldManager", self.field_manager.clone())];
        pairs.extend(dry_run.query());
        info.patch(ctx, body, &patch, &query_string(&pairs)).await.map_err(|error| match error.downcast::<errors::ServerError>() {
            Ok(server) => anyhow::anyhow!("failed to patch {} {server}", self.what.unwrap_or("update to pod template")),
            Err(error) => error,
        })
    }
}

/// Parts words into resources and the `key=value` words behind them.
pub fn split_pairs(args: &[String]) -> (Vec<String>, Vec<String>) {
    let is_pair = |word: &String| word.contains('=') || (word.ends_with('-') && word.len() > 1);
    args.iter().cloned().partition(|word| !is_pair(word))
}

/// Whether a name matches a pattern with `*`.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            let Some(rest) = name.strip_prefix(head) else { return false };
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches_pattern(tail, &rest[at..]))
        }
    }
}

//! `scale`: a new size, through the scale subresource.

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::client::Body;
use crate::errors::{self, Plain};
use crate::manifest::FileArgs;
use crate::print::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resource::{Info, Query, SelectorArgs, query_string};

/// Set a new size for a deployment, replica set, or replication controller
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub selector: SelectorArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Select all resources in the namespace of the specified resource types
    #[arg(long)]
    pub all: bool,
    /// The new desired number of replicas. Required
    #[arg(long, required = true)]
    pub replicas: i64,
    /// Precondition for current size. Requires that the current size of the resource match this value in order to scale
    #[arg(long, default_value_t = -1)]
    pub current_replicas: i64,
    /// Precondition for resource version
    #[arg(long, default_value = "")]
    pub resource_version: String,
    /// The length of time to wait before giving up on a scale operation, zero means don't wait
    #[arg(long, default_value = "0s", value_parser = crate::duration::checked)]
    pub timeout: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.replicas < 0 {
            bail!("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0");
        }
        let dry_run = self.dry_run.mode()?;
        let timeout = crate::duration::parse(&self.timeout).map_err(|e| anyhow!("{e}"))?;
        let mut printer = Printer::new(&self.output, dry_run.suffix())?;
        let query = Query { args: self.args.clone(), files: self.files.clone(), all: self.all, ..Query::default() }.select(&self.selector);
        let (infos, mut failures) = query.infos(ctx).await?;
        if infos.is_empty() && failures.is_empty() {
            bail!("no objects passed to scale");
        }
        for info in &infos {
            // Upstream stops at the first it cannot scale.
            if let Err(error) = self.one(ctx, info, dry_run, &mut printer).await {
                failures.push(error);
                break;
            }
        }
        if !timeout.is_zero() && dry_run == DryRun::None && failures.is_empty() {
            for info in &infos {
                let limit = tokio::time::timeout(timeout, self.settled(ctx, info)).await;
                limit.map_err(|_| anyhow!("timed out waiting for {:?} to be synced", info.printed()))??;
            }
        }
        errors::collect(failures)
    }

    async fn one(&self, ctx: &Ctx, info: &Info, dry_run: DryRun, printer: &mut Printer) -> Result<()> {
        if !info.kind.subresources.is_empty() && !info.kind.subresources.iter().any(|s| s == "scale") {
            return Err(Plain("Error from server (NotFound): the server could not find the requested resource".into()).into());
        }
        let version = info.object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !self.resource_version.is_empty() && version != self.resource_version {
            bail!("Expected resource version to be {}, was {version}", self.resource_version);
        }
        let current = info.object["spec"]["replicas"].as_i64().unwrap_or(1);
        if self.current_replicas >= 0 && current != self.current_replicas {
            bail!("Expected replicas to be {}, was {current}", self.current_replicas);
        }
        let mut done = info.object.clone();
        if dry_run != DryRun::Client {
            let mut patch = json!({ "spec": { "replicas": self.replicas } });
            // A precondition must hold when the server applies the change, not only when we looked.
            if self.current_replicas >= 0 || !self.resource_version.is_empty() {
                patch["metadata"] = json!({ "resourceVersion": version });
            }
            let mut pairs = vec![("fieldManager", "kubectl-scale".to_owned())];
            pairs.extend(dry_run.query());
            info.patch_subresource(ctx, "scale", Body::MergePatch, &patch, &query_string(&pairs)).await?;
            if printer.prints_objects() && dry_run == DryRun::None {
                done = info.fetch(ctx).await?;
            }
        }
        if let Some(spec) = done.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("replicas".into(), json!(self.replicas));
        }
        printer.done(&done, "scaled")
    }

    /// Waits until the controller has made the change real.
    async fn settled(&self, ctx: &Ctx, info: &Info) -> Result<()> {
        let settled = |object: &Value| {
            let status = &object["status"];
            let observed = status["observedGeneration"].as_i64().unwrap_or(0) >= object["metadata"]["generation"].as_i64().unwrap_or(0);
            observed && status["replicas"].as_i64().unwrap_or(0) == self.replicas
        };
        super::wait::until(ctx, info, |object| object.is_none_or(settled)).await
    }
}

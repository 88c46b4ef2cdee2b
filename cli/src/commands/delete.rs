//! `delete`: by name, selector or file, and wait until it is gone.

use std::io::BufRead;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::client::Body;
use crate::discovery::Kind;
use crate::errors;
use crate::manifest::{self, FileArgs, Validation};
use crate::outln;
use crate::print::{self, DryRun, DryRunArgs};
use crate::resource::{self, Info, Query, SelectorArgs, Target};

/// Delete resources by file names, stdin, resources and names, or by resources and label selector
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
    pub dry_run: DryRunArgs,
    /// Delete all resources, in the namespace of the specified resource types
    #[arg(long)]
    pub all: bool,
    /// Must be "background", "orphan", or "foreground"
    #[arg(long, default_value = "background", num_args = 0..=1, require_equals = true, default_missing_value = "background")]
    pub cascade: String,
    /// If true, immediately remove resources from API and bypass graceful deletion
    #[arg(long)]
    pub force: bool,
    /// Period of time in seconds given to the resource to terminate gracefully. Ignored if negative
    #[arg(long, default_value_t = -1)]
    pub grace_period: i64,
    /// Treat "resource not found" as a successful delete
    #[arg(long)]
    pub ignore_not_found: bool,
    /// If true, delete resource only when user confirms
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// If true, resources are signaled for immediate shutdown (same as --grace-period=1)
    #[arg(long)]
    pub now: bool,
    /// Output mode. Use "-o name" for shorter output (resource/name)
    #[arg(short = 'o', long, default_value = "")]
    pub output: String,
    /// Raw URI to DELETE to the server
    #[arg(long, value_name = "URI")]
    pub raw: Option<String>,
    /// The length of time to wait before giving up on a delete
    #[arg(long, default_value = "0s", value_parser = crate::duration::checked)]
    pub timeout: String,
    /// If true, wait for resources to be gone before returning. This waits for finalizers
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub wait: bool,
}

/// Kinds whose bulk deletion behind a namespace flag is a mistake waiting to happen.
const CLUSTER_WIDE_HINT: &str =
    "--all with --namespace names cluster-scoped objects, which no namespace limits; leave --namespace out if every one of them must go";

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if let Some(uri) = &self.raw {
            let answer = ctx.client().await?.bytes(Method::DELETE, uri, "application/json, */*", None).await?;
            crate::print::emit(&String::from_utf8_lossy(&answer))?;
            return Ok(());
        }
        if !matches!(self.output.as_str(), "" | "name") {
            bail!("unexpected -o output mode: {}. We only support '-o name'", self.output);
        }
        if self.all && self.selector.selector.as_ref().is_some_and(|s| !s.is_empty()) {
            bail!("setting 'all' parameter but found a non empty selector. ");
        }
        let grace = self.grace()?;
        let dry_run = self.dry_run.mode()?;
        if self.force && grace == 0 && dry_run == DryRun::None {
            print::warn(
                "Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.",
            );
        }
        let (targets, unknown) = self.targets(ctx).await?;
        let (mut infos, mut failures) = self.found(ctx, &targets).await;
        if unknown.is_empty() && infos.is_empty() && failures.is_empty() {
            if !self.ignore_not_found {
                outln!("No resources found");
            }
            return Ok(());
        }
        if self.interactive && !self.confirmed(&infos, dry_run)? {
            outln!("deletion is cancelled");
            return Ok(());
        }
        let options = options(&self.cascade, grace, dry_run == DryRun::Server)?;
        let mut gone = Vec::new();
        for info in infos.drain(..) {
            let deleted = if dry_run == DryRun::Client { Ok(Value::Null) } else { one(ctx, &info, &options).await };
            match deleted {
                Ok(answer) => {
                    self.tell(&info, dry_run)?;
                    gone.push((info, answer));
                }
                Err(error) if (self.ignore_not_found || self.all) && errors::is_not_found(&error) => {}
                Err(error) => failures.push(errors::from_source("deleting", &info.source, error)),
            }
        }
        if self.wait && dry_run == DryRun::None {
            self.wait_until_gone(ctx, &gone, &mut failures).await?;
        }
        failures.extend(unknown);
        errors::collect(failures)
    }

    fn grace(&self) -> Result<i64> {
        if self.now {
            if self.grace_period != -1 {
                bail!("--now and --grace-period cannot be specified together");
            }
            return Ok(1);
        }
        match (self.grace_period, self.force) {
            // Upstream turns an unforced zero into one second, against accidents.
            (0, false) => Ok(1),
            (grace, true) if grace < 0 => Ok(0),
            (grace, true) if grace > 0 => bail!("--force and --grace-period greater than 0 cannot be specified together"),
            (grace, _) => Ok(grace),
        }
    }

    /// What to delete, and which documents name kinds the server does not have.
    async fn targets(&self, ctx: &Ctx) -> Result<(Vec<(Target, Value, String)>, Vec<anyhow::Error>)> {
        if self.files.is_empty() {
            let query = Query { args: self.args.clone(), all: self.all, ..Query::default() }.select(&self.selector);
            if self.args.is_empty() && query.has_selector() {
                bail!("at least one resource must be specified to use a selector");
            }
            if self.all && self.args.len() > 1 {
                bail!("name cannot be provided when a selector is specified");
            }
            let targets = query.targets(ctx).await?;
            if self.all && ctx.settings()?.namespace_given && targets.iter().any(|t| !t.kind().namespaced) {
                bail!("{CLUSTER_WIDE_HINT}");
            }
            return Ok((targets.into_iter().map(|t| (t, Value::Null, String::new())).collect(), Vec::new()));
        }
        if !self.args.is_empty() {
            bail!("when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well");
        }
        let (mut targets, mut failures) = (Vec::new(), Vec::new());
        for document in manifest::read(&self.files, Validation::Ignore).await? {
            match resource::locate(ctx, document, false).await {
                Ok(info) => targets.push((Target::One { kind: info.kind, namespace: info.namespace, name: info.name }, info.object, info.source)),
                Err(error) => failures.push(error),
            }
        }
        Ok((targets, failures))
    }

    /// What there is to delete. Names are taken at their word; lists are read.
    async fn found(&self, ctx: &Ctx, targets: &[(Target, Value, String)]) -> (Vec<Info>, Vec<anyhow::Error>) {
        let query = Query { chunk_size: 500, ..Query::default() }.select(&self.selector);
        let (mut infos, mut failures) = (Vec::new(), Vec::new());
        for (target, object, source) in targets {
            match target {
                Target::One { kind, namespace, name } => {
                    infos.push(Info {
                        kind: kind.clone(),
                        namespace: namespace.clone(),
                        name: name.clone(),
                        object: object.clone(),
                        source: source.clone(),
                    });
                }
                Target::List { .. } => match query.fetch(ctx, target).await {
                    Ok(found) => infos.extend(found),
                    Err(error) => failures.push(error),
                },
            }
        }
        (infos, failures)
    }

    fn confirmed(&self, infos: &[Info], dry_run: DryRun) -> Result<bool> {
        if dry_run != DryRun::None {
            bail!("--interactive can not be used with --dry-run={}", if dry_run == DryRun::Client { "client" } else { "server" });
        }
        outln!("You are about to delete the following {} resource(s):", infos.len());
        for info in infos {
            outln!("{}", info.printed());
        }
        print::emit("Do you want to continue? (y/N): ")?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    fn tell(&self, info: &Info, dry_run: DryRun) -> Result<()> {
        if self.output == "name" {
            outln!("{}", info.printed());
            return Ok(());
        }
        let verb = if self.force { "force deleted" } else { "deleted" };
        let place = match &info.namespace {
            Some(namespace) if info.kind.namespaced => format!(" from {namespace} namespace"),
            _ => String::new(),
        };
        outln!("{} {:?} {verb}{place}{}", info.kind.printed(), info.name, dry_run.suffix());
        Ok(())
    }

    async fn wait_until_gone(&self, ctx: &Ctx, gone: &[(Info, Value)], failures: &mut Vec<anyhow::Error>) -> Result<()> {
        let timeout = crate::duration::parse(&self.timeout).map_err(|e| anyhow!("{e}"))?;
        // Zero means a week, as upstream has it.
        let timeout = if timeout.is_zero() { Duration::from_secs(7 * 24 * 3600) } else { timeout };
        let deadline = tokio::time::Instant::now() + timeout;
        for (info, answer) in gone {
            let uid = answer["details"]["uid"].as_str().or_else(|| answer["metadata"]["uid"].as_str()).unwrap_or_default().to_owned();
            let is_gone = |object: Option<&Value>| object.is_none_or(|o| !uid.is_empty() && o["metadata"]["uid"] != uid.as_str());
            match tokio::time::timeout_at(deadline, super::wait::until(ctx, info, is_gone)).await {
                Ok(Ok(())) => {}
                // Who may delete but not read has done what was asked.
                Ok(Err(error))
                    if error.downcast_ref::<errors::ServerError>().is_some_and(|e| matches!(e.reason(), "Forbidden" | "MethodNotAllowed")) => {}
                Ok(Err(error)) => failures.push(error),
                Err(_) => failures.push(anyhow!("timed out waiting for the condition on {}/{}", info.kind.plural, info.name)),
            }
        }
        Ok(())
    }
}

/// The body of a delete request.
#[derive(Clone, Debug)]
pub struct DeleteOptions {
    body: Value,
}

/// Reads `--cascade` and the grace period (negative: the object's own).
pub fn options(cascade: &str, grace_period: i64, dry_run: bool) -> Result<DeleteOptions> {
    let policy = match cascade {
        "background" | "true" => "Background",
        "foreground" => "Foreground",
        "orphan" | "false" => "Orphan",
        other => bail!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""),
    };
    let mut body = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy });
    if grace_period >= 0 {
        body["gracePeriodSeconds"] = json!(grace_period);
    }
    // In the body: a server that reads a body looks at no query, and would delete for real.
    if dry_run {
        body["dryRun"] = json!(["All"]);
    }
    Ok(DeleteOptions { body })
}

/// Deletes one object and returns the server's answer.
pub async fn one(ctx: &Ctx, info: &Info, options: &DeleteOptions) -> Result<Value> {
    ctx.client().await?.json(Method::DELETE, &info.path(), Some((Body::Json, serde_json::to_vec(&options.body)?))).await
}

/// Deletes an object of a built-in kind by name.
pub async fn by_name(ctx: &Ctx, kind: Kind, namespace: &str, name: &str, grace_period: i64) -> Result<Value> {
    let info = Info { kind: Rc::new(kind), namespace: Some(namespace.to_owned()), name: name.to_owned(), object: Value::Null, source: String::new() };
    one(ctx, &info, &options("background", grace_period, false)?).await
}

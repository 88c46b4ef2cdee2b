//! `replace`: whole objects, in place or deleted and made anew.

use anyhow::{Result, anyhow, bail};
use reqwest::Method;

use crate::app::Ctx;
use crate::client::Body;
use crate::commands::delete;
use crate::errors;
use crate::manifest::{self, FileArgs, Validation};
use crate::outln;
use crate::print::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resource::{self, Info, query_string, with_query};

/// Replace a resource by file name or stdin
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Must be "background", "orphan", or "foreground"
    #[arg(long, default_value = "background")]
    pub cascade: String,
    /// If true, immediately remove resources from API and bypass graceful deletion
    #[arg(long)]
    pub force: bool,
    /// Period of time in seconds given to the resource to terminate gracefully
    #[arg(long, default_value_t = -1)]
    pub grace_period: i64,
    /// Raw URI to PUT to the server
    #[arg(long)]
    pub raw: Option<String>,
    /// If true, the configuration of current object will be saved in its annotation
    #[arg(long)]
    pub save_config: bool,
    /// If specified, replace will operate on the subresource of the requested object
    #[arg(long, default_value = "")]
    pub subresource: String,
    /// The length of time to wait before giving up on a delete
    #[arg(long, default_value = "0s", value_parser = crate::duration::checked)]
    pub timeout: String,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    pub validate: String,
    /// If true, wait for resources to be gone before returning
    #[arg(long)]
    pub wait: bool,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-replace")]
    pub field_manager: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        self.files.required()?;
        if let Some(uri) = &self.raw {
            let [file] = self.files.filename.as_slice() else { bail!("--raw can only use a single local file or stdin") };
            let body = if file == "-" { std::io::read_to_string(std::io::stdin())?.into_bytes() } else { std::fs::read(file)? };
            let answer = ctx.client().await?.bytes(Method::PUT, uri, "application/json, */*", Some(("application/json", body))).await?;
            crate::print::emit(&String::from_utf8_lossy(&answer))?;
            return Ok(());
        }
        if self.grace_period >= 0 && !self.force {
            bail!("--grace-period must have --force specified");
        }
        let dry_run = self.dry_run.mode()?;
        if self.force && dry_run != DryRun::None {
            bail!("--dry-run can not be used when --force is set");
        }
        let validation = Validation::parse(&self.validate)?;
        let mut printer = Printer::new(&self.output, dry_run.suffix())?;
        let mut failures = Vec::new();
        let mut infos = Vec::new();
        for document in manifest::read(&self.files, validation).await? {
            let mut info = resource::locate(ctx, document, false).await?;
            if self.save_config || crate::apply::last_applied(&info.object).is_some() {
                crate::apply::save_config(&mut info.object);
            }
            infos.push(info);
        }
        for info in infos {
            let done = if self.force { self.recreate(ctx, &info, validation).await } else { self.put(ctx, &info, validation, dry_run).await };
            let told = done.map_err(|e| errors::from_source("replacing", &info.source, e)).and_then(|object| printer.done(&object, "replaced"));
            if let Err(error) = told {
                failures.push(error);
            }
        }
        errors::collect(failures)
    }

    async fn put(&self, ctx: &Ctx, info: &Info, validation: Validation, dry_run: DryRun) -> Result<serde_json::Value> {
        if dry_run == DryRun::Client {
            return Ok(info.object.clone());
        }
        let mut pairs = vec![("fieldManager", self.field_manager.clone()), ("fieldValidation", validation.query().to_owned())];
        pairs.extend(dry_run.query());
        let path = if self.subresource.is_empty() { info.path() } else { format!("{}/{}", info.path(), self.subresource) };
        let mut object = info.object.clone();
        // Upstream overwrites whatever is there, unless the manifest names a version.
        if object["metadata"]["resourceVersion"].as_str().unwrap_or_default().is_empty() {
            object["metadata"]["resourceVersion"] = info.fetch(ctx).await?["metadata"]["resourceVersion"].clone();
        }
        ctx.client().await?.json(Method::PUT, &with_query(&path, &query_string(&pairs)), Some((Body::Json, serde_json::to_vec(&object)?))).await
    }

    async fn recreate(&self, ctx: &Ctx, info: &Info, validation: Validation) -> Result<serde_json::Value> {
        let grace = if self.grace_period < 0 { 0 } else { self.grace_period };
        match delete::one(ctx, info, &delete::options(&self.cascade, grace, false)?).await {
            Ok(_) => {
                outln!(
                    "{} {:?} deleted{}",
                    info.kind.printed(),
                    info.name,
                    info.namespace.as_ref().map_or_else(String::new, |n| format!(" from {n} namespace"))
                );
                let limit = crate::duration::parse(&self.timeout).map_err(|e| anyhow!("{e}"))?;
                let limit = if limit.is_zero() { std::time::Duration::from_secs(300) } else { limit };
                tokio::time::timeout(limit, super::wait::until(ctx, info, |o| o.is_none()))
                    .await
                    .map_err(|_| anyhow!("timed out waiting for the condition"))??;
            }
            Err(error) if errors::is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
        let mut object = info.object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            metadata.remove("uid");
        }
        let pairs = [("fieldManager", self.field_manager.clone()), ("fieldValidation", validation.query().to_owned())];
        let path = with_query(&info.kind.collection(info.namespace.as_deref()), &query_string(&pairs));
        ctx.client().await?.json(Method::POST, &path, Some((Body::Json, serde_json::to_vec(&object)?))).await
    }
}

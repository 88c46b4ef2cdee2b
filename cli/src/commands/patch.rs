//! `patch`: fields of an object by strategic merge, merge or JSON patch.

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use crate::app::Ctx;
use crate::apply;
use crate::client::Body;
use crate::errors;
use crate::manifest::{self, FileArgs};
use crate::print::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resource::{Info, Query, query_string};

/// Update fields of a resource
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// The patch to be applied to the resource JSON file
    #[arg(short = 'p', long, default_value = "")]
    pub patch: String,
    /// A file containing a patch to be applied to the resource
    #[arg(long, default_value = "")]
    pub patch_file: String,
    /// The type of patch being provided; one of [json merge strategic]
    #[arg(long = "type", default_value = "strategic")]
    pub kind: String,
    /// If specified, patch will operate on the subresource of the requested object
    #[arg(long, default_value = "")]
    pub subresource: String,
    /// If true, patch will operate on the content of the file, not the server-side resource
    #[arg(long)]
    pub local: bool,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-patch")]
    pub field_manager: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let text = match (self.patch.is_empty(), self.patch_file.is_empty()) {
            (true, true) => bail!("must specify --patch or --patch-file containing the contents of the patch"),
            (false, false) => bail!("cannot specify --patch and --patch-file together"),
            (false, true) => self.patch.clone(),
            (true, false) if self.patch_file == "-" => std::io::read_to_string(std::io::stdin())?,
            (true, false) => std::fs::read_to_string(&self.patch_file)
                .map_err(|e| anyhow!("unable to read patch file: {}", errors::io("open", &self.patch_file, &e)))?,
        };
        let body = match self.kind.to_lowercase().as_str() {
            "json" => Body::JsonPatch,
            "merge" => Body::MergePatch,
            "strategic" => Body::StrategicPatch,
            other => bail!("--type must be one of [json merge strategic], not {other:?}"),
        };
        let patch = manifest::value(&text).map_err(|e| anyhow!("unable to parse {text:?}: {e}"))?;
        let dry_run = self.dry_run.mode()?;
        let mut printer = Printer::new(&self.output, "")?;
        let query = Query { args: self.args.clone(), files: self.files.clone(), local: self.local, ..Query::default() };
        let (infos, mut failures) = query.infos(ctx).await?;
        for info in infos {
            let done = async {
                let after = self.apply(ctx, &info, body, &patch, dry_run).await?;
                // A dry run says neither that it is one nor whether anything would change, as upstream has it.
                let same = after == info.object || same_version(&after, &info.object);
                let verb = if same && dry_run == DryRun::None { "patched (no change)" } else { "patched" };
                printer.done(&after, verb)
            };
            if let Err(error) = done.await {
                failures.push(error);
            }
        }
        errors::collect(failures)
    }

    async fn apply(&self, ctx: &Ctx, info: &Info, body: Body, patch: &Value, dry_run: DryRun) -> Result<Value> {
        if !self.local && dry_run != DryRun::Client {
            let mut pairs = vec![("fieldManager", self.field_manager.clone())];
            pairs.extend(dry_run.query());
            return info.patch_subresource(ctx, &self.subresource, body, patch, &query_string(&pairs)).await;
        }
        let mut after = info.object.clone();
        match body {
            Body::JsonPatch => {
                let operations: json_patch::Patch =
                    serde_json::from_value(patch.clone()).map_err(|e| anyhow!("unable to parse the JSON patch: {e}"))?;
                json_patch::patch(&mut after, &operations).map_err(|e| anyhow!("{e}"))?;
            }
            Body::StrategicPatch if apply::is_strategic(&info.kind) => apply::local::merge(&mut after, patch, &info.kind.kind),
            _ => json_patch::merge(&mut after, patch),
        }
        Ok(after)
    }
}

/// The server leaves the version alone when nothing changed.
fn same_version(a: &Value, b: &Value) -> bool {
    let version = |o: &Value| o["metadata"]["resourceVersion"].as_str().map(ToOwned::to_owned);
    version(a).is_some() && version(a) == version(b)
}

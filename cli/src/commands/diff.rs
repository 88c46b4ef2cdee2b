//! `diff`: what `apply` would change. Exits 0 when nothing, 1 when something, more when it fails.

use std::path::Path;

use anyhow::{Result, anyhow};
use reqwest::Method;
use serde_json::Value;

use crate::app::Ctx;
use crate::apply;
use crate::client::Body;
use crate::errors::{self, Exit};
use crate::manifest::{self, FileArgs, Validation};
use crate::print::{self, style};
use crate::resource::{self, Info, query_string, with_query};

/// Diff the live version against a would-be applied version
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    /// Name of the manager used to track field ownership
    #[arg(long)]
    pub field_manager: Option<String>,
    /// If true, server-side apply will force the changes against conflicts
    #[arg(long)]
    pub force_conflicts: bool,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// If true, apply runs in the server instead of the client
    #[arg(long)]
    pub server_side: bool,
    /// If true, include managed fields in the diff
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Number of objects to process in parallel when diffing against the live version (kctl goes one by one)
    #[arg(long, default_value_t = 1, hide = true)]
    pub concurrency: usize,
    /// Include resources that would be deleted by pruning
    #[arg(long, hide = true)]
    pub prune: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match self.compare(ctx).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(Exit(1).into()),
            Err(error) if error.is::<Exit>() => Err(error),
            Err(error) => {
                // 1 means "differs", so failing needs another code.
                eprintln!("{}", style::error(&errors::message(&error)));
                Err(Exit(2).into())
            }
        }
    }

    async fn compare(&self, ctx: &Ctx) -> Result<bool> {
        self.files.required()?;
        if self.prune {
            anyhow::bail!("diff --prune is not supported: kctl apply --prune --dry-run=server shows what would be pruned");
        }
        let selector = match &self.selector {
            Some(text) => shared::selector::Selector::parse(text).map_err(|e| anyhow!("{e}"))?,
            None => shared::selector::Selector::everything(),
        };
        let directory = tempfile::tempdir()?;
        let (live, merged) = (directory.path().join("LIVE"), directory.path().join("MERGED"));
        std::fs::create_dir_all(&live)?;
        std::fs::create_dir_all(&merged)?;
        let mut differs = false;
        for document in manifest::read(&self.files, Validation::Ignore).await? {
            if !selector.matches(&super::create::generate::labels_of(&document.object)) {
                continue;
            }
            let info = resource::locate(ctx, document, false).await?;
            let (before, after) = self.versions(ctx, &info).await?;
            let name = format!(
                "{}.{}.{}.{}",
                info.kind.api_version().replace('/', "."),
                info.kind.kind,
                info.namespace.as_deref().unwrap_or_default(),
                info.name
            );
            let (old, new) = (self.text(before.as_ref(), &info), self.text(Some(&after), &info));
            if old != new {
                differs = true;
                std::fs::write(live.join(&name), &old)?;
                std::fs::write(merged.join(&name), &new)?;
            }
        }
        if differs {
            show(&live, &merged)?;
        }
        Ok(differs)
    }

    async fn versions(&self, ctx: &Ctx, info: &Info) -> Result<(Option<Value>, Value)> {
        let current = match info.fetch(ctx).await {
            Ok(current) => Some(current),
            Err(error) if errors::is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        let default = if self.server_side { "kubectl" } else { "kubectl-client-side-apply" };
        let manager = self.field_manager.clone().unwrap_or_else(|| default.to_owned());
        let mut pairs = vec![("dryRun", "All".to_owned()), ("fieldManager", manager)];
        if self.server_side {
            pairs.push(("force", self.force_conflicts.to_string()));
            return Ok((current, info.patch(ctx, Body::Apply, &info.object, &query_string(&pairs)).await?));
        }
        // What would be recorded is no change that anyone asks about: the old record stays in both versions.
        let mut modified = info.object.clone();
        if let Some(recorded) = current.as_ref().and_then(apply::last_applied) {
            modified["metadata"]["annotations"][apply::LAST_APPLIED] = Value::String(recorded.to_owned());
        }
        let after = match &current {
            None => {
                let path = with_query(&info.kind.collection(info.namespace.as_deref()), &query_string(&pairs));
                ctx.client().await?.json(Method::POST, &path, Some((Body::Json, serde_json::to_vec(&modified)?))).await?
            }
            Some(live) => {
                let original: Value = apply::last_applied(live).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_else(|| serde_json::json!({}));
                let (body, patch) = apply::three_way(&original, &modified, live, &info.kind);
                info.patch(ctx, body, &patch, &query_string(&pairs)).await?
            }
        };
        Ok((current, after))
    }

    /// The object as it is compared: without managed fields, and secrets masked.
    fn text(&self, object: Option<&Value>, info: &Info) -> String {
        let Some(object) = object else { return String::new() };
        let mut shown = if self.show_managed_fields { object.clone() } else { print::without_managed_fields(object) };
        if info.kind.is("", "Secret") {
            for field in ["data", "stringData"] {
                for (_, value) in shown[field].as_object_mut().into_iter().flatten() {
                    let digest = <sha2::Sha256 as sha2::Digest>::digest(value.as_str().unwrap_or_default());
                    *value = Value::String(format!("*** ({:02x}{:02x})", digest[0], digest[1]));
                }
            }
        }
        print::yaml::to_string(&shown)
    }
}

/// Through `$KUBECTL_EXTERNAL_DIFF` where it is set, else as a unified diff of our own.
fn show(live: &Path, merged: &Path) -> Result<()> {
    if let Some(program) = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|p| !p.is_empty()) {
        let mut words = program.split_whitespace();
        let Some(name) = words.next() else { return Ok(()) };
        let status =
            std::process::Command::new(name).args(words).arg(live).arg(merged).status().map_err(|e| anyhow!("failed to run {name:?}: {e}"))?;
        return match status.code() {
            Some(0 | 1) => Ok(()),
            code => Err(Exit(u8::try_from(code.unwrap_or(2)).unwrap_or(2)).into()),
        };
    }
    let mut names: Vec<_> = std::fs::read_dir(merged)?.filter_map(|e| e.ok().map(|e| e.file_name())).collect();
    names.sort();
    let color = style::on_stdout();
    for name in names {
        let (old, new) = (std::fs::read_to_string(live.join(&name))?, std::fs::read_to_string(merged.join(&name))?);
        let (a, b) = (live.join(&name).display().to_string(), merged.join(&name).display().to_string());
        let text = similar::TextDiff::from_lines(&old, &new).unified_diff().context_radius(3).header(&a, &b).to_string();
        print::emit(&format!("diff -u -N {a} {b}\n"))?;
        print::emit(&if color { style::diff(&text) } else { text })?;
    }
    Ok(())
}

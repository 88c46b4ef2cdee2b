//! `apply`: make the cluster look like the manifest.

use anyhow::{Context, Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::apply::{self, LAST_APPLIED};
use crate::client::Body;
use crate::commands::{delete, edit};
use crate::errors;
use crate::manifest::{self, FileArgs, Validation};
use crate::outln;
use crate::print::{self, DryRun, DryRunArgs, OutputArgs, Printer};
use crate::progress::Progress;
use crate::resource::{self, Info, Query, SelectorArgs, query_string, with_query};

/// Objects from which on there is progress to see.
const MANY: usize = 5;

/// Apply a configuration to a resource by file name or stdin
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    #[command(flatten)]
    pub delete: DeleteArgs,
    /// Select all resources in the namespace of the specified resource types (with --prune)
    #[arg(long)]
    pub all: bool,
    /// Name of the manager used to track field ownership
    #[arg(long)]
    pub field_manager: Option<String>,
    /// If true, server-side apply will force the changes against conflicts
    #[arg(long)]
    pub force_conflicts: bool,
    /// Use the openapi of the server to calculate the diff (kctl always knows the built-in kinds)
    #[arg(long, hide = true)]
    pub openapi_patch: bool,
    /// Automatically resolve conflicts between the modified and live configuration by using values from the modified configuration
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub overwrite: bool,
    /// Automatically delete resource objects that do not appear in the configs
    #[arg(long)]
    pub prune: bool,
    /// Overwrite the default allowlist with <group/version/kind> for --prune
    #[arg(long)]
    pub prune_allowlist: Vec<String>,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// If true, apply runs in the server instead of the client
    #[arg(long)]
    pub server_side: bool,
    /// If specified, apply will operate on the subresource of the requested object
    #[arg(long, default_value = "")]
    pub subresource: String,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    pub validate: String,
    #[command(subcommand)]
    pub sub: Option<Sub>,
}

/// How objects that must go are deleted.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Must be "background", "orphan", or "foreground"
    #[arg(long, default_value = "background")]
    pub cascade: String,
    /// If true, immediately remove resources from API and bypass graceful deletion
    #[arg(long)]
    pub force: bool,
    /// Period of time in seconds given to the resource to terminate gracefully
    #[arg(long, default_value_t = -1)]
    pub grace_period: i64,
    /// The length of time to wait before giving up on a delete
    #[arg(long, default_value = "0s")]
    pub timeout: String,
    /// If true, wait for resources to be gone before returning
    #[arg(long)]
    pub wait: bool,
}

/// Commands about the recorded configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Sub {
    ViewLastApplied(ViewArgs),
    SetLastApplied(SetArgs),
    EditLastApplied(EditArgs),
}

/// View the latest last-applied-configuration annotations of a resource/object
#[derive(Debug, clap::Args)]
pub struct ViewArgs {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub selector: SelectorArgs,
    /// Output format. Must be one of (yaml, json)
    #[arg(short = 'o', long, default_value = "yaml")]
    pub output: String,
    /// Select all resources in the namespace of the specified resource types
    #[arg(long)]
    pub all: bool,
}

/// Set the last-applied-configuration annotation on a live object to match the contents of a file
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Will create 'last-applied-configuration' annotations if current objects doesn't have one
    #[arg(long)]
    pub create_annotation: bool,
}

/// Edit the last-applied-configuration annotation of a resource/object
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.sub {
            Some(Sub::ViewLastApplied(args)) => return args.run(ctx).await,
            Some(Sub::SetLastApplied(args)) => return args.run(ctx).await,
            Some(Sub::EditLastApplied(args)) => return args.run(ctx).await,
            None => {}
        }
        self.files.required()?;
        self.check()?;
        let dry_run = self.dry_run.mode()?;
        let validation = Validation::parse(&self.validate)?;
        let mut printer = Printer::new(&self.output, dry_run.suffix())?;
        let selector = match &self.selector {
            Some(text) => shared::selector::Selector::parse(text).map_err(|e| anyhow!("{e}"))?,
            None => shared::selector::Selector::everything(),
        };
        let mut documents = manifest::read(&self.files, validation).await?;
        documents.retain(|d| selector.matches(&super::create::generate::labels_of(&d.object)));
        let mut failures = Vec::new();
        let mut infos = Vec::new();
        for document in documents {
            match resource::locate(ctx, document, false).await {
                Ok(info) => infos.push(info),
                Err(error) => failures.push(error),
            }
        }
        if infos.is_empty() && failures.is_empty() {
            bail!("no objects passed to apply");
        }
        let mut applied = Vec::new();
        // Several whole objects are printed as one list.
        let together = infos.len() > 1 && printer.prints_objects();
        let mut shown = Vec::new();
        let progress = (infos.len() >= MANY).then(|| Progress::steps(infos.len() as u64));
        for info in infos {
            if let Some(progress) = &progress {
                progress.say(&info.printed());
            }
            let done = if self.server_side {
                self.server_side(ctx, &info, dry_run).await
            } else {
                self.client_side(ctx, &info, dry_run, validation, &printer).await
            };
            match done {
                Ok((object, _)) if together => {
                    applied.push((info.kind.clone(), info.namespace.clone(), object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()));
                    shown.push(object);
                }
                Ok((object, verb)) => {
                    applied.push((info.kind.clone(), info.namespace.clone(), object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()));
                    if let Err(error) = printer.done(&object, verb) {
                        failures.push(error);
                    }
                }
                Err(error) => failures.push(error),
            }
            if let Some(progress) = &progress {
                progress.step();
            }
        }
        drop(progress);
        if !shown.is_empty() {
            let mut list = print::list_of(shown);
            list["metadata"] = json!({});
            printer.object(&list)?;
        }
        if self.prune && failures.is_empty() {
            self.prune(ctx, &applied, dry_run, &mut printer).await?;
        }
        errors::collect(failures)
    }

    fn check(&self) -> Result<()> {
        if self.force_conflicts && !self.server_side {
            bail!("--force-conflicts only works with --server-side");
        }
        if self.server_side && self.delete.force {
            bail!("--force cannot be used with --server-side");
        }
        if self.server_side && self.dry_run.mode()? == DryRun::Client {
            bail!("--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)");
        }
        if !self.subresource.is_empty() && !self.server_side {
            bail!("--subresource can only be specified for --server-side");
        }
        if self.all && self.selector.is_some() {
            bail!("cannot set --all and --selector at the same time");
        }
        for text in &self.prune_allowlist {
            if text.split('/').count() != 3 {
                bail!("invalid GroupVersionKind format: {text}, please follow <group/version/kind>");
            }
        }
        if self.prune && self.selector.is_none() && !self.all {
            bail!(
                "all resources selected for prune without explicitly passing --all. To prune all resources, pass the --all flag. If you did not mean to prune all resources, specify a label selector"
            );
        }
        Ok(())
    }

    fn manager(&self) -> String {
        let default = if self.server_side { "kubectl" } else { "kubectl-client-side-apply" };
        self.field_manager.clone().unwrap_or_else(|| default.to_owned())
    }

    async fn server_side(&self, ctx: &Ctx, info: &Info, dry_run: DryRun) -> Result<(Value, &'static str)> {
        if info.name.is_empty() {
            match info.object["metadata"]["generateName"].as_str() {
                Some(generated) => bail!("from {generated}: cannot use generate name with apply"),
                None => bail!("resource name may not be empty"),
            }
        }
        let mut pairs = vec![
            ("fieldManager", self.manager()),
            ("fieldValidation", Validation::parse(&self.validate)?.query().to_owned()),
            ("force", self.force_conflicts.to_string()),
        ];
        pairs.extend(dry_run.query());
        let sent = info.patch_subresource(ctx, &self.subresource, Body::Apply, &info.object, &query_string(&pairs)).await;
        match sent {
            Ok(object) => Ok((object, "serverside-applied")),
            Err(error) if errors::is_conflict(&error) => bail!(
                "{error}\nPlease review the fields above--they currently have other managers. Here\nare the ways you can resolve this warning:\n* If you intend to manage all of these fields, please re-run the apply\n  command with the `--force-conflicts` flag.\n* If you do not intend to manage all of the fields, please edit your\n  manifest to remove references to the fields that should keep their\n  current managers.\n* You may co-own fields by updating your manifest to match the existing\n  value; in this case, you'll become the manager if the other manager(s)\n  stop managing the field (remove it from their configuration).\nSee https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts"
            ),
            Err(error) if error.downcast_ref::<errors::ServerError>().is_some_and(|e| e.reason() == "UnsupportedMediaType") => {
                bail!("Server-side apply not available on the server: ({error})")
            }
            Err(error) => Err(error),
        }
    }

    async fn client_side(&self, ctx: &Ctx, info: &Info, dry_run: DryRun, validation: Validation, printer: &Printer) -> Result<(Value, &'static str)> {
        if info.name.is_empty() {
            let generated = info.object["metadata"]["generateName"].as_str().unwrap_or_default();
            if !generated.is_empty() {
                bail!("from {generated}: cannot use generate name with apply");
            }
            return Err(unreadable(info, anyhow!("resource name may not be empty")));
        }
        let mut modified = info.object.clone();
        apply::save_config(&mut modified);
        // Someone else may write between our read and our patch: then look again.
        const RETRIES: usize = 5;
        for attempt in 0.. {
            let current = match info.fetch(ctx).await {
                Ok(current) => current,
                Err(error) if errors::is_not_found(&error) => return self.create(ctx, info, modified, dry_run, validation).await,
                Err(error) => return Err(unreadable(info, error)),
            };
            if apply::last_applied(&current).is_none() && attempt == 0 {
                print::warn(&format!(
                    "resource {}/{} is missing the {LAST_APPLIED} annotation which is required by kctl apply. kctl apply should only be used on resources created declaratively by either kctl create --save-config or kctl apply. The missing annotation will be patched automatically.",
                    info.kind.plural, info.name
                ));
            }
            let original: Value = match apply::last_applied(&current) {
                Some(text) => {
                    serde_json::from_str(text).with_context(|| format!("the {LAST_APPLIED} annotation of {} is not JSON", info.printed()))?
                }
                None => json!({}),
            };
            let (body, patch) = apply::three_way(&original, &modified, &current, &info.kind);
            if patch.as_object().is_some_and(serde_json::Map::is_empty) {
                return Ok((current, "unchanged"));
            }
            if dry_run == DryRun::Client {
                let mut shown = current;
                if printer.prints_objects() {
                    if body == Body::StrategicPatch {
                        apply::local::merge(&mut shown, &patch, &info.kind.kind);
                    } else {
                        json_patch::merge(&mut shown, &patch);
                    }
                }
                return Ok((shown, "configured"));
            }
            let mut pairs = vec![("fieldManager", self.manager()), ("fieldValidation", validation.query().to_owned())];
            pairs.extend(dry_run.query());
            match info.patch(ctx, body, &patch, &query_string(&pairs)).await {
                Ok(object) => return Ok((object, "configured")),
                Err(error) if errors::is_conflict(&error) && attempt < RETRIES => {}
                Err(error) if self.delete.force && recreatable(&error) => return self.recreate(ctx, info, modified, validation).await,
                Err(error) => return Err(errors::from_source("applying patch to", &info.source, error)),
            }
        }
        bail!("error when applying {:?}: the object keeps changing", info.source)
    }

    async fn create(&self, ctx: &Ctx, info: &Info, modified: Value, dry_run: DryRun, validation: Validation) -> Result<(Value, &'static str)> {
        if dry_run == DryRun::Client {
            return Ok((modified, "created"));
        }
        let mut pairs = vec![("fieldManager", self.manager()), ("fieldValidation", validation.query().to_owned())];
        pairs.extend(dry_run.query());
        let path = with_query(&info.kind.collection(info.namespace.as_deref()), &query_string(&pairs));
        let sent = ctx.client().await?.json(Method::POST, &path, Some((Body::Json, serde_json::to_vec(&modified)?))).await;
        Ok((sent.map_err(|e| errors::from_source("creating", &info.source, e))?, "created"))
    }

    async fn recreate(&self, ctx: &Ctx, info: &Info, modified: Value, validation: Validation) -> Result<(Value, &'static str)> {
        let options = delete::options(&self.delete.cascade, self.delete.grace_period, false)?;
        delete::one(ctx, info, &options).await?;
        super::wait::until(ctx, info, |object| object.is_none()).await?;
        self.create(ctx, info, modified, DryRun::None, validation).await.map(|(object, _)| (object, "configured"))
    }

    /// Deletes what was applied before, matches the selector, and is in no file now.
    async fn prune(
        &self,
        ctx: &Ctx,
        applied: &[(std::rc::Rc<crate::discovery::Kind>, Option<String>, String)],
        dry_run: DryRun,
        printer: &mut Printer,
    ) -> Result<()> {
        const ALLOWED: &[(&str, &str)] = &[
            ("", "ConfigMap"),
            ("", "Endpoints"),
            ("", "Namespace"),
            ("", "PersistentVolumeClaim"),
            ("", "PersistentVolume"),
            ("", "Pod"),
            ("", "ReplicationController"),
            ("", "Secret"),
            ("", "Service"),
            ("batch", "Job"),
            ("batch", "CronJob"),
            ("networking.k8s.io", "Ingress"),
            ("apps", "DaemonSet"),
            ("apps", "Deployment"),
            ("apps", "ReplicaSet"),
            ("apps", "StatefulSet"),
        ];
        let discovery = ctx.discovery().await?;
        let mut kinds = Vec::new();
        if self.prune_allowlist.is_empty() {
            kinds.extend(ALLOWED.iter().filter_map(|(group, kind)| discovery.find_group_kind(group, kind)));
        }
        for text in &self.prune_allowlist {
            let parts: Vec<&str> = text.split('/').collect();
            let [group, version, kind] = parts.as_slice() else {
                bail!("invalid GroupVersionKind format: {text}, please follow <group/version/kind>")
            };
            let api_version = if matches!(*group, "core" | "") { (*version).to_owned() } else { format!("{group}/{version}") };
            kinds.push(ctx.kind_of(&api_version, kind).await?.ok_or_else(|| anyhow!("no matches for kind {kind:?} in version {api_version:?}"))?);
        }
        let mut namespaces: Vec<String> = applied.iter().filter_map(|(_, namespace, _)| namespace.clone()).collect();
        namespaces.sort();
        namespaces.dedup();
        let parameters: Vec<(&str, String)> = self.selector.iter().map(|s| ("labelSelector", s.clone())).collect();
        let options = delete::options(&self.delete.cascade, self.delete.grace_period, false)?;
        for kind in kinds {
            let places: Vec<Option<&str>> = if kind.namespaced { namespaces.iter().map(|n| Some(n.as_str())).collect() } else { vec![None] };
            for place in places {
                let list = resource::list_all(ctx, &kind.collection(place), &parameters, 500).await?;
                for info in resource::items_of(&kind, list) {
                    let uid = info.object["metadata"]["uid"].as_str().unwrap_or_default();
                    if apply::last_applied(&info.object).is_none() || applied.iter().any(|(_, _, u)| u == uid) {
                        continue;
                    }
                    if dry_run == DryRun::None {
                        delete::one(ctx, &info, &options).await?;
                    }
                    printer.done(&info.object, "pruned")?;
                }
            }
        }
        Ok(())
    }
}

/// What upstream says when it cannot read what it is to change.
fn unreadable(info: &Info, error: anyhow::Error) -> anyhow::Error {
    let Info { kind, name, namespace, source, .. } = info;
    let resource = format!("{}/{}", kind.group, kind.version);
    let namespace = namespace.as_deref().unwrap_or_default();
    let told = format!(
        "error when retrieving current configuration of:\nResource: \"{resource}, Resource={}\", GroupVersionKind: \"{resource}, Kind={}\"\nName: {name:?}, Namespace: {namespace:?}\nfrom server for: {source:?}:",
        kind.plural, kind.kind
    );
    match error.downcast::<errors::ServerError>() {
        Ok(mut server) => {
            server.0.message = Some(format!("{told} {}", server.0.message.as_deref().unwrap_or_default()));
            server.into()
        }
        Err(error) if error.is::<errors::ConnectError>() => error,
        Err(error) => anyhow!("{told} {error}"),
    }
}

fn recreatable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<errors::ServerError>().is_some_and(|e| matches!(e.reason(), "Invalid" | "Conflict"))
}

impl ViewArgs {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        if !matches!(self.output.as_str(), "yaml" | "json" | "") {
            bail!(
                "Unexpected -o output mode: {}, the flag 'output' must be one of yaml|json\nSee 'kctl apply view-last-applied -h' for help and examples",
                self.output
            );
        }
        let query = Query { args: self.args.clone(), files: self.files.clone(), all: self.all, ..Query::default() }.select(&self.selector);
        let (infos, failures) = query.infos(ctx).await?;
        for info in infos {
            // Upstream means to complain of a missing annotation, but passes over it.
            let Some(text) = apply::last_applied(&info.object) else { continue };
            let value: Value = serde_json::from_str(text)?;
            print::emit(&if self.output == "json" { shared::gojson::indented(&value, "  ") + "\n" } else { print::yaml::to_string(&value) })?;
        }
        errors::collect(failures)
    }
}

impl SetArgs {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        self.files.required()?;
        let dry_run = self.dry_run.mode()?;
        let mut printer = Printer::new(&self.output, dry_run.suffix())?;
        for document in manifest::read(&self.files, Validation::Ignore).await? {
            let info = resource::locate(ctx, document, false).await?;
            let current = info.fetch(ctx).await?;
            let text = Value::String(shared::gojson::compact(&info.object) + "\n");
            match apply::last_applied(&current) {
                None if !self.create_annotation => {
                    bail!(
                        "no last-applied-configuration annotation found on resource: {}, to create the annotation, run the command with --create-annotation",
                        info.name
                    )
                }
                Some(old) if text == old => {
                    outln!("set-last-applied {}: no changes required.", info.name);
                    continue;
                }
                _ => {}
            }
            let patch = json!({ "metadata": { "annotations": { LAST_APPLIED: text } } });
            let done = if dry_run == DryRun::Client {
                current
            } else {
                let pairs: Vec<_> = dry_run.query().into_iter().collect();
                info.patch(ctx, Body::MergePatch, &patch, &query_string(&pairs)).await?
            };
            printer.done(&done, "configured")?;
        }
        Ok(())
    }
}

impl EditArgs {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        let query = Query { args: self.args.clone(), files: self.files.clone(), ..Query::default() };
        let (infos, failures) = query.infos(ctx).await?;
        for info in infos {
            let Some(text) = apply::last_applied(&info.object) else {
                bail!("no last-applied-configuration annotation found on resource: {}", info.name);
            };
            let value: Value = serde_json::from_str(text)?;
            let Some(edited) = edit::value(&value, &info.printed())? else {
                eprintln!("Edit cancelled, no changes made.");
                continue;
            };
            let patch = json!({ "metadata": { "annotations": { LAST_APPLIED: shared::gojson::compact(&edited) + "\n" } } });
            let done = info.patch(ctx, Body::MergePatch, &patch, "").await?;
            Printer::new(&OutputArgs::default(), "")?.done(&done, "edited")?;
        }
        errors::collect(failures)
    }
}

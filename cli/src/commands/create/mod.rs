//! `create`: objects from manifests, and the subcommands that make one from flags.

mod bindings;
mod configmap;
mod cronjob;
mod deployment;
pub mod generate;
mod ingress;
mod job;
mod keys;
mod namespace;
mod pdb;
mod priorityclass;
mod quota;
pub use generate::labels_of;
pub use keys::{check_variable_name, hash};
pub use quota::amounts;
mod roles;
mod secret;
mod service;
mod serviceaccount;
mod token;

use anyhow::{Result, bail};
use reqwest::Method;

use crate::app::Ctx;
use crate::client::Body;
use crate::commands::edit;
use crate::errors;
use crate::manifest::{self, FileArgs, Validation};
use crate::print::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resource::{self, query_string, with_query};

/// Create a resource from a file or from stdin
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Edit the API resource before creating
    #[arg(long)]
    pub edit: bool,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-create")]
    pub field_manager: String,
    /// Raw URI to POST to the server
    #[arg(long, value_name = "URI")]
    pub raw: Option<String>,
    /// If true, the configuration of current object will be saved in its annotation
    #[arg(long)]
    pub save_config: bool,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    pub validate: String,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Defaults to the line ending native to your platform (only with --edit)
    #[arg(long, hide = true)]
    pub windows_line_endings: bool,
    #[command(subcommand)]
    pub kind: Option<Kind>,
}

/// The kinds that flags can describe.
#[derive(Debug, clap::Subcommand)]
pub enum Kind {
    #[command(alias = "deploy")]
    Deployment(deployment::Args),
    Job(job::Args),
    #[command(alias = "cj")]
    Cronjob(cronjob::Args),
    #[command(alias = "ns")]
    Namespace(namespace::Args),
    #[command(alias = "svc")]
    Service(service::Args),
    #[command(alias = "sa")]
    Serviceaccount(serviceaccount::Args),
    Role(roles::RoleArgs),
    Clusterrole(roles::ClusterRoleArgs),
    Rolebinding(bindings::RoleBindingArgs),
    Clusterrolebinding(bindings::ClusterRoleBindingArgs),
    #[command(alias = "resourcequota")]
    Quota(quota::Args),
    #[command(alias = "ing")]
    Ingress(ingress::Args),
    #[command(alias = "pdb")]
    Poddisruptionbudget(pdb::Args),
    #[command(alias = "pc")]
    Priorityclass(priorityclass::Args),
    Secret(secret::Args),
    #[command(alias = "cm")]
    Configmap(configmap::Args),
    Token(token::Args),
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.kind {
            None => self.from_files(ctx).await,
            Some(Kind::Deployment(args)) => args.run(ctx).await,
            Some(Kind::Job(args)) => args.run(ctx).await,
            Some(Kind::Cronjob(args)) => args.run(ctx).await,
            Some(Kind::Namespace(args)) => args.run(ctx).await,
            Some(Kind::Service(args)) => args.run(ctx).await,
            Some(Kind::Serviceaccount(args)) => args.run(ctx).await,
            Some(Kind::Role(args)) => args.run(ctx).await,
            Some(Kind::Clusterrole(args)) => args.run(ctx).await,
            Some(Kind::Rolebinding(args)) => args.run(ctx).await,
            Some(Kind::Clusterrolebinding(args)) => args.run(ctx).await,
            Some(Kind::Quota(args)) => args.run(ctx).await,
            Some(Kind::Ingress(args)) => args.run(ctx).await,
            Some(Kind::Poddisruptionbudget(args)) => args.run(ctx).await,
            Some(Kind::Priorityclass(args)) => args.run(ctx).await,
            Some(Kind::Secret(args)) => args.run(ctx).await,
            Some(Kind::Configmap(args)) => args.run(ctx).await,
            Some(Kind::Token(args)) => args.run(ctx).await,
        }
    }

    async fn from_files(&self, ctx: &Ctx) -> Result<()> {
        self.files.required()?;
        if let Some(uri) = &self.raw {
            return self.post_raw(ctx, uri).await;
        }
        let dry_run = self.dry_run.mode()?;
        let validation = Validation::parse(&self.validate)?;
        let mut printer = Printer::new(&self.output, dry_run.suffix())?;
        let selector = match &self.selector {
            Some(text) => shared::selector::Selector::parse(text).map_err(|e| anyhow::anyhow!("{e}"))?,
            None => shared::selector::Selector::everything(),
        };
        let mut documents = manifest::read(&self.files, validation).await?;
        if self.edit {
            documents = edit::documents(documents, validation)?;
        }
        documents.retain(|d| selector.matches(&generate::labels_of(&d.object)));
        if documents.is_empty() {
            bail!("no objects passed to create");
        }
        let mut failures = Vec::new();
        for document in documents {
            let source = document.source.clone();
            let done = async {
                let mut info = match dry_run {
                    DryRun::Client => located_anywhere(ctx, document).await?,
                    _ => resource::locate(ctx, document, false).await?,
                };
                if self.save_config {
                    crate::apply::save_config(&mut info.object);
                }
                let created = match dry_run {
                    DryRun::Client => info.object.clone(),
                    _ => {
                        let mut pairs = vec![("fieldManager", self.field_manager.clone()), ("fieldValidation", validation.query().to_owned())];
                        pairs.extend(dry_run.query());
                        let path = with_query(&info.kind.collection(info.namespace.as_deref()), &query_string(&pairs));
                        let sent = ctx.client().await?.json(Method::POST, &path, Some((Body::Json, serde_json::to_vec(&info.object)?))).await;
                        sent.map_err(|e| errors::from_source("creating", &source, e))?
                    }
                };
                printer.done(&created, "created")
            };
            if let Err(error) = done.await {
                failures.push(error);
            }
        }
        errors::collect(failures)
    }

    async fn post_raw(&self, ctx: &Ctx, uri: &str) -> Result<()> {
        let [file] = self.files.filename.as_slice() else { bail!("--raw can only use a single local file or stdin") };
        if self.edit || self.output.output.is_some() || self.selector.is_some() {
            bail!("--raw may not be specified with other flags that filter the server request or alter the output");
        }
        let body = if file == "-" { std::io::read_to_string(std::io::stdin())?.into_bytes() } else { std::fs::read(file)? };
        let answer = ctx.client().await?.bytes(Method::POST, uri, "application/json, */*", Some(("application/json", body))).await?;
        crate::print::emit(&String::from_utf8_lossy(&answer))?;
        Ok(())
    }
}

/// Locates an object that nothing is done with; where no server can be asked, what the manifest says has to do.
async fn located_anywhere(ctx: &Ctx, document: manifest::Document) -> Result<resource::Info> {
    match resource::locate(ctx, document.clone(), false).await {
        Err(error) if errors::is_unreachable(&error) => resource::locate(ctx, document, true).await,
        located => located,
    }
}

//! What the subcommands that make an object from flags have in common.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::app::Ctx;
use crate::client::Body;
use crate::discovery::Kind;
use crate::errors;
use crate::manifest::Validation;
use crate::print::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resource::{query_string, with_query};

/// The flags every generator takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CommonArgs {
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-create")]
    pub field_manager: String,
    /// If true, the configuration of current object will be saved in its annotation
    #[arg(long)]
    pub save_config: bool,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    pub validate: String,
    /// Failures are told in the server's words alone.
    #[arg(skip)]
    pub plain_errors: bool,
}

impl CommonArgs {
    /// Creates the object, or prints what would be created.
    pub async fn create(&self, ctx: &Ctx, kind: &Kind, object: Value) -> Result<()> {
        self.create_as(ctx, kind, object, "created").await.map(drop)
    }

    /// As [`Self::create`], with the word for what was done; returns the created object.
    pub async fn create_as(&self, ctx: &Ctx, kind: &Kind, mut object: Value, verb: &str) -> Result<Value> {
        let dry_run = self.dry_run.mode()?;
        let validation = Validation::parse(&self.validate)?;
        let mut printer = Printer::new(&self.output, dry_run.suffix())?;
        // A dry run needs no kubeconfig, and still names the namespace that was asked for.
        let settings = ctx.settings()?;
        if kind.namespaced && settings.namespace_given {
            object["metadata"]["namespace"] = Value::String(settings.namespace.clone());
        }
        if self.save_config {
            crate::apply::save_config(&mut object);
        }
        if dry_run == DryRun::Client {
            printer.done(&object, verb)?;
            return Ok(object);
        }
        let mut pairs = vec![("fieldManager", self.field_manager.clone()), ("fieldValidation", validation.query().to_owned())];
        pairs.extend(dry_run.query());
        let path = with_query(&kind.collection(Some(&settings.namespace)), &query_string(&pairs));
        let sent = ctx.client().await?.json(Method::POST, &path, Some((Body::Json, serde_json::to_vec(&object)?))).await;
        let created = sent.map_err(|error| if self.plain_errors { error } else { failed_to_create(kind, error) })?;
        printer.done(&created, verb)?;
        Ok(created)
    }
}

/// kubectl's generators say what failed in front of the server's words; a few kinds leave it to the server.
fn failed_to_create(kind: &Kind, error: anyhow::Error) -> anyhow::Error {
    if !error.is::<errors::ServerError>() {
        return error;
    }
    let what = match kind.kind.as_str() {
        "Namespace" | "Role" | "ClusterRole" | "Pod" => return error,
        "Secret" => return anyhow!("failed to create secret {error}"),
        "ResourceQuota" => "quota".to_owned(),
        "PodDisruptionBudget" => "poddisruptionbudgets".to_owned(),
        other => other.to_lowercase(),
    };
    anyhow!("failed to create {what}: {error}")
}

/// The single NAME of a generator.
pub fn one_name(names: &[String], command: &str) -> Result<String> {
    match names {
        [name] => Ok(name.clone()),
        _ => Err(errors::usage(command, format!("exactly one NAME is required, got {}", names.len()))),
    }
}

/// `key=value` pairs in the order given.
pub fn pairs(texts: &[String], what: &str) -> Result<Vec<(String, String)>> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(anyhow!("invalid {what} {text:?}: expected key=value")),
        })
        .collect()
}

/// A map as JSON.
pub fn object_of(pairs: impl IntoIterator<Item = (String, String)>) -> Value {
    Value::Object(pairs.into_iter().map(|(k, v)| (k, Value::String(v))).collect::<Map<_, _>>())
}

/// The labels of an object, for selectors.
pub fn labels_of(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object();
    labels.into_iter().flatten().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

/// The name of the container an image gets: the last part of its path without tag and digest.
pub fn container_name(image: &str) -> String {
    let base = image.rsplit('/').next().unwrap_or(image);
    let base = base.split(['@', ':']).next().unwrap_or(base);
    base.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect::<String>().replace(['_', '.'], "-")
}

/// The metadata of a new object.
pub fn metadata(name: &str) -> Value {
    json!({ "name": name })
}

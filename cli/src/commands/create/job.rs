//! `create job`

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::generate::{CommonArgs, metadata, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a job with the specified name
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Image name to run
    #[arg(long)]
    pub image: Option<String>,
    /// The name of the resource to create a Job from (only cronjob is supported)
    #[arg(long, value_name = "cronjob/NAME")]
    pub from: Option<String>,
    /// The command of the container
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create job")?;
        let kind = Kind::built_in("batch", "v1", "Job", "jobs", true);
        let job = match (&self.image, &self.from) {
            (Some(image), None) => {
                json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(&name), "spec": spec(&name, image, &self.command, "Never"), "status": {} })
            }
            (None, Some(from)) if self.command.is_empty() => from_cronjob(ctx, &name, from).await?,
            (None, Some(_)) => bail!("cannot specify --from and command"),
            _ => bail!("either --image or --from must be specified"),
        };
        self.common.create(ctx, &kind, job).await
    }
}

/// The spec of a job that runs one container.
pub fn spec(name: &str, image: &str, command: &[String], restart: &str) -> Value {
    let mut container = json!({ "name": name, "image": image, "resources": {} });
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({ "template": { "metadata": {}, "spec": { "containers": [container], "restartPolicy": restart } } })
}

async fn from_cronjob(ctx: &Ctx, name: &str, from: &str) -> Result<Value> {
    let Some(("cronjob" | "cronjobs" | "cj" | "cronjob.batch" | "cronjobs.batch", cronjob_name)) = from.split_once('/') else {
        // Upstream looks first, and only then at what it found.
        if let Some((kind, name)) = from.split_once('/') {
            let kind = ctx.kind(kind).await?;
            ctx.client().await?.get(&kind.object(Some(&ctx.namespace()?), name)).await?;
        }
        bail!("from must be an existing cronjob");
    };
    let kind = Kind::built_in("batch", "v1", "CronJob", "cronjobs", true);
    let cronjob = ctx.client().await?.get(&kind.object(Some(&ctx.namespace()?), cronjob_name)).await?;
    let template = &cronjob["spec"]["jobTemplate"];
    let mut annotations = template["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations["cronjob.kubernetes.io/instantiate"] = json!("manual");
    let mut metadata = json!({
        "name": name,
        "annotations": annotations,
        "ownerReferences": [{
            "apiVersion": "batch/v1", "kind": "CronJob", "name": cronjob_name, "uid": cronjob["metadata"]["uid"], "controller": true,
        }],
    });
    if template["metadata"]["labels"].is_object() {
        metadata["labels"] = template["metadata"]["labels"].clone();
    }
    Ok(json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"], "status": {} }))
}

//! `create deployment`

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::generate::{CommonArgs, container_name, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a deployment with the specified name
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Image names to run. A deployment can have multiple images set for multi-container pod
    #[arg(long, required = true, value_delimiter = ',')]
    pub image: Vec<String>,
    /// The containerPort that this deployment exposes
    #[arg(long, default_value_t = -1)]
    pub port: i64,
    /// Number of replicas to create
    #[arg(short = 'r', long, default_value_t = 1)]
    pub replicas: i64,
    /// The command of the container
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create deployment")?;
        if self.image.len() > 1 && !self.command.is_empty() {
            bail!("cannot specify multiple --image options and command");
        }
        if self.replicas < 0 {
            bail!(
                "failed to create deployment: Deployment.apps {name:?} is invalid: spec.replicas: Invalid value: {}: must be greater than or equal to 0",
                self.replicas
            );
        }
        let kind = Kind::built_in("apps", "v1", "Deployment", "deployments", true);
        self.common.create(ctx, &kind, deployment(&name, &self.image, self.port, self.replicas, &self.command)).await
    }
}

/// The deployment upstream's generator makes.
pub fn deployment(name: &str, images: &[String], port: i64, replicas: i64, command: &[String]) -> Value {
    let containers: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut container = json!({ "name": container_name(image), "image": image, "resources": {} });
            if !command.is_empty() {
                container["command"] = json!(command);
            }
            if port >= 0 {
                container["ports"] = json!([{ "containerPort": port }]);
            }
            container
        })
        .collect();
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "strategy": {},
            "template": { "metadata": { "labels": labels }, "spec": { "containers": containers } },
        },
        "status": {},
    })
}

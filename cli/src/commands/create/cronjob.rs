//! `create cronjob`

use anyhow::Result;
use serde_json::json;

use super::generate::{CommonArgs, metadata, one_name};
use super::job;
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a cron job with the specified name
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Image name to run
    #[arg(long, required = true)]
    pub image: String,
    /// A schedule in the Cron format the job should be run with
    #[arg(long, required = true)]
    pub schedule: String,
    /// Job's restart policy. Supported values: OnFailure, Never
    #[arg(long, default_value = "")]
    pub restart: String,
    /// The command of the container
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create cronjob")?;
        let restart = if self.restart.is_empty() { "OnFailure" } else { &self.restart };
        let cronjob = json!({
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata(&name),
            "spec": {
                "schedule": self.schedule,
                "jobTemplate": { "metadata": metadata(&name), "spec": job::spec(&name, &self.image, &self.command, restart) },
            },
            "status": {},
        });
        self.common.create(ctx, &Kind::built_in("batch", "v1", "CronJob", "cronjobs", true), cronjob).await
    }
}

//! `rollout status`: waits for a rollout to end, and says how far it is.

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use super::RolloutArgs;
use super::live::{self, Live};
use super::verdict::{Stuck, verdict};
use crate::app::Ctx;
use crate::errors;
use crate::resource::Info;

/// The flags of `rollout status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub rollout: RolloutArgs,
    /// Watch the status of the rollout until it's done
    #[arg(short = 'w', long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub watch: bool,
    /// The length of time to wait before ending watch, zero means never
    #[arg(long, default_value = "0s", value_parser = crate::duration::checked)]
    pub timeout: String,
    /// Pin to a specific revision for showing its status. Defaults to 0 (last revision)
    #[arg(long, default_value_t = 0)]
    pub revision: i64,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.revision < 0 {
            bail!("revision must be a positive integer: {}", self.revision);
        }
        let timeout = crate::duration::parse(&self.timeout).map_err(|e| anyhow!("{e}"))?;
        let (infos, mut failures) = self.rollout.infos(ctx).await?;
        if infos.is_empty() && failures.is_empty() {
            eprintln!("No resources found in {} namespace.", ctx.namespace()?);
            return Ok(());
        }
        for info in &infos {
            let waiting = self.one(ctx, info);
            let done = if timeout.is_zero() {
                waiting.await
            } else {
                tokio::time::timeout(timeout, waiting).await.unwrap_or_else(|_| Err(Stuck("timed out waiting for the condition".into()).into()))
            };
            match done {
                Err(error) if error.is::<Stuck>() => failures.push(live::explained(ctx, info, error).await),
                Err(error) => failures.push(error),
                Ok(()) => {}
            }
        }
        errors::collect(failures)
    }

    async fn one(&self, ctx: &Ctx, info: &Info) -> Result<()> {
        if !matches!(info.kind.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
            bail!("no status viewer has been implemented for {}", info.kind.kind);
        }
        let live = Live::new(self.watch);
        let mut last = String::new();
        let mut outcome: Result<()> = Ok(());
        let step = |object: Option<&Value>| {
            let Some(object) = object else {
                outcome = Err(anyhow!("object has been deleted"));
                return true;
            };
            let judged = verdict(object, self.revision).and_then(|(message, done)| {
                if message != last {
                    live.tell(object, &message, done || !self.watch)?;
                    last.clone_from(&message);
                }
                Ok(done || !self.watch)
            });
            judged.unwrap_or_else(|error| {
                outcome = Err(error);
                true
            })
        };
        tokio::select! {
            waited = crate::commands::wait::until(ctx, info, step) => waited?,
            () = live.follow_pods(ctx, info) => {}
        }
        outcome
    }
}

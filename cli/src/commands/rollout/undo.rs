//! `rollout undo`: back to an earlier template (`k8s.io/kubectl/pkg/polymorphichelpers/rollback.go`).

use std::io::IsTerminal;

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::{Revision, RolloutArgs, plain_template, revisions};
use crate::app::Ctx;
use crate::client::Body;
use crate::describe;
use crate::errors;
use crate::print::{self, DryRun, DryRunArgs, Printer};
use crate::resource::{Info, query_string};

/// The flags of `rollout undo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub rollout: RolloutArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// The revision to rollback to. Default to 0 (last revision)
    #[arg(long, default_value_t = 0)]
    pub to_revision: i64,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let dry_run = self.dry_run.mode()?;
        let (infos, mut failures) = self.rollout.infos(ctx).await?;
        let mut printer = Printer::new(&self.rollout.output, "")?;
        for info in infos {
            match self.one(ctx, &info, dry_run).await {
                Ok(verb) => printer.done(&info.object, &verb)?,
                Err(error) => failures.push(error),
            }
        }
        errors::collect(failures)
    }

    async fn one(&self, ctx: &Ctx, info: &Info, dry_run: DryRun) -> Result<String> {
        let kind = info.kind.kind.as_str();
        if info.object["metadata"]["annotations"][crate::apply::LAST_APPLIED].is_string() {
            print::warn(&format!(
                "resource {}/{} was previously managed with 'kubectl apply'. Rolling back will not update the {} annotation, which may cause unexpected behavior on future 'kubectl apply' operations. Consider using 'kubectl apply' with your previous configuration file instead.",
                info.kind.plural,
                info.name,
                crate::apply::LAST_APPLIED
            ));
        }
        if !matches!(kind, "Deployment" | "DaemonSet" | "StatefulSet") {
            bail!("error retrieving rollbacker for {kind:?}, no visitor method exists for {{{} {kind}}}", info.kind.group);
        }
        if kind == "Deployment" && info.object["spec"]["paused"] == true {
            bail!("you cannot rollback a paused deployment; resume it first with 'kctl rollout resume' and try again");
        }
        let all = revisions(ctx, info).await?;
        let target = self.target(&all, info)?;
        let template = plain_template(&target.template);
        if dry_run == DryRun::Client {
            let mut description = describe::Writer::new();
            description.pod_template(&serde_json::from_value(target.template.clone())?);
            let text = if std::io::stdout().is_terminal() { description.finish() } else { description.raw() };
            return Ok(format!("{text} (dry run)"));
        }
        // A daemon set's revision may hold less than today's template: what counts is whether merging it changes anything.
        if plain_template(&info.object["spec"]["template"]) == template {
            return Ok(format!("skipped rollback (current template already matches revision {})", target.number));
        }
        let mut pairs = vec![("fieldManager", self.rollout.field_manager.clone())];
        pairs.extend(dry_run.query());
        if kind == "Deployment" {
            let mut patch = vec![json!({ "op": "replace", "path": "/spec/template", "value": template })];
            patch.push(json!({ "op": "replace", "path": "/metadata/annotations", "value": annotations(info, target) }));
            info.patch(ctx, Body::JsonPatch, &Value::Array(patch), &query_string(&pairs)).await?;
        } else {
            info.patch(ctx, Body::StrategicPatch, &target.keeper["data"], &query_string(&pairs)).await?;
        }
        Ok(format!("rolled back{}", dry_run.suffix()))
    }

    fn target<'a>(&self, all: &'a [Revision], info: &Info) -> Result<&'a Revision> {
        if self.to_revision < 0 {
            bail!("unable to find specified revision {} in history", self.to_revision);
        }
        if self.to_revision > 0 {
            return all
                .iter()
                .find(|r| r.number == self.to_revision)
                .ok_or_else(|| anyhow!("unable to find specified revision {} in history", self.to_revision));
        }
        let before_last = all.len().checked_sub(2).map(|at| &all[at]);
        before_last.ok_or_else(|| match info.kind.kind.as_str() {
            "Deployment" => anyhow!("no rollout history found for deployment {:?}", info.name),
            _ => anyhow!("no last revision to roll back to"),
        })
    }
}

/// The deployment's own annotations, with those its template's replica set was made with.
fn annotations(info: &Info, target: &Revision) -> Value {
    const OWN: &[&str] = &[
        crate::apply::LAST_APPLIED,
        "deployment.kubernetes.io/revision",
        "deployment.kubernetes.io/revision-history",
        "deployment.kubernetes.io/desired-replicas",
        "deployment.kubernetes.io/max-replicas",
        "deprecated.deployment.rollback.to",
    ];
    let mut kept = serde_json::Map::new();
    for (key, value) in info.object["metadata"]["annotations"].as_object().into_iter().flatten() {
        if OWN.contains(&key.as_str()) {
            kept.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in target.keeper["metadata"]["annotations"].as_object().into_iter().flatten() {
        if !OWN.contains(&key.as_str()) {
            kept.insert(key.clone(), value.clone());
        }
    }
    Value::Object(kept)
}

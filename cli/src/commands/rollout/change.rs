//! `rollout pause`, `resume` and `restart`.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::RolloutArgs;
use crate::app::Ctx;
use crate::client::Body;
use crate::errors;
use crate::print::Printer;
use crate::resource::{Info, query_string};

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Pause,
    Resume,
    Restart,
}

pub(super) async fn run(args: &RolloutArgs, ctx: &Ctx, change: Change) -> Result<()> {
    let (infos, mut failures) = args.infos(ctx).await?;
    let mut printer = Printer::new(&args.output, "")?;
    if infos.is_empty() && failures.is_empty() {
        eprintln!("No resources found in {} namespace.", ctx.namespace()?);
    }
    for info in infos {
        match one(args, ctx, &info, change).await {
            Ok((object, verb)) => printer.done(&object, verb)?,
            Err(error) => failures.push(error),
        }
    }
    errors::collect(failures)
}

async fn one(args: &RolloutArgs, ctx: &Ctx, info: &Info, change: Change) -> Result<(Value, &'static str)> {
    let kind = info.kind.kind.as_str();
    let resource = format!("{} {:?}", info.kind.resource(), info.name);
    let paused = info.object["spec"]["paused"] == true;
    let (patch, verb) = match (change, kind) {
        (Change::Pause, "Deployment") if paused => bail!("{resource} is already paused"),
        (Change::Pause, "Deployment") => (json!({ "spec": { "paused": true } }), "paused"),
        (Change::Pause, _) => bail!("{resource} pausing is not supported"),
        (Change::Resume, "Deployment") if !paused => bail!("{resource} is not paused"),
        (Change::Resume, "Deployment") => (json!({ "spec": { "paused": null } }), "resumed"),
        (Change::Resume, _) => bail!("{resource} resuming is not supported"),
        (Change::Restart, "Deployment") if paused => bail!("{resource} can't restart paused deployment (run rollout resume first)"),
        (Change::Restart, "Deployment" | "DaemonSet" | "StatefulSet") => {
            let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z");
            let last = info.object.pointer("/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt");
            if last.is_some_and(|last| last == now.as_str()) {
                bail!(
                    "failed to create patch for {}: if restart has already been triggered within the past second, please wait before attempting to trigger another",
                    info.name
                );
            }
            (json!({ "spec": { "template": { "metadata": { "annotations": { "kubectl.kubernetes.io/restartedAt": now } } } } }), "restarted")
        }
        (Change::Restart, _) => bail!("{resource} restarting is not supported"),
    };
    let query = query_string(&[("fieldManager", args.field_manager.clone())]);
    let object = info.patch(ctx, Body::StrategicPatch, &patch, &query).await?;
    Ok((object, verb))
}

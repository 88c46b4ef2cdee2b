//! `rollout`: the progress and the past of deployments, daemon sets and stateful sets.

mod change;
mod history;
mod live;
mod status;
mod undo;
mod verdict;

use std::rc::Rc;

use anyhow::Result;
use serde_json::Value;

use crate::app::Ctx;
use crate::discovery::Kind;
use crate::manifest::FileArgs;
use crate::podspec;
use crate::print::OutputArgs;
use crate::resource::{self, Info, Query, SelectorArgs};

pub use verdict::verdict;

/// Manage the rollout of one or many resources
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

/// What to do with a rollout.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Show the status of the rollout
    Status(status::Args),
    /// View rollout history
    History(history::Args),
    /// Undo a previous rollout
    Undo(undo::Args),
    /// Mark the provided resource as paused
    Pause(RolloutArgs),
    /// Resume a paused resource
    Resume(RolloutArgs),
    /// Restart a resource
    Restart(RolloutArgs),
}

/// The flags of every rollout command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RolloutArgs {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-rollout")]
    pub field_manager: String,
}

impl RolloutArgs {
    async fn infos(&self, ctx: &Ctx) -> Result<(Vec<Info>, Vec<anyhow::Error>)> {
        if self.args.is_empty() && self.files.is_empty() {
            anyhow::bail!("required resource not specified");
        }
        let selector = SelectorArgs { selector: self.selector.clone(), ..SelectorArgs::default() };
        let query = Query { args: self.args.clone(), files: self.files.clone(), kinds_mean_all: true, ..Query::default() };
        query.select(&selector).infos(ctx).await
    }
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.what {
            What::Status(args) => args.run(ctx).await,
            What::History(args) => args.run(ctx).await,
            What::Undo(args) => args.run(ctx).await,
            What::Pause(args) => change::run(args, ctx, change::Change::Pause).await,
            What::Resume(args) => change::run(args, ctx, change::Change::Resume).await,
            What::Restart(args) => change::run(args, ctx, change::Change::Restart).await,
        }
    }
}

/// One revision of a workload: its number, where it is kept and the pod template it had.
struct Revision {
    number: i64,
    keeper: Value,
    template: Value,
}

const REVISION: &str = "deployment.kubernetes.io/revision";

/// Every revision that is still kept, oldest first.
async fn revisions(ctx: &Ctx, info: &Info) -> Result<Vec<Revision>> {
    let uid = &info.object["metadata"]["uid"];
    let owned =
        |object: &Value| object["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|o| o["controller"] == true && o["uid"] == *uid);
    let deployment = info.kind.is("apps", "Deployment");
    let keeper = if deployment {
        Kind::built_in("apps", "v1", "ReplicaSet", "replicasets", true)
    } else {
        Kind::built_in("apps", "v1", "ControllerRevision", "controllerrevisions", true)
    };
    let parameters: Vec<(&str, String)> = podspec::pod_selector(&info.object).map(|s| ("labelSelector", s)).into_iter().collect();
    let list = resource::list_all(ctx, &keeper.collection(info.namespace.as_deref()), &parameters, 0).await?;
    let mut revisions: Vec<Revision> = resource::items_of(&Rc::new(keeper), list)
        .into_iter()
        .filter(|i| owned(&i.object))
        .filter_map(|i| {
            let (number, template) = if deployment {
                (i.object["metadata"]["annotations"][REVISION].as_str()?.parse().ok()?, i.object["spec"]["template"].clone())
            } else {
                (i.object["revision"].as_i64()?, i.object["data"]["spec"]["template"].clone())
            };
            Some(Revision { number, keeper: i.object, template })
        })
        .collect();
    revisions.sort_by_key(|r| r.number);
    Ok(revisions)
}

/// A template without what its controller added.
fn plain_template(template: &Value) -> Value {
    let mut plain = template.clone();
    if let Some(labels) = plain.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
        labels.remove("controller-revision-hash");
    }
    if let Some(map) = plain.as_object_mut() {
        map.remove("$patch");
    }
    plain
}

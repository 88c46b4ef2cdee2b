//! `config`: the kubeconfig files themselves. Unknown fields and the file's mode survive every change.

mod file;
mod list;
mod set;

use anyhow::Result;

use crate::app::Ctx;

/// Modify kubeconfig files
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

/// What to do with them.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    View(list::View),
    GetContexts(list::GetContexts),
    /// Display clusters defined in the kubeconfig
    GetClusters,
    /// Display users defined in the kubeconfig
    GetUsers,
    /// Display the current-context
    CurrentContext,
    #[command(alias = "use")]
    UseContext(set::UseContext),
    RenameContext(set::RenameContext),
    SetContext(set::SetContext),
    SetCluster(set::SetCluster),
    SetCredentials(set::SetCredentials),
    Set(set::Set),
    Unset(set::Unset),
    /// Delete the specified context from the kubeconfig
    DeleteContext(set::DeleteArgs),
    /// Delete the specified cluster from the kubeconfig
    DeleteCluster(set::DeleteArgs),
    /// Delete the specified user from the kubeconfig
    DeleteUser(set::DeleteArgs),
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.what {
            What::View(args) => args.run(ctx),
            What::GetContexts(args) => args.run(ctx),
            What::GetClusters => list::names(ctx, "clusters"),
            What::GetUsers => list::names(ctx, "users"),
            What::CurrentContext => list::current(ctx),
            What::UseContext(args) => args.run(ctx),
            What::RenameContext(args) => args.run(ctx),
            What::SetContext(args) => args.run(ctx),
            What::SetCluster(args) => args.run(ctx),
            What::SetCredentials(args) => args.run(ctx),
            What::Set(args) => args.run(ctx),
            What::Unset(args) => args.run(ctx),
            What::DeleteContext(args) => args.run(ctx, "contexts"),
            What::DeleteCluster(args) => args.run(ctx, "clusters"),
            What::DeleteUser(args) => args.run(ctx, "users"),
        }
    }
}

pub use file::merged;
pub use set::{set_namespace, use_context};

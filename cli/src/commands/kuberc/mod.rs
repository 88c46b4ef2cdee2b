//! `kuberc`: shows and changes the user's preferences.

mod set;
mod view;

use anyhow::Result;

use crate::app::Ctx;

/// Manage user preferences (kuberc) file
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

/// What to do with the file.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Set values in the kuberc configuration
    Set(set::Args),
    /// Display the current kuberc configuration
    View(view::Args),
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.what {
            What::Set(args) => args.run(ctx).await,
            What::View(args) => args.run(ctx).await,
        }
    }
}

//! `set`: one part of an object that exists.

mod change;
mod env;
mod image;
mod resources;
mod selector;
mod serviceaccount;
mod subject;

use anyhow::Result;

use crate::app::Ctx;

/// Set specific features on objects
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

/// What can be set.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    Image(image::Args),
    Env(env::Args),
    Resources(resources::Args),
    Selector(selector::Args),
    #[command(alias = "sa")]
    Serviceaccount(serviceaccount::Args),
    Subject(subject::Args),
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.what {
            What::Image(args) => args.run(ctx).await,
            What::Env(args) => args.run(ctx).await,
            What::Resources(args) => args.run(ctx).await,
            What::Selector(args) => args.run(ctx).await,
            What::Serviceaccount(args) => args.run(ctx).await,
            What::Subject(args) => args.run(ctx).await,
        }
    }
}

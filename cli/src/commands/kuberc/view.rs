//! `kuberc view`

use std::io::Write;

use anyhow::{Result, bail};

use crate::app::Ctx;
use crate::kuberc::{self, Defaults, Flag, Preference};
use crate::print::{OutputArgs, Printer};

/// Display the contents of the kuberc file
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub output: OutputArgs,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let mut output = self.output.clone();
        output.output.get_or_insert_with(|| "yaml".into());
        let mut printer = Printer::new(&output, "")?;
        let Some((file, _)) = kuberc::path(ctx.global.kuberc.as_deref())? else { bail!("KUBERC is disabled via KUBERC=off environment variable") };
        if !file.exists() {
            return offer(&file);
        }
        let preference = kuberc::read(&file)?.unwrap_or_else(Preference::empty);
        printer.object(&serde_json::to_value(preference)?)
    }
}

/// A file that is not there can be made with what upstream recommends.
fn offer(file: &std::path::Path) -> Result<()> {
    let mut out = std::io::stdout();
    write!(out, "kuberc file not found at {}\nWould you like to generate a default kuberc file with recommended options? (y/N): ", file.display())?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    let defaults =
        |command: &str, flag: &str| Defaults { command: command.into(), options: vec![Flag { name: flag.into(), default: "true".into() }] };
    let mut preference = Preference::empty();
    preference.defaults = vec![defaults("apply", "server-side"), defaults("delete", "interactive")];
    preference.write(file)
}

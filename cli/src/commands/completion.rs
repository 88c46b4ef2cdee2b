//! `completion`: scripts for shells. They ask this program, so that names of objects complete too.

use anyhow::{Result, anyhow};
use clap_complete::env::Shells;

use crate::print;

/// Output shell completion code for the specified shell (bash, zsh, fish, or powershell)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// bash, zsh, fish or powershell
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish", "powershell"])]
    pub shell: Option<String>,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, _: &crate::app::Ctx) -> Result<()> {
        let Some(shell) = &self.shell else {
            anyhow::bail!("Shell not specified.\nSee 'kctl completion -h' for help and examples");
        };
        print::emit(&script(shell)?)
    }
}

/// The registration script of a shell.
pub fn script(shell: &str) -> Result<String> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or_else(|| anyhow!("unsupported shell type {shell:?}"))?;
    let mut out = Vec::new();
    completer.write_registration("COMPLETE", "kctl", "kctl", "kctl", &mut out)?;
    let mut script = String::from_utf8_lossy(&out).into_owned();
    if shell == "zsh" {
        // Loaded by name, the file itself is the first call: without this the first TAB would complete nothing.
        script.push_str("if [ \"$funcstack[1]\" = \"_kctl\" ]; then\n    _clap_dynamic_completer_kctl \"$@\"\nfi\n");
    }
    Ok(script)
}

//! `plugin list`: the programs on the PATH that are commands of this one.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, bail};

use crate::app;
use crate::outln;

/// Provides utilities for interacting with plugins
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

/// What about plugins.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    List(List),
}

/// List all visible plugin executables on a user's PATH
#[derive(Debug, clap::Args)]
pub struct List {
    /// If true, display only the binary name of each plugin, rather than its full path
    #[arg(long)]
    pub name_only: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, _: &app::Ctx) -> Result<()> {
        let What::List(list) = &self.what;
        let mut warnings = 0;
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let own: Vec<String> = app::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        let mut found = Vec::new();
        for directory in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|n| n.starts_with("kctl-")).collect();
            names.sort();
            found.extend(names.into_iter().map(|n| directory.join(n)));
        }
        if found.is_empty() {
            bail!("unable to find any kctl plugins in your PATH");
        }
        eprintln!("The following compatible plugins are available:\n");
        for path in found {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            outln!("{}", if list.name_only { name.clone() } else { path.display().to_string() });
            let mut warn = |text: String| {
                eprintln!("  - warning: {text}");
                warnings += 1;
            };
            let runs = std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
            if !runs {
                warn(format!("{} identified as a kctl plugin, but it is not executable", path.display()));
            }
            if own.iter().any(|o| name == format!("kctl-{o}")) {
                warn(format!("{name} overwrites existing command: {:?}", name.replace('-', " ")));
            }
            if !seen.insert(name.clone()) {
                warn(format!("{} is overshadowed by a similarly named plugin", path.display()));
            }
        }
        match warnings {
            0 => Ok(()),
            1 => bail!("one plugin warning was found"),
            many => bail!("{many} plugin warnings were found"),
        }
    }
}

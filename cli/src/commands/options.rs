//! `options`: the flags every command takes.

use anyhow::Result;

use crate::app;
use crate::print;

/// Print the list of flags inherited by all commands
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Runs the command.
    pub async fn run(&self, _: &crate::app::Ctx) -> Result<()> {
        let mut text = String::from("The following options can be passed to any command:\n\n");
        let command = app::root();
        let mut flags: Vec<_> = command.get_arguments().filter(|a| a.is_global_set() && !a.is_hide_set()).collect();
        flags.sort_by_key(|a| a.get_long().unwrap_or_default().to_owned());
        for flag in flags {
            let short = flag.get_short().map_or_else(String::new, |s| format!("-{s}, "));
            let value = flag
                .get_value_names()
                .and_then(|n| n.first())
                .filter(|_| flag.get_action().takes_values())
                .map_or_else(String::new, |n| format!("={n}"));
            text.push_str(&format!(
                "    {short}--{}{value}:\n\t{}\n\n",
                flag.get_long().unwrap_or_default(),
                flag.get_help().map(ToString::to_string).unwrap_or_default()
            ));
        }
        print::emit(&text)
    }
}

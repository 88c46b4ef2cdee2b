//! Writes `completions/` and `man/` from the clap tree, and the table of kinds from their types; `--check` only says whether they are up to date.

mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Command;
use kctl::commands::completion;

/// Of every page, and always the same: generated files must not change by themselves.
const DATE: &str = "2026-04-22";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let check = arguments.iter().any(|a| a == "--check");
    let root =
        arguments.iter().find(|a| !a.starts_with('-')).map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), PathBuf::from);
    let wanted = files()?;
    let mut stale = Vec::new();
    for (name, text) in &wanted {
        let path = root.join(name);
        if std::fs::read_to_string(&path).ok().as_ref() == Some(text) {
            continue;
        }
        stale.push(name.clone());
        if !check {
            let directory = path.parent().context("a generated file lies in a directory")?;
            std::fs::create_dir_all(directory)?;
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    for left in leftovers(&root, &wanted)? {
        if !check {
            std::fs::remove_file(root.join(&left))?;
        }
        stale.push(left);
    }
    if check && !stale.is_empty() {
        bail!("out of date, run `make gen`: {}", stale.join(", "));
    }
    Ok(())
}

/// Every generated file by its path from the repository's root.
fn files() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for (shell, name) in [("bash", "kctl.bash"), ("zsh", "_kctl"), ("fish", "kctl.fish"), ("powershell", "_kctl.ps1")] {
        files.insert(format!("completions/{name}"), completion::script(shell)?);
    }
    files.insert("cli/src/manifest/schema.txt".to_owned(), schema::file()?);
    let mut command = kctl::app::command();
    command.build();
    pages(&command, "kctl", &mut files)?;
    Ok(files)
}

/// A page for a command and each of its subcommands.
fn pages(command: &Command, name: &str, files: &mut BTreeMap<String, String>) -> Result<()> {
    let mut page = Vec::new();
    let titled = command.clone().name(name.to_owned()).bin_name(name.replace('-', " "));
    clap_mangen::Man::new(titled).title(name).date(DATE).render(&mut page)?;
    files.insert(format!("man/{name}.1"), tidied(&String::from_utf8_lossy(&page)));
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        pages(sub, &format!("{name}-{}", sub.get_name()), files)?;
    }
    Ok(())
}

/// A page without what mandoc's lint finds: blanks at ends of lines, empty lines, and line breaks beside them.
fn tidied(page: &str) -> String {
    let lines: Vec<&str> = page.lines().map(str::trim_end).map(|line| if line.is_empty() { ".sp" } else { line }).collect();
    let is_space = |at: Option<usize>| at.and_then(|at| lines.get(at)).is_some_and(|l| *l == ".sp");
    let kept = lines.iter().enumerate().filter(|(at, line)| **line != ".br" || !is_space(at.checked_sub(1)) && !is_space(Some(at + 1)));
    kept.map(|(_, line)| format!("{line}\n")).collect()
}

/// Pages of commands that are no more.
fn leftovers(root: &Path, wanted: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in ["completions", "man"] {
        let Ok(entries) = std::fs::read_dir(root.join(directory)) else { continue };
        for entry in entries {
            let name = format!("{directory}/{}", entry?.file_name().to_string_lossy());
            if !wanted.contains_key(&name) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

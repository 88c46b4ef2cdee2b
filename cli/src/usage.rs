//! From arguments to a parsed command, with kubectl's words for what does not parse and plugins for what is no command.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::app::{self, App};
use crate::commands::complete;
use crate::help;
use crate::kuberc::{self, Preference};
use crate::print::style;
use crate::suggest;

/// Parses the arguments; what does not parse is told here, and help is printed.
///
/// # Errors
/// The exit code for the process to end with.
pub fn parse(arguments: Vec<String>) -> Result<App, ExitCode> {
    if arguments.len() < 2 {
        // Bare `kctl` prints its help and succeeds, as kubectl does.
        return match help::localized(app::command()).print_help() {
            Ok(()) => Err(ExitCode::SUCCESS),
            Err(_) => Err(ExitCode::FAILURE),
        };
    }
    let (arguments, preference) = match with_preferences(arguments) {
        Ok(applied) => applied,
        Err(error) => {
            eprintln!("error occurred while applying preferences {error}");
            return Err(ExitCode::FAILURE);
        }
    };
    parse_known(&arguments)
        .map_or_else(|| parse_with(app::command(), &arguments), Ok)
        .map(|mut app| {
            app.global.preference = preference;
            app
        })
        .map_err(|error| told(&error, &arguments))
}

fn parse_with(command: clap::Command, arguments: &[String]) -> Result<App, clap::Error> {
    help::localized(command).try_get_matches_from(arguments).and_then(|m| App::from_arg_matches(&m))
}

/// Parses with the tree of one command, where the arguments name it and are right; what is wrong is told with the whole tree at hand.
fn parse_known(arguments: &[String]) -> Option<App> {
    let command = app::command_named(words(arguments).first()?)?;
    parse_with(command, arguments).ok()
}

/// Puts the user's default flags and aliases into the arguments.
fn with_preferences(arguments: Vec<String>) -> anyhow::Result<(Vec<String>, Option<Preference>)> {
    let Some(preference) = kuberc::load(&arguments)? else { return Ok((arguments, None)) };
    let words = word_positions(&arguments);
    let arguments = kuberc::apply(&preference, &app::command(), arguments, &words)?;
    Ok((arguments, Some(preference)))
}

fn told(error: &clap::Error, arguments: &[String]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
            Ok(()) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A group of commands named without one prints its help and fails; upstream has a few that say it on stdout, or take no offence.
            let text = error.render().to_string();
            let group = words(arguments).first().copied().unwrap_or_default();
            if matches!(group, "rollout" | "certificate") {
                // The exit code is the same whether or not someone reads.
                let _closed = crate::print::emit(&text);
            } else {
                eprint!("{text}");
            }
            if group == "certificate" {
                return ExitCode::SUCCESS;
            }
            return ExitCode::FAILURE;
        }
        _ => {}
    }
    if error.kind() == ErrorKind::InvalidSubcommand && words(arguments).len() <= 1 {
        run_plugin(arguments);
    }
    eprintln!("{}", style::error(&message(error, arguments)));
    ExitCode::FAILURE
}

/// kubectl's words for a clap error.
fn message(error: &clap::Error, arguments: &[String]) -> String {
    let context = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let path = command_path(arguments);
    let see = format!("See 'kctl{} --help' for usage.", if path.is_empty() { String::new() } else { format!(" {path}") });
    match error.kind() {
        ErrorKind::InvalidSubcommand => unknown_command(&context(ContextKind::InvalidSubcommand), &path, arguments),
        ErrorKind::UnknownArgument => {
            let argument = context(ContextKind::InvalidArg);
            if let Some(long) = argument.strip_prefix("--") {
                format!("error: unknown flag: --{}\n{see}", long.split('=').next().unwrap_or(long))
            } else if let Some(short) = argument.strip_prefix('-').and_then(|s| s.chars().next()) {
                let cluster =
                    arguments.iter().find(|a| a.starts_with('-') && !a.starts_with("--") && a.contains(short)).cloned().unwrap_or(argument.clone());
                format!("error: unknown shorthand flag: '{short}' in {cluster}\n{see}")
            } else if has_subcommands(&path) {
                unknown_command(&argument, &path, arguments)
            } else {
                format!("error: unexpected arguments: [{argument}]\nSee 'kctl {path} -h' for help and examples")
            }
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = context(ContextKind::InvalidArg);
            let flags: Vec<String> =
                missing.split(", ").filter_map(|m| m.strip_prefix("--")).map(|m| m.split([' ', '=', '<']).next().unwrap_or(m).to_owned()).collect();
            if flags.is_empty() {
                format!("error: required argument not given: {missing}\nSee 'kctl {path} -h' for help and examples")
            } else {
                format!("error: required flag(s) {} not set", flags.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", "))
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::NoEquals => {
            let (flag, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
            let name = flag.split([' ', '=', '<', '[']).next().unwrap_or_default().to_owned();
            if value.is_empty() {
                return match arguments.last().filter(|a| a.starts_with('-') && !a.starts_with("--")) {
                    Some(short) => format!("error: flag needs an argument: '{}' in {short}\n{see}", short.chars().last().unwrap_or_default()),
                    None => format!("error: flag needs an argument: {name}\n{see}"),
                };
            }
            let cause = match std::error::Error::source(error) {
                Some(source) if source.is::<std::num::ParseIntError>() => format!("strconv.ParseInt: parsing {value:?}: invalid syntax"),
                Some(source) => source.to_string(),
                None => valid_values(error),
            };
            format!("error: invalid argument {value:?} for {:?} flag: {cause}\n{see}", with_shorthand(&name, &path))
        }
        ErrorKind::ArgumentConflict if context(ContextKind::InvalidArg).is_empty() || context(ContextKind::PriorArg).is_empty() => {
            format!("error: Unexpected args: [{}]\nSee 'kctl {path} -h' for help and examples", rest_of(&path, arguments))
        }
        ErrorKind::ArgumentConflict => {
            format!("error: {} and {} are mutually exclusive", context(ContextKind::InvalidArg), context(ContextKind::PriorArg))
        }
        _ => {
            let text = error.render().to_string();
            text.lines().next().unwrap_or("error: the arguments do not parse").to_owned()
        }
    }
}

fn valid_values(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("must be one of {}", values.join(", ")),
        _ => "invalid syntax".into(),
    }
}

/// The words behind a command, as kubectl lists them.
fn rest_of(path: &str, arguments: &[String]) -> String {
    let depth = path.split(' ').filter(|p| !p.is_empty()).count();
    let is_value = |word: &&str| {
        let flag = arguments.iter().position(|a| a == word).and_then(|at| at.checked_sub(1)).map(|at| arguments[at].as_str());
        flag.is_some_and(|f| matches!(f, "-f" | "-o" | "-l" | "-k" | "--filename" | "--output" | "--selector" | "--kustomize"))
    };
    words(arguments).into_iter().skip(depth).filter(|word| !is_value(word)).collect::<Vec<_>>().join(" ")
}

/// `-r, --replicas`, where a flag has a short form.
fn with_shorthand(flag: &str, path: &str) -> String {
    let root = app::command();
    let command = path.split(' ').filter(|p| !p.is_empty()).try_fold(root.clone(), |command, name| command.find_subcommand(name).cloned());
    let long = flag.trim_start_matches('-');
    let short =
        command.iter().chain([&root]).flat_map(clap::Command::get_arguments).find(|a| a.get_long() == Some(long)).and_then(clap::Arg::get_short);
    short.map_or_else(|| flag.to_owned(), |short| format!("-{short}, {flag}"))
}

/// kubectl's commands in its own order, which its suggestions keep.
const ORDER: &[&str] = &[
    "create",
    "expose",
    "run",
    "set",
    "explain",
    "get",
    "edit",
    "delete",
    "rollout",
    "scale",
    "autoscale",
    "certificate",
    "cluster-info",
    "top",
    "cordon",
    "uncordon",
    "drain",
    "taint",
    "describe",
    "logs",
    "attach",
    "exec",
    "port-forward",
    "proxy",
    "cp",
    "auth",
    "debug",
    "events",
    "diff",
    "apply",
    "patch",
    "replace",
    "wait",
    "kustomize",
    "label",
    "annotate",
    "completion",
    "config",
    "kuberc",
    "plugin",
    "version",
    "api-versions",
    "api-resources",
    "options",
];

fn unknown_command(word: &str, path: &str, arguments: &[String]) -> String {
    let rest = rest_of(path, arguments);
    match path {
        "" => {}
        "create" | "apply" => return format!("error: Unexpected args: [{rest}]\nSee 'kctl {path} -h' for help and examples"),
        _ => return format!("error: unknown command {rest:?}\nSee 'kctl {path} -h' for help and examples"),
    }
    let group = path.split(' ').filter(|p| !p.is_empty()).try_fold(app::command(), |command, name| command.find_subcommand(name).cloned());
    let names: Vec<String> = group.iter().flat_map(|c| c.get_subcommands().map(|s| s.get_name().to_owned())).collect();
    let mut text = format!("error: unknown command {word:?} for \"kctl\"");
    let mut near = suggest::close(word, names, 2);
    // A script compares what kubectl would have suggested.
    near.retain(|name| ORDER.contains(&name.as_str()) || std::io::stderr().is_terminal());
    near.sort_by_key(|name| ORDER.iter().position(|o| o == name).unwrap_or(ORDER.len()));
    if !near.is_empty() {
        text.push_str("\n\nDid you mean this?");
        near.iter().for_each(|n| text.push_str(&format!("\n\t{n}")));
    }
    text
}

/// The words that are neither flags nor, as far as can be told without parsing, values of flags.
fn words(arguments: &[String]) -> Vec<&str> {
    word_positions(arguments).into_iter().map(|at| arguments[at].as_str()).collect()
}

/// Where those words stand.
pub(crate) fn word_positions(arguments: &[String]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut skip = false;
    for (at, argument) in arguments.iter().enumerate().skip(1) {
        if skip {
            skip = false;
        } else if matches!(
            argument.as_str(),
            "-n" | "-s" | "-v" | "--namespace" | "--context" | "--kubeconfig" | "--server" | "--cluster" | "--user" | "--token" | "--as" | "--kuberc"
        ) {
            skip = true;
        } else if argument == "--" {
            break;
        } else if !argument.starts_with('-') {
            found.push(at);
        }
    }
    found
}

/// The commands the words name: `create secret`.
fn command_path(arguments: &[String]) -> String {
    let mut path = Vec::new();
    let mut command = app::command();
    for word in words(arguments) {
        let Some(next) = command.find_subcommand(word).cloned() else { break };
        path.push(next.get_name().to_owned());
        command = next;
    }
    path.join(" ")
}

fn has_subcommands(path: &str) -> bool {
    path.split(' ')
        .filter(|p| !p.is_empty())
        .try_fold(app::command(), |command, name| command.find_subcommand(name).cloned())
        .is_some_and(|c| c.has_subcommands())
}

/// Replaces this process by `kctl-a-b` for `kctl a b`; returns when there is none.
fn run_plugin(arguments: &[String]) {
    let names: Vec<&str> = arguments.iter().skip(1).take_while(|a| !a.starts_with('-')).map(String::as_str).collect();
    for length in (1..=names.len()).rev() {
        let program = format!("kctl-{}", names[..length].iter().map(|n| n.replace('-', "_")).collect::<Vec<_>>().join("-"));
        if let Some(path) = on_path(&program) {
            let error = std::process::Command::new(&path).args(&arguments[1 + length..]).exec();
            eprintln!("error: cannot run {}: {error}", path.display());
            return;
        }
    }
}

/// The first program of that name on the PATH.
pub fn on_path(program: &str) -> Option<std::path::PathBuf> {
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|d| d.join(program)).find(|p| p.is_file())
}

/// Answers the shell when it asks for completions (`COMPLETE=bash kctl …`).
pub fn complete_dynamically() -> Option<ExitCode> {
    std::env::var_os("COMPLETE")?;
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let current = std::env::current_dir().ok();
    match clap_complete::CompleteEnv::with_factory(|| complete::with_flags(app::command())).try_complete(arguments, current.as_deref()) {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(error) => {
            eprintln!("{error}");
            Some(ExitCode::FAILURE)
        }
    }
}

//! The user's preferences (`~/.kube/kuberc`): default flags and aliases, put into the arguments before they are parsed
//! (`k8s.io/kubectl/pkg/kuberc`).
//!
//! Owns finding, reading and writing the file and what it does to the arguments. Knows no command but by its clap tree.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Command;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::config::home;
use crate::{errors, manifest, print};

/// `Preference` of `kubectl.config.k8s.io`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preference {
    kind: String,
    api_version: String,
    /// Flags that commands get.
    #[serde(deserialize_with = "list")]
    pub defaults: Vec<Defaults>,
    /// Names for commands.
    #[serde(deserialize_with = "list")]
    pub aliases: Vec<Alias>,
    /// Which credential plugins may run: `AllowAll`, `DenyAll` or `Allowlist`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub credential_plugin_policy: String,
    /// The ones on the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_plugin_allowlist: Option<Vec<Allowed>>,
}

/// Default flags of a command.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Defaults {
    /// `get`, `set env`
    pub command: String,
    /// Its flags.
    #[serde(deserialize_with = "list", serialize_with = "list_or_null")]
    pub options: Vec<Flag>,
}

/// Another name for a command.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// The command.
    pub command: String,
    /// Arguments in front of those that are typed.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub prepend_args: Vec<String>,
    /// Arguments behind them.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub append_args: Vec<String>,
    /// Flags that are not typed.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<Flag>,
}

/// A flag and its value.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Flag {
    /// The long name.
    pub name: String,
    /// The value.
    pub default: String,
}

/// A credential plugin that may run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Allowed {
    /// Its path or base name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// The field's older name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// A list that may be null.
fn list<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// An empty list, as Go prints a nil slice.
fn list_or_null<S: serde::Serializer, T: Serialize>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    Some(items).filter(|i| !i.is_empty()).serialize(serializer)
}

/// Where the preferences are; none when they are turned off.
pub fn path(given: Option<&str>) -> Result<Option<(PathBuf, bool)>> {
    let variable = std::env::var("KUBERC").unwrap_or_default();
    let turned_off = variable == "off" || std::env::var("KUBECTL_KUBERC").is_ok_and(|v| v == "false");
    match given {
        Some(_) if variable == "off" => bail!("disabling kuberc via KUBERC=off and passing kuberc flag are mutually exclusive"),
        _ if turned_off => Ok(None),
        Some(file) => Ok(Some((PathBuf::from(file), true))),
        None if !variable.is_empty() => Ok(Some((PathBuf::from(variable), true))),
        None => Ok(Some((home().join(".kube/kuberc"), false))),
    }
}

/// Reads a file's first usable document; none when it holds nothing.
pub fn read(file: &std::path::Path) -> Result<Option<Preference>> {
    let shown = file.to_string_lossy();
    let text = std::fs::read_to_string(file).map_err(|e| anyhow!(errors::Plain(errors::io("open", &shown, &e))))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let documents = manifest::values(&text).unwrap_or_default();
    let usable =
        |value: &Value| value["kind"] == "Preference" && value["apiVersion"].as_str().is_some_and(|v| v.starts_with("kubectl.config.k8s.io/"));
    let found = documents.into_iter().filter(usable).find_map(|value| serde_json::from_value(value).ok());
    match found {
        Some(preference) => Ok(Some(preference)),
        None => bail!("no valid preferences found in {shown}, use --v=5 to see details"),
    }
}

impl Preference {
    /// One that says nothing.
    pub fn empty() -> Preference {
        Preference { kind: "Preference".into(), api_version: "kubectl.config.k8s.io/v1beta1".into(), ..Preference::default() }
    }

    /// Writes the file; lists that are empty are written as Go writes nil slices.
    pub fn write(&self, file: &std::path::Path) -> Result<()> {
        let mut value = serde_json::to_value(self)?;
        for field in ["defaults", "aliases"] {
            if value[field].as_array().is_some_and(Vec::is_empty) {
                value[field] = Value::Null;
            }
        }
        let failed = |e: std::io::Error| anyhow!("error writing kuberc file: {}", errors::io("open", &file.to_string_lossy(), &e));
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        std::fs::write(file, print::yaml::to_string(&value)).map_err(failed)?;
        print::emit(&format!("Updated {}\n", file.display()))
    }

    fn check(&self) -> Result<()> {
        let flags = self.defaults.iter().flat_map(|d| &d.options).chain(self.aliases.iter().flat_map(|a| &a.options));
        if let Some(flag) = flags.into_iter().find(|f| f.name.starts_with('-')) {
            bail!("flag name {} should be in long form without dashes", flag.name);
        }
        for (at, alias) in self.aliases.iter().enumerate() {
            if alias.name.is_empty() || !alias.name.chars().all(|c| c.is_ascii_alphabetic()) {
                bail!("invalid alias name, can only include alphabetical characters");
            }
            if self.aliases[..at].iter().any(|a| a.name == alias.name) {
                bail!("duplicate alias name {}", alias.name);
            }
        }
        let policy = self.credential_plugin_policy.as_str();
        match (policy, self.credential_plugin_allowlist.as_deref()) {
            ("" | "AllowAll" | "DenyAll", None) => Ok(()),
            ("" | "AllowAll" | "DenyAll", Some(_)) => {
                bail!("misconfigured credential plugin allowlist: plugin policy is {policy:?} but allowlist is non-nil")
            }
            ("Allowlist", None | Some([])) => {
                bail!("misconfigured credential plugin allowlist: plugin policy set to {policy:?}, but allowlist is empty")
            }
            ("Allowlist", Some(_)) => Ok(()),
            (other, _) => bail!("unknown plugin policy: {other:?}"),
        }
    }

    /// Whether a credential plugin may run.
    pub fn allows(&self, plugin: &str) -> bool {
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        match self.credential_plugin_policy.as_str() {
            "DenyAll" => false,
            "Allowlist" => self.credential_plugin_allowlist.iter().flatten().any(|allowed| {
                let name = if allowed.command.is_empty() { &allowed.name } else { &allowed.command };
                // A bare name stands for the program wherever it lies.
                if name.contains('/') { name == plugin } else { *name == base(plugin) }
            }),
            _ => true,
        }
    }
}

/// The preferences of this run, for arguments that may name their file.
///
/// # Errors
/// With `errors occurred while applying preferences` in front: a file that was asked for and cannot be used.
pub fn load(arguments: &[String]) -> Result<Option<Preference>> {
    let Some((file, asked_for)) = path(named(arguments)?.as_deref()).map_err(|e| anyhow!("kuberc error {e}"))? else { return Ok(None) };
    if !asked_for && !file.exists() {
        return Ok(None);
    }
    let preference = match read(&file) {
        Ok(preference) => preference,
        Err(error) if asked_for => bail!("kuberc error kuberc: {error}"),
        Err(error) => {
            eprintln!("kuberc: no preferences loaded from {}: {error}", file.display());
            None
        }
    };
    preference.as_ref().map_or(Ok(()), Preference::check)?;
    Ok(preference)
}

/// The file that `--kuberc` names, before anything is parsed.
fn named(arguments: &[String]) -> Result<Option<String>> {
    for (at, argument) in arguments.iter().enumerate() {
        if argument == "--" {
            break;
        }
        let value = match argument.strip_prefix("--kuberc") {
            Some("") => arguments.get(at + 1).cloned(),
            Some(rest) => rest.strip_prefix('=').map(ToOwned::to_owned),
            None => continue,
        };
        return match value {
            Some(file) if !file.is_empty() => Ok(Some(file)),
            _ => bail!("kuberc file is not found"),
        };
    }
    Ok(None)
}

/// The arguments with aliases replaced and default flags added; what is typed always wins.
///
/// `words` is where the arguments stand that are neither flags nor values of flags.
pub fn apply(preference: &Preference, root: &Command, mut arguments: Vec<String>, words: &[usize]) -> Result<Vec<String>> {
    let (_, path) = find(root, words.iter().map(|at| arguments[*at].as_str()));
    if let Some(at) = words.first().filter(|_| path.is_empty()) {
        return Ok(expand(preference, root, &arguments, *at)?.unwrap_or(arguments));
    }
    let mut added = Vec::new();
    for defaults in &preference.defaults {
        let (_, wanted) = find(root, defaults.command.split_whitespace());
        if wanted.len() != defaults.command.split_whitespace().count() || wanted.is_empty() {
            eprintln!("Warning: command {:?} not found to set kuberc override", defaults.command);
            continue;
        }
        if wanted == path {
            let invalid = |name: &str| anyhow!("invalid flag {name} for command {}", defaults.command);
            added.extend(flags(root, &path, &defaults.options, &arguments, invalid)?);
        }
    }
    if let Some(last) = path.len().checked_sub(1).and_then(|at| words.get(at)) {
        arguments.splice(last + 1..last + 1, added);
    }
    Ok(arguments)
}

fn expand(preference: &Preference, root: &Command, arguments: &[String], at: usize) -> Result<Option<Vec<String>>> {
    let Some(alias) = preference.aliases.iter().find(|a| a.name == arguments[at]) else { return Ok(None) };
    let command: Vec<&str> = alias.command.split_whitespace().collect();
    let (_, path) = find(root, command.iter().copied());
    if path.is_empty() || path.len() != command.len() {
        bail!("command {:?} not found to set alias {:?}: [{}]", alias.command, alias.name, command.join(" "));
    }
    let program = arguments.first().cloned().unwrap_or_default();
    let invalid = |name: &str| anyhow!("invalid alias flag {name} in alias {program}");
    let mut expanded = arguments[..at].to_vec();
    expanded.extend(path.iter().cloned());
    expanded.extend(flags(root, &path, &alias.options, arguments, invalid)?);
    expanded.extend(alias.prepend_args.iter().cloned());
    expanded.extend_from_slice(&arguments[at + 1..]);
    expanded.extend(alias.append_args.iter().cloned());
    Ok(Some(expanded))
}

/// The command that words lead to, and its path.
fn find<'a, 'w>(root: &'a Command, words: impl Iterator<Item = &'w str>) -> (&'a Command, Vec<String>) {
    let (mut command, mut path) = (root, Vec::new());
    for word in words {
        let Some(next) = command.find_subcommand(word) else { break };
        path.push(next.get_name().to_owned());
        command = next;
    }
    (command, path)
}

/// The default flags that are not typed.
fn flags(root: &Command, path: &[String], options: &[Flag], arguments: &[String], invalid: impl Fn(&str) -> anyhow::Error) -> Result<Vec<String>> {
    let (command, _) = find(root, path.iter().map(String::as_str));
    let mut added = Vec::new();
    for flag in options {
        let known = command.get_arguments().chain(root.get_arguments()).find(|a| a.get_long() == Some(flag.name.as_str()));
        let Some(known) = known else { return Err(invalid(&flag.name)) };
        let (long, with_value) = (format!("--{}", flag.name), format!("--{}=", flag.name));
        let short = known.get_short();
        let typed = arguments.iter().any(|a| {
            *a == long || a.starts_with(&with_value) || short.is_some_and(|s| a.starts_with(&format!("-{s}")) || is_cluster_with(a, s, command))
        });
        if !typed {
            added.push(format!("--{}={}", flag.name, flag.default));
        }
    }
    Ok(added)
}

/// Whether `-abc` holds a flag, every letter of it being one.
fn is_cluster_with(argument: &str, short: char, command: &Command) -> bool {
    let Some(letters) = argument.strip_prefix('-').filter(|l| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphabetic())) else { return false };
    letters.contains(short) && letters.chars().all(|c| command.get_arguments().any(|a| a.get_short() == Some(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn preference() -> Preference {
        serde_json::from_value(json!({
            "kind": "Preference",
            "defaults": [
                { "command": "get", "options": [{ "name": "output", "default": "wide" }] },
                { "command": "create namespace", "options": [{ "name": "dry-run", "default": "client" }] },
            ],
            "aliases": [
                { "name": "getn", "command": "get", "prependArgs": ["nodes"], "appendArgs": ["--no-headers"], "options": [{ "name": "show-labels", "default": "true" }] },
            ],
        }))
        .unwrap()
    }

    fn applied(line: &str) -> String {
        let arguments: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        let words = crate::usage::word_positions(&arguments);
        apply(&preference(), &crate::app::command(), arguments, &words).unwrap().join(" ")
    }

    #[test]
    fn default_flags_stand_behind_the_command() {
        assert_eq!(applied("kctl get pods"), "kctl get --output=wide pods");
        assert_eq!(applied("kctl -n get get pods"), "kctl -n get get --output=wide pods");
        assert_eq!(applied("kctl create namespace create"), "kctl create namespace --dry-run=client create");
        for typed in
            ["kctl get pods -o yaml", "kctl get pods -oyaml", "kctl get pods --output yaml", "kctl get pods --output=yaml", "kctl describe get"]
        {
            assert_eq!(applied(typed), typed);
        }
    }

    #[test]
    fn aliases_stand_for_commands() {
        assert_eq!(applied("kctl -n x getn y -w"), "kctl -n x get --show-labels=true nodes y -w --no-headers");
        assert_eq!(applied("kctl getn --show-labels=false"), "kctl get nodes --show-labels=false --no-headers");
        assert_eq!(applied("kctl nope"), "kctl nope");
    }

    #[test]
    fn plugins_run_by_policy() {
        let with = |policy: &str, list: Option<Vec<Allowed>>| Preference {
            credential_plugin_policy: policy.into(),
            credential_plugin_allowlist: list,
            ..Preference::empty()
        };
        let list =
            Some(vec![Allowed { command: "helper".into(), name: String::new() }, Allowed { command: "/bin/other".into(), name: String::new() }]);
        assert!(with("", None).allows("x") && with("AllowAll", None).allows("x") && !with("DenyAll", None).allows("x"));
        let listed = with("Allowlist", list.clone());
        assert!(listed.allows("/usr/bin/helper") && listed.allows("/bin/other") && !listed.allows("/usr/bin/other") && !listed.allows("x"));
        assert!(with("DenyAll", list).check().is_err() && with("Allowlist", None).check().is_err() && listed.check().is_ok());
    }
}

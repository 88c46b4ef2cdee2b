//! Live completions: kinds, object names, namespaces, contexts, containers, labels, files. Whatever fails completes nothing.

use std::ffi::OsStr;

use clap::{Arg, Command, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use serde_json::Value;

use crate::app::{Ctx, Global};
use crate::client::config;
use crate::client::kubeconfig::Kubeconfig;
use crate::print;

/// Adds what can be offered for the values of flags, which mean the same in every command that has them.
pub fn with_flags(command: Command) -> Command {
    command.mut_args(flag_values).mut_subcommands(with_flags)
}

fn flag_values(arg: Arg) -> Arg {
    match arg.get_long().unwrap_or_default() {
        "namespace" => arg.add(namespaces()),
        "context" => arg.add(contexts()),
        "cluster" => arg.add(entries(|c| c.clusters.into_iter().map(|c| c.name).collect())),
        "user" => arg.add(entries(|c| c.users.into_iter().map(|u| u.name).collect())),
        "container" => arg.add(containers()),
        "selector" => arg.add(labels()),
        "output" => arg.add(formats()),
        "kustomize" | "cache-dir" => arg.value_hint(ValueHint::DirPath),
        "filename" | "kubeconfig" | "kuberc" | "patch-file" | "certificate-authority" | "client-certificate" | "client-key" | "from-env-file" => {
            arg.value_hint(ValueHint::FilePath)
        }
        _ => arg,
    }
}

/// Kinds first, then names of the kind already typed.
pub fn resources() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, typed_kind().as_deref()))
}

/// Names of pods.
pub fn pods() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| match current.to_string_lossy().contains('/') {
        true => candidates(current, None),
        false => candidates(current, Some("pods")),
    })
}

/// Names of nodes.
pub fn nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, Some("nodes")))
}

/// Names of certificate signing requests.
pub fn certificate_requests() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, Some("certificatesigningrequests")))
}

/// Names of namespaces.
pub fn namespaces() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, Some("namespaces")))
}

/// Names of contexts.
pub fn contexts() -> ArgValueCompleter {
    entries(|c| c.contexts.into_iter().map(|c| c.name).collect())
}

/// Names in the kubeconfig.
fn entries(names: fn(Kubeconfig) -> Vec<String>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let global = Global { kubeconfig: flag(&["--kubeconfig"]), ..Global::default() };
        matching(config::read(&global).map(names).unwrap_or_default(), &current.to_string_lossy(), "")
    })
}

/// Output formats; those with an argument up to its `=`.
fn formats() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let known = if positionals().first().is_some_and(|c| c == "get") { print::GET_FORMATS } else { print::FORMATS };
        let whole = |name: &&'static str| match *name {
            "json" | "yaml" | "kyaml" | "name" | "wide" => (*name).to_owned(),
            name => format!("{name}="),
        };
        matching(known.iter().map(whole).collect(), &current.to_string_lossy(), "")
    })
}

/// Names of the containers of the pod that the line names.
fn containers() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy().into_owned();
        let Some(pod) = positionals().into_iter().nth(1) else { return Vec::new() };
        let pod = pod.split(':').next().unwrap_or_default().trim_start_matches("pods/").trim_start_matches("pod/").to_owned();
        asked(async move |ctx| {
            let object = ctx.client().await?.get(&super::pods::kind().object(Some(&ctx.namespace()?), &pod)).await?;
            let spec = &object["spec"];
            let lists = ["containers", "initContainers", "ephemeralContainers"];
            let names = lists.iter().flat_map(|list| spec[list].as_array().into_iter().flatten()).filter_map(|c| c["name"].as_str());
            Ok(matching(names.map(ToOwned::to_owned).collect(), &current, ""))
        })
    })
}

/// Labels that objects of the line's kind have, behind the selector's last comma.
fn labels() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy().into_owned();
        let prefix = current.rfind(',').map_or(String::new(), |at| current[..=at].to_owned());
        let words = positionals();
        let kind = match words.first().map(String::as_str) {
            Some("logs" | "exec" | "attach") => "pods".to_owned(),
            Some("drain" | "cordon" | "uncordon" | "taint") => "nodes".to_owned(),
            Some(group) => match words.get(if GROUPS.contains(&group) { 2 } else { 1 }) {
                Some(kind) => kind.split(['/', ',']).next().unwrap_or_default().to_owned(),
                None => "pods".to_owned(),
            },
            None => return Vec::new(),
        };
        asked(async move |ctx| {
            let items = listed(ctx, &kind).await?;
            let pairs = items.iter().flat_map(|i| i["metadata"]["labels"].as_object().into_iter().flatten());
            let mut texts: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            texts.sort();
            texts.dedup();
            Ok(matching(texts, &current, &prefix))
        })
    })
}

fn matching(names: Vec<String>, current: &str, prefix: &str) -> Vec<CompletionCandidate> {
    names.into_iter().map(|n| format!("{prefix}{n}")).filter(|n| n.starts_with(current)).map(CompletionCandidate::new).collect()
}

/// The line typed so far, which the engine hands on as arguments behind `--`.
fn line() -> Vec<String> {
    std::env::args().skip_while(|a| a != "--").skip(1).collect()
}

/// Commands whose second word is a command too.
const GROUPS: &[&str] = &["rollout", "set", "top", "apply"];

/// The kind typed before the word being completed: `kctl get pods <TAB>`.
fn typed_kind() -> Option<String> {
    let positional = positionals();
    let first = if positional.first().is_some_and(|c| GROUPS.contains(&c.as_str())) { 2 } else { 1 };
    // The last word is the one being completed.
    (positional.len() > first + 1).then(|| positional[first].clone()).filter(|k| !k.contains('/'))
}

/// The words of the line that are neither flags nor their values, from the command on.
fn positionals() -> Vec<String> {
    let words: Vec<String> = line();
    let mut skip_value = false;
    let mut positional = Vec::new();
    for word in words.iter().skip(1) {
        if std::mem::take(&mut skip_value) {
            continue;
        }
        match word.as_str() {
            "-n" | "--namespace" | "-l" | "--selector" | "-o" | "--output" | "-c" | "--container" | "--context" | "--kubeconfig" | "-f" | "-s" => {
                skip_value = true
            }
            w if w.starts_with('-') => {}
            w => positional.push(w.to_owned()),
        }
    }
    positional
}

fn flag(names: &[&str]) -> Option<String> {
    let words = line();
    words.iter().enumerate().find_map(|(i, w)| match w.split_once('=') {
        Some((name, value)) if names.contains(&name) => Some(value.to_owned()),
        None if names.contains(&w.as_str()) => words.get(i + 1).cloned(),
        _ => None,
    })
}

fn candidates(current: &OsStr, kind: Option<&str>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy().into_owned();
    let kind = kind.map(ToOwned::to_owned);
    asked(async move |ctx| {
        let (kind, prefix) = match (kind, current.split_once('/')) {
            (Some(kind), _) => (kind, String::new()),
            (None, Some((kind, _))) => (kind.to_owned(), format!("{kind}/")),
            (None, None) => {
                let names = ctx.discovery().await?.kinds.iter().map(|k| k.plural.clone()).collect();
                return Ok(matching(names, &current, ""));
            }
        };
        let names = listed(ctx, &kind).await?.iter().filter_map(|i| i["metadata"]["name"].as_str().map(ToOwned::to_owned)).collect();
        Ok(matching(names, &current, &prefix))
    })
}

/// The objects of a kind in the line's namespace, as many as can be offered.
async fn listed(ctx: &Ctx, kind: &str) -> anyhow::Result<Vec<Value>> {
    let kind = ctx.kind(kind).await?;
    let namespace = ctx.namespace()?;
    let mut list = ctx.client().await?.get(&format!("{}?limit=500", kind.collection(Some(&namespace)))).await?;
    Ok(list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default())
}

/// Asks the server that the line is about, for a moment only.
fn asked(work: impl AsyncFnOnce(&Ctx) -> anyhow::Result<Vec<CompletionCandidate>>) -> Vec<CompletionCandidate> {
    let global = Global {
        namespace: flag(&["-n", "--namespace"]),
        context: flag(&["--context"]),
        kubeconfig: flag(&["--kubeconfig"]),
        request_timeout: Some("3s".into()),
        ..Global::default()
    };
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let ctx = Ctx::new(global);
    runtime.block_on(work(&ctx)).unwrap_or_default()
}

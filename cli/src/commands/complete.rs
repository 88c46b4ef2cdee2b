//! Live completions: kinds, object names, namespaces, contexts. Whatever fails completes nothing.

use std::ffi::OsStr;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::app::{Ctx, Global};
use crate::client::config;

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
    ArgValueCompleter::new(|current: &OsStr| {
        let names = config::read(&Global::default()).map(|c| c.contexts.into_iter().map(|c| c.name).collect()).unwrap_or_default();
        matching(names, &current.to_string_lossy(), "")
    })
}

fn matching(names: Vec<String>, current: &str, prefix: &str) -> Vec<CompletionCandidate> {
    names.into_iter().map(|n| format!("{prefix}{n}")).filter(|n| n.starts_with(current)).map(CompletionCandidate::new).collect()
}

/// The line typed so far, which the engine hands on as arguments behind `--`.
fn line() -> Vec<String> {
    std::env::args().skip_while(|a| a != "--").skip(1).collect()
}

/// The kind typed before the word being completed: `kctl get pods <TAB>`.
fn typed_kind() -> Option<String> {
    let words: Vec<String> = line();
    let mut skip_value = false;
    let mut positional = Vec::new();
    for word in words.iter().skip(1) {
        if std::mem::take(&mut skip_value) {
            continue;
        }
        match word.as_str() {
            "-n" | "--namespace" | "-l" | "-o" | "--context" | "--kubeconfig" | "-f" | "-s" => skip_value = true,
            w if w.starts_with('-') => {}
            w => positional.push(w.to_owned()),
        }
    }
    const GROUPS: &[&str] = &["rollout", "set", "top", "apply"];
    let first = if positional.first().is_some_and(|c| GROUPS.contains(&c.as_str())) { 2 } else { 1 };
    // The last word is the one being completed.
    (positional.len() > first + 1).then(|| positional[first].clone()).filter(|k| !k.contains('/'))
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
    let global = Global {
        namespace: flag(&["-n", "--namespace"]),
        context: flag(&["--context"]),
        kubeconfig: flag(&["--kubeconfig"]),
        request_timeout: Some("3s".into()),
        ..Global::default()
    };
    let work = async move {
        let ctx = Ctx::new(global);
        let (kind, prefix) = match (kind, current.split_once('/')) {
            (Some(kind), _) => (kind, String::new()),
            (None, Some((kind, _))) => (kind.to_owned(), format!("{kind}/")),
            (None, None) => {
                let names = ctx.discovery().await?.kinds.iter().map(|k| k.plural.clone()).collect();
                return anyhow::Ok(matching(names, &current, ""));
            }
        };
        let kind = ctx.kind(&kind).await?;
        let namespace = ctx.namespace()?;
        let list = ctx.client().await?.get(&format!("{}?limit=500", kind.collection(Some(&namespace)))).await?;
        let names = list["items"].as_array().into_iter().flatten().filter_map(|i| i["metadata"]["name"].as_str().map(ToOwned::to_owned)).collect();
        Ok(matching(names, &current, &prefix))
    };
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    runtime.block_on(work).unwrap_or_default()
}

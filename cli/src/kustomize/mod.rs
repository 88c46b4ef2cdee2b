//! Kustomizations: from a directory with a `kustomization.yaml` to objects, as `kustomize build` makes them.
//!
//! Owns reading kustomizations and everything they do to objects. Fetches nothing from other machines and runs no programs; what it
//! cannot do it refuses by name ([`spec`]). Sends nothing to the API server.

mod fields;
mod generate;
mod load;
mod merge;
mod order;
mod patch;
mod references;
mod resource;
mod spec;
mod transform;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use crate::{manifest, print};
use load::Root;
use resource::{Resources, checked};
use spec::Kustomization;

/// Builds the kustomization of a directory; with `unrestricted` its files may lie outside of it.
///
/// # Errors
/// Whatever keeps it from being built, with the directories it was found through.
pub fn build(directory: &str, unrestricted: bool) -> Result<Vec<Value>> {
    if load::is_remote(directory) {
        bail!("kctl builds kustomizations from local directories only: fetch {directory} first");
    }
    let root = Root::open(directory, unrestricted)?;
    let kustomization = root.kustomization()?;
    let mut all = accumulate(&root, &kustomization, Resources::default())?;
    generate::add_hashes(&mut all);
    references::fix(&mut all)?;
    order::sort(&mut all, kustomization.sort_options.as_ref())?;
    Ok(all.0.into_iter().map(|r| r.object).collect())
}

/// The objects as YAML documents.
pub fn text(objects: &[Value]) -> String {
    objects.iter().map(print::yaml::to_string).collect::<Vec<_>>().join("---\n")
}

/// What a kustomization makes of the objects that are there already; only a component finds any.
fn accumulate(root: &Root, kustomization: &Kustomization, mut all: Resources) -> Result<Resources> {
    for path in &kustomization.resources {
        add(root, path, &mut all).map_err(|e| anyhow!("accumulating resources: {e}"))?;
    }
    generate::run(root, kustomization, &mut all)?;
    for path in &kustomization.components {
        let failed = |e: anyhow::Error| anyhow!("accumulating components: accumulateDirectory: {e}");
        let inner = root.enter(path).map_err(failed)?;
        let component = inner.kustomization().map_err(failed)?;
        if !component.is_component() {
            bail!(
                "accumulating components: accumulateDirectory: \"expected kind 'Component' for path '{}' but got 'Kustomization'\"",
                inner.directory.display()
            );
        }
        all = accumulate(&inner, &component, all).map_err(|e| failed(recursed("accumulation of", &inner, &e)))?;
    }
    transform(root, kustomization, &mut all)?;
    Ok(all)
}

/// Adds a file's objects or another kustomization's.
fn add(root: &Root, path: &str, all: &mut Resources) -> Result<()> {
    let as_file = match root.read(path).and_then(|bytes| add_file(&String::from_utf8_lossy(&bytes), all)) {
        Err(error) if load::is_remote(path) => return Err(error),
        outcome => outcome,
    };
    let Err(error) = as_file else { return Ok(()) };
    let failed_as_file = format!("accumulating resources from '{path}': {error}");
    let context = |e: anyhow::Error| anyhow!("accumulation err='{failed_as_file}': {e}");
    let inner = root.enter(path).map_err(|e| match e.to_string() {
        text if text.starts_with("cycle") => anyhow!("accumulation err='{failed_as_file}': {text}"),
        text => context(anyhow!("{text}")),
    })?;
    let kustomization = inner.kustomization().map_err(|e| context(recursed("accumulation of", &inner, &e)))?;
    if kustomization.is_component() {
        bail!("accumulation err='{failed_as_file}': expected kind != 'Component' for path '{}'", inner.directory.display());
    }
    let built = accumulate(&inner, &kustomization, Resources::default()).map_err(|e| context(recursed("accumulation of", &inner, &e)))?;
    for resource in built.0 {
        all.append(resource).map_err(|e| context(recursed("merging from", &inner, &e)))?;
    }
    Ok(())
}

fn recursed(what: &str, root: &Root, error: &anyhow::Error) -> anyhow::Error {
    anyhow!("recursed {what} path '{}': {error}", root.directory.display())
}

fn add_file(text: &str, all: &mut Resources) -> Result<()> {
    manifest::plain_documents(text)?.into_iter().flat_map(items).try_for_each(|object| all.append(checked(object)?))
}

/// A list stands for its items.
fn items(mut object: Value) -> Vec<Value> {
    let is_list = object["kind"].as_str().is_some_and(|k| k.ends_with("List")) && object["items"].is_array();
    match object.get_mut("items").filter(|_| is_list).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ if object.is_null() => Vec::new(),
        _ => vec![object],
    }
}

/// The changes, in kustomize's order whatever the order in the file.
fn transform(root: &Root, kustomization: &Kustomization, all: &mut Resources) -> Result<()> {
    patch::run(root, kustomization, all)?;
    transform::namespace(all, &kustomization.namespace)?;
    transform::names(all, &kustomization.name_prefix, &kustomization.name_suffix);
    transform::labels(all, kustomization);
    transform::annotations(all, &kustomization.common_annotations);
    patch::run_json(root, kustomization, all)?;
    transform::replicas(all, &kustomization.replicas)?;
    transform::images(all, &kustomization.images);
    Ok(())
}

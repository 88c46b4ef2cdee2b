//! `patches` and its older spellings: strategic merge and JSON patches, and what they are for.

use anyhow::{Result, anyhow, bail};
use regex::Regex;
use serde_json::Value;
use shared::selector::Selector;

use super::load::Root;
use super::merge::merge;
use super::resource::{Id, Resource, Resources};
use super::spec::{Kustomization, Patch, Target};
use crate::commands::create::labels_of;
use crate::manifest;

/// Applies `patchesStrategicMerge`, then `patches`.
pub fn run(root: &Root, kustomization: &Kustomization, all: &mut Resources) -> Result<()> {
    for source in &kustomization.patches_strategic_merge {
        // An entry is a file, or else the patch itself.
        let text = match root.read(source) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) if source.contains(':') => source.clone(),
            Err(error) => return Err(anyhow!("trouble configuring builtin PatchStrategicMergeTransformer: {error}")),
        };
        for document in manifest::plain_documents(&text)? {
            strategic(all, &document, &Patch::default())?;
        }
    }
    for patch in &kustomization.patches {
        apply(root, patch, all)?;
    }
    Ok(())
}

/// Applies `patchesJson6902`, which come after everything but replicas and images.
pub fn run_json(root: &Root, kustomization: &Kustomization, all: &mut Resources) -> Result<()> {
    kustomization.patches_json.iter().try_for_each(|patch| apply(root, patch, all))
}

fn apply(root: &Root, patch: &Patch, all: &mut Resources) -> Result<()> {
    let text = match (patch.path.is_empty(), patch.patch.is_empty()) {
        (true, true) => bail!("trouble configuring builtin PatchTransformer: must specify one of patch and path in a patch"),
        (false, false) => bail!("trouble configuring builtin PatchTransformer: patch and path can't be set at the same time"),
        (true, false) => patch.patch.clone(),
        (false, true) => {
            let read = root
                .read(&patch.path)
                .map_err(|e| anyhow!("trouble configuring builtin PatchTransformer: failed to get the patch file from path({}): {e}", patch.path))?;
            String::from_utf8_lossy(&read).into_owned()
        }
    };
    for document in manifest::plain_documents(&text).map_err(|e| anyhow!("unable to parse SM or JSON patch from [{text}]: {e}"))? {
        match &document {
            Value::Array(_) => json(all, &document, patch)?,
            Value::Object(fields) if !fields.is_empty() => strategic(all, &document, patch)?,
            Value::Object(_) | Value::Null => {}
            _ => bail!("unable to parse SM or JSON patch from [{text}]"),
        }
    }
    Ok(())
}

fn json(all: &mut Resources, document: &Value, patch: &Patch) -> Result<()> {
    let Some(target) = &patch.target else { bail!("must specify a target for JSON patch {}", shared::gojson::compact(document)) };
    let operations: json_patch::Patch = serde_json::from_value(document.clone()).map_err(|e| anyhow!("unable to parse the JSON patch: {e}"))?;
    for at in selected(all, target)? {
        let resource = &mut all.0[at];
        resource.remember();
        json_patch::patch(&mut resource.object, &operations).map_err(|e| anyhow!("{}: {e}", resource.id()))?;
    }
    Ok(())
}

fn strategic(all: &mut Resources, document: &Value, patch: &Patch) -> Result<()> {
    let mut deleted: Vec<Id> = Vec::new();
    match &patch.target {
        Some(target) => {
            for at in selected(all, target)? {
                if !patch_one(&mut all.0[at], document, patch) {
                    deleted.push(all.0[at].id());
                }
            }
        }
        None => {
            let id = Id::of(document);
            let resource = all.by_any_id(&id).map_err(|e| anyhow!("no resource matches strategic merge patch \"{id}\": {e}"))?;
            if !patch_one(resource, document, patch) {
                deleted.push(resource.id());
            }
        }
    }
    all.0.retain(|r| !deleted.contains(&r.id()));
    Ok(())
}

/// Names and kinds stay, unless the options say that they may change.
fn patch_one(resource: &mut Resource, document: &Value, patch: &Patch) -> bool {
    let allowed = |option: &str| patch.options.get(option).copied().unwrap_or(false);
    let id = resource.id();
    if allowed("allowNameChange") || allowed("allowKindChange") {
        resource.remember();
    }
    if !merge(&mut resource.object, document, &id.kind, id.is_built_in()) {
        return false;
    }
    if !allowed("allowKindChange") {
        resource.object["kind"] = Value::String(id.kind);
    }
    if !allowed("allowNameChange") {
        resource.rename(&id.name);
    }
    match (id.namespace.as_str(), resource.object["metadata"].as_object_mut()) {
        ("", Some(metadata)) => drop(metadata.remove("namespace")),
        (_, Some(metadata)) => drop(metadata.insert("namespace".into(), Value::String(id.namespace))),
        _ => {}
    }
    true
}

/// Where the objects stand that a target chooses, by the names they have or had at first.
fn selected(all: &Resources, target: &Target) -> Result<Vec<usize>> {
    let whole = |text: &str| Regex::new(&format!("^(?:{text})$")).map_err(|e| anyhow!("invalid pattern {text:?} in a patch's target: {e}"));
    let (name, namespace) = (whole(&target.name)?, whole(&target.namespace)?);
    let (group, version, kind) = (whole(&target.group)?, whole(&target.version)?, whole(&target.kind)?);
    let selector = |text: &str| Selector::parse(text).map_err(|e| anyhow!("{e}"));
    let (labels, annotations) = (selector(&target.label_selector)?, selector(&target.annotation_selector)?);
    let fits = |pattern: &Regex, asked: &str, text: &str| asked.is_empty() || pattern.is_match(text);
    let chosen = |resource: &Resource| {
        let ids = [resource.original_id(), resource.id()];
        let id = &ids[1];
        ids.iter().any(|i| fits(&namespace, &target.namespace, i.effective_namespace()))
            && ids.iter().any(|i| fits(&name, &target.name, &i.name))
            && fits(&group, &target.group, &id.group)
            && fits(&version, &target.version, &id.version)
            && fits(&kind, &target.kind, &id.kind)
            && labels.matches(&labels_of(&resource.object))
            && annotations.matches(&annotations_of(&resource.object))
    };
    Ok(all.0.iter().enumerate().filter(|(_, r)| chosen(r)).map(|(at, _)| at).collect())
}

fn annotations_of(object: &Value) -> std::collections::BTreeMap<String, String> {
    labels_of(&serde_json::json!({ "metadata": { "labels": object["metadata"]["annotations"] } }))
}

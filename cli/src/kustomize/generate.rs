//! ConfigMaps and Secrets from literals and files, and the hash behind their names.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use base64::Engine;
use serde_json::{Map, Value, json};

use super::load::Root;
use super::resource::{Behavior, Resource, Resources};
use super::spec::{Generator, Kustomization, Options};
use crate::commands::create::hash;

/// Adds what a kustomization generates.
pub fn run(root: &Root, kustomization: &Kustomization, all: &mut Resources) -> Result<()> {
    let maps = kustomization.config_map_generator.iter().map(|g| (g, false));
    for (generator, is_secret) in maps.chain(kustomization.secret_generator.iter().map(|g| (g, true))) {
        let behavior = match generator.behavior.as_str() {
            "merge" => Behavior::Merge,
            "replace" => Behavior::Replace,
            _ => Behavior::Create,
        };
        let resource = generate(root, generator, &kustomization.generator_options, is_secret)?;
        all.absorb(resource, behavior).map_err(|e| anyhow!("merging from generator: {e}"))?;
    }
    Ok(())
}

fn generate(root: &Root, generator: &Generator, common: &Options, is_secret: bool) -> Result<Resource> {
    let what = if is_secret { "secret" } else { "configmap" };
    if generator.name.is_empty() {
        bail!("a {what} must have a name");
    }
    let mut content: Map<String, Value> = Map::new();
    let mut binary: Map<String, Value> = Map::new();
    for (key, value) in pairs(root, generator)? {
        if content.contains_key(&key) || binary.contains_key(&key) {
            bail!("{what} {} illegally repeats the key `{key}`", generator.name);
        }
        match String::from_utf8(value) {
            Ok(text) if !is_secret => content.insert(key, json!(text)),
            Ok(text) => content.insert(key, json!(folded(text.as_bytes()))),
            Err(bytes) if is_secret => content.insert(key, json!(folded(bytes.as_bytes()))),
            Err(bytes) => binary.insert(key, json!(folded(bytes.as_bytes()))),
        };
    }
    let mut object = json!({ "apiVersion": "v1", "kind": if is_secret { "Secret" } else { "ConfigMap" }, "metadata": { "name": generator.name } });
    if !generator.namespace.is_empty() {
        object["metadata"]["namespace"] = json!(generator.namespace);
    }
    if is_secret {
        object["type"] = json!(if generator.kind.is_empty() { "Opaque" } else { &generator.kind });
    }
    for (field, values) in [("data", content), ("binaryData", binary)] {
        // A secret without keys has an empty map of them, a configmap has none.
        if !values.is_empty() || is_secret && field == "data" {
            object[field] = Value::Object(values);
        }
    }
    let merged = |own: &BTreeMap<String, String>, common: &BTreeMap<String, String>| {
        let mut all = common.clone();
        all.extend(own.clone());
        all
    };
    for (field, values) in
        [("labels", merged(&generator.options.labels, &common.labels)), ("annotations", merged(&generator.options.annotations, &common.annotations))]
    {
        if !values.is_empty() {
            object["metadata"][field] = json!(values);
        }
    }
    if generator.options.immutable || common.immutable {
        object["immutable"] = json!(true);
    }
    let needs_hash = !generator.options.disable_name_suffix_hash && !common.disable_name_suffix_hash;
    Ok(Resource { needs_hash, ..Resource::new(object) })
}

/// Keys and values: of environment files, of literals, of files.
fn pairs(root: &Root, generator: &Generator) -> Result<Vec<(String, Vec<u8>)>> {
    let failed = |sources: &str, list: &[String], error: &dyn std::fmt::Display| anyhow!("loading KV pairs: {sources} [{}]: {error}", list.join(" "));
    let mut pairs = Vec::new();
    for file in &generator.envs {
        let bytes = root.read(file).map_err(|e| failed("env source files:", &generator.envs, &e))?;
        let text = String::from_utf8(bytes).map_err(|_| anyhow!("loading KV pairs: env source file {file} is no UTF-8"))?;
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once('=') {
                Some(("", _)) => bail!("loading KV pairs: env source files: [{}]: {line:?} has no key", generator.envs.join(" ")),
                Some((key, value)) => pairs.push((key.to_owned(), value.as_bytes().to_vec())),
                // A key alone takes its value from the environment.
                None => pairs.push((line.to_owned(), std::env::var(line).unwrap_or_default().into_bytes())),
            }
        }
    }
    for literal in &generator.literals {
        let invalid = || failed("literal sources", &generator.literals, &format!("invalid literal source {literal}, expected key=value"));
        let (key, value) = literal.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(invalid)?;
        let quoted = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
        pairs.push((key.to_owned(), quoted.unwrap_or(value).as_bytes().to_vec()));
    }
    for source in &generator.files {
        let (key, file) = match source.split_once('=') {
            Some((key, file)) if !key.is_empty() && !file.is_empty() && !file.contains('=') => (key, file),
            Some(_) => {
                let why = format!("source {source:?} key name or file path contains '='");
                return Err(failed("file sources:", &generator.files, &why));
            }
            None => (source.rsplit('/').next().unwrap_or(source), source.as_str()),
        };
        let bytes = root.read(file).map_err(|e| failed("file sources:", &generator.files, &e))?;
        pairs.push((key.to_owned(), bytes));
    }
    Ok(pairs)
}

/// Base64 in lines of seventy letters, when it does not fit into one.
fn folded(bytes: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    if text.len() < 70 {
        return text;
    }
    text.as_bytes().chunks(70).map(|line| String::from_utf8_lossy(line).into_owned() + "\n").collect()
}

/// Puts the hash of its content behind each name that wants one.
pub fn add_hashes(all: &mut Resources) {
    for resource in all.0.iter_mut().filter(|r| r.needs_hash) {
        let object = &resource.object;
        let mut content = json!({
            "kind": object["kind"],
            // Upstream looks for the name in the wrong place, and hashes none.
            "name": "",
            "data": object.get("data").cloned().unwrap_or_else(|| json!("")),
        });
        match object["kind"].as_str() {
            Some("Secret") => {
                content["type"] = object.get("type").cloned().unwrap_or_else(|| json!(""));
                if object["stringData"].is_object() {
                    content["stringData"] = object["stringData"].clone();
                }
            }
            _ if object["binaryData"].is_object() => content["binaryData"] = object["binaryData"].clone(),
            _ => {}
        }
        let name = format!("{}-{}", resource.id().name, hash(&content));
        resource.remember();
        resource.rename(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_folded() {
        assert_eq!(folded(b"x"), "eA==");
        assert_eq!(folded(&[b'x'; 48]).len(), 64);
        let long = folded(&[b'x'; 200]);
        assert_eq!(long.lines().map(str::len).collect::<Vec<_>>(), [70, 70, 70, 58]);
        assert!(long.ends_with("=\n"));
    }

    #[test]
    fn the_hash_is_kustomizes() {
        let mut all = Resources::default();
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" } });
        all.append(Resource { needs_hash: true, ..Resource::new(object) }).unwrap();
        add_hashes(&mut all);
        assert_eq!(all.0[0].id().name, "x-6ct58987ht");
    }
}

//! The kustomization file: its fields, and a clear word about those that are not done here. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::manifest;

/// A kustomization, with its older spellings folded into today's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kustomization {
    api_version: String,
    /// `Kustomization`, or `Component`.
    pub kind: String,
    metadata: Value,
    /// Files and directories.
    pub resources: Vec<String>,
    /// Directories, as `resources` were called once.
    bases: Vec<String>,
    /// Directories whose kustomizations change what is there.
    pub components: Vec<String>,
    /// The namespace of everything.
    pub namespace: String,
    /// Goes in front of names.
    pub name_prefix: String,
    /// Goes behind names.
    pub name_suffix: String,
    /// Labels of everything, selectors too.
    pub common_labels: BTreeMap<String, String>,
    /// Labels, with a choice of where.
    pub labels: Vec<Label>,
    /// Annotations of everything.
    pub common_annotations: BTreeMap<String, String>,
    /// ConfigMaps from files and literals.
    pub config_map_generator: Vec<Generator>,
    /// Secrets from files and literals.
    pub secret_generator: Vec<Generator>,
    /// What all generators have in common.
    pub generator_options: Options,
    /// New names, tags and digests.
    pub images: Vec<Image>,
    /// Numbers of replicas.
    pub replicas: Vec<Replica>,
    /// Strategic merge or JSON patches.
    pub patches: Vec<Patch>,
    /// Strategic merge patches: files or the text itself.
    pub patches_strategic_merge: Vec<String>,
    /// JSON patches.
    #[serde(rename = "patchesJson6902")]
    pub patches_json: Vec<Patch>,
    /// In which order the objects are printed.
    pub sort_options: Option<Sort>,
    build_metadata: Value,
    configurations: Value,
    crds: Value,
    generators: Value,
    helm_chart_inflation_generator: Value,
    helm_charts: Value,
    helm_globals: Value,
    image_tags: Value,
    inventory: Value,
    openapi: Value,
    replacements: Value,
    transformers: Value,
    validators: Value,
    vars: Value,
}

/// One entry of `labels`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Label {
    /// The labels.
    pub pairs: BTreeMap<String, String>,
    /// In selectors and templates too.
    pub include_selectors: bool,
    /// In templates too.
    pub include_templates: bool,
    fields: Value,
}

/// An entry of `configMapGenerator` or `secretGenerator`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Generator {
    /// Name of the object.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// `create`, `merge` or `replace`.
    pub behavior: String,
    /// `KEY=FILE` or `FILE`.
    pub files: Vec<String>,
    /// `KEY=VALUE`
    pub literals: Vec<String>,
    /// Files of `KEY=VALUE` lines.
    pub envs: Vec<String>,
    /// One such file.
    pub env: String,
    /// The type of a secret.
    #[serde(rename = "type")]
    pub kind: String,
    /// What differs from the kustomization's options.
    pub options: Options,
}

/// How objects are generated.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Labels of the objects.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the objects.
    pub annotations: BTreeMap<String, String>,
    /// The name stays as it is.
    pub disable_name_suffix_hash: bool,
    /// The object may not be changed.
    pub immutable: bool,
}

/// An entry of `images`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Image {
    /// The name as it stands.
    pub name: String,
    /// Its new name.
    pub new_name: String,
    /// Its new tag.
    pub new_tag: String,
    /// What is added to the tag.
    pub tag_suffix: String,
    /// Its new digest.
    pub digest: String,
}

/// An entry of `replicas`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replica {
    /// Name of the workload.
    pub name: String,
    /// How many.
    pub count: i64,
}

/// An entry of `patches`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patch {
    /// A file.
    pub path: String,
    /// Or the patch itself.
    pub patch: String,
    /// What is patched; without it, what the patch names.
    pub target: Option<Target>,
    /// What the patch may change.
    pub options: BTreeMap<String, bool>,
}

/// Chooses resources; names are regular expressions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Target {
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Labels.
    pub label_selector: String,
    /// Annotations.
    pub annotation_selector: String,
}

/// `sortOptions`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sort {
    /// `legacy` or `fifo`.
    pub order: String,
    /// Which kinds come first and last.
    pub legacy_sort_options: Option<Kinds>,
}

/// Kinds by their place.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kinds {
    /// The first ones.
    pub order_first: Vec<String>,
    /// The last ones.
    pub order_last: Vec<String>,
}

impl Kustomization {
    /// Reads the text of a kustomization file; deprecated fields are told on stderr.
    pub fn parse(text: &str) -> Result<Kustomization> {
        if text.trim().is_empty() {
            bail!("kustomization.yaml is empty");
        }
        let value = manifest::value(text).map_err(|e| anyhow!("invalid Kustomization: {e}"))?;
        let mut fields = match value {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => bail!("invalid Kustomization: it is no map"),
        };
        // A field without a value is a field that is not there.
        fields.retain(|_, v| !v.is_null());
        if fields.keys().all(|k| matches!(k.as_str(), "apiVersion" | "kind" | "metadata")) {
            bail!("kustomization.yaml is empty");
        }
        let mut read: Kustomization =
            serde_json::from_value(Value::Object(fields)).map_err(|e| anyhow!("invalid Kustomization: {}", explained(&e)))?;
        read.refuse_unsupported()?;
        read.modernize();
        Ok(read)
    }

    /// Whether it changes what others made.
    pub fn is_component(&self) -> bool {
        self.kind == "Component"
    }

    fn refuse_unsupported(&self) -> Result<()> {
        for (field, value) in [
            ("buildMetadata", &self.build_metadata),
            ("configurations", &self.configurations),
            ("crds", &self.crds),
            ("generators", &self.generators),
            ("helmChartInflationGenerator", &self.helm_chart_inflation_generator),
            ("helmCharts", &self.helm_charts),
            ("imageTags", &self.image_tags),
            ("openapi", &self.openapi),
            ("replacements", &self.replacements),
            ("transformers", &self.transformers),
            ("validators", &self.validators),
            ("vars", &self.vars),
        ] {
            let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
            if !empty {
                bail!("kctl cannot build kustomizations with the field {field:?}; `kustomize build` can");
            }
        }
        if self.labels.iter().any(|l| !l.fields.is_null()) {
            bail!("kctl cannot build kustomizations with the field \"labels.fields\"; `kustomize build` can");
        }
        Ok(())
    }

    fn modernize(&mut self) {
        let deprecated = |field: &str, instead: &str| {
            eprintln!(
                "# Warning: '{field}' is deprecated. Please use '{instead}' instead. Run 'kustomize edit fix' to update your Kustomization automatically."
            );
        };
        if !self.bases.is_empty() {
            deprecated("bases", "resources");
            self.resources.append(&mut self.bases);
        }
        if !self.common_labels.is_empty() {
            deprecated("commonLabels", "labels");
        }
        if !self.patches_json.is_empty() {
            deprecated("patchesJson6902", "patches");
        }
        if !self.patches_strategic_merge.is_empty() {
            deprecated("patchesStrategicMerge", "patches");
        }
        for generator in self.config_map_generator.iter_mut().chain(&mut self.secret_generator) {
            if !generator.env.is_empty() {
                generator.envs.push(std::mem::take(&mut generator.env));
            }
        }
    }
}

/// serde's words as Go's decoder would say them.
fn explained(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        Some((field, _)) => format!("json: unknown field {field:?}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_unsupported_fields_are_named() {
        let refused = |text: &str| Kustomization::parse(text).unwrap_err().to_string();
        assert_eq!(refused("foo: bar"), "invalid Kustomization: json: unknown field \"foo\"");
        assert_eq!(refused("images: [{name: a, tag: b}]"), "invalid Kustomization: json: unknown field \"tag\"");
        assert!(refused("replacements: [{source: {}}]").contains("\"replacements\""));
        assert_eq!(refused("kind: Kustomization"), "kustomization.yaml is empty");
        assert_eq!(refused(""), "kustomization.yaml is empty");
        assert!(Kustomization::parse("vars: []\nresources: [a]").is_ok());
    }

    #[test]
    fn older_spellings_mean_the_same() {
        let read = Kustomization::parse("bases: [b]\nresources: [a]\nconfigMapGenerator: [{name: x, env: e}]").unwrap();
        assert_eq!((read.resources, read.config_map_generator[0].envs.clone()), (vec!["a".to_owned(), "b".into()], vec!["e".to_owned()]));
    }
}

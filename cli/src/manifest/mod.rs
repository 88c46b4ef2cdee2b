//! Manifests: from files, directories, URLs and stdin to objects, with every problem told by file, line and column.
//!
//! Owns reading, parsing and checking. A file is parsed whole before anything of it is handed out. Sends nothing to the API server.

pub mod diagnose;
mod schema;
pub mod tree;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

pub use diagnose::Problem;

use crate::kustomize;

/// The `-f`, `-k` and `-R` flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FileArgs {
    /// Filename, directory, or URL to files identifying the resource
    #[arg(short = 'f', long, value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Process the kustomization directory. This flag can't be used together with -f or -R
    #[arg(short = 'k', long, value_name = "DIR")]
    pub kustomize: Option<String>,
    /// Process the directory used in -f, --filename recursively
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

impl FileArgs {
    /// Whether no file was named.
    pub fn is_empty(&self) -> bool {
        self.filename.is_empty() && self.kustomize.is_none()
    }
    /// Fails unless a file was named, in kubectl's words.
    pub fn required(&self) -> Result<()> {
        if self.is_empty() {
            bail!("must specify one of -f and -k");
        }
        if !self.filename.is_empty() && self.kustomize.is_some() {
            bail!("only one of -f or -k can be specified");
        }
        if self.recursive && self.kustomize.is_some() {
            bail!("the -k flag can't be used with -f or -R");
        }
        Ok(())
    }
}

/// One object of a manifest.
#[derive(Clone, Debug)]
pub struct Document {
    /// The object.
    pub object: Value,
    /// The file, URL or `STDIN`.
    pub source: String,
    /// What the schema of a built-in kind does not know.
    pub problems: Vec<Problem>,
}

/// What to do about fields no schema knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Validation {
    /// Refuse.
    #[default]
    Strict,
    /// Say so and go on.
    Warn,
    /// Drop them in silence.
    Ignore,
}

impl Validation {
    /// Reads `--validate`.
    pub fn parse(text: &str) -> Result<Validation> {
        Ok(match text {
            "true" | "strict" | "" => Validation::Strict,
            "warn" => Validation::Warn,
            "false" | "ignore" => Validation::Ignore,
            other => bail!("invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"),
        })
    }
    /// The server's `fieldValidation`.
    pub fn query(self) -> &'static str {
        match self {
            Validation::Strict => "Strict",
            Validation::Warn => "Warn",
            Validation::Ignore => "Ignore",
        }
    }
}

/// Reads everything the flags name, checks it, and hands the objects out in order.
///
/// # Errors
/// Everything wrong with any of the inputs, together; then nothing is handed out.
pub async fn read(files: &FileArgs, validation: Validation) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut errors = Vec::new();
    for (source, text) in inputs(files).await? {
        match parse_checked(&source, &text, validation) {
            Ok(found) => documents.extend(found),
            Err(error) => errors.push(error),
        }
    }
    for document in &documents {
        let told = document.problems.iter().map(|p| anyhow!("{p}"));
        match validation {
            Validation::Strict => errors.extend(told),
            Validation::Warn => told.for_each(|p| crate::print::warn(&p.to_string())),
            Validation::Ignore => {}
        }
    }
    crate::errors::collect(errors)?;
    Ok(documents)
}

/// Parses one input.
pub fn parse(source: &str, text: &str) -> Result<Vec<Document>> {
    parse_checked(source, text, Validation::Strict)
}

fn parse_checked(source: &str, text: &str, validation: Validation) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for node in tree::documents(text).map_err(|problems| diagnose::explain(source, text, problems))? {
        let problems = schema::check(&node, source);
        let object = node.to_json();
        if object.is_null() {
            continue;
        }
        flatten(object, source, problems, validation, &mut documents)?;
    }
    Ok(documents)
}

/// The values of a text by the rules of YAML 1.2, for which `yes` and `on` are words; what is empty is left out.
pub fn plain_documents(text: &str) -> Result<Vec<Value>> {
    let plain = |word: &str| match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::String(word.into()),
        other => shared::yaml11::to_json(other),
    };
    let nodes = tree::documents_by(text, plain).map_err(|faults| anyhow!("{}", told(&faults)))?;
    Ok(nodes.iter().map(tree::Node::to_json).filter(|value| !value.is_null()).collect())
}

fn told(faults: &[tree::Fault]) -> String {
    faults.iter().map(|f| format!("line {}: {}", f.at.line, f.message)).collect::<Vec<_>>().join("; ")
}

/// The values of a text by the rules of YAML 1.1.
pub fn values(text: &str) -> Result<Vec<Value>> {
    let nodes = tree::documents(text).map_err(|faults| anyhow!("{}", told(&faults)))?;
    Ok(nodes.iter().map(tree::Node::to_json).filter(|value| !value.is_null()).collect())
}

/// One YAML or JSON value that need not be an object, such as a patch.
pub fn value(text: &str) -> Result<Value> {
    let nodes = tree::documents(text).map_err(|faults| anyhow!("{}", faults.iter().map(|f| f.message.clone()).collect::<Vec<_>>().join("; ")))?;
    match nodes.as_slice() {
        [one] => Ok(one.to_json()),
        _ => bail!("expected one value, found {}", nodes.len()),
    }
}

/// A `List` stands for its items.
fn flatten(object: Value, source: &str, problems: Vec<Problem>, validation: Validation, documents: &mut Vec<Document>) -> Result<()> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let list_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let is_list = kind == "List" || (kind.ends_with("List") && object["items"].is_array());
    let mut object = object;
    if is_list && let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        let item_kind = kind.strip_suffix("List").unwrap_or_default().to_owned();
        for item in std::mem::take(items) {
            let mut item = item;
            // Items of a typed list may leave their kind to the list.
            if !item_kind.is_empty() && item["kind"].is_null() {
                item["kind"] = Value::String(item_kind.clone());
                item["apiVersion"] = Value::String(list_version.clone());
            }
            flatten(item, source, Vec::new(), validation, documents)?;
        }
        if let Some(last) = documents.last_mut() {
            last.problems.extend(problems);
        }
        return Ok(());
    }
    let invalid = |what: &str| {
        anyhow!(
            "error validating {source:?}: error validating data: {what}; if you choose to ignore these errors, turn validation off with --validate=false"
        )
    };
    if !object.is_object() {
        return Err(invalid("invalid object to validate"));
    }
    let missing = |field: &str| {
        let near: Vec<&String> =
            object.as_object().into_iter().flat_map(|m| m.keys()).filter(|k| crate::suggest::distance(k, field) <= 2 && *k != field).collect();
        if near.is_empty() && validation != Validation::Ignore {
            return invalid(&format!("{field} not set"));
        }
        let hint = near.first().map_or_else(String::new, |k| format!(" (did you mean {field:?} where it says {k:?}?)"));
        anyhow!(
            "error parsing {source}: Object '{}' is missing in '{}'{hint}",
            if field == "kind" { "Kind" } else { field },
            shared::gojson::compact(&object)
        )
    };
    if kind.is_empty() {
        return Err(missing("kind"));
    }
    if list_version.is_empty() {
        return Err(problems.first().map_or_else(|| missing("apiVersion"), |p| anyhow!("{p}")));
    }
    documents.push(Document { object, source: source.to_owned(), problems });
    Ok(())
}

/// The named inputs as text, with the name messages use.
async fn inputs(files: &FileArgs) -> Result<Vec<(String, String)>> {
    let mut inputs = Vec::new();
    if let Some(directory) = &files.kustomize {
        inputs.push((directory.clone(), kustomize::text(&kustomize::build(directory, false)?)));
    }
    for name in &files.filename {
        if name == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| anyhow!("error reading from stdin: {e}"))?;
            inputs.push(("STDIN".to_owned(), text));
        } else if name.starts_with("http://") || name.starts_with("https://") {
            inputs.push((name.clone(), download(name).await?));
        } else {
            for path in expand(name, files.recursive)? {
                let text = std::fs::read(&path).map_err(|e| anyhow!("error reading {}: {e}", path.display()))?;
                inputs.push((path.display().to_string(), String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
    Ok(inputs)
}

/// A file, the manifests of a directory, or the matches of a pattern.
fn expand(name: &str, recursive: bool) -> Result<Vec<PathBuf>> {
    let path = Path::new(name);
    if !path.exists() {
        if name.contains(['*', '?', '[']) {
            let found = glob(path)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        bail!("the path {name:?} does not exist");
    }
    if path.is_file() || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    walk(path, recursive, &mut found)?;
    if found.is_empty() {
        bail!("error reading [{name}]: recognized file extensions are [.json .yaml .yml]");
    }
    Ok(found)
}

fn walk(directory: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                walk(&entry, recursive, found)?;
            }
        } else if entry.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml") {
            found.push(entry);
        }
    }
    Ok(())
}

/// Matches a pattern in the last part of a path.
fn glob(path: &Path) -> Result<Vec<PathBuf>> {
    let pattern = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(Vec::new()) };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|e| e.ok())
        .filter(|e| matches(&pattern.chars().collect::<Vec<_>>(), &e.file_name().to_string_lossy().chars().collect::<Vec<_>>()))
        .map(|e| e.path())
        .collect();
    found.sort();
    Ok(found)
}

fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => matches(rest, name) || name.split_first().is_some_and(|(_, n)| matches(pattern, n)),
        (Some(('?', rest)), Some((_, name))) => matches(rest, name),
        (Some((c, rest)), Some((d, name))) if c == d => matches(rest, name),
        _ => false,
    }
}

async fn download(url: &str) -> Result<String> {
    let http = reqwest::Client::builder().build()?;
    let response = http.get(url).send().await.map_err(|e| match e.is_connect() {
        true => refused(url),
        false => anyhow!("unable to read URL {url:?}: {e}"),
    })?;
    if !response.status().is_success() {
        bail!("unable to read URL {url:?}, server reported {}, status code={}", response.status(), response.status().as_u16());
    }
    response.text().await.map_err(|e| anyhow!("unable to read URL {url:?}: {e}"))
}

/// Nobody listens where a manifest should come from.
fn refused(url: &str) -> anyhow::Error {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    crate::errors::ConnectError::Refused(rest.split('/').next().unwrap_or(rest).to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_and_lists_become_objects() {
        let text = "# head\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: b}\n";
        let names: Vec<_> = parse("x", text).unwrap().iter().map(|d| d.object["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(names, ["a", "b"]);
        let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#;
        assert_eq!(parse("x", json).unwrap().len(), 1);
    }

    #[test]
    fn patterns_match_names() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        assert!(matches(&chars("*.yaml"), &chars("a.yaml")));
        assert!(!matches(&chars("*.yaml"), &chars("a.json")));
        assert!(matches(&chars("a?c*"), &chars("abcd")));
    }

    #[test]
    fn plain_words_follow_yaml_1_1() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: yes, b: \"yes\", c: 010, d: 0x10, e: 1.5, f: ~, g: 2020-01-01}\n";
        let data = parse("x", text).unwrap()[0].object["data"].clone();
        assert_eq!(data, serde_json::json!({"a": true, "b": "yes", "c": 8, "d": 16, "e": 1.5, "f": null, "g": "2020-01-01"}));
    }

    #[test]
    fn anchors_and_merges_are_expanded() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: a}\ndata:\n  <<: *m\n  x: w\n";
        assert_eq!(parse("x", text).unwrap()[0].object["data"], serde_json::json!({"name": "a", "x": "w"}));
    }
}

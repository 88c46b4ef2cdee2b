//! `label` and `annotate`: change one map of an object's metadata.

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value};

use crate::app::Ctx;
use crate::client::Body;
use crate::errors;
use crate::manifest::FileArgs;
use crate::outln;
use crate::print::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resource::{Info, Query, SelectorArgs, query_string};

/// The flags of both commands.
#[derive(Debug, clap::Args)]
pub struct MapArgs {
    /// Resources, then KEY=VALUE pairs or KEY- to remove
    #[arg(value_name = "TYPE NAME KEY=VALUE", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub selector: SelectorArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Select all resources, in the namespace of the specified resource types
    #[arg(long)]
    pub all: bool,
    /// If true, allow values to be overwritten, otherwise reject updates that overwrite existing values
    #[arg(long)]
    pub overwrite: bool,
    /// If true, display the labels or annotations for a given resource
    #[arg(long)]
    pub list: bool,
    /// If true, will NOT contact api-server but run locally
    #[arg(long)]
    pub local: bool,
    /// If non-empty, the update will only succeed if this is the current resource-version for the object
    #[arg(long, default_value = "")]
    pub resource_version: String,
    /// Name of the manager used to track field ownership
    #[arg(long)]
    pub field_manager: Option<String>,
}

/// Update the labels on a resource
#[derive(Debug, clap::Args)]
pub struct LabelArgs {
    #[command(flatten)]
    pub map: MapArgs,
}

/// Update the annotations on a resource
#[derive(Debug, clap::Args)]
pub struct AnnotateArgs {
    #[command(flatten)]
    pub map: MapArgs,
}

impl LabelArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        run(&self.map, Which::Label, ctx).await
    }
}

impl AnnotateArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        run(&self.map, Which::Annotation, ctx).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Label,
    Annotation,
}

impl Which {
    fn word(self) -> &'static str {
        if self == Which::Label { "label" } else { "annotation" }
    }
    fn field(self) -> &'static str {
        if self == Which::Label { "labels" } else { "annotations" }
    }
    fn command(self) -> &'static str {
        if self == Which::Label { "label" } else { "annotate" }
    }
}

/// What to set and what to remove.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

async fn run(args: &MapArgs, which: Which, ctx: &Ctx) -> Result<()> {
    let (resources, pairs) = split(&args.args, which)?;
    let change = parse(&pairs, which)?;
    if resources.is_empty() && args.files.is_empty() {
        bail!("one or more resources must be specified as <resource> <name> or <resource>/<name>");
    }
    if pairs.is_empty() && !args.list {
        bail!("at least one {} update is required", which.word());
    }
    if args.list && args.output.output.is_some() {
        bail!("--list and --output may not be specified together");
    }
    let given = |selector: &Option<String>| selector.as_ref().is_some_and(|s| !s.is_empty());
    if args.all && given(&args.selector.selector) {
        bail!("cannot set --all and --selector at the same time");
    }
    if args.all && given(&args.selector.field_selector) {
        bail!("cannot set --all and --field-selector at the same time");
    }
    let dry_run = args.dry_run.mode()?;
    if args.local && dry_run == DryRun::Server {
        bail!("cannot specify --local and --dry-run=server - did you mean --dry-run=client?");
    }
    let mut printer = Printer::new(&args.output, dry_run.suffix())?;
    let query = Query { args: resources, files: args.files.clone(), all: args.all, local: args.local, ..Query::default() }.select(&args.selector);
    let (infos, mut failures) = query.infos(ctx).await?;
    if !args.resource_version.is_empty() && infos.len() > 1 {
        bail!("--resource-version may only be used with a single resource");
    }
    let many = infos.len() > 1;
    for info in infos {
        if args.list && many {
            let group = if info.kind.group.is_empty() { String::new() } else { info.kind.group.clone() };
            outln!("Listing {}s for {}.{group}/{}:", which.word(), info.kind.kind, info.name);
        }
        if let Err(error) = one(args, which, &change, &info, dry_run, &mut printer, many, ctx).await {
            failures.push(error);
        }
    }
    errors::collect(failures)
}

#[allow(clippy::too_many_arguments, reason = "each is a different thing the one caller has at hand")]
async fn one(
    args: &MapArgs,
    which: Which,
    change: &Change,
    info: &Info,
    dry_run: DryRun,
    printer: &mut Printer,
    many: bool,
    ctx: &Ctx,
) -> Result<()> {
    let mut object = info.object.clone();
    let before = map_of(&object, which);
    if !args.overwrite {
        refuse_overwrite(&before, change, which)?;
    }
    let missing: Vec<&String> = change.remove.iter().filter(|k| !before.contains_key(*k)).collect();
    let mut after = before.clone();
    for (key, value) in &change.set {
        after.insert(key.clone(), Value::String(value.clone()));
    }
    for key in &change.remove {
        after.remove(key);
    }
    if !args.resource_version.is_empty() {
        object["metadata"]["resourceVersion"] = Value::String(args.resource_version.clone());
    }
    let verb = verb(which, &before, &after);
    put_map(&mut object, which, after.clone());
    if which == Which::Label && !missing.is_empty() && !args.local {
        for key in missing {
            outln!("label {key:?} not found.");
        }
    }
    let done = if args.local || dry_run == DryRun::Client || args.list {
        object
    } else {
        let patch = patch(&before, &after, which, &args.resource_version);
        let manager = args.field_manager.clone().unwrap_or_else(|| format!("kubectl-{}", which.command()));
        let mut pairs = vec![("fieldManager", manager)];
        pairs.extend(dry_run.query());
        if before == after && args.resource_version.is_empty() {
            object
        } else {
            info.patch(ctx, Body::MergePatch, &patch, &query_string(&pairs)).await?
        }
    };
    if args.list {
        for (key, value) in map_of(&done, which) {
            outln!("{}{key}={}", if many { " " } else { "" }, value.as_str().unwrap_or_default());
        }
        return Ok(());
    }
    if which == Which::Label {
        // Upstream makes a printer for each labelled object, so none knows of the ones before it.
        printer.forget();
    }
    printer.done(&done, verb)
}

fn verb(which: Which, before: &Map<String, Value>, after: &Map<String, Value>) -> &'static str {
    if which == Which::Annotation {
        return "annotated";
    }
    let removed = before.keys().any(|k| !after.contains_key(k));
    let set = after.iter().any(|(k, v)| before.get(k) != Some(v));
    match (set, removed) {
        (true, true) => "modified",
        (true, false) => "labeled",
        (false, true) => "unlabeled",
        (false, false) => "not labeled",
    }
}

fn map_of(object: &Value, which: Which) -> Map<String, Value> {
    object["metadata"][which.field()].as_object().cloned().unwrap_or_default()
}

fn put_map(object: &mut Value, which: Which, map: Map<String, Value>) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        if map.is_empty() {
            metadata.remove(which.field());
        } else {
            metadata.insert(which.field().to_owned(), Value::Object(map));
        }
    }
}

fn patch(before: &Map<String, Value>, after: &Map<String, Value>, which: Which, version: &str) -> Value {
    let mut changes = Map::new();
    for (key, value) in after {
        if before.get(key) != Some(value) {
            changes.insert(key.clone(), value.clone());
        }
    }
    for key in before.keys().filter(|k| !after.contains_key(*k)) {
        changes.insert(key.clone(), Value::Null);
    }
    let mut metadata = Map::new();
    metadata.insert(which.field().to_owned(), if after.is_empty() { Value::Null } else { Value::Object(changes) });
    if !version.is_empty() {
        metadata.insert("resourceVersion".into(), Value::String(version.to_owned()));
    }
    serde_json::json!({ "metadata": metadata })
}

fn refuse_overwrite(before: &Map<String, Value>, change: &Change, which: Which) -> Result<()> {
    let mut taken = Vec::new();
    for (key, value) in &change.set {
        if let Some(old) = before.get(key).and_then(Value::as_str)
            && old != value
        {
            taken.push(format!("'{key}' already has a value ({old})"));
        }
    }
    match (which, taken.as_slice()) {
        (_, []) => Ok(()),
        (Which::Label, many) => bail!("{}", many.iter().map(|t| format!("{t}, and --overwrite is false")).collect::<Vec<_>>().join("\n")),
        (Which::Annotation, many) => bail!("--overwrite is false but found the following declared annotation(s): {}", many.join("; ")),
    }
}

/// Parts the words into resources and pairs: pairs hold `=` or end in `-`, and come last.
fn split(args: &[String], which: Which) -> Result<(Vec<String>, Vec<String>)> {
    let (mut resources, mut pairs): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for word in args {
        let is_pair = (word.contains('=') && !word.starts_with('=')) || (word.ends_with('-') && word != "-");
        match (is_pair, pairs.is_empty()) {
            (true, _) => pairs.push(word.clone()),
            (false, true) => resources.push(word.clone()),
            (false, false) => bail!("all resources must be specified before {} changes: {word}", which.word()),
        }
    }
    Ok((resources, pairs))
}

fn parse(pairs: &[String], which: Which) -> Result<Change> {
    let mut change = Change::default();
    for pair in pairs {
        match pair.split_once('=') {
            Some((key, value)) => {
                if which == Which::Label {
                    check_value(pair, value)?;
                }
                change.set.push((key.to_owned(), value.to_owned()));
            }
            None => change.remove.push(pair.trim_end_matches('-').to_owned()),
        }
    }
    let both: Vec<&str> = change.remove.iter().filter(|k| change.set.iter().any(|(s, _)| s == *k)).map(String::as_str).collect();
    match (which, both.is_empty()) {
        (_, true) => Ok(change),
        (Which::Label, false) => Err(anyhow!("can not both modify and remove a label in the same command")),
        (Which::Annotation, false) => {
            Err(anyhow!("can not both modify and remove the following annotation(s) in the same command: {}", both.join(", ")))
        }
    }
}

fn check_value(pair: &str, value: &str) -> Result<()> {
    let word = |c: char| c.is_ascii_alphanumeric();
    let fits = value.len() <= 63
        && value.chars().all(|c| word(c) || matches!(c, '-' | '_' | '.'))
        && value.chars().next().is_none_or(word)
        && value.chars().last().is_none_or(word);
    if !fits {
        let detail = if value.len() > 63 {
            "must be no more than 63 bytes"
        } else {
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        };
        bail!("invalid label value: {pair:?}: {detail}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    #[test]
    fn words_part_into_resources_and_pairs() {
        let (resources, pairs) = split(&words("pods x a=b c-"), Which::Label).unwrap();
        assert_eq!((resources, pairs), (words("pods x"), words("a=b c-")));
        assert!(split(&words("a=b x"), Which::Label).is_err());
        assert!(parse(&words("a=b a-"), Which::Label).is_err());
        assert!(parse(&[String::from("a=b c")], Which::Label).is_err());
        assert!(parse(&[String::from("a=b c")], Which::Annotation).is_ok());
    }

    #[test]
    fn the_verb_says_what_changed() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect::<Map<_, _>>();
        let a = map(&[("a", "1")]);
        for (after, verb_wanted) in [
            (map(&[("a", "1"), ("b", "2")]), "labeled"),
            (map(&[("a", "2")]), "labeled"),
            (map(&[]), "unlabeled"),
            (map(&[("b", "2")]), "modified"),
            (a.clone(), "not labeled"),
        ] {
            assert_eq!(verb(Which::Label, &a, &after), verb_wanted);
        }
    }

    #[test]
    fn the_patch_holds_only_what_changed() {
        let before = serde_json::json!({"a": "1", "b": "2"}).as_object().cloned().unwrap();
        let after = serde_json::json!({"a": "1", "c": "3"}).as_object().cloned().unwrap();
        assert_eq!(patch(&before, &after, Which::Label, ""), serde_json::json!({"metadata": {"labels": {"b": null, "c": "3"}}}));
    }
}

//! `taint`: marks on nodes that keep pods away.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::client::Body;
use crate::errors::{self, usage};
use crate::print::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resource::{Info, Query, SelectorArgs, query_string};

/// Update the taints on one or more nodes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `nodes NAME`, then KEY=VALUE:EFFECT, or KEY[:EFFECT]- to remove
    #[arg(value_name = "NODE NAME KEY=VAL:EFFECT", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Select all nodes in the cluster
    #[arg(long)]
    pub all: bool,
    /// If true, allow taints to be overwritten, otherwise reject taint updates that overwrite existing taints
    #[arg(long)]
    pub overwrite: bool,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-taint")]
    pub field_manager: String,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    pub validate: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Taint {
    key: String,
    value: String,
    effect: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let is_taint = |word: &&String| word.contains(['=', ':']) || (word.ends_with('-') && word.len() > 1);
        let taints: Vec<&String> = self.args.iter().filter(is_taint).collect();
        let resources: Vec<String> = self.args.iter().filter(|w| !is_taint(w)).cloned().collect();
        if taints.is_empty() && !resources.is_empty() {
            bail!("at least one taint update is required");
        }
        if resources.is_empty()
            || (resources.len() < 2 && !self.all && self.selector.is_none() && !resources.first().is_some_and(|r| r.contains('/')))
        {
            bail!("one or more resources must be specified as <resource> <name>");
        }
        let (set, remove) = parse(&taints)?;
        let word = resources.first().map_or("", |r| r.split('/').next().unwrap_or(r));
        if !ctx.kind(word).await?.is("", "Node") {
            bail!("invalid resource type {word}, only node types are supported");
        }
        let dry_run = self.dry_run.mode()?;
        // Upstream says nothing of a dry run here.
        let mut printer = Printer::new(&self.output, "")?;
        let selector = SelectorArgs { selector: self.selector.clone(), ..SelectorArgs::default() };
        let (infos, mut failures) = Query { args: resources, all: self.all, ..Query::default() }.select(&selector).infos(ctx).await?;
        for info in infos {
            if !info.kind.is("", "Node") {
                bail!("invalid resource type {}, only node types are supported", info.kind.plural);
            }
            if let Err(error) = self.one(ctx, &info, &set, &remove, dry_run, &mut printer).await {
                failures.push(error);
            }
        }
        errors::collect(failures)
    }

    async fn one(&self, ctx: &Ctx, info: &Info, set: &[Taint], remove: &[Taint], dry_run: DryRun, printer: &mut Printer) -> Result<()> {
        let old: Vec<Value> = info.object["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let same = |value: &Value, taint: &Taint| {
            value["key"] == taint.key.as_str() && (taint.effect.is_empty() || value["effect"] == taint.effect.as_str())
        };
        if !self.overwrite {
            let taken: Vec<&str> = set.iter().filter(|t| old.iter().any(|o| same(o, t))).map(|t| t.key.as_str()).collect();
            if !taken.is_empty() {
                bail!("node {} already has {} taint(s) with same effect(s) and --overwrite is false", info.name, taken.join(","));
            }
        }
        let mut missing = Vec::new();
        for taint in remove {
            if !old.iter().any(|o| same(o, taint)) {
                let text = if taint.effect.is_empty() { taint.key.clone() } else { format!("{}:{}", taint.key, taint.effect) };
                missing.push(anyhow::anyhow!("taint {text:?} not found"));
            }
        }
        errors::collect(missing)?;
        let mut new: Vec<Value> = set
            .iter()
            .map(|t| {
                let mut value = json!({ "key": t.key, "effect": t.effect });
                if !t.value.is_empty() {
                    value["value"] = json!(t.value);
                }
                value
            })
            .collect();
        new.extend(old.iter().filter(|o| !set.iter().chain(remove).any(|t| same(o, t))).cloned());
        let replaced = set.iter().any(|t| old.iter().any(|o| same(o, t)));
        let verb = match (set.is_empty(), remove.is_empty()) {
            (false, true) if !replaced => "tainted",
            (true, false) => "untainted",
            _ => "modified",
        };
        let mut done = info.object.clone();
        done["spec"]["taints"] = json!(new);
        if dry_run != DryRun::Client {
            // The version guards against a taint someone else adds meanwhile: lists without a key are replaced whole.
            let patch = json!({ "metadata": { "resourceVersion": info.object["metadata"]["resourceVersion"] }, "spec": { "taints": if new.is_empty() { Value::Null } else { json!(new) } } });
            let mut pairs = vec![("fieldManager", self.field_manager.clone())];
            pairs.extend(dry_run.query());
            done = info.patch(ctx, Body::StrategicPatch, &patch, &query_string(&pairs)).await?;
        }
        printer.done(&done, verb)
    }
}

fn parse(words: &[&String]) -> Result<(Vec<Taint>, Vec<Taint>)> {
    let (mut set, mut remove) = (Vec::new(), Vec::new());
    for word in words {
        let removal = word.strip_suffix('-');
        let body = removal.unwrap_or(word);
        let (head, effect) = body.split_once(':').map_or((body, ""), |(h, e)| (h, e));
        let (key, value) = head.split_once('=').unwrap_or((head, ""));
        if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            return Err(usage("taint", format!("invalid taint effect: {effect}, unsupported taint effect")));
        }
        if removal.is_none() && (effect.is_empty() || !is_name(key)) {
            return Err(usage("taint", format!("invalid taint spec: {word}, {NAME_RULE}")));
        }
        let taint = Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() };
        if removal.is_some() {
            remove.push(taint);
        } else {
            if set.iter().any(|t: &Taint| t.key == taint.key && t.effect == taint.effect) {
                let (key, value) = (taint.key, taint.value);
                return Err(usage("taint", format!("duplicated taints with the same key and effect: {{{key} {value} {effect} <nil>}}")));
            }
            set.push(taint);
        }
    }
    if let Some(both) = set.iter().find(|s| remove.iter().any(|r| r.key == s.key && (r.effect.is_empty() || r.effect == s.effect))) {
        bail!("can not both modify and remove the following taint(s) in the same command: {}={}", both.key, removed_effect(&remove, both));
    }
    Ok((set, remove))
}

/// The effect a removal names, for the error that shows it.
fn removed_effect<'a>(remove: &'a [Taint], set: &Taint) -> &'a str {
    remove.iter().find(|r| r.key == set.key).map_or("", |r| r.effect.as_str())
}

const NAME_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// A qualified name: `[prefix/]name`.
fn is_name(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().all(inner) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read_as_kubectl_reads_them() {
        let words = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let parsed = |texts: &[&str]| {
            let words = words(texts);
            parse(&words.iter().collect::<Vec<_>>())
        };
        let (set, remove) = parsed(&["a=b:NoSchedule", "c:NoExecute", "d-", "e:NoExecute-"]).unwrap();
        assert_eq!((set.len(), remove.len()), (2, 2));
        assert_eq!(set[0], Taint { key: "a".into(), value: "b".into(), effect: "NoSchedule".into() });
        assert_eq!(remove[1], Taint { key: "e".into(), value: String::new(), effect: "NoExecute".into() });
        for bad in [["a=b", "x:NoSchedule"], ["a:Nope", "x-"], ["a:NoSchedule", "a-"]] {
            assert!(parsed(&bad).is_err(), "{bad:?}");
        }
    }
}

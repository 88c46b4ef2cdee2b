//! `get`: one or many objects, as tables or in any format, once or as they change.

use std::cmp::Ordering;

use anyhow::{Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};
use shared::jsonpath;
use shared::quantity::Quantity;

use crate::app::Ctx;
use crate::client::ACCEPT_TABLE;
use crate::errors::{self, Plain};
use crate::manifest::{self, FileArgs, Validation};
use crate::outln;
use crate::print::table::{self, Layout, Shown};
use crate::print::{self, Format, GET_FORMATS, OutputArgs, Printer};
use crate::resource::{self, Query, SelectorArgs, Target, query_string, with_query};
use crate::watch::Watch;

/// Display one or many resources
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Kinds and names: `pods`, `pod x y`, `pod/x svc/y`, `pods,svc`, `all`
    #[arg(value_name = "TYPE [NAME]", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub selector: SelectorArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// When using the default or custom-column output format, don't print headers
    #[arg(long)]
    pub no_headers: bool,
    /// If non-empty, sort list types using this field specification (a JSONPath expression)
    #[arg(long, value_name = "JSONPATH")]
    pub sort_by: Option<String>,
    /// After listing/getting the requested object, watch for changes
    #[arg(short = 'w', long)]
    pub watch: bool,
    /// Watch for changes to the requested object(s), without listing/getting first
    #[arg(long)]
    pub watch_only: bool,
    /// Output watch event objects when --watch or --watch-only is used
    #[arg(long)]
    pub output_watch_events: bool,
    /// Accepts a comma separated list of labels that are going to be presented as columns
    #[arg(short = 'L', long, value_delimiter = ',', value_name = "LABELS")]
    pub label_columns: Vec<String>,
    /// When printing, show all labels as the last column
    #[arg(long)]
    pub show_labels: bool,
    /// If present, list the resource type for the requested object(s)
    #[arg(long)]
    pub show_kind: bool,
    /// Return large lists in chunks rather than all at once. Pass 0 to disable
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub chunk_size: i64,
    /// If set to true, suppresses NotFound error for specific objects that do not exist
    #[arg(long)]
    pub ignore_not_found: bool,
    /// If specified, gets the subresource of the requested object
    #[arg(long)]
    pub subresource: Option<String>,
    /// Raw URI to request from the server
    #[arg(long, value_name = "URI")]
    pub raw: Option<String>,
    /// If true, have the server return the appropriate table output
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub server_print: bool,
    /// Print the values of secrets decoded (kctl only)
    #[arg(long)]
    pub decode: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if let Some(uri) = &self.raw {
            return self.raw(ctx, uri).await;
        }
        let mut format = self.output.format(GET_FORMATS)?;
        if self.show_labels
            && let Some(printer) = self.output.output.as_deref().filter(|o| !matches!(*o, "" | "wide"))
        {
            bail!("--show-labels option cannot be used with {printer} printer");
        }
        if self.no_headers
            && let Some(Format::Columns(columns)) = &mut format
        {
            columns.without_headers();
        }
        if self.output_watch_events && !self.watch && !self.watch_only {
            bail!("--output-watch-events option can only be used with --watch or --watch-only");
        }
        if self.args.is_empty() && self.files.is_empty() {
            eprintln!("You must specify the type of resource to get. Use \"kctl api-resources\" for a complete list of supported resources.\n");
            bail!(
                "Required resource not specified.\nUse \"kctl explain <resource>\" for a detailed description of that resource (e.g. kctl explain pods).\nSee 'kctl get -h' for help and examples"
            );
        }
        let targets = self.targets(ctx).await?;
        if self.decode {
            return self.decoded(ctx, &targets).await;
        }
        let human = matches!(format, None | Some(Format::Wide));
        if self.watch || self.watch_only {
            return self.watch(ctx, &targets, format, human).await;
        }
        if human {
            let wide = matches!(format, Some(Format::Wide));
            self.tables(ctx, &targets, wide).await
        } else {
            self.objects(ctx, &targets, format).await
        }
    }

    /// Objects per request; zero and less ask for all at once.
    fn page(&self) -> usize {
        usize::try_from(self.chunk_size).unwrap_or(0)
    }

    fn query(&self) -> Query {
        Query { args: self.args.clone(), kinds_mean_all: true, ignore_not_found: self.ignore_not_found, chunk_size: self.page(), ..Query::default() }
            .select(&self.selector)
    }

    /// Whether a failure is none here: what `everything` names may hold a kind that has gone since it was looked up.
    fn passes_over(&self, error: &anyhow::Error) -> bool {
        (self.ignore_not_found || self.args == ["everything"]) && errors::is_not_found(error)
    }

    async fn raw(&self, ctx: &Ctx, uri: &str) -> Result<()> {
        if !self.args.is_empty() || !self.files.is_empty() {
            bail!("arguments may not be passed when --raw is specified");
        }
        if self.watch || self.watch_only || self.selector.selector.is_some() {
            bail!("--raw may not be specified with other flags that filter the server request or alter the output");
        }
        if self.output.output.as_ref().is_some_and(|o| !o.is_empty()) {
            bail!("--raw and --output are mutually exclusive");
        }
        if !uri.starts_with('/') {
            bail!("--raw must be a valid URL path: parse {uri:?}: invalid URI for request");
        }
        let mut response = ctx.client().await?.stream(uri, "application/json, */*").await?;
        while let Some(bytes) = response.chunk().await? {
            std::io::Write::write_all(&mut std::io::stdout(), &bytes)?;
        }
        std::io::Write::flush(&mut std::io::stdout())?;
        Ok(())
    }

    async fn targets(&self, ctx: &Ctx) -> Result<Vec<Target>> {
        if self.files.is_empty() {
            return self.query().targets(ctx).await;
        }
        if !self.args.is_empty() {
            bail!("when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well");
        }
        let mut targets = Vec::new();
        for document in manifest::read(&self.files, Validation::Ignore).await? {
            let info = resource::locate(ctx, document, false).await?;
            targets.push(Target::One { kind: info.kind, namespace: info.namespace, name: info.name });
        }
        Ok(targets)
    }

    fn path(&self, target: &Target) -> String {
        let base = match target {
            Target::One { kind, namespace, name } => kind.object(namespace.as_deref(), name),
            Target::List { kind, namespace } => kind.collection(namespace.as_deref()),
        };
        match &self.subresource {
            Some(subresource) => format!("{base}/{subresource}"),
            None => base,
        }
    }

    async fn objects(&self, ctx: &Ctx, targets: &[Target], format: Option<Format>) -> Result<()> {
        let query = self.query();
        let mut found: Vec<Value> = Vec::new();
        let mut failures = Vec::new();
        for target in targets {
            let fetched = match (&self.subresource, target) {
                (Some(_), _) => ctx.client().await?.get(&self.path(target)).await.map(|o| vec![o]),
                (None, target) => query.fetch(ctx, target).await.map(|infos| infos.into_iter().map(|i| i.object).collect()),
            };
            match fetched {
                Ok(objects) => found.extend(objects),
                Err(error) if self.passes_over(&error) => {}
                Err(error) => failures.push(error),
            }
        }
        let single = matches!(targets, [Target::One { .. }]);
        if single && found.is_empty() || found.is_empty() && self.ignore_not_found {
            return errors::collect(failures);
        }
        if let Some(path) = &self.sort_by {
            sort(&mut found, path, |o| o)?;
        }
        let mut printer = Printer::with(format, &self.output, "");
        let object = if single && found.len() == 1 { found.remove(0) } else { print::list_of(found) };
        printer.object(&object)?;
        errors::collect(failures)
    }

    async fn decoded(&self, ctx: &Ctx, targets: &[Target]) -> Result<()> {
        use base64::Engine;
        let query = self.query();
        for target in targets {
            for info in query.fetch(ctx, target).await? {
                if !info.kind.is("", "Secret") {
                    bail!("--decode is for secrets; {} is none", info.printed());
                }
                outln!("# {}", info.printed());
                for (key, value) in info.object["data"].as_object().into_iter().flatten() {
                    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
                    match String::from_utf8(bytes) {
                        Ok(text) => print::emit(&print::yaml::to_string(&json!({ key: text })))?,
                        Err(error) => outln!("{key}: # {} bytes that are not text", error.as_bytes().len()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks for tables; a server that makes none gets its objects put into one of our own.
    async fn table(&self, ctx: &Ctx, target: &Target, more: &[(&str, String)]) -> Result<Value> {
        let client = ctx.client().await?;
        let mut pairs: Vec<(&str, String)> = more.to_vec();
        if let Target::List { .. } = target {
            pairs.extend(self.query().parameters());
            if self.page() > 0 {
                pairs.push(("limit", self.page().to_string()));
            }
        }
        if self.sort_by.is_some() {
            pairs.push(("includeObject", "Object".into()));
        }
        let accept = if self.server_print { ACCEPT_TABLE } else { "application/json" };
        let mut all: Option<Value> = None;
        let mut token = String::new();
        loop {
            let mut page_pairs = pairs.clone();
            if !token.is_empty() {
                page_pairs.push(("continue", std::mem::take(&mut token)));
            }
            let bytes =
                client.bytes(Method::GET, &with_query(&self.path(target), &query_string(&page_pairs)), accept, None).await.map_err(|error| {
                    match target {
                        Target::List { kind, .. } => self.query().explain(kind, error),
                        Target::One { .. } => error,
                    }
                })?;
            let page: Value = serde_json::from_slice(&bytes).map_err(|e| anyhow!("the server's answer is not JSON: {e}"))?;
            let mut page = if page["kind"] == "Table" { page } else { as_table(page) };
            token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            match &mut all {
                None => all = Some(page),
                Some(all) => {
                    let rows = page.get_mut("rows").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
                    all["metadata"] = page["metadata"].take();
                    if let Some(existing) = all.get_mut("rows").and_then(Value::as_array_mut) {
                        existing.extend(rows);
                    }
                }
            }
            if token.is_empty() {
                return all.ok_or_else(|| anyhow!("the server answered with no table"));
            }
        }
    }

    fn shown(&self, target: &Target, wide: bool, with_kind: bool) -> Shown {
        let kind = target.kind();
        Shown {
            wide,
            namespace: self.selector.all_namespaces && kind.namespaced,
            kind: (with_kind || self.show_kind).then(|| kind.printed()),
            labels: self.show_labels,
            label_columns: self.label_columns.clone(),
        }
    }

    async fn tables(&self, ctx: &Ctx, targets: &[Target], wide: bool) -> Result<()> {
        let mut failures = Vec::new();
        let mut groups: Vec<(&Target, Value, Vec<Value>)> = Vec::new();
        for target in targets {
            match self.table(ctx, target, &[]).await {
                Ok(mut table) => {
                    let rows = table.get_mut("rows").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
                    match groups.last_mut().filter(|(t, _, _)| t.kind() == target.kind()) {
                        Some((_, _, existing)) => existing.extend(rows),
                        None => groups.push((target, table, rows)),
                    }
                }
                Err(error) if self.passes_over(&error) => {}
                Err(error) => failures.push(error),
            }
        }
        let with_kind = groups.iter().any(|(target, _, _)| target.kind() != groups[0].0.kind());
        groups.retain(|(_, _, rows)| !rows.is_empty());
        let kinds: Vec<_> = targets.iter().map(Target::kind).collect();
        let mut text = String::new();
        for (index, (target, columns, rows)) in groups.iter_mut().enumerate() {
            if let Some(path) = &self.sort_by {
                sort(rows, path, |row| &row["object"])?;
            }
            let shown = self.shown(target, wide, with_kind);
            if index > 0 && !self.no_headers {
                text.push('\n');
            }
            let mut lines = if self.no_headers { Vec::new() } else { vec![table::headers(columns, &shown)] };
            lines.extend(rows.iter().map(|row| table::row(columns, row, &shown)));
            text.push_str(&Layout::default().rows(&lines, !self.no_headers));
        }
        print::emit(&text)?;
        if groups.is_empty() && failures.is_empty() && !self.ignore_not_found {
            if !self.selector.all_namespaces && kinds.iter().all(|k| k.namespaced) {
                eprintln!("No resources found in {} namespace.", ctx.namespace()?);
            } else {
                eprintln!("No resources found");
            }
        }
        errors::collect(failures)
    }

    async fn watch(&self, ctx: &Ctx, targets: &[Target], format: Option<Format>, human: bool) -> Result<()> {
        let [target] = targets else {
            bail!("watch is only supported on individual resources and resource collections - {} resources were found", targets.len());
        };
        let wide = matches!(format, Some(Format::Wide));
        let mut view = View {
            human,
            shown: self.shown(target, wide, false),
            events: self.output_watch_events,
            no_headers: self.no_headers,
            layout: Layout::default(),
            columns: Value::Null,
            printer: Printer::with(format, &self.output, ""),
        };
        let (kind, namespace) = match target {
            Target::One { kind, namespace, .. } | Target::List { kind, namespace } => (kind, namespace),
        };
        let mut parameters = self.query().parameters();
        if let Target::One { name, .. } = target {
            parameters.push(("fieldSelector", format!("metadata.name={name}")));
        }
        let version = self.first_look(ctx, target, &mut view).await?;
        let accept = if human { ACCEPT_TABLE } else { "application/json" };
        let mut watch = Watch::open(ctx, &kind.collection(namespace.as_deref()), &parameters, &version, accept).await?;
        while let Some(event) = watch.next().await? {
            if event.kind != "BOOKMARK" {
                view.event(&event.kind, event.object)?;
            }
        }
        Ok(())
    }

    /// Prints what is there, unless only changes are wanted, and returns the version to watch from.
    async fn first_look(&self, ctx: &Ctx, target: &Target, view: &mut View) -> Result<String> {
        let version_of = |value: &Value| value["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        if view.human {
            let mut table = self.table(ctx, target, &[]).await?;
            let mut version = version_of(&table);
            if version.is_empty() {
                version = version_of(&table["rows"][0]["object"]);
            }
            if self.watch_only {
                if let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) {
                    rows.clear();
                }
                view.columns = table;
                return Ok(version);
            }
            view.event("ADDED", table)?;
            return Ok(version);
        }
        let client = ctx.client().await?;
        let value = match target {
            Target::One { .. } => client.get(&self.path(target)).await?,
            Target::List { .. } => resource::list_all(ctx, &self.path(target), &self.query().parameters(), self.page()).await?,
        };
        let version = version_of(&value);
        if !self.watch_only {
            let objects = match target {
                Target::One { .. } => vec![value],
                Target::List { kind, .. } => resource::items_of(kind, value).into_iter().map(|i| i.object).collect(),
            };
            for object in objects {
                view.event("ADDED", object)?;
            }
        }
        Ok(version)
    }
}

/// How a watch is shown.
struct View {
    human: bool,
    shown: Shown,
    events: bool,
    no_headers: bool,
    layout: Layout,
    columns: Value,
    printer: Printer,
}

impl View {
    fn event(&mut self, kind: &str, object: Value) -> Result<()> {
        if !self.human {
            let value = if self.events { json!({ "type": kind, "object": print::without_managed_fields(&object) }) } else { object };
            return self.printer.object(&value);
        }
        let object = if object["kind"] == "Table" { object } else { as_table(object) };
        // Only the first table of a watch names its columns.
        let mut header = false;
        if object["columnDefinitions"].as_array().is_some_and(|c| !c.is_empty()) && self.columns.is_null() {
            self.columns = json!({ "columnDefinitions": object["columnDefinitions"] });
            header = !self.no_headers;
        }
        let mut lines = Vec::new();
        let prefix = |cells: Vec<String>, first: &str| if self.events { std::iter::once(first.to_owned()).chain(cells).collect() } else { cells };
        let rows = object["rows"].as_array().cloned().unwrap_or_default();
        if header && rows.is_empty() {
            self.columns = Value::Null;
            return Ok(());
        }
        if header {
            lines.push(prefix(table::headers(&self.columns, &self.shown), "EVENT"));
        }
        lines.extend(rows.iter().map(|row| prefix(table::row(&self.columns, row, &self.shown), kind)));
        print::emit(&self.layout.rows(&lines, header))
    }
}

/// Name and age: what can be said of any object.
fn as_table(value: Value) -> Value {
    let objects = match value["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![value.clone()],
    };
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let age = crate::describe::format::age(object["metadata"]["creationTimestamp"].as_str(), now);
            json!({ "cells": [object["metadata"]["name"], age], "object": object })
        })
        .collect();
    json!({
        "kind": "Table",
        "metadata": value["metadata"],
        "columnDefinitions": [{ "name": "Name", "priority": 0 }, { "name": "Age", "priority": 0 }],
        "rows": rows
    })
}

/// Sorts by a JSONPath: numbers and quantities by value, text by its letters; what has no value comes first.
fn sort<T>(items: &mut [T], path: &str, object: impl Fn(&T) -> &Value) -> Result<()> {
    let relaxed = jsonpath::relaxed(path).map_err(|e| anyhow!("{e}"))?;
    let template = jsonpath::Template::parse(&relaxed).map_err(|e| anyhow!("error parsing jsonpath {relaxed}, {e}"))?;
    let key = |item: &T| -> Option<Value> { template.find(object(item), true).ok()?.into_iter().flatten().next() };
    if !items.is_empty() && items.iter().all(|i| key(i).is_none()) {
        return Err(Plain(format!("error: couldn't find any field with path {relaxed:?} in the list of objects")).into());
    }
    items.sort_by(|a, b| match (key(a), key(b)) {
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a), Some(b)) => compare(&a, &b),
    });
    Ok(())
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(x), Value::String(y)) => match (x.parse::<Quantity>(), y.parse::<Quantity>()) {
            (Ok(x), Ok(y)) => x.cmp(&y),
            _ => x.cmp(y),
        },
        (Value::Number(x), Value::Number(y)) => x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (x, y) => shared::gojson::compact(x).cmp(&shared::gojson::compact(y)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_by_value_not_by_spelling() {
        let object = |v: Value| json!({ "v": v });
        for (given, wanted) in [
            (vec![json!("a2"), json!("a10")], vec![json!("a10"), json!("a2")]),
            (vec![json!(10), json!(9)], vec![json!(9), json!(10)]),
            (vec![json!("1Gi"), json!("200Mi")], vec![json!("200Mi"), json!("1Gi")]),
            (vec![json!("2024-02-01T00:00:00Z"), json!("2023-02-01T00:00:00Z")], vec![json!("2023-02-01T00:00:00Z"), json!("2024-02-01T00:00:00Z")]),
        ] {
            let mut items: Vec<Value> = given.into_iter().map(object).collect();
            sort(&mut items, ".v", |o| o).unwrap();
            assert_eq!(items, wanted.into_iter().map(object).collect::<Vec<_>>());
        }
        assert!(sort(&mut [json!({})], ".v", |o| o).is_err());
    }
}

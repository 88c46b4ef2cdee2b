//! `events`: what happened, the latest last.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::describe::events as said;
use crate::discovery::Kind;
use crate::print::{self, OutputArgs, Printer, tabwriter};
use crate::resource::list_all;
use crate::watch::Watch;

/// List events
#[derive(Debug, clap::Args)]
pub struct Args {
    /// If present, list the requested object(s) across all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Filter events to only those pertaining to the specified resource
    #[arg(long = "for", value_name = "TYPE/NAME")]
    pub about: Option<String>,
    /// Output only events of given types
    #[arg(long, value_delimiter = ',')]
    pub types: Vec<String>,
    /// After listing the requested events, watch for more events
    #[arg(short = 'w', long)]
    pub watch: bool,
    /// When using the default output format, don't print headers
    #[arg(long)]
    pub no_headers: bool,
    /// Return large lists in chunks rather than all at once. Pass 0 to disable
    #[arg(long, default_value_t = 500)]
    pub chunk_size: usize,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        for kind in &self.types {
            if !matches!(kind.as_str(), "Normal" | "Warning") {
                bail!("valid --types are Normal or Warning");
            }
        }
        let mut printer = Printer::new(&self.output, "")?;
        let kind = Kind::built_in("", "v1", "Event", "events", true);
        let namespace = if self.all_namespaces { None } else { Some(ctx.namespace()?) };
        let path = kind.collection(namespace.as_deref());
        let parameters = self.parameters(ctx).await?;
        let mut list = list_all(ctx, &path, &parameters, self.chunk_size).await?;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let mut items: Vec<(Value, Event)> = Vec::new();
        for item in list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default() {
            if let Ok(event) = serde_json::from_value::<Event>(item.clone())
                && self.wanted(&event)
            {
                items.push((item, event));
            }
        }
        items.sort_by_key(|(_, e)| said::last_seen(e));
        if items.is_empty() && !self.watch {
            match &namespace {
                Some(namespace) => eprintln!("No events found in {namespace} namespace."),
                None => eprintln!("No events found."),
            }
            return Ok(());
        }
        if printer.has_format() {
            let objects = items.into_iter().map(|(mut o, _)| {
                o["apiVersion"] = json!("v1");
                o["kind"] = json!("Event");
                o
            });
            printer.object(
                &json!({ "apiVersion": "v1", "kind": "EventList", "metadata": { "resourceVersion": version }, "items": objects.collect::<Vec<_>>() }),
            )?;
        } else {
            let mut text = if self.no_headers { String::new() } else { self.header() };
            items.iter().for_each(|(_, e)| text.push_str(&self.row(e)));
            print::emit(&tabwriter::TABLE.align(&text))?;
        }
        if self.watch {
            let mut watch = Watch::open(ctx, &path, &parameters, &version, "application/json").await?;
            while let Some(change) = watch.next().await? {
                if change.kind == "DELETED" || change.kind == "BOOKMARK" {
                    continue;
                }
                let Ok(event) = serde_json::from_value::<Event>(change.object.clone()) else { continue };
                if self.wanted(&event) {
                    if printer.has_format() { printer.object(&change.object)? } else { print::emit(&tabwriter::TABLE.align(&self.row(&event)))? }
                }
            }
        }
        Ok(())
    }

    async fn parameters(&self, ctx: &Ctx) -> Result<Vec<(&'static str, String)>> {
        let Some(about) = &self.about else { return Ok(Vec::new()) };
        let Some((word, name)) = about.split_once('/').filter(|(k, n)| !k.is_empty() && !n.is_empty()) else {
            bail!("--for must be in resource/name form");
        };
        let kind = ctx.kind(word).await.map_err(|e| crate::errors::Plain(e.to_string()))?;
        let selector = format!("involvedObject.kind={},involvedObject.name={name}", kind.kind);
        Ok(vec![("fieldSelector", selector)])
    }

    fn wanted(&self, event: &Event) -> bool {
        self.types.is_empty() || self.types.iter().any(|t| event.type_.as_deref().is_some_and(|k| k.eq_ignore_ascii_case(t)))
    }

    fn header(&self) -> String {
        let namespace = if self.all_namespaces { "NAMESPACE\t" } else { "" };
        format!("{namespace}LAST SEEN\tTYPE\tREASON\tOBJECT\tMESSAGE\n")
    }

    fn row(&self, event: &Event) -> String {
        let namespace = if self.all_namespaces { format!("{}\t", event.metadata.namespace.as_deref().unwrap_or_default()) } else { String::new() };
        let object = &event.involved_object;
        format!(
            "{namespace}{}\t{}\t{}\t{}/{}\t{}\n",
            said::interval(event, jiff::Timestamp::now()),
            event.type_.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            object.kind.as_deref().unwrap_or_default(),
            object.name.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default().trim()
        )
    }
}

//! `why`: what keeps an object from being as it should be, gathered from the object, what it owns, its events and the nodes (kctl only).

mod nodes;
pub mod reasons;

use anyhow::Result;
use serde_json::Value;

use super::pods;
use crate::app::Ctx;
use crate::describe::events::last_seen;
use crate::describe::related;
use crate::discovery::Kind;
use crate::errors;
use crate::podspec;
use crate::print;
use crate::resource::{self, Info, Query};

/// Tell why an object is not as it should be (kctl only)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
}

/// Pods told of one by one; the others are much the same.
const PODS: usize = 3;
/// Nodes whose verdicts are told.
const NODES: usize = 20;
/// Events told of each object.
const EVENTS: usize = 5;

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.args.is_empty() {
            return Err(errors::usage("why", "TYPE NAME or TYPE/NAME is required"));
        }
        // A bare name is a pod's.
        let bare = self.args.len() == 1 && !self.args[0].contains('/');
        let args = if bare { vec![format!("pods/{}", self.args[0])] } else { self.args.clone() };
        let (infos, failures) = Query { args, ..Query::default() }.infos(ctx).await?;
        for info in infos {
            let mut report = Report::default();
            report.object(ctx, &info, 0).await;
            if report.lines.len() == 1 {
                report.lines[0].push_str(": nothing is wrong with it");
            }
            print::emit(&(report.lines.join("\n") + "\n"))?;
        }
        errors::collect(failures)
    }
}

#[derive(Default)]
struct Report {
    lines: Vec<String>,
}

impl Report {
    fn say(&mut self, depth: usize, text: &str) {
        self.lines.push(format!("{}{text}", "  ".repeat(depth)));
    }

    async fn object(&mut self, ctx: &Ctx, info: &Info, depth: usize) {
        self.say(depth, &info.printed());
        for reason in reasons::of(&info.object) {
            self.say(depth + 1, &reason);
        }
        self.events(ctx, info, depth + 1).await;
        if info.kind.is("", "Pod") {
            if info.object["spec"]["nodeName"].is_null() && info.object["status"]["phase"] == "Pending" {
                self.nodes(ctx, &info.object, depth + 1).await;
            }
            return;
        }
        self.pods(ctx, info, depth + 1).await;
    }

    /// Warnings: of each reason the last one, unless the object itself said the same.
    async fn events(&mut self, ctx: &Ctx, info: &Info, depth: usize) {
        let mut events = related::events(ctx, info).await;
        events.retain(|e| e.type_.as_deref() == Some("Warning"));
        events.sort_by_key(|e| std::cmp::Reverse(last_seen(e)));
        let mut told: Vec<String> = Vec::new();
        for event in events {
            let reason = event.reason.clone().unwrap_or_default();
            let message = event.message.as_deref().unwrap_or_default().trim().replace('\n', " ");
            if told.contains(&reason) || told.len() == EVENTS || self.lines.iter().any(|line| line.contains(&message)) {
                continue;
            }
            self.say(depth, &format!("event {reason}: {message}"));
            told.push(reason);
        }
    }

    /// The pods of a workload or service that are not as they should be.
    async fn pods(&mut self, ctx: &Ctx, info: &Info, depth: usize) {
        let Some(selector) = podspec::pod_selector(&info.object) else { return };
        // What may not be read cannot be told of.
        let Ok(found) = pods::by_selector(ctx, info.namespace.as_deref(), &selector).await else { return };
        if found.is_empty() && info.kind.is("", "Service") {
            self.say(depth, &format!("no pod has the labels it selects by: {selector}"));
        }
        let troubled: Vec<&Info> = found.iter().filter(|p| !reasons::of(&p.object).is_empty()).collect();
        for pod in troubled.iter().take(PODS) {
            Box::pin(self.object(ctx, pod, depth)).await;
        }
        if troubled.len() > PODS {
            self.say(depth, &format!("and {} more pods", troubled.len() - PODS));
        }
        if found.is_empty() && info.kind.is("apps", "Deployment") {
            self.replica_sets(ctx, info, &selector, depth).await;
        }
    }

    /// A deployment without pods: its replica sets know why they make none.
    async fn replica_sets(&mut self, ctx: &Ctx, info: &Info, selector: &str, depth: usize) {
        let kind = std::rc::Rc::new(Kind::built_in("apps", "v1", "ReplicaSet", "replicasets", true));
        let path = kind.collection(info.namespace.as_deref());
        let Ok(list) = resource::list_all(ctx, &path, &[("labelSelector", selector.to_owned())], 500).await else { return };
        for set in resource::items_of(&kind, list).iter().filter(|s| s.object["spec"]["replicas"] != 0) {
            Box::pin(self.object(ctx, set, depth)).await;
        }
    }

    /// Every node's verdict about a pod that has none.
    async fn nodes(&mut self, ctx: &Ctx, pod: &Value, depth: usize) {
        let list = |kind: Kind| async move {
            let found = resource::list_all(ctx, &kind.collection(None), &[], 500).await;
            found.map(|list| list["items"].as_array().cloned().unwrap_or_default())
        };
        let Ok(nodes) = list(Kind::built_in("", "v1", "Node", "nodes", false)).await else { return };
        let running = list(pods::kind()).await.unwrap_or_default();
        let ended = |p: &Value| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        for node in nodes.iter().take(NODES) {
            let here: Vec<&Value> = running.iter().filter(|p| p["spec"]["nodeName"] == node["metadata"]["name"] && !ended(p)).collect();
            let problems = nodes::verdict(pod, node, &here);
            let told = if problems.is_empty() { "fits as far as kctl can tell".to_owned() } else { problems.join("; ") };
            self.say(depth, &format!("node {}: {told}", node["metadata"]["name"].as_str().unwrap_or_default()));
        }
        if nodes.len() > NODES {
            self.say(depth, &format!("and {} more nodes", nodes.len() - NODES));
        }
        if nodes.is_empty() {
            self.say(depth, "there are no nodes");
        }
    }
}

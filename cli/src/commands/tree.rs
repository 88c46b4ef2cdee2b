//! `tree`: an object and everything that was made for it, by owner references (kctl only).

use std::collections::HashMap;

use anyhow::{Result, bail};
use futures::stream::{self, StreamExt};
use reqwest::Method;
use serde_json::Value;

use crate::app::Ctx;
use crate::client::ACCEPT_TABLE;
use crate::discovery::Kind;
use crate::errors;
use crate::print::{self, table::Layout};
use crate::resource::{Info, Query};

/// Show an object and everything that belongs to it, as a tree (kctl only)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    /// Show endpoint slices, leases, events and controller revisions too
    #[arg(long)]
    pub all: bool,
}

/// An object as the tree shows it.
#[derive(Clone, Debug, Default)]
struct Node {
    uid: String,
    label: String,
    ready: String,
    status: String,
    age: String,
}

/// Objects that are made for most others and tell little of them.
const MINOR: &[&str] = &["EndpointSlice", "Lease", "Event", "ControllerRevision", "Endpoints"];
/// How many kinds are asked for at once.
const AT_ONCE: usize = 16;

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.args.is_empty() {
            return Err(errors::usage("tree", "TYPE NAME or TYPE/NAME is required"));
        }
        let (infos, failures) = Query { args: self.args.clone(), ..Query::default() }.infos(ctx).await?;
        if infos.is_empty() && failures.is_empty() {
            bail!("nothing was named");
        }
        for (index, info) in infos.iter().enumerate() {
            let (nodes, children) = self.belongings(ctx, info).await?;
            let root = table_of(ctx, &info.kind, &info.path()).await?.into_iter().map(|(node, _)| node).next().unwrap_or_default();
            let mut rows = vec![["NAME", "READY", "STATUS", "AGE"].map(String::from).to_vec()];
            write(&root, "", "", &nodes, &children, &mut rows);
            print::emit(&format!("{}{}", if index > 0 { "\n" } else { "" }, Layout::default().rows(&rows, true)))?;
        }
        errors::collect(failures)
    }

    /// Every object that has an owner, and whose it is.
    async fn belongings(&self, ctx: &Ctx, info: &Info) -> Result<(Vec<Node>, HashMap<String, Vec<usize>>)> {
        let discovery = ctx.discovery().await?;
        let mut kinds: Vec<_> = Vec::new();
        for kind in &discovery.kinds {
            let known = kinds.iter().any(|k: &std::rc::Rc<Kind>| k.group == kind.group && k.plural == kind.plural);
            let minor = MINOR.contains(&kind.kind.as_str()) && !self.all;
            // What lives in a namespace owns only its neighbours.
            let reachable = info.namespace.is_none() || kind.namespaced;
            if !known && !minor && reachable && kind.verbs.iter().any(|v| v == "list") {
                kinds.push(kind.clone());
            }
        }
        // A kind that may not be listed hides nothing of the others.
        let found: Vec<_> = stream::iter(kinds)
            .map(|kind| async move { table_of(ctx, &kind, &kind.collection(info.namespace.as_deref())).await.unwrap_or_default() })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let (mut nodes, mut children) = (Vec::new(), HashMap::<String, Vec<usize>>::new());
        for (node, owners) in found.into_iter().flatten() {
            for owner in owners {
                children.entry(owner).or_default().push(nodes.len());
            }
            nodes.push(node);
        }
        Ok((nodes, children))
    }
}

/// The objects of a path in the server's own words, with the uids of their owners.
async fn table_of(ctx: &Ctx, kind: &Kind, path: &str) -> Result<Vec<(Node, Vec<String>)>> {
    let bytes = ctx.client().await?.bytes(Method::GET, path, ACCEPT_TABLE, None).await?;
    let table: Value = serde_json::from_slice(&bytes)?;
    let columns: Vec<&str> = table["columnDefinitions"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    let rows = table["rows"].as_array().into_iter().flatten();
    Ok(rows.map(|row| node(kind, &columns, row)).collect())
}

fn node(kind: &Kind, columns: &[&str], row: &Value) -> (Node, Vec<String>) {
    let cell = |name: &str| {
        let at = columns.iter().position(|c| *c == name);
        at.and_then(|at| row["cells"].get(at)).map_or_else(String::new, |cell| cell.as_str().map_or_else(|| cell.to_string(), ToOwned::to_owned))
    };
    let metadata = &row["object"]["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ready = match (cell("Ready"), cell("Desired")) {
        (ready, desired) if !ready.is_empty() && !desired.is_empty() => format!("{ready}/{desired}"),
        (ready, _) if !ready.is_empty() => ready,
        _ => cell("Completions"),
    };
    let node = Node {
        uid: text(&metadata["uid"]),
        label: format!("{}/{}", kind.printed(), text(&metadata["name"])),
        ready,
        status: cell("Status"),
        age: cell("Age"),
    };
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten().map(|o| text(&o["uid"])).collect();
    (node, owners)
}

fn write(node: &Node, lead: &str, below: &str, nodes: &[Node], children: &HashMap<String, Vec<usize>>, rows: &mut Vec<Vec<String>>) {
    rows.push(vec![format!("{lead}{}", node.label), node.ready.clone(), node.status.clone(), node.age.clone()]);
    let mut own: Vec<&Node> = children.get(&node.uid).into_iter().flatten().map(|at| &nodes[*at]).collect();
    own.sort_by(|a, b| a.label.cmp(&b.label));
    for (at, child) in own.iter().enumerate() {
        let (branch, space) = if at + 1 == own.len() { ("└─", "  ") } else { ("├─", "│ ") };
        write(child, &format!("{below}{branch}"), &format!("{below}{space}"), nodes, children, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_show_who_owns_what() {
        let node = |uid: &str| Node { uid: uid.into(), label: uid.into(), ..Node::default() };
        let nodes = vec![node("c"), node("b"), node("d")];
        let children = HashMap::from([("a".to_owned(), vec![0, 1]), ("b".to_owned(), vec![2])]);
        let mut rows = Vec::new();
        write(&node("a"), "", "", &nodes, &children, &mut rows);
        assert_eq!(rows.iter().map(|r| r[0].as_str()).collect::<Vec<_>>(), ["a", "├─b", "│ └─d", "└─c"]);
    }

    #[test]
    fn a_row_is_read_by_its_column_names() {
        let row = serde_json::json!({
            "cells": ["x", 2, 1, "5m"],
            "object": { "metadata": { "name": "x", "uid": "u", "ownerReferences": [{ "uid": "o" }] } },
        });
        let kind = Kind::built_in("apps", "v1", "ReplicaSet", "replicasets", true);
        let (node, owners) = node(&kind, &["Name", "Desired", "Ready", "Age"], &row);
        assert_eq!((node.label.as_str(), node.ready.as_str(), node.age.as_str(), owners), ("replicaset.apps/x", "1/2", "5m", vec!["o".to_owned()]));
    }
}

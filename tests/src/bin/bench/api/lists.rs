//! 20,000 pods: listed whole, in pages, by a selector and as a table, beside a bare HTTPS server that answers as many bytes.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use super::floor::Floor;
use super::{Bench, pace};
use crate::{Row, median};
use tests::client::Connection;

const PODS: usize = 20_000;
const PAGE: usize = 500;
/// Lists of a sort; the median counts.
const ROUNDS: usize = 5;
/// One pod of this many has the label that is selected.
const SHARE: usize = 100;

pub async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let path = bench.namespace("many", "pods").await?;
    let before = bench.resident();
    // No scheduler takes them, so that they stay as they are.
    pace(bench.connections(16).await?, PODS, move |mut connection, i| {
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p{i}","labels":{{"app":"many","share":"{}"}}}},"spec":{{"schedulerName":"none","containers":[{{"name":"a","image":"x","resources":{{"requests":{{"cpu":"100m"}}}}}}]}}}}"#,
            i % SHARE
        );
        let path = path.clone();
        async move {
            connection.call("POST", &path, body.into()).await?;
            Ok(connection)
        }
    })
    .await?;
    let held = bench.resident();
    let (mut ours, floor) = (bench.target.connect().await?, Floor::start(bench)?);
    let mut theirs = floor.target.connect().await?;
    let mut rows = Vec::new();
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (what, query, accept) in [
        ("whole", String::new(), "application/json"),
        ("by a label that one in a hundred has", "?labelSelector=share%3D7".into(), "application/json"),
        ("as a table without objects", "?includeObject=None".into(), table),
    ] {
        rows.push(row(what, (&mut ours, &format!("/api/v1/pods{query}"), accept), &mut theirs).await?);
    }
    let begun = Instant::now();
    let pages = pages(&mut ours).await?;
    rows.push(Row::alone(
        format!("list of {PODS} pods in pages of {PAGE}"),
        format!("{pages} pages in {:.0} ms", begun.elapsed().as_secs_f64() * 1e3),
    ));
    let each = (held - before) as f64 / PODS as f64;
    rows.push(Row::alone(format!("resident, with {PODS} pods"), format!("{} MiB, {each:.1} KiB a pod", held / 1024)));
    Ok(rows)
}

async fn row(what: &str, (ours, path, accept): (&mut Connection, &str, &'static str), theirs: &mut Connection) -> Result<Row> {
    let (mut samples, mut floor, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        bytes = ours.accept(accept).call("GET", path, Bytes::new()).await?.len();
        samples.push(begun.elapsed());
        let begun = Instant::now();
        theirs.call("GET", &format!("/{bytes}"), Bytes::new()).await?;
        floor.push(begun.elapsed());
    }
    let (took, least) = (median(samples).as_secs_f64() * 1e3, median(floor).as_secs_f64() * 1e3);
    let what = format!("list of {PODS} pods {what} ({:.1} MB) beside a bare HTTPS server", bytes as f64 / 1e6);
    Ok(Row::ratio(what, (took, least), "ms"))
}

/// Reads all pages; every pod must come exactly once.
async fn pages(connection: &mut Connection) -> Result<usize> {
    let (mut token, mut pages, mut seen) = (String::new(), 0, std::collections::HashSet::new());
    loop {
        let page = connection.call("GET", &format!("/api/v1/namespaces/many/pods?limit={PAGE}&continue={token}"), Bytes::new()).await?;
        let page: serde_json::Value = serde_json::from_slice(&page)?;
        pages += 1;
        for item in page["items"].as_array().context("no items")? {
            ensure!(seen.insert(item["metadata"]["name"].as_str().unwrap_or_default().to_owned()), "{} came twice", item["metadata"]["name"]);
        }
        match page["metadata"]["continue"].as_str().filter(|next| !next.is_empty()) {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    ensure!(seen.len() == PODS, "{} of {PODS} pods came", seen.len());
    Ok(pages)
}

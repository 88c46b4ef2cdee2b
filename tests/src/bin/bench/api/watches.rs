//! One change seen by many, many changes seen by many with every event verified, and watches that only wait.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Bench, config_map, pace};
use crate::{Row, median};

/// Watches a connection carries.
const SHARED: usize = 100;
/// Longest wait for an event before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(bench: &Bench) -> Result<Vec<Row>> {
    Ok(vec![one_change(bench).await?, many_changes(bench).await?])
}

/// The bodies of `count` watches of a path.
async fn open(bench: &Bench, count: usize, path: &str) -> Result<Vec<Incoming>> {
    let (mut bodies, mut connection) = (Vec::new(), bench.target.connect().await?);
    for i in 0..count {
        if i % SHARED == SHARED - 1 {
            connection = bench.target.connect().await?;
        }
        bodies.push(connection.open("GET", path, Bytes::new()).await?.into_body());
    }
    Ok(bodies)
}

/// One change, 100 watchers: from sending the write to the last watcher's receipt.
async fn one_change(bench: &Bench) -> Result<Row> {
    let path = bench.namespace("fan", "configmaps").await?;
    let mut writer = bench.target.connect().await?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for mut body in open(bench, 100, &format!("{path}?watch=1&fieldSelector=metadata.name!=kube-root-ca.crt")).await? {
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                let events = frame.data_ref().map_or(0, |d| d.iter().filter(|b| **b == b'\n').count());
                for _ in 0..events {
                    let _ = sender.send(());
                }
            }
        });
    }
    let mut samples = Vec::new();
    for i in 0..30 {
        let begun = Instant::now();
        writer.call("POST", &path, config_map(&format!("e{i}"), 300, 0)).await?;
        for _ in 0..100 {
            timeout(PATIENCE, receiver.recv()).await.context("a watcher missed an event")?;
        }
        samples.push(begun.elapsed());
    }
    Ok(Row::alone("one create seen by 100 watchers, from request to the last", format!("{:.1} ms", median(samples).as_secs_f64() * 1e3)))
}

/// 1,000 creates, 1,000 watchers; each must see each once, in the order of their revisions.
async fn many_changes(bench: &Bench) -> Result<Row> {
    const WATCHERS: usize = 1000;
    const EVENTS: usize = 1000;
    let path = bench.namespace("crowd", "configmaps").await?;
    let mut watchers = JoinSet::new();
    for body in open(bench, WATCHERS, &format!("{path}?watch=1&labelSelector=crowd")).await? {
        watchers.spawn(verify(body, EVENTS));
    }
    let begun = Instant::now();
    pace(bench.connections(16).await?, EVENTS, move |mut connection, i| {
        let path = path.clone();
        let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"e{i}","labels":{{"crowd":"{i}"}}}}}}"#);
        async move {
            connection.call("POST", &path, body.into()).await?;
            Ok(connection)
        }
    })
    .await?;
    while let Some(verified) = watchers.join_next().await {
        verified??;
    }
    let deliveries = (WATCHERS * EVENTS) as f64 / begun.elapsed().as_secs_f64();
    Ok(Row::alone(format!("{EVENTS} creates seen by {WATCHERS} watchers, each once and in order"), format!("{deliveries:.0} deliveries/s")))
}

async fn verify(mut body: Incoming, events: usize) -> Result<()> {
    let (mut buffer, mut seen, mut last) = (BytesMut::new(), vec![false; events], 0);
    let mut count = 0;
    while count < events {
        let frame = timeout(PATIENCE, body.frame()).await.with_context(|| format!("{} events were lost", events - count))?;
        buffer.extend_from_slice(frame.context("the watch ended")??.data_ref().map_or(&[], |data| data));
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line = buffer.split_to(end + 1);
            let text = std::str::from_utf8(&line)?;
            let number = |after: &str| -> Option<usize> {
                let rest = text.split_once(after)?.1;
                rest[..rest.find('"')?].parse().ok()
            };
            let (index, revision) = (number("\"crowd\":\"").context("no label")?, number("\"resourceVersion\":\"").context("no revision")?);
            ensure!(!std::mem::replace(&mut seen[index], true), "event {index} came twice");
            ensure!(revision > last, "revision {revision} came after {last}");
            (last, count) = (revision, count + 1);
        }
    }
    Ok(())
}

/// What a watch costs that nothing happens to; of a server that has done nothing yet, whose memory only grows.
pub async fn idle(bench: &Bench) -> Result<Row> {
    const WATCHES: usize = 10_000;
    let before = bench.resident();
    let bodies = open(bench, WATCHES, "/api/v1/namespaces/default/secrets?watch=1").await?;
    let each = (bench.resident() - before) as f64 / bodies.len() as f64;
    Ok(Row::alone(format!("{WATCHES} idle watches"), format!("{each:.1} KiB each")))
}

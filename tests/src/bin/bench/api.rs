//! Writes beside etcd's own, reads, watches and memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use http_body_util::BodyExt;

use crate::{Row, median};
use tests::client::{Connection, Target};

/// Size of a value, in bytes.
const VALUE: usize = 1024;
/// Writes a measurement takes.
const WRITES: usize = 6000;

pub async fn run(data: &Path) -> Result<Vec<Row>> {
    let target = Target::of(data)?;
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("instance.json"))?)?;
    let pid = record["pid"].as_u64().context("no pid")?;
    let mut rows = vec![Row::alone("resident, idle after start", format!("{} MiB", resident(pid)))];
    let port = record["etcdPorts"][0].as_u64().context("no etcd port")?;
    for (i, concurrency) in [1, 16, 64].into_iter().enumerate() {
        // Each side twice, alternating, and the better one: the machine's other business hits both alike.
        let (mut ours, mut theirs) = (0f64, 0f64);
        for round in 0..2 {
            theirs = theirs.max(puts(data, port, concurrency, &format!("{i}-{round}")).await?);
            ours = ours.max(creates(&target, concurrency, &format!("bench-{i}-{round}")).await?);
        }
        rows.push(Row::ratio(format!("creates of {VALUE} bytes beside etcd's puts, {concurrency} in flight"), (ours, theirs), "/s"));
    }
    rows.push(gets(&target).await?);
    rows.extend(list(&target, pid).await?);
    rows.push(fan_out(&target).await?);
    Ok(rows)
}

fn resident(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Calls `work(worker, i)` for every `i` below `total`, one call at a time for each worker, and returns how many a second.
async fn pace<W, F, R>(workers: Vec<W>, total: usize, work: F) -> Result<f64>
where
    W: Send + 'static,
    F: Fn(W, usize) -> R + Clone + Send + 'static,
    R: Future<Output = Result<W>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut worker in workers {
        let (next, work) = (next.clone(), work.clone());
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= total {
                    return anyhow::Ok(());
                }
                worker = work(worker, i).await?;
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    Ok(total as f64 / begun.elapsed().as_secs_f64())
}

/// Connections for `concurrency` workers: at most 8, shared.
async fn connections(target: &Target, concurrency: usize) -> Result<Vec<Connection>> {
    let mut few = Vec::new();
    for _ in 0..concurrency.min(8) {
        few.push(target.connect().await?);
    }
    Ok((0..concurrency).map(|i| few[i % few.len()].clone()).collect())
}

/// Raw puts into the same etcd, beside kserver's keys.
async fn puts(data: &Path, port: u64, concurrency: usize, label: &str) -> Result<f64> {
    let pem = |name: &str| std::fs::read(data.join("pki").join(name)).with_context(|| name.to_owned());
    let mut few = Vec::new();
    for _ in 0..concurrency.min(8) {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(pem("etcd/ca.crt")?))
            .identity(Identity::from_pem(pem("apiserver-etcd-client.crt")?, pem("apiserver-etcd-client.key")?));
        few.push(etcd_client::Client::connect([format!("https://127.0.0.1:{port}")], Some(ConnectOptions::new().with_tls(tls))).await?);
    }
    let workers = (0..concurrency).map(|i| few[i % few.len()].kv_client()).collect();
    let prefix = format!("/bench/{label}/");
    let pace = pace(workers, WRITES / if concurrency == 1 { 4 } else { 1 }, move |mut client, i| {
        let key = format!("{prefix}{i}");
        async move {
            client.put(key, vec![b'x'; VALUE], None).await?;
            Ok(client)
        }
    })
    .await?;
    few[0].delete("/bench/", Some(etcd_client::DeleteOptions::new().with_prefix())).await?;
    Ok(pace)
}

async fn creates(target: &Target, concurrency: usize, namespace: &str) -> Result<f64> {
    let workers = connections(target, concurrency).await?;
    let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{namespace}"}}}}"#);
    workers[0].clone().call("POST", "/api/v1/namespaces", body.into()).await?;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let filler = "x".repeat(VALUE - 300);
    pace(workers, WRITES / if concurrency == 1 { 4 } else { 1 }, move |mut connection, i| {
        let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"c{i}"}},"data":{{"filler":"{filler}"}}}}"#);
        let path = path.clone();
        async move {
            connection.call("POST", &path, body.into()).await?;
            Ok(connection)
        }
    })
    .await
}

async fn gets(target: &Target) -> Result<Row> {
    let workers = connections(target, 16).await?;
    let pace = pace(workers, 40_000, |mut connection, i| async move {
        connection.call("GET", &format!("/api/v1/namespaces/bench-1-0/configmaps/c{}", i % 1000), Bytes::new()).await?;
        Ok(connection)
    })
    .await?;
    Ok(Row::alone("consistent gets, 16 in flight", format!("{pace:.0} /s")))
}

/// 5,000 pods of about 2 KB: one whole list, and the memory they take.
async fn list(target: &Target, pid: u64) -> Result<Vec<Row>> {
    let mut connection = target.connect().await?;
    connection.call("POST", "/api/v1/namespaces", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"many"}}"#.into()).await?;
    // No node has this label, so that they stay as they are.
    let workers = connections(target, 16).await?;
    pace(workers, 5000, |mut connection, i| async move {
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p{i}","labels":{{"app":"many","index":"{i}"}}}},"spec":{{"schedulerName":"none","containers":[{{"name":"a","image":"x","resources":{{"requests":{{"cpu":"100m"}}}}}}]}}}}"#
        );
        connection.call("POST", "/api/v1/namespaces/many/pods", body.into()).await?;
        Ok(connection)
    })
    .await?;
    let mut samples = Vec::new();
    let mut bytes = 0;
    for _ in 0..9 {
        let begun = Instant::now();
        bytes = connection.call("GET", "/api/v1/pods", Bytes::new()).await?.len();
        samples.push(begun.elapsed());
    }
    let took = median(samples).as_secs_f64();
    let size = bytes as f64 / 1e6;
    Ok(vec![
        Row::alone("list of 5,000 pods", format!("{size:.1} MB in {:.0} ms, {:.0} MB/s", took * 1e3, size / took)),
        Row::alone("resident, with those pods", format!("{} MiB", resident(pid))),
    ])
}

/// One change, 100 watchers: from sending the write to the last watcher's receipt.
async fn fan_out(target: &Target) -> Result<Row> {
    let mut writer = target.connect().await?;
    writer.call("POST", "/api/v1/namespaces", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"fan"}}"#.into()).await?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for mut connection in connections(target, 100).await? {
        let sender = sender.clone();
        let mut body = connection.open("GET", "/api/v1/namespaces/fan/configmaps?watch=1&labelSelector=bench", Bytes::new()).await?.into_body();
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
        let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"e{i}","labels":{{"bench":"fan"}}}}}}"#);
        let begun = Instant::now();
        writer.call("POST", "/api/v1/namespaces/fan/configmaps", body.into()).await?;
        for _ in 0..100 {
            tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await.context("a watcher missed an event")?;
        }
        samples.push(begun.elapsed());
    }
    Ok(Row::alone("one create seen by 100 watchers, from request to the last", format!("{:.1} ms", median(samples).as_secs_f64() * 1e3)))
}

//! Creates, updates and deletes beside etcd's own puts, and many writers of one object.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use etcd_client::{Compare, CompareOp, DeleteOptions, Txn, TxnOp, WatchOptions};
use http_body_util::BodyExt;
use serde_json::Value;

use super::{Bench, config_map, pace};
use crate::Row;

/// Size of a value, in bytes.
const VALUE: usize = 1024;
/// Writes of a sort at several in flight; a fourth of them one at a time.
const WRITES: usize = 4000;
/// Writers of one object, and how often each increments it.
const WRITERS: usize = 50;
const INCREMENTS: usize = 20;

pub async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for concurrency in [1, 16, 64] {
        // Each side twice, alternating, and the better one: the machine's other business hits both alike.
        let (mut puts, mut watched, mut best) = (0f64, 0f64, [0f64; 3]);
        for round in 0..2 {
            puts = puts.max(etcd_puts(bench, concurrency).await?);
            watched = watched.max(etcd_watched_creates(bench, concurrency).await?);
            for (best, one) in best.iter_mut().zip(lives(bench, concurrency, &format!("writes-{concurrency}-{round}")).await?) {
                *best = best.max(one);
            }
        }
        for (verb, pace) in ["creates", "updates", "deletes"].into_iter().zip(best) {
            rows.push(Row::ratio(format!("{verb} of {VALUE} bytes beside etcd's puts, {concurrency} in flight"), (pace, puts), "/s"));
        }
        let what = format!("creates beside etcd's conditional ones that a watch follows, {concurrency} in flight");
        rows.push(Row::ratio(what, (best[0], watched), "/s"));
    }
    rows.push(contention(bench).await?);
    Ok(rows)
}

fn total(concurrency: usize) -> usize {
    WRITES / if concurrency == 1 { 4 } else { 1 }
}

/// Raw puts into the same etcd, beside kserver's keys.
async fn etcd_puts(bench: &Bench, concurrency: usize) -> Result<f64> {
    let clients = bench.etcd(concurrency).await?;
    let mut first = clients[0].clone();
    let pace = pace(clients, total(concurrency), |mut client, i| async move {
        client.put(format!("/bench/{i}"), vec![b'x'; VALUE], None).await?;
        Ok(client)
    })
    .await?;
    first.delete("/bench/", Some(DeleteOptions::new().with_prefix())).await?;
    Ok(pace)
}

/// What an API server must ask of etcd at least: puts on condition that the key is new, each seen by one watch.
async fn etcd_watched_creates(bench: &Bench, concurrency: usize) -> Result<f64> {
    let clients = bench.etcd(concurrency).await?;
    let mut watcher = bench.etcd_client().await?;
    let mut watch = watcher.watch("/bench/", Some(WatchOptions::new().with_prefix())).await?;
    let total = total(concurrency);
    let seen = tokio::spawn(async move {
        let mut left = total;
        while left > 0 {
            let response = watch.message().await?.context("the watch ended")?;
            left -= response.events().len().min(left);
        }
        anyhow::Ok(())
    });
    let mut first = clients[0].clone();
    let pace = pace(clients, total, |mut client, i| async move {
        let key = format!("/bench/{i}");
        let create = Txn::new()
            .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), vec![b'x'; VALUE], None)])
            .or_else([TxnOp::get(key.as_str(), None)]);
        ensure!(client.txn(create).await?.succeeded(), "{key} is there already");
        Ok(client)
    })
    .await?;
    seen.await??;
    first.delete("/bench/", Some(DeleteOptions::new().with_prefix())).await?;
    Ok(pace)
}

/// Creates, updates and deletes the same objects; a pace for each.
async fn lives(bench: &Bench, concurrency: usize, namespace: &str) -> Result<[f64; 3]> {
    let path = bench.namespace(namespace, "configmaps").await?;
    let mut paces = [0.0; 3];
    for (verb, measured) in ["POST", "PUT", "DELETE"].into_iter().zip(&mut paces) {
        let path = path.clone();
        *measured = pace(bench.connections(concurrency).await?, total(concurrency), move |mut connection, i| {
            let one = format!("{path}/c{i}");
            let (path, body) = match verb {
                "POST" => (path.clone(), config_map(&format!("c{i}"), VALUE, 0)),
                "PUT" => (one, config_map(&format!("c{i}"), VALUE, 1)),
                _ => (one, Bytes::new()),
            };
            async move {
                connection.call(verb, &path, body).await?;
                Ok(connection)
            }
        })
        .await?;
    }
    Ok(paces)
}

/// Many increment one counter: read, add one, write on condition that nobody else has.
async fn contention(bench: &Bench) -> Result<Row> {
    let path = bench.namespace("contended", "configmaps").await?;
    let mut first = bench.target.connect().await?;
    first.call("POST", &path, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"counter"},"data":{"count":"0"}}"#.into()).await?;
    let counter = Arc::new(format!("{path}/counter"));
    let conflicts = Arc::new(AtomicUsize::new(0));
    let count = |object: &Value| object["data"]["count"].as_str().and_then(|c| c.parse::<usize>().ok()).context("no count");
    let pace = {
        let (counter, conflicts) = (counter.clone(), conflicts.clone());
        pace(bench.connections(WRITERS).await?, WRITERS * INCREMENTS, move |mut connection, _| {
            let (counter, conflicts) = (counter.clone(), conflicts.clone());
            async move {
                loop {
                    let mut object: Value = serde_json::from_slice(&connection.call("GET", &counter, Bytes::new()).await?)?;
                    object["data"]["count"] = (count(&object)? + 1).to_string().into();
                    let response = connection.send("PUT", &counter, object.to_string().into()).await?;
                    let status = response.status();
                    response.into_body().collect().await?;
                    match status.as_u16() {
                        200 => return Ok(connection),
                        409 => conflicts.fetch_add(1, Ordering::Relaxed),
                        _ => anyhow::bail!("an increment was answered {status}"),
                    };
                }
            }
        })
        .await?
    };
    let end = count(&serde_json::from_slice(&first.call("GET", &counter, Bytes::new()).await?)?)?;
    ensure!(end == WRITERS * INCREMENTS, "{} of {} increments were lost", WRITERS * INCREMENTS - end, WRITERS * INCREMENTS);
    let text = format!("{pace:.0} /s, {} conflicts, 0 lost", conflicts.load(Ordering::Relaxed));
    Ok(Row::alone(format!("{WRITERS} writers increment one object {INCREMENTS} times each"), text))
}

//! Consistent gets beside a bare HTTPS server that answers as many bytes.

use anyhow::Result;
use bytes::Bytes;

use super::floor::Floor;
use super::{Bench, config_map, connections, pace};
use crate::Row;
use tests::client::Target;

const OBJECTS: usize = 1000;
const VALUE: usize = 1024;
const GETS: usize = 40_000;

pub async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let path = bench.namespace("gets", "configmaps").await?;
    let create = path.clone();
    pace(bench.connections(16).await?, OBJECTS, move |mut connection, i| {
        let path = create.clone();
        async move {
            connection.call("POST", &path, config_map(&format!("c{i}"), VALUE, 0)).await?;
            Ok(connection)
        }
    })
    .await?;
    let length = bench.target.connect().await?.call("GET", &format!("{path}/c0"), Bytes::new()).await?.len();
    let floor = Floor::start(bench)?;
    let mut rows = Vec::new();
    for concurrency in [1, 16, 64] {
        let total = GETS / if concurrency == 1 { 8 } else { 1 };
        let theirs = many(&floor.target, concurrency, total, move |_| format!("/{length}")).await?;
        let reads = etcd_reads(bench, concurrency, total).await?;
        let path = path.clone();
        let ours = many(&bench.target, concurrency, total, move |i| format!("{path}/c{}", i % OBJECTS)).await?;
        rows.push(Row::ratio(format!("consistent gets beside a bare HTTPS server, {concurrency} in flight"), (ours, theirs), "/s"));
        rows.push(Row::ratio(format!("the same beside etcd's own linearizable reads, {concurrency} in flight"), (ours, reads), "/s"));
    }
    Ok(rows)
}

async fn many(target: &Target, concurrency: usize, total: usize, path: impl Fn(usize) -> String + Clone + Send + 'static) -> Result<f64> {
    pace(connections(target, concurrency).await?, total, move |mut connection, i| {
        let path = path(i);
        async move {
            connection.call("GET", &path, Bytes::new()).await?;
            Ok(connection)
        }
    })
    .await
}

/// Linearizable reads of a key that does not exist: the least that a consistent read costs etcd.
async fn etcd_reads(bench: &Bench, concurrency: usize, total: usize) -> Result<f64> {
    pace(bench.etcd(concurrency).await?, total, |mut client, _| async move {
        client.get("/bench/none", None).await?;
        Ok(client)
    })
    .await
}

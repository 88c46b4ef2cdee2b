//! The API's figures: each section a file, each row measured against a cluster that is the section's alone to load.
//!
//! Owns how load is paced and what a section may use.

mod floor;
mod gets;
mod lists;
mod watches;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, KvClient, TlsOptions};

use crate::Row;
pub use floor::serve as serve_floor;
use tests::client::{Connection, Target};

/// The sections, in the order they are measured: the later ones leave much behind.
pub const SECTIONS: [&str; 5] = ["memory", "writes", "gets", "watches", "lists"];

/// A running cluster to measure.
pub struct Bench {
    target: Target,
    data: PathBuf,
    pid: u64,
    etcd_port: u64,
}

/// Measures the sections that are asked for.
pub async fn run(data: &Path, sections: &[&str]) -> Result<Vec<Row>> {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("instance.json"))?)?;
    let bench = Bench {
        target: Target::of(data)?,
        data: data.to_owned(),
        pid: record["pid"].as_u64().context("no pid")?,
        etcd_port: record["etcdPorts"][0].as_u64().context("no etcd port")?,
    };
    let mut rows = Vec::new();
    for section in SECTIONS.into_iter().filter(|s| sections.contains(s)) {
        eprintln!("bench: {section}");
        match section {
            "memory" => {
                rows.push(Row::alone("resident, idle after start", format!("{} MiB", bench.resident() / 1024)));
                rows.push(watches::idle(&bench).await?);
            }
            "writes" => rows.extend(writes::run(&bench).await?),
            "gets" => rows.extend(gets::run(&bench).await?),
            "watches" => rows.extend(watches::run(&bench).await?),
            _ => rows.extend(lists::run(&bench).await?),
        }
    }
    Ok(rows)
}

impl Bench {
    /// Memory of kserver, in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// Makes a namespace and returns the path of a resource in it.
    async fn namespace(&self, name: &str, resource: &str) -> Result<String> {
        let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
        self.target.connect().await?.call("POST", "/api/v1/namespaces", body.into()).await?;
        Ok(format!("/api/v1/namespaces/{name}/{resource}"))
    }

    /// etcd's own client.
    async fn etcd_client(&self) -> Result<Client> {
        let pem = |name: &str| std::fs::read(self.data.join("pki").join(name)).with_context(|| name.to_owned());
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(pem("etcd/ca.crt")?))
            .identity(Identity::from_pem(pem("apiserver-etcd-client.crt")?, pem("apiserver-etcd-client.key")?));
        let options = ConnectOptions::new().with_tls(tls);
        Ok(Client::connect([format!("https://127.0.0.1:{}", self.etcd_port)], Some(options)).await?)
    }

    /// etcd's own clients for `concurrency` workers: at most 8 connections, shared.
    async fn etcd(&self, concurrency: usize) -> Result<Vec<KvClient>> {
        let mut few = Vec::new();
        for _ in 0..concurrency.min(8) {
            few.push(self.etcd_client().await?.kv_client());
        }
        Ok((0..concurrency).map(|i| few[i % few.len()].clone()).collect())
    }

    /// Connections for `concurrency` workers: at most 8, shared.
    async fn connections(&self, concurrency: usize) -> Result<Vec<Connection>> {
        connections(&self.target, concurrency).await
    }
}

async fn connections(target: &Target, concurrency: usize) -> Result<Vec<Connection>> {
    let mut few = Vec::new();
    for _ in 0..concurrency.min(8) {
        few.push(target.connect().await?);
    }
    Ok((0..concurrency).map(|i| few[i % few.len()].clone()).collect())
}

/// A config map whose JSON is about `size` bytes.
fn config_map(name: &str, size: usize, round: usize) -> Bytes {
    let filler = "x".repeat(size.saturating_sub(300));
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"filler":"{filler}","round":"{round}"}}}}"#).into()
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

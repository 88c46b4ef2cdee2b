//! What the API promises about writes, lists and watches, kept while kserver and etcd are killed under load.
//!
//! Owns the load and the killing; what must hold of the record is `check`'s.

mod check;
mod load;
mod observe;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use serde_json::json;
use tests::client::{Connection, Target};
use tests::wait::eventually_async;
use tests::{Cluster, Start, eventually_within};

use crate::Own;
use crate::crash::{child, kill, wait_until_gone};

pub const TESTS: &[Own] = &[("promises::writes_lists_and_watches_hold_through_kills", hold_through_kills)];

const NAMESPACE: &str = "/api/v1/namespaces/default/configmaps";
/// Answered writes between two kills.
const BETWEEN_KILLS: usize = 250;
const KILLS: usize = 6;

/// One object of the load, as some answer or event showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    revision: i64,
    uid: String,
    /// The label that watchers select by.
    side: String,
    /// The number in its data.
    count: i64,
    /// Whether it is marked as the last write of all.
    last: bool,
}

/// What the server said it has done.
#[derive(Clone, Debug)]
enum Done {
    Wrote(String, Item),
    Deleted { uid: String },
}

/// What everybody has seen, for the end.
#[derive(Default)]
struct Record {
    done: Mutex<Vec<Done>>,
    answered: AtomicUsize,
    /// Increments of the shared counter that were answered, and those whose outcome is not known.
    increments: AtomicUsize,
    unknown: AtomicUsize,
    /// Lists read in pages: their revision, and name and revision of each object.
    lists: Mutex<Vec<(i64, Vec<(String, i64)>)>>,
    watches: Mutex<Vec<observe::Log>>,
    stop: AtomicBool,
}

impl Record {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    fn answered(&self, done: Done) {
        self.done.lock().push(done);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client that connects again whenever its connection is gone.
struct Client {
    target: Target,
    connection: Option<Connection>,
}

impl Client {
    fn new(target: &Target) -> Self {
        Client { target: target.clone(), connection: None }
    }
    /// The status and body of an answer; an error leaves open what has become of the request.
    async fn call(&mut self, method: &str, path: &str, body: &serde_json::Value) -> Result<(u16, serde_json::Value)> {
        let answer = tokio::time::timeout(Duration::from_secs(30), self.attempt(method, path, body)).await;
        let answer = answer.map_err(anyhow::Error::from).and_then(|a| a);
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }
    async fn attempt(&mut self, method: &str, path: &str, body: &serde_json::Value) -> Result<(u16, serde_json::Value)> {
        let response = self.open(method, path, body).await?;
        let status = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes)?))
    }
    async fn open(&mut self, method: &str, path: &str, body: &serde_json::Value) -> Result<http::Response<hyper::body::Incoming>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(eventually_async("the server listens again", || self.target.connect()).await),
        };
        let body = if body.is_null() { bytes::Bytes::new() } else { body.to_string().into() };
        let response = connection.send(method, path, body).await;
        if response.is_err() {
            self.connection = None;
        }
        response
    }
}

fn hold_through_kills() {
    let c = Cluster::new(Start { simulated_nodes: Some(1), ..Start::default() });
    let record = Arc::new(Record::default());
    let target = Target::of(&c.data_dir()).expect("a running cluster has a kubeconfig");
    let load = {
        let (record, target, enter) = (record.clone(), target.clone(), c.machine.entrance());
        std::thread::spawn(move || {
            enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(target, record));
        })
    };
    for round in 1..=KILLS {
        eventually_within(Duration::from_secs(120), "the load goes on", || {
            let answered = record.answered.load(Ordering::Relaxed);
            if answered >= round * BETWEEN_KILLS { Ok(()) } else { Err(format!("{answered} answers after {} kills", round - 1)) }
        });
        let (server, etcd) = (c.pid(), child(&c, "etcd"));
        if round % 2 == 0 {
            kill(server);
            wait_until_gone(server);
            c.up().ok();
        } else {
            kill(etcd.expect("etcd is a child of kserver"));
        }
    }
    let aim = record.answered.load(Ordering::Relaxed) + BETWEEN_KILLS;
    eventually_within(Duration::from_secs(120), "the load goes on after the last kill", || {
        let answered = record.answered.load(Ordering::Relaxed);
        if answered >= aim { Ok(()) } else { Err(format!("{answered} of {aim} answers")) }
    });
    record.stop.store(true, Ordering::Relaxed);
    load.join().expect("the load ends by itself");
    let listed: serde_json::Value = serde_json::from_str(&c.kctl("get configmaps -o json").ok()).expect("JSON");
    check::all(&record, &listed);
}

/// Runs the load until it is told to stop, then lets the watchers catch up.
async fn run(target: Target, record: Arc<Record>) {
    let mut setup = Client::new(&target);
    let counter = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "counter"}, "data": {"count": "0"}});
    let (status, _) = setup.call("POST", NAMESPACE, &counter).await.expect("the cluster answers");
    assert_eq!(status, 201);
    let mut watchers = tokio::task::JoinSet::new();
    for query in ["", "", "labelSelector=side%3Da", "labelSelector=side%21%3Da", "fieldSelector=metadata.name%3Dcounter"] {
        watchers.spawn(observe::watch(Client::new(&target), query));
    }
    let mut load = tokio::task::JoinSet::new();
    for worker in 0..6 {
        load.spawn(load::objects(Client::new(&target), worker, record.clone()));
    }
    for _ in 0..4 {
        load.spawn(load::counter(Client::new(&target), record.clone()));
    }
    load.spawn(observe::pages(Client::new(&target), record.clone()));
    while let Some(ended) = load.join_next().await {
        ended.expect("no part of the load fails");
    }
    load::farewell(&mut setup).await;
    while let Some(ended) = watchers.join_next().await {
        record.watches.lock().push(ended.expect("no watcher fails"));
    }
}

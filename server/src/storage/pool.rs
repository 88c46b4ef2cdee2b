//! Several HTTP/2 connections to each etcd member, one preferred member at a time.
//!
//! Calls go round robin over a few, so that a long answer does not hold up all others. A member that fails a call stops being preferred;
//! connections heal by themselves, at their next call.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KvClient};
use rand::Rng;
use tokio::time::Instant;

use super::channel::{Target, channel};
use super::{Config, StorageError};

/// Nothing etcd sends is refused for its size: lists are read in pages, and one value may take 1.5 MiB.
pub(super) const MAX_MESSAGE: usize = 256 << 20;
/// How long one attempt may take before another member is tried.
const ATTEMPT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

struct Member {
    url: String,
    clients: Vec<(Client, KvClient)>,
    /// A connection of its own, with `require_leader`, so that bursts of events and of calls do not hold each other up.
    watch: Client,
}

pub(super) struct Pool {
    members: Vec<Member>,
    preferred: AtomicUsize,
    next: AtomicUsize,
}

impl Pool {
    pub(super) async fn new(config: &Config) -> Result<Self, StorageError> {
        if config.endpoints.is_empty() {
            return Err(StorageError::Other("no endpoints given".into()));
        }
        let mut members = Vec::new();
        for url in &config.endpoints {
            let target = Target::new(url, config.tls.as_ref()).map_err(|why| StorageError::Other(format!("endpoint {url}: {why}")))?;
            let mut clients = Vec::new();
            for _ in 0..config.connections.max(1) {
                let client = Client::from_channel(channel(&target), None).await?;
                let kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                clients.push((client, kv));
            }
            let options = ConnectOptions::new().with_require_leader(true);
            let watch = Client::from_channel(channel(&target), Some(options)).await?;
            members.push(Member { url: url.clone(), clients, watch });
        }
        Ok(Pool { members, preferred: AtomicUsize::new(0), next: AtomicUsize::new(0) })
    }

    /// The member that calls go to now.
    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed) % self.members.len()
    }

    /// Prefers another member than the one that just failed; the first of several concurrent failures counts.
    pub(super) fn failed(&self, member: usize) {
        if self.members.len() > 1 {
            let next = (member + 1) % self.members.len();
            if self.preferred.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                tracing::warn!(from = %self.members[member].url, to = %self.members[next].url, "etcd member failed, using another");
            }
        }
    }

    /// A client for anything but key-value calls.
    pub(super) fn client(&self) -> Client {
        let member = &self.members[self.preferred()];
        member.clients[self.next.fetch_add(1, Ordering::Relaxed) % member.clients.len()].0.clone()
    }

    /// The client of a member's watch connection.
    pub(super) fn watch_client(&self, member: usize) -> Client {
        self.members[member].watch.clone()
    }

    /// Every member with a client, for what is asked of each one.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, Client)> {
        self.members.iter().map(|m| (m.url.as_str(), m.clients[0].0.clone()))
    }

    /// Makes a key-value call, again on another member or later when it fails for want of a connection, until the deadline.
    pub(super) fn retry<'a, T, F, A>(&'a self, deadline: Instant, call: A) -> Retry<'a, A>
    where
        A: Fn(KvClient) -> F,
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        Retry { pool: self, deadline, call, unsure: None }
    }
}

/// A call that is repeated until it is answered or its deadline has passed.
pub(super) struct Retry<'a, A> {
    pool: &'a Pool,
    deadline: Instant,
    call: A,
    unsure: Option<&'a mut bool>,
}

impl<'a, A> Retry<'a, A> {
    /// Sets the flag when an attempt has failed in a way that leaves open whether it was carried out.
    pub(super) fn uncertain(mut self, flag: &'a mut bool) -> Self {
        self.unsure = Some(flag);
        self
    }

    async fn run<T, F>(mut self) -> Result<T, StorageError>
    where
        A: Fn(KvClient) -> F,
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut unsure = false;
        let mut pause = FIRST_PAUSE;
        loop {
            let member = self.pool.preferred();
            let clients = &self.pool.members[member].clients;
            let kv = clients[self.pool.next.fetch_add(1, Ordering::Relaxed) % clients.len()].1.clone();
            let until = self.deadline.min(Instant::now() + ATTEMPT);
            let error = match tokio::time::timeout_at(until, (self.call)(kv)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => StorageError::from(error),
                Err(_) => StorageError::Unknown("the call timed out".into()),
            };
            if !error.is_transient() {
                return Err(error);
            }
            if matches!(error, StorageError::Unknown(_)) {
                unsure = true;
                if let Some(flag) = &mut self.unsure {
                    **flag = true;
                }
            }
            self.pool.failed(member);
            let wait = rand::rng().random_range(pause / 2..=pause);
            if Instant::now() + wait >= self.deadline {
                return Err(match error {
                    StorageError::Unavailable(why) if unsure => StorageError::Unknown(why),
                    error => error,
                });
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl<'a, A, T, F> IntoFuture for Retry<'a, A>
where
    A: Fn(KvClient) -> F + Send + Sync + 'a,
    F: Future<Output = Result<T, etcd_client::Error>> + Send + 'a,
    T: Send + 'a,
{
    type Output = Result<T, StorageError>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

//! Leader election over a Lease, with client-go's semantics (`client-go/tools/leaderelection`): 15 s lease, 10 s to renew, 2 s between
//! tries. A holder that comes back under its own identity goes on at once.
//!
//! Owns the lease and the fence: a client guarded by it refuses to write once the lease may have passed to somebody else, so a
//! process that was frozen past its lease cannot act before it notices.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::tasks::Tasks;

const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A campaign for one lease.
#[derive(Clone)]
pub struct Election {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    observed: Arc<Mutex<Observed>>,
}

enum Try {
    /// Ours, counted from the moment the request was sent.
    Held(Instant),
    Taken,
    Failed,
}

/// The record last seen and since when: other clocks are not trusted, only how long a record stays unchanged here.
#[derive(Default)]
struct Observed(Option<(LeaseSpec, Instant)>);

impl Observed {
    /// What to write to get or keep the lease; `None` while somebody else holds it.
    fn claim(&mut self, current: Option<&LeaseSpec>, identity: &str, now: Instant, stamp: Timestamp) -> Option<LeaseSpec> {
        let Some(current) = current else { return Some(record(identity, stamp, stamp, 0)) };
        let since = match &self.0 {
            Some((seen, at)) if seen == current => *at,
            _ => {
                self.0 = Some((current.clone(), now));
                now
            }
        };
        let holder = current.holder_identity.as_deref().unwrap_or_default();
        let transitions = current.lease_transitions.unwrap_or_default();
        if holder == identity {
            let acquired = current.acquire_time.as_ref().map_or(stamp, |t| t.0);
            return Some(record(identity, acquired, stamp, transitions));
        }
        let lasts = Duration::from_secs(u64::try_from(current.lease_duration_seconds.unwrap_or_default()).unwrap_or_default());
        if !holder.is_empty() && now.saturating_duration_since(since) < lasts {
            return None;
        }
        Some(record(identity, stamp, stamp, transitions + 1))
    }
}

fn record(identity: &str, acquired: Timestamp, renewed: Timestamp, transitions: i32) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(LEASE_DURATION.as_secs() as i32),
        acquire_time: Some(MicroTime(acquired)),
        renew_time: Some(MicroTime(renewed)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

impl Election {
    /// A campaign under `identity`, which must be unlike that of any other process that may run at the same time, and the same
    /// after a restart, so that a restarted leader leads again at once.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Election { api, namespace: namespace.into(), name: name.into(), identity: identity.into(), observed: Arc::default() }
    }

    /// Waits until the lease is ours: at once if it is free, expired or still under this identity.
    pub async fn acquire(&self) -> Leadership {
        loop {
            if let Try::Held(since) = self.attempt().await {
                return Leadership { election: self.clone(), fence: Fence::until(since + LEASE_DURATION) };
            }
            // An even rhythm makes candidates collide; a little disorder parts them.
            tokio::time::sleep(RETRY_PERIOD.mul_f64(1.0 + rand::random::<f64>() * 0.2)).await;
        }
    }

    /// Leads whenever the lease is held, until `tasks` is stopped; then the lease is given back. `lead` gets a group of its own,
    /// which is stopped, and its future dropped, when the lease is lost, and the fence for its clients.
    pub async fn lead<Work: Future<Output = ()>>(self, tasks: &Tasks, lead: impl Fn(Tasks, Fence) -> Work) {
        let lease = format!("{}/{}", self.namespace, self.name);
        loop {
            let leadership = tokio::select! {
                biased;
                () = tasks.token().cancelled() => return,
                leadership = self.acquire() => leadership,
            };
            tracing::info!(%lease, identity = %self.identity, "acquired lease");
            let term = tasks.child();
            let work = async {
                lead(term.clone(), leadership.fence()).await;
                std::future::pending::<()>().await;
            };
            let stopped = tokio::select! {
                biased;
                () = tasks.token().cancelled() => true,
                () = leadership.lost() => false,
                () = work => false,
            };
            term.cancel();
            if stopped {
                return leadership.release().await;
            }
            tracing::error!(%lease, "lost lease");
        }
    }

    async fn attempt(&self) -> Try {
        let sent = Instant::now();
        match tokio::time::timeout(RENEW_DEADLINE / 2, self.try_once(sent)).await {
            Ok(Ok(true)) => Try::Held(sent),
            Ok(Ok(false)) => Try::Taken,
            Ok(Err(error)) => {
                tracing::debug!(%error, lease = %self.name, "lease not updated");
                Try::Failed
            }
            Err(_) => Try::Failed,
        }
    }

    async fn try_once(&self, now: Instant) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(&self.name).await?;
        let current = found.as_ref().and_then(|l| l.spec.as_ref());
        let Some(spec) = self.observed.lock().claim(current, &self.identity, now, Timestamp::now()) else { return Ok(false) };
        match found {
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), namespace: Some(self.namespace.clone()), ..ObjectMeta::default() };
                self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await?;
            }
            // With the resourceVersion that was read: of two candidates one is refused.
            Some(lease) => drop(self.api.replace(&self.name, &PostParams::default(), &Lease { spec: Some(spec), ..lease }).await?),
        }
        Ok(true)
    }
}

/// The lease is held.
pub struct Leadership {
    election: Election,
    fence: Fence,
}

impl Leadership {
    /// Guards clients for as long as the lease is held.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Renews the lease until that fails; then nothing may be written any more.
    pub async fn lost(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY_PERIOD).await;
            match self.election.attempt().await {
                Try::Held(since) => {
                    renewed = since;
                    self.fence.extend(since + LEASE_DURATION);
                }
                Try::Taken => return self.fence.close(),
                Try::Failed if renewed.elapsed() > RENEW_DEADLINE => return self.fence.close(),
                Try::Failed => {}
            }
        }
    }

    /// Gives the lease back, so that the next holder need not wait for it to expire.
    pub async fn release(self) {
        self.fence.close();
        let release = async {
            let mut lease = self.election.api.get(&self.election.name).await?;
            let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(&self.election.identity)) else {
                return Ok(());
            };
            let now = MicroTime(Timestamp::now());
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(now.clone());
            spec.acquire_time = Some(now);
            self.election.api.replace(&self.election.name, &PostParams::default(), &lease).await.map(|_| ())
        };
        match tokio::time::timeout(RETRY_PERIOD, release).await {
            Ok(Err(error)) => tracing::debug!(%error, "lease not released"),
            Err(_) => tracing::debug!("lease not released in time"),
            Ok(Ok(())) => {}
        }
    }
}

/// Until when writes are allowed. Clones share it.
#[derive(Clone)]
pub struct Fence(Arc<Mutex<Instant>>);

impl Fence {
    fn until(at: Instant) -> Self {
        Fence(Arc::new(Mutex::new(at)))
    }
    fn extend(&self, at: Instant) {
        *self.0.lock() = at;
    }
    fn close(&self) {
        *self.0.lock() = Instant::now();
    }
    fn is_open(&self) -> bool {
        Instant::now() < *self.0.lock()
    }

    /// A client whose writes fail once the lease is no longer surely held.
    pub fn guard(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        Client::new(Guarded { client, fence: self.clone() }, namespace)
    }
}

/// A write was refused because the lease is gone.
#[derive(Debug, thiserror::Error)]
#[error("the leader lease is no longer held")]
struct LeaseLost;

struct Guarded {
    client: Client,
    fence: Fence,
}

impl tower::Service<http::Request<Body>> for Guarded {
    type Response = http::Response<Body>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.method() != http::Method::GET && !self.fence.is_open() {
            return Box::pin(async { Err(LeaseLost.into()) });
        }
        let client = self.client.clone();
        Box::pin(async move { client.send(request).await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, renewed: Timestamp) -> LeaseSpec {
        record(by, renewed, renewed, 3)
    }

    #[test]
    fn a_free_lease_is_taken_and_an_own_one_is_kept_at_once() {
        let (now, stamp) = (Instant::now(), Timestamp::now());
        let fresh = Observed::default().claim(None, "me", now, stamp).unwrap();
        assert_eq!((fresh.holder_identity.as_deref(), fresh.lease_transitions), (Some("me"), Some(0)));
        let own = Observed::default().claim(Some(&held("me", Timestamp::UNIX_EPOCH)), "me", now, stamp).unwrap();
        assert_eq!((own.lease_transitions, own.acquire_time), (Some(3), Some(MicroTime(Timestamp::UNIX_EPOCH))));
        let released = Observed::default().claim(Some(&held("", stamp)), "me", now, stamp).unwrap();
        assert_eq!(released.lease_transitions, Some(4));
    }

    #[test]
    fn another_holder_is_waited_for_until_it_has_been_silent_for_its_whole_lease_by_our_clock() {
        let (now, stamp) = (Instant::now(), Timestamp::now());
        let mut observed = Observed::default();
        // Its clock is far behind; that does not matter.
        let lease = held("other", Timestamp::UNIX_EPOCH);
        assert!(observed.claim(Some(&lease), "me", now, stamp).is_none());
        assert!(observed.claim(Some(&lease), "me", now + LEASE_DURATION - Duration::from_millis(1), stamp).is_none());
        let renewed = held("other", stamp);
        assert!(observed.claim(Some(&renewed), "me", now + LEASE_DURATION, stamp).is_none());
        assert_eq!(observed.claim(Some(&renewed), "me", now + LEASE_DURATION * 2, stamp).unwrap().lease_transitions, Some(4));
    }
}

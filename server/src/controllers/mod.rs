//! The controllers of kube-controller-manager: each watches through shared informers and writes through the public API.
//!
//! Owns the list of controllers, their identities, and the lease that lets only one process act. Must know nothing but the API.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;

use crate::events::Recorder;
use crate::informers::{Change, Informer, Informers, Watchable};
use crate::leader;
use crate::tasks::Tasks;

pub mod certificates;
pub mod clusterrole_aggregation;
pub mod control;
pub mod cronjob;
pub mod csr_signing;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod ephemeral_volume;
pub mod error;
pub mod expectations;
#[cfg(test)]
pub mod fake_api;
pub mod garbage;
pub mod history;
pub mod job;
pub mod metadata;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod persistent_volume;
pub mod placement;
pub mod pod_gc;
pub mod podautoscaler;
pub mod pods;
pub mod protection;
pub mod queue;
pub mod replicaset;
pub mod replication;
pub mod resource_quota;
pub mod root_ca;
pub mod scale;
pub mod service_account;
pub mod statefulset;
pub mod taint_eviction;
#[cfg(test)]
mod tests;
pub mod ttl_after_finished;
pub mod validatingadmissionpolicy_status;

pub use error::Error;
use queue::{Key, Queue};

/// One controller: its upstream name, the service account it acts as, the `source` of its events, and what starts it.
pub struct Descriptor {
    /// As `kube-controller-manager --controllers` calls it.
    pub name: &'static str,
    /// The service account in `kube-system` whose default RBAC role it holds.
    pub service_account: &'static str,
    /// `source.component` of its events.
    pub component: &'static str,
    /// Spawns its tasks and returns at once.
    pub start: fn(Context),
}

const fn descriptor(name: &'static str, service_account: &'static str, component: &'static str, start: fn(Context)) -> Descriptor {
    Descriptor { name, service_account, component, start }
}

/// Every controller there is.
pub const CONTROLLERS: &[Descriptor] = &[
    descriptor("certificatesigningrequest-approving-controller", "certificate-controller", "certificate-controller", certificates::approver::start),
    descriptor("certificatesigningrequest-cleaner-controller", "certificate-controller", "certificate-controller", certificates::cleaner::start),
    descriptor("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", "clusterrole-aggregation", clusterrole_aggregation::start),
    descriptor("cronjob-controller", "cronjob-controller", "cronjob-controller", cronjob::start),
    descriptor("certificatesigningrequest-signing-controller", "certificate-controller", "csr-signing", csr_signing::start),
    descriptor("daemonset-controller", "daemon-set-controller", "daemonset-controller", daemonset::start),
    descriptor("deployment-controller", "deployment-controller", "deployment-controller", deployment::start),
    descriptor("disruption-controller", "disruption-controller", "controllermanager", disruption::start),
    descriptor("endpoints-controller", "endpoint-controller", "endpoint-controller", endpoints::start),
    descriptor("endpointslice-controller", "endpointslice-controller", "endpoint-slice-controller", endpointslice::start),
    descriptor(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring-controller",
        "endpoint-slice-mirroring-controller",
        endpointslice::mirroring::start,
    ),
    descriptor("ephemeral-volume-controller", "ephemeral-volume-controller", "ephemeral_volume", ephemeral_volume::start),
    descriptor("garbage-collector-controller", "generic-garbage-collector", "garbage-collector-controller", garbage::start),
    descriptor("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", "horizontal-pod-autoscaler", podautoscaler::start),
    descriptor("job-controller", "job-controller", "job-controller", job::start),
    descriptor("namespace-controller", "namespace-controller", "namespace-controller", namespace::start),
    descriptor("node-ipam-controller", "node-controller", "cidrAllocator", node_ipam::start),
    descriptor("node-lifecycle-controller", "node-controller", "node-controller", node_lifecycle::start),
    descriptor("persistentvolume-binder-controller", "persistent-volume-binder", "persistentvolume-controller", persistent_volume::start),
    descriptor("persistentvolume-protection-controller", "pv-protection-controller", "pv-protection-controller", protection::volume::start),
    descriptor("persistentvolumeclaim-protection-controller", "pvc-protection-controller", "pvc-protection-controller", protection::claim::start),
    descriptor("pod-garbage-collector-controller", "pod-garbage-collector", "pod-garbage-collector", pod_gc::start),
    descriptor("replicaset-controller", "replicaset-controller", "replicaset-controller", replicaset::start),
    descriptor("replicationcontroller-controller", "replication-controller", "replication-controller", replication::start),
    descriptor("resourcequota-controller", "resourcequota-controller", "resourcequota-controller", resource_quota::start),
    descriptor("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", "root-ca-cert-publisher", root_ca::start),
    descriptor("serviceaccount-controller", "service-account-controller", "service-account-controller", service_account::start),
    descriptor("statefulset-controller", "statefulset-controller", "statefulset-controller", statefulset::start),
    descriptor("taint-eviction-controller", "node-controller", "taint-eviction-controller", taint_eviction::start),
    descriptor("ttl-after-finished-controller", "ttl-after-finished-controller", "ttl-after-finished-controller", ttl_after_finished::start),
    descriptor(
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
        validatingadmissionpolicy_status::start,
    ),
    descriptor(
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        protection::class::start,
    ),
];

/// What the controllers of a process are told.
#[derive(Clone, Debug)]
pub struct Config {
    /// PEM of the CA that signed the API server's certificate, for `kube-root-ca.crt`.
    pub root_ca: String,
    /// Signs certificate requests; none turns that off.
    pub sign: Option<csr_signing::Sign>,
    /// Pod address ranges, one per family; none turns node-ipam off.
    pub cluster_cidrs: Vec<String>,
    /// Prefix length of a node's IPv4 pod range.
    pub node_mask_v4: u8,
    /// Prefix length of a node's IPv6 pod range.
    pub node_mask_v6: u8,
    /// Silence after which a node's conditions become Unknown.
    pub node_monitor_grace: Duration,
    /// The same for a node that has never reported.
    pub node_startup_grace: Duration,
    /// Wait before a terminating namespace is emptied, so that API servers with stale caches stop admitting objects into it.
    pub namespace_deletion_delay: Duration,
    /// Finished pods kept before the oldest are removed; 0 keeps all.
    pub terminated_pod_threshold: usize,
    /// Who holds the lease: stable for a data directory and host, different for every other process.
    pub identity: String,
    /// Whether to take the lease `kube-system/kube-controller-manager` before acting.
    pub leader_elect: bool,
    /// Names of controllers that are not to run.
    pub disabled: Vec<String>,
    /// Every object is looked at again after this long even if nothing happened.
    pub resync: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            root_ca: String::new(),
            sign: None,
            cluster_cidrs: Vec::new(),
            node_mask_v4: 24,
            node_mask_v6: 64,
            node_monitor_grace: Duration::from_secs(50),
            node_startup_grace: Duration::from_secs(60),
            namespace_deletion_delay: Duration::from_secs(5),
            terminated_pod_threshold: 12_500,
            identity: "kserver".into(),
            leader_elect: true,
            disabled: Vec::new(),
            resync: Duration::from_secs(3600),
        }
    }
}

/// What a controller works with. Clones are cheap.
#[derive(Clone)]
pub struct Context {
    /// Acts as this controller; refuses to write once the lease is lost.
    pub client: Client,
    /// Shared by all.
    pub informers: Informers,
    /// Records events as this controller.
    pub recorder: Recorder,
    /// Stop with the lease.
    pub tasks: Tasks,
    /// Settings of the process.
    pub config: Arc<Config>,
    /// Metadata of every kind there is, for the garbage collector and the quota controller.
    pub metadata: metadata::Everything,
    name: &'static str,
}

impl Context {
    /// Calls `handler` for every object there is and then for every change, in order.
    pub fn on<K: Watchable>(&self, informer: &Informer<K>, mut handler: impl FnMut(Change<K>) + Send + 'static) {
        let mut changes = informer.subscribe();
        let name = self.name;
        self.tasks.spawn(format!("{name}/{}", K::plural(&())), async move {
            while let Some(change) = changes.recv().await {
                handler(change);
            }
        });
    }

    /// Queues the key of every object of a kind that is new, changes or goes, and every one of them again at each resync.
    pub fn enqueue_all<K: Watchable>(&self, informer: &Informer<K>, queue: &Queue<Key>) {
        let all = informer.clone();
        queue.set_resync(self.config.resync, move || all.list().iter().map(|o| Key::of(&**o)).collect());
        let queue = queue.clone();
        self.on(informer, move |change| queue.add(Key::of(&**change.object())));
    }

    /// Works the queue once the informers named in `ready` have synced.
    pub fn work<T, F, Fut>(&self, queue: &Queue<T>, workers: usize, ready: Vec<BoxFuture<'static, ()>>, handler: F)
    where
        T: queue::Item,
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send,
    {
        let queue = queue.clone();
        let name = self.name;
        self.tasks.spawn(name, async move {
            futures::future::join_all(ready).await;
            queue.run(name, workers, handler).await;
        });
    }
}

/// Resolves when an informer's first list is in.
pub fn synced<K: Watchable>(informer: &Informer<K>) -> BoxFuture<'static, ()> {
    let informer = informer.clone();
    async move { informer.synced().await }.boxed()
}

/// The time to write into objects: whole seconds, as the wire carries them, so that what is read back compares equal.
pub fn now() -> Time {
    let now = wall_clock();
    Time(k8s_openapi::jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(not(test))]
fn wall_clock() -> k8s_openapi::jiff::Timestamp {
    k8s_openapi::jiff::Timestamp::now()
}

/// Under test the wall clock runs with tokio's, which may be paused and moved.
#[cfg(test)]
fn wall_clock() -> k8s_openapi::jiff::Timestamp {
    let (virtual_now, real_now) = (tokio::time::Instant::now().into_std(), std::time::Instant::now());
    let now = k8s_openapi::jiff::Timestamp::now();
    if virtual_now > real_now { now + (virtual_now - real_now) } else { now - (real_now - virtual_now) }
}

/// Time from `earlier` to `later`; zero if they are the other way round.
pub fn elapsed(earlier: &Time, later: &Time) -> Duration {
    Duration::try_from(later.0.duration_since(earlier.0)).unwrap_or_default()
}

/// `namespace/name`, or the name alone, as upstream's messages have it.
pub fn full_name(meta: &ObjectMeta) -> String {
    let name = meta.name.as_deref().unwrap_or_default();
    match meta.namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// Runs every controller until `tasks` is cancelled. `clients` gives a client for a user name; with leader election
/// nothing acts before the lease is held, and everything stops, to campaign again, when it is lost.
///
/// # Panics
/// If two controllers have one name.
pub async fn run(clients: impl Fn(&str) -> Client, informers: Informers, tasks: &Tasks, config: Config) {
    let mut names = HashSet::new();
    for descriptor in CONTROLLERS {
        assert!(names.insert(descriptor.name), "two controllers are called {}", descriptor.name);
    }
    let config = Arc::new(config);
    if !config.leader_elect {
        start(&clients, &informers, tasks, &config, None);
        return tasks.token().cancelled().await;
    }
    let election = leader::Election::new(clients("system:kube-controller-manager"), "kube-system", "kube-controller-manager", &config.identity);
    while !tasks.token().is_cancelled() {
        let leadership = tokio::select! {
            () = tasks.token().cancelled() => return,
            leadership = election.acquire() => leadership,
        };
        tracing::info!(identity = %config.identity, "acquired lease kube-system/kube-controller-manager");
        let group = tasks.child();
        start(&clients, &informers, &group, &config, Some(leadership.fence()));
        let stopped = tokio::select! {
            () = tasks.token().cancelled() => true,
            () = leadership.lost() => false,
        };
        group.cancel();
        if stopped {
            leadership.release().await;
        } else {
            tracing::error!("lost lease kube-system/kube-controller-manager: controllers stopped");
        }
    }
}

fn start(clients: &impl Fn(&str) -> Client, informers: &Informers, tasks: &Tasks, config: &Arc<Config>, fence: Option<leader::Fence>) {
    let client = |user: &str| match &fence {
        Some(fence) => fence.guard(clients(user)),
        None => clients(user),
    };
    let account = |name: &str| client(&format!("system:serviceaccount:kube-system:{name}"));
    let metadata = metadata::Everything::new(account("generic-garbage-collector"), informers.clone(), tasks.clone());
    for descriptor in CONTROLLERS.iter().filter(|d| !config.disabled.iter().any(|off| off == d.name)) {
        let client = account(descriptor.service_account);
        (descriptor.start)(Context {
            recorder: Recorder::new(client.clone(), tasks, descriptor.component, ""),
            client,
            informers: informers.clone(),
            tasks: tasks.clone(),
            config: config.clone(),
            metadata: metadata.clone(),
            name: descriptor.name,
        });
    }
    metadata.start();
}

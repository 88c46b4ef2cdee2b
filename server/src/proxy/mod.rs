//! kube-proxy by nftables: makes Services reachable from pods, from the host and from outside.
//!
//! Owns one nftables table, one route and nothing else on the host. [`model`] and [`table`] are pure; [`nft`], [`host`] and
//! [`conntrack`] do the I/O. Limits, on purpose: IPv4 only; node ports are not served on 127.0.0.1 (that needs `route_localnet`);
//! `externalIPs` and topology hints are not used; `healthCheckNodePort` is not served.

pub mod conntrack;
pub mod host;
pub mod maps;
pub mod model;
pub mod nft;
pub mod table;

#[cfg(test)]
mod real;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use crate::informers::{Change, Informers};
use crate::tasks::Tasks;
use model::{Backend, Fragment, Frontend, Protocol, Target, fragment};
use table::{Owner, Ranges, Table};

/// Changes that follow one another closer than this are applied together.
const PERIOD: Duration = Duration::from_millis(50);
/// First wait after `nft` refused the whole table; doubled up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Time between looks at whether somebody else has removed what is ours (`syncPeriod`).
const RESYNC: Duration = Duration::from_secs(30);
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How the proxy runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; what `Local` traffic policies compare with.
    pub node_name: String,
    /// Addresses of the pods of all nodes. Their packets keep their source address within it.
    pub cluster_cidr: String,
    /// Addresses of Services.
    pub service_cidr: String,
    /// Name of the nftables table, unique among the instances of a host.
    pub table: String,
}

/// Starts the proxy and returns. The table is loaded as soon as both informers are in.
///
/// # Errors
/// A range that is not an IPv4 CIDR, or a table name that is not one word.
pub async fn run(config: Config, informers: &Informers, tasks: &Tasks) -> anyhow::Result<()> {
    for cidr in [&config.cluster_cidr, &config.service_cidr] {
        let valid = cidr.split_once('/').is_some_and(|(ip, bits)| ip.parse::<Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|b| b <= 32));
        anyhow::ensure!(valid, "{cidr:?} is not an IPv4 CIDR");
    }
    check_table(&config.table)?;
    let (services, slices) = (informers.get::<Service>(), informers.get::<EndpointSlice>());
    tasks.spawn("proxy", async move {
        host::prepare(true).await;
        host::add_route(&config.service_cidr, true).await;
        services.synced().await;
        slices.synced().await;
        Proxy::new(config).run(services.subscribe(), slices.subscribe()).await;
    });
    Ok(())
}

/// Removes the table and the route, so that nothing of the proxy stays on the host. Kernel settings stay as they are.
///
/// # Errors
/// `nft` cannot be run or refuses.
pub async fn cleanup(table: &str, service_cidr: &str) -> anyhow::Result<()> {
    check_table(table)?;
    host::remove_route(service_cidr).await;
    // Adding it first makes deleting one that is not there no error.
    nft::apply(&format!("add table ip {table}\ndelete table ip {table}\n")).await?;
    Ok(())
}

fn check_table(name: &str) -> anyhow::Result<()> {
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    anyhow::ensure!(valid, "{name:?} is not a name for an nftables table");
    Ok(())
}

/// Follows Services and slices; knows which Services are to be worked out anew.
#[derive(Default)]
struct Tracker {
    services: BTreeMap<Owner, Arc<Service>>,
    slices: HashMap<Owner, BTreeMap<String, Arc<EndpointSlice>>>,
    dirty: BTreeSet<Owner>,
}

fn owner(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Owner {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Tracker {
    fn service(&mut self, change: Change<Service>) {
        let key = owner(&change.object().metadata);
        match change {
            Change::Deleted(_) => self.services.remove(&key),
            Change::Added(new) | Change::Updated { new, .. } => self.services.insert(key.clone(), new),
        };
        self.dirty.insert(key);
    }

    fn slice(&mut self, change: Change<EndpointSlice>) {
        if let Change::Updated { old, new } = &change
            && old.metadata.labels != new.metadata.labels
        {
            self.drop_slice(old);
        }
        match &change {
            Change::Deleted(gone) => self.drop_slice(gone),
            Change::Added(new) | Change::Updated { new, .. } => {
                if let Some(key) = Self::service_of(new) {
                    let name = new.metadata.name.clone().unwrap_or_default();
                    self.slices.entry(key.clone()).or_default().insert(name, new.clone());
                    self.dirty.insert(key);
                }
            }
        }
    }

    fn drop_slice(&mut self, slice: &EndpointSlice) {
        let Some(key) = Self::service_of(slice) else { return };
        if let Some(of_service) = self.slices.get_mut(&key) {
            of_service.remove(slice.metadata.name.as_deref().unwrap_or_default());
            if of_service.is_empty() {
                self.slices.remove(&key);
            }
        }
        self.dirty.insert(key);
    }

    fn service_of(slice: &EndpointSlice) -> Option<Owner> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
    }

    /// What the dirty Services mean now.
    fn take(&mut self, node: &str) -> Vec<(Owner, Option<Fragment>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let work_out = |key: &Owner| {
            let service = self.services.get(key)?;
            Some(fragment(service, self.slices.get(key).into_iter().flat_map(|s| s.values()).map(|s| &**s), node))
        };
        dirty.into_iter().map(|key| (key.clone(), work_out(&key))).collect()
    }
}

/// UDP frontends whose backends changed, with the backends that are right; `None` is a node port's any address.
type StaleFlows = HashMap<(Option<Ipv4Addr>, u16), BTreeSet<Backend>>;

fn note_udp(stale: &mut StaleFlows, fragment: Option<&Fragment>, gone: bool) {
    for route in fragment.into_iter().flat_map(|f| &f.routes).filter(|r| r.frontend.protocol() == Protocol::Udp) {
        let key = match route.frontend {
            Frontend::Cluster { ip, port, .. } | Frontend::Balancer { ip, port, .. } => (Some(ip), port),
            Frontend::NodePort { port, .. } => (None, port),
        };
        let right = stale.entry(key).or_default();
        for target in [Some(&route.target), route.outside.as_ref()].into_iter().flatten().filter(|_| !gone) {
            if let Target::Backends(backends) = target {
                right.extend(backends);
            }
        }
    }
}

fn forget_stale(stale: StaleFlows) {
    let outcome = conntrack::forget(|flow| {
        let right = stale.get(&(Some(flow.to.0), flow.to.1)).or_else(|| stale.get(&(None, flow.to.1)).filter(|_| flow.backend != flow.to));
        right.is_some_and(|r| !r.contains(&Backend { ip: flow.backend.0, port: flow.backend.1 }))
    });
    match outcome {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "stale UDP flows forgotten"),
        Err(error) => tracing::warn!(%error, "stale UDP flows cannot be forgotten; they end 30 to 120 s after their last packet"),
    }
}

/// Whether what the kernel holds is what was loaded last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loaded {
    /// Nothing yet, or it is not known: the whole table must be loaded.
    Unknown,
    /// All but the changes since.
    UpToChanges,
}

struct Proxy {
    config: Config,
    tracker: Tracker,
    table: Table,
    fragments: HashMap<Owner, Fragment>,
    loaded: Loaded,
    retry: Duration,
}

impl Proxy {
    fn new(config: Config) -> Self {
        let ranges = Ranges { table: config.table.clone(), cluster_cidr: config.cluster_cidr.clone(), service_cidr: config.service_cidr.clone() };
        let table = Table::new(ranges);
        Proxy { config, tracker: Tracker::default(), table, fragments: HashMap::new(), loaded: Loaded::Unknown, retry: FIRST_RETRY }
    }

    /// Applies at once when idle, else when [`PERIOD`] is over.
    async fn run(mut self, mut services: UnboundedReceiver<Change<Service>>, mut slices: UnboundedReceiver<Change<EndpointSlice>>) {
        let mut next = Instant::now();
        let mut due = true;
        let mut looks = tokio::time::interval_at(next + RESYNC, RESYNC);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            while let Ok(change) = services.try_recv() {
                self.tracker.service(change);
            }
            while let Ok(change) = slices.try_recv() {
                self.tracker.slice(change);
            }
            due |= !self.tracker.dirty.is_empty();
            if due && Instant::now() >= next {
                let wait = self.sync().await;
                due = wait.is_some();
                next = Instant::now() + wait.unwrap_or(PERIOD);
                continue;
            }
            tokio::select! {
                change = services.recv() => match change {
                    Some(change) => self.tracker.service(change),
                    None => return,
                },
                change = slices.recv() => match change {
                    Some(change) => self.tracker.slice(change),
                    None => return,
                },
                () = tokio::time::sleep_until(next), if due => {}
                _ = looks.tick() => due |= self.is_lost().await,
            }
        }
    }

    /// Puts settings and route right, which firewalls and network managers flush like the table; true if that is gone.
    async fn is_lost(&mut self) -> bool {
        host::prepare(false).await;
        host::add_route(&self.config.service_cidr, false).await;
        if self.loaded == Loaded::Unknown {
            return false;
        }
        match nft::has_table(&self.config.table).await {
            Ok(true) => false,
            Ok(false) => {
                tracing::warn!(table = %self.config.table, "somebody has removed the table; loading it again");
                self.loaded = Loaded::Unknown;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the table was not looked for");
                false
            }
        }
    }

    /// Brings the kernel up to date; returns how long to wait before trying again.
    async fn sync(&mut self) -> Option<Duration> {
        let mut stale = StaleFlows::new();
        for (key, fragment) in self.tracker.take(&self.config.node_name) {
            let old = match &fragment {
                Some(new) => self.fragments.insert(key.clone(), new.clone()),
                None => self.fragments.remove(&key),
            };
            if self.table.set(&key, fragment.as_ref()) {
                note_udp(&mut stale, old.as_ref(), true);
                note_udp(&mut stale, fragment.as_ref(), false);
            }
        }
        let failed = self.load().await.err();
        if !stale.is_empty() && failed.is_none() {
            // A failure to start the thread means that the process is stopping.
            let _ = tokio::task::spawn_blocking(|| forget_stale(stale)).await;
        }
        match failed {
            None => {
                self.retry = FIRST_RETRY;
                None
            }
            Some(error) => {
                tracing::error!(%error, table = %self.config.table, "rules not loaded");
                let wait = self.retry;
                self.retry = (self.retry * 2).min(LONGEST_RETRY);
                Some(wait)
            }
        }
    }

    /// Loads the changes; the whole table when nothing is loaded or the changes were refused (somebody may have deleted it).
    async fn load(&mut self) -> Result<(), nft::Error> {
        if self.loaded == Loaded::UpToChanges {
            let Some(text) = self.table.take_changes() else { return Ok(()) };
            match nft::apply(&text).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "change refused; loading the whole table"),
            }
        }
        self.loaded = Loaded::Unknown;
        nft::apply(&self.table.full()).await?;
        self.loaded = Loaded::UpToChanges;
        Ok(())
    }
}

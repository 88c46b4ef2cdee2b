//! The kubelet: everything a node does on containerd through CRI v1.
//!
//! Reads the API through shared informers and writes pods' and the node's status; owns the node's containers, volumes, cgroups and
//! logs. One worker a pod ([`pods::worker`]), a pure state machine ([`pods::plan`]) and a pure status ([`status`]) in its middle.
//! Must never touch what another node's kubelet made, even on the same containerd.

pub mod cgroups;
pub mod env;
pub mod images;
pub mod logs;
pub mod node;
pub mod pleg;
pub mod pods;
pub mod probes;
pub mod refs;
pub mod runtime;
pub mod server;
pub mod simulated;
pub mod status;
pub mod volumes;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Pod, Service, Taint};
use kube::Client;
use tokio::sync::{Semaphore, watch};

use self::node::machine::{self, Machine};
use self::node::object::Facts;
use self::pods::admit::Abilities;
use self::runtime::Runtime;
use crate::events::Recorder;
use crate::informers::{Informer, Informers};
use crate::tasks::Tasks;

pub use self::images::import::import;
pub use self::pods::orphans::stop_all as stop_all_pods;
pub use self::simulated::run as run_simulated;

/// Sandboxes created at once. containerd gains nothing beyond; see the floor for a pod's start.
const PARALLEL_STARTS: usize = 8;

/// How long the container runtime may take to start.
pub(crate) const RUNTIME_READY: Duration = Duration::from_secs(30);

/// How a node's kubelet runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object; the client is authenticated as `system:node:<name>`.
    pub node_name: String,
    /// containerd's unix socket.
    pub runtime_endpoint: PathBuf,
    /// Pods' volumes, address leases and localhost seccomp profiles (`seccomp/`).
    pub root_dir: PathBuf,
    /// Pods' logs: `<namespace>_<name>_<uid>/<container>/<n>.log`.
    pub logs_dir: PathBuf,
    /// Address at which the API server reaches this node.
    pub node_ip: IpAddr,
    /// Cluster name server.
    pub cluster_dns: IpAddr,
    /// For instance `cluster.local`.
    pub cluster_domain: String,
    /// Pod range in use as long as the Node has none; usually `None`.
    pub pod_cidr: Option<String>,
    /// Where the CNI configuration is written.
    pub cni_conf_dir: PathBuf,
    /// Name of the pods' bridge, unique on the machine, at most 15 bytes.
    pub bridge: String,
    /// Parent of every pod's cgroup; starts with `/`.
    pub cgroup_root: String,
    /// Address of the kubelet's HTTPS server; port 0 picks one.
    pub listen: SocketAddr,
    /// Serving certificate, PEM.
    pub tls_cert: PathBuf,
    /// Its key, PEM.
    pub tls_key: PathBuf,
    /// CA that clients' certificates must be signed by, PEM.
    pub client_ca: PathBuf,
    /// Common names that may use the server; empty lets every certificate of the CA in, so give a CA of its own then.
    pub allowed_clients: Vec<String>,
    /// Name under which containerd's configuration expects the pause image.
    pub pause_image: String,
    /// Most pods the node takes (upstream: 110).
    pub max_pods: u32,
    /// Labels beyond the well-known ones.
    pub node_labels: BTreeMap<String, String>,
    /// Taints at the first registration.
    pub taints: Vec<Taint>,
}

/// What every part of one node's kubelet shares.
pub struct Kubelet {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    pub(crate) recorder: Recorder,
    pub(crate) images: images::Images,
    pub(crate) refs: refs::References,
    pub(crate) services: Informer<Service>,
    pub(crate) pods: Informer<Pod>,
    pub(crate) nodes: Informer<Node>,
    pub(crate) workers: pods::Workers,
    pub(crate) index: pleg::Index,
    pub(crate) cgroups: cgroups::Cgroups,
    pub(crate) machine: Machine,
    pub(crate) abilities: Abilities,
    pub(crate) starts: Semaphore,
    pub(crate) samples: server::stats::Samples,
    pub(crate) log_watcher: logs::stream::Watcher,
    pub(crate) tasks: Tasks,
    /// Unix nanoseconds.
    pub(crate) started_at: i64,
    runtime_up: watch::Sender<bool>,
}

impl Kubelet {
    fn new(config: Config, client: Client, informers: &Informers, tasks: &Tasks) -> anyhow::Result<Self> {
        let runtime = Runtime::new(&config.runtime_endpoint, &config.node_name);
        let flag = |path: &str| std::fs::read_to_string(path).is_ok_and(|t| t.trim() == "Y");
        Ok(Kubelet {
            recorder: Recorder::new(client.clone(), tasks, "kubelet", &config.node_name),
            images: images::Images::new(runtime.clone()),
            refs: refs::References::new(client.clone(), tasks.clone()),
            services: informers.get::<Service>(),
            pods: informers.select::<Pod>(&format!("spec.nodeName={}", config.node_name)),
            nodes: informers.select::<Node>(&format!("metadata.name={}", config.node_name)),
            workers: pods::Workers::default(),
            index: pleg::Index::default(),
            cgroups: cgroups::Cgroups::discover().context("reading the mount table")?,
            machine: Machine::discover(&config.root_dir),
            abilities: Abilities {
                app_armor: flag("/sys/module/apparmor/parameters/enabled"),
                selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            },
            starts: Semaphore::new(PARALLEL_STARTS),
            samples: server::stats::Samples::default(),
            log_watcher: logs::stream::Watcher::new(tasks).context("opening inotify")?,
            started_at: pods::backoff::now(),
            runtime_up: watch::Sender::new(false),
            tasks: tasks.clone(),
            runtime,
            client,
            config,
        })
    }

    /// `<root>/pods/<uid>`
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.root_dir.join("pods").join(uid)
    }

    /// Gives the cgroups of the QoS classes the weights that follow from the pods there are.
    pub(crate) fn weigh_classes(&self) {
        let pods = self.pods.list();
        let active = pods.iter().map(|p| &**p).filter(|p| !status::is_final(p.status.as_ref()));
        if let Err(error) = self.cgroups.weigh_classes(&self.config.cgroup_root, cgroups::burstable_shares(active)) {
            tracing::warn!(%error, "cgroups of the QoS classes not weighed");
        }
    }

    /// Parent of pods' log directories.
    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.config.logs_dir.clone()
    }

    /// Where localhost seccomp profiles are.
    pub(crate) fn seccomp_dir(&self) -> PathBuf {
        self.config.root_dir.join("seccomp")
    }

    /// Address of a pod, if its sandbox runs.
    pub(crate) fn pod_ip(&self, pod: &Pod) -> Option<IpAddr> {
        if pods::spec::host_network(pod) {
            return Some(self.config.node_ip);
        }
        let mailbox = self.workers.get(pods::spec::uid(pod))?;
        let observed = mailbox.observed().borrow().clone();
        observed.sandbox().and_then(|s| s.ips.first().copied())
    }

    /// Follows whether containerd can be reached.
    pub(crate) fn runtime_up(&self) -> watch::Receiver<bool> {
        self.runtime_up.subscribe()
    }

    pub(crate) fn set_runtime_up(&self, up: bool) {
        self.runtime_up.send_if_modified(|old| std::mem::replace(old, up) != up);
    }
}

/// Prepares the node, registers it, and spawns everything that runs pods. Returns the address of the kubelet's server once it listens.
pub async fn run(config: Config, client: Client, informers: &Informers, tasks: &Tasks) -> anyhow::Result<SocketAddr> {
    for dir in [&config.root_dir, &config.logs_dir, &config.root_dir.join("pods")] {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    volumes::mounts::share(&config.root_dir).with_context(|| format!("sharing mounts below {}", config.root_dir.display()))?;
    let serving = server::tls::FileCertificate::new(&config.tls_cert, &config.tls_key)?;
    let tls = server::tls::acceptor(serving.clone(), &config.client_ca)?;
    tasks.spawn("kubelet-certificate", serving.follow());
    let listener = tokio::net::TcpListener::bind(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
    let address = listener.local_addr()?;
    let kubelet = Arc::new(Kubelet::new(config, client, informers, tasks)?);
    kubelet.runtime.ready(RUNTIME_READY).await.context("waiting for the container runtime")?;
    let version = kubelet.runtime.version().await.context("asking the container runtime for its version")?;
    images::pause::ensure(&kubelet.runtime, &kubelet.config.pause_image, &kubelet.config.root_dir).await.context("importing the pause image")?;
    let runtime_version = format!("{}://{}", version.runtime_name, version.runtime_version.trim_start_matches('v'));
    let facts = Facts {
        name: kubelet.config.node_name.clone(),
        ip: kubelet.config.node_ip,
        port: address.port(),
        machine: kubelet.machine.clone(),
        max_pods: kubelet.config.max_pods,
        info: machine::info(&runtime_version),
        labels: kubelet.config.node_labels.clone(),
        taints: kubelet.config.taints.clone(),
    };
    tasks.spawn("kubelet-node", node::run(kubelet.clone(), facts));
    tasks.spawn("kubelet-server", server::run(kubelet.clone(), listener, tls));
    tasks.spawn("pleg", pleg::run(kubelet.clone()));
    tasks.spawn("log-rotation", logs::rotate::run(kubelet.clone()));
    tasks.spawn("image-gc", images::gc::run(kubelet.clone()));
    tasks.spawn("storage-eviction", pods::storage::run(kubelet.clone()));
    tasks.spawn("kubelet-pods", run_pods(kubelet));
    Ok(address)
}

/// Starts the pods once it is known which ones there are: what is not among them is left over and goes.
async fn run_pods(kubelet: Arc<Kubelet>) {
    kubelet.pods.synced().await;
    kubelet.services.synced().await;
    kubelet.nodes.synced().await;
    kubelet.tasks.spawn("pod-leftovers", pods::orphans::run(kubelet.clone()));
    pods::dispatch(kubelet).await;
}

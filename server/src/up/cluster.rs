//! Starts the parts of Kubernetes in the order in which they need each other, and says how far it is.
//!
//! Owns the order and the ports. Every part gets its own identity and nothing but the public API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use rcgen::ExtendedKeyUsagePurpose;
use tokio::signal::unix::{SignalKind, signal};

use super::child::{self, Child};
use super::control_plane::{self, Sealed};
use super::instance::{Instance, Lock, Record};
use super::preflight::{self, LOOPBACK, Programs};
use super::progress::Progress;
use super::renewal::{Kubeconfigs, Live, Renewal};
use super::{Options, containerd, etcd, network};
use crate::api::chain::Chain;
use crate::api::client::in_process_client;
use crate::api::user::User;
use crate::controllers::csr_signing::Sign;
use crate::informers::Informers;
use crate::pki::{self, Pair, Pki, client_config};
use crate::tasks::Tasks;
use crate::{controllers, dns, kubelet, proxy, scheduler, storage};

/// Name of the pause image that kserver carries; never pulled.
pub const PAUSE_IMAGE: &str = "localhost/kserver/pause:1";

/// Domain of cluster names.
const DOMAIN: &str = "cluster.local";
/// Longest wait for a child to answer.
const CHILD_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for the node.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The child processes of an instance, and its lock.
pub struct Children {
    etcd: Option<Child>,
    containerd: Option<Child>,
    _lock: Lock,
}

impl Children {
    /// Stops them: containerd first, since etcd still takes the last status. Blocks.
    pub fn stop(self) {
        for child in [self.containerd, self.etcd].into_iter().flatten() {
            child.stop(Duration::from_secs(5));
        }
    }

    fn pids(&self) -> Vec<(u32, u64)> {
        [&self.etcd, &self.containerd]
            .into_iter()
            .flatten()
            .filter_map(Child::pid)
            .filter_map(|pid| Some((pid, child::start_time_of(pid)?)))
            .collect()
    }
}

/// Finds what would make a start fail, before anything is touched.
///
/// # Errors
/// One line that names the trouble and its fix.
pub fn check(options: &Options, instance: &Instance) -> Result<Programs> {
    let containers = options.simulated_nodes.is_none();
    if containers {
        preflight::root_for_containers()?;
    }
    let (services, pods) = (options.service_cluster_ip_range, options.pod_cidr);
    ensure!(!services.overlaps(&pods), "--service-cluster-ip-range {services} and --pod-cidr {pods} overlap: choose ranges that do not");
    ensure!(services.prefix <= 28, "--service-cluster-ip-range {services} is too small: use at least a /28");
    ensure!(pods.prefix <= 24, "--pod-cidr {pods} is too small: each node takes a /24 of it");
    let address = node_address(options)?;
    for (flag, range) in [("--service-cluster-ip-range", services), ("--pod-cidr", pods)] {
        let text = "is this machine's own address, so that nobody would reach it: choose another range, or another address with --node-ip";
        ensure!(!range.contains(address), "{address} in {flag} {range} {text}");
    }
    ensure!(options.simulated_nodes != Some(0), "--simulated-nodes 0 leaves the cluster without a node: name at least 1");
    let name = node_name(options)?;
    ensure!(
        shared::selector::is_dns1123_subdomain(&name),
        "{name:?} cannot be a node's name (lower-case letters, digits, '-' and '.'): choose one with --node-name"
    );
    let programs = preflight::programs(options.etcd_servers.is_empty(), options.container_runtime_endpoint.is_none(), containers)?;
    if let Some(record) = instance.running()? {
        bail!("a kserver (pid {}) is already running on {}: stop it with `kserver down{}`", record.pid, instance.data.display(), instance.flag());
    }
    if options.secure_port != 0 {
        preflight::port_is_free(options.bind_address, options.secure_port, "--secure-port")?;
    }
    Ok(programs)
}

fn node_name(options: &Options) -> Result<String> {
    match &options.node_name {
        Some(name) => Ok(name.clone()),
        None => Ok(std::fs::read_to_string("/proc/sys/kernel/hostname").context("read this machine's host name")?.trim().to_lowercase()),
    }
}

/// What [`start`] works out before it starts anything.
struct Plan<'a> {
    options: &'a Options,
    instance: &'a Instance,
    programs: Programs,
    node: String,
    node_ip: IpAddr,
    record: Record,
}

/// The address that the node and the API server are reached at.
fn node_address(options: &Options) -> Result<IpAddr> {
    let address = options.node_ip.map_or_else(network::node_ip, Ok)?;
    ensure!(!address.is_loopback(), "--node-ip {address} is a loopback address, which nobody else reaches: name another one");
    Ok(address)
}

/// Ports, names and the record: what was chosen at the first start is kept as long as it is free.
fn plan<'a>(options: &'a Options, instance: &'a Instance, programs: Programs, last: Option<Record>) -> Result<Plan<'a>> {
    let last = last.unwrap_or_default();
    let containers = options.simulated_nodes.is_none();
    let node = node_name(options)?;
    let node_ip = node_address(options)?;
    let etcd_ports = if options.etcd_servers.is_empty() {
        let (client, peer) = last.etcd_ports.unwrap_or_default();
        Some((preflight::pick_port(LOOPBACK, client)?, preflight::pick_port(LOOPBACK, peer)?))
    } else {
        None
    };
    let preferred = |last: u16, usual: u16| if last == 0 { usual } else { last };
    let pid = std::process::id();
    let secure_port = match options.secure_port {
        0 => preflight::pick_port(options.bind_address, last.secure_port)?,
        port => port,
    };
    let record = Record {
        pid,
        start_time: child::start_time_of(pid).unwrap_or_default(),
        children: Vec::new(),
        secure_port,
        etcd_ports,
        kubelet_port: preflight::pick_port(IpAddr::V4(Ipv4Addr::UNSPECIFIED), preferred(last.kubelet_port, 10250))?,
        dns_port: preflight::pick_port(IpAddr::V4(Ipv4Addr::UNSPECIFIED), preferred(last.dns_port, 10053))?,
        uses_containers: containers,
        runtime_endpoint: options.container_runtime_endpoint.as_deref().map(socket_path),
        run: instance.run.clone(),
        node_name: node.clone(),
        service_cidr: options.service_cluster_ip_range.to_string(),
    };
    Ok(Plan { options, instance, programs, node, node_ip, record })
}

/// `unix:///run/x.sock` or a plain path.
fn socket_path(endpoint: &str) -> PathBuf {
    PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
}

/// Starts everything and returns when the node is Ready.
///
/// # Errors
/// The first part that does not come up.
pub async fn start(options: &Options, instance: &Instance, tasks: &Tasks, progress: &Progress, children: &mut Option<Children>) -> Result<()> {
    let programs = check(options, instance)?;
    instance.create_dirs()?;
    let lock = instance.lock()?;
    // Before the record names this process: until somebody listens, the signal would end it.
    let changed = signal(SignalKind::user_defined1())?;
    let last = instance.record()?;
    if let Some(record) = &last {
        super::down::clear_children(record).await?;
    }
    let mut plan = plan(options, instance, programs, last)?;
    let children = children.insert(Children { etcd: None, containerd: None, _lock: lock });
    instance.write_record(&plan.record)?;

    let pki = Pki::load_or_create(&plan.pki_config())?;
    plan.start_children(&pki, children).await?;
    plan.record.children = children.pids();
    instance.write_record(&plan.record)?;
    progress.stage(match (&children.etcd, &children.containerd) {
        (Some(_), Some(_)) => "etcd and containerd are running",
        (Some(_), None) => "etcd is running",
        (None, Some(_)) => "containerd is running",
        (None, None) => "using the etcd and containerd that were named",
    });

    let (chain, live) = plan.start_api(&pki, tasks).await?;
    progress.stage(format!("the API server answers on port {}", plan.record.secure_port));
    let kubeconfigs = plan.kubeconfigs()?;
    kubeconfigs.write(&pki)?;
    let context = kubeconfigs.user.clone();
    let kubelet = plan.record.uses_containers.then(|| (plan.node.clone(), plan.kubelet_ips()));
    tasks.spawn("certificates", Renewal { pki: plan.pki_config(), kubelet, live, kubeconfigs }.run(changed));

    let informers = Informers::new(component(&chain, "system:kube-controller-manager"), tasks.clone());
    plan.start_control_plane(&chain, &pki, &informers, tasks).await?;
    progress.stage("controllers and scheduler are running");
    plan.start_node(&chain, &pki, &informers, tasks).await?;
    wait_for_nodes(&informers, options.simulated_nodes.unwrap_or(1) as usize).await?;
    progress.stage(match options.simulated_nodes {
        Some(1) => "the simulated node is Ready".into(),
        Some(n) => format!("{n} simulated nodes are Ready"),
        None => format!("node {} is Ready", plan.node),
    });
    progress.ready(plan.next_steps(&context));
    Ok(())
}

/// A client inside this process, under a component's own identity.
fn client(chain: &Chain, user: &str, groups: &[&str]) -> Client {
    in_process_client(chain.clone(), User::new(user, groups))
}

/// [`client`] with the groups that the user's name implies.
fn component(chain: &Chain, user: &str) -> Client {
    match user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, _)) => client(chain, user, &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")]),
        None => client(chain, user, &[]),
    }
}

/// Signs certificate requests as the cluster's authority.
fn signer(authority: pki::Authority) -> Sign {
    Sign(Arc::new(move |request, wanted| {
        let usages = [(wanted.client, ExtendedKeyUsagePurpose::ClientAuth), (wanted.server, ExtendedKeyUsagePurpose::ServerAuth)];
        let usages: Vec<_> = usages.into_iter().filter_map(|(used, usage)| used.then_some(usage)).collect();
        let lifetime = jiff::SignedDuration::from_secs(wanted.seconds.into());
        authority.sign(request, &usages, lifetime, jiff::Timestamp::now()).map_err(|e| e.to_string())
    }))
}

impl Plan<'_> {
    fn pki_config(&self) -> pki::Config {
        let mut ips = vec![self.node_ip];
        if !self.options.bind_address.is_unspecified() {
            ips.push(self.options.bind_address);
        }
        pki::Config {
            dir: self.instance.data.join("pki"),
            node: self.node.clone(),
            names: Vec::new(),
            ips,
            service_ip: self.options.service_cluster_ip_range.nth(1),
            domain: DOMAIN.into(),
        }
    }

    async fn start_children(&self, pki: &Pki, children: &mut Children) -> Result<()> {
        let dir = pki.dir();
        if let Some(ports) = self.record.etcd_ports {
            let certificates =
                etcd::Certificates { ca: &dir.join("etcd/ca.crt"), cert: &dir.join("etcd/server.crt"), key: &dir.join("etcd/server.key") };
            children.etcd = Some(etcd::start(self.instance, &self.programs.etcd, ports, &certificates)?);
        }
        if self.record.uses_containers && self.record.runtime_endpoint.is_none() {
            children.containerd = Some(containerd::start(self.instance, &self.programs.containerd, PAUSE_IMAGE, &self.programs.cni)?);
        }
        if let (Some(child), Some((port, _))) = (&children.etcd, self.record.etcd_ports) {
            etcd::wait(child, port, CHILD_LIMIT).await?;
        }
        if let Some(child) = &children.containerd {
            containerd::wait(child, &self.instance.containerd_socket(), CHILD_LIMIT).await?;
        }
        Ok(())
    }

    fn etcd_config(&self, pki: &Pki) -> Result<storage::Config> {
        let mut config = match self.record.etcd_ports {
            Some((port, _)) => {
                let mut config = storage::Config::new(vec![etcd::endpoint(port)]);
                config.tls = Some(Arc::new(client_config(pki.etcd.certificate(), Some(&pki.apiserver_etcd_client))?));
                config.exclusive = true;
                config
            }
            None => self.external_etcd()?,
        };
        config.transform = Arc::new(Sealed(pki.encryption_keys()?));
        Ok(config)
    }

    fn external_etcd(&self) -> Result<storage::Config> {
        let options = self.options;
        let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        if let (Some(url), None) = (options.etcd_servers.iter().find(|url| url.starts_with("https://")), &options.etcd_cafile) {
            bail!("--etcd-servers {url}: name the authority that has signed it with --etcd-cafile");
        }
        let mut config = storage::Config::new(options.etcd_servers.clone());
        let own = match (&options.etcd_certfile, &options.etcd_keyfile) {
            (Some(cert), Some(key)) => Some(Pair { certificate: read(cert)?, key: read(key)? }),
            _ => None,
        };
        if let Some(ca) = &options.etcd_cafile {
            config.tls = Some(Arc::new(client_config(&read(ca)?, own.as_ref()).context("read etcd's certificates")?));
        }
        Ok(config)
    }

    async fn start_api(&self, pki: &Pki, tasks: &Tasks) -> Result<(Chain, Live)> {
        let config = control_plane::Config {
            pki,
            etcd: self.etcd_config(pki)?,
            bind: SocketAddr::new(self.options.bind_address, self.record.secure_port),
            advertise: self.node_ip,
            services: self.options.service_cluster_ip_range,
            audit_log: self.options.audit_log_path.clone(),
        };
        control_plane::start(config, tasks).await
    }

    /// Where the administrator's kubeconfig is written and the user's, into which its context is merged.
    fn kubeconfigs(&self) -> Result<Kubeconfigs> {
        let host = if self.options.bind_address.is_unspecified() { LOOPBACK } else { self.options.bind_address };
        let server = format!("https://{}", SocketAddr::new(host, self.record.secure_port));
        let user = match &self.options.kubeconfig {
            Some(path) => path.clone(),
            None => default_kubeconfig().context("HOME is not set: name a kubeconfig with --kubeconfig")?,
        };
        Ok(Kubeconfigs { server, own: self.instance.admin_kubeconfig(), user })
    }

    /// What tells this process from any other in elections: stable over restarts on the same data.
    fn identity(&self) -> String {
        format!("{}_{}", self.node, self.instance.id)
    }

    async fn start_control_plane(&self, chain: &Chain, pki: &Pki, informers: &Informers, tasks: &Tasks) -> Result<()> {
        let config = controllers::Config {
            root_ca: pki.cluster.certificate().to_owned(),
            sign: Some(signer(pki.cluster.clone())),
            cluster_cidrs: vec![self.options.pod_cidr.to_string()],
            identity: self.identity(),
            // One server: its cache is the only one.
            namespace_deletion_delay: Duration::ZERO,
            ..controllers::Config::default()
        };
        let (clients, reads, group) = (chain.clone(), informers.clone(), tasks.clone());
        tasks.spawn_draining("controllers", async move {
            controllers::run(|user| component(&clients, user), reads, &group, config).await;
        });
        let config = scheduler::Config { identity: Some(self.identity()), ..scheduler::Config::default() };
        scheduler::run(config, component(chain, "system:kube-scheduler"), informers, tasks).await
    }

    async fn start_node(&self, chain: &Chain, pki: &Pki, informers: &Informers, tasks: &Tasks) -> Result<()> {
        let node_client = |name: &str| client(chain, &format!("system:node:{name}"), &["system:nodes"]);
        if let Some(nodes) = self.options.simulated_nodes {
            return kubelet::run_simulated(nodes as usize, node_client, informers, tasks).await;
        }
        let proxy = proxy::Config {
            node_name: self.node.clone(),
            cluster_cidr: self.options.pod_cidr.to_string(),
            service_cidr: self.options.service_cluster_ip_range.to_string(),
            table: self.instance.table(),
        };
        proxy::run(proxy, informers, tasks).await?;
        self.start_dns(chain, informers, tasks).await?;
        kubelet::run(self.kubelet_config(pki)?, node_client(&self.node), informers, tasks).await?;
        Ok(())
    }

    async fn start_dns(&self, chain: &Chain, informers: &Informers, tasks: &Tasks) -> Result<()> {
        let cluster_ip = IpAddr::V4(self.cluster_dns());
        let config = dns::Config {
            listen: vec![SocketAddr::new(self.node_ip, self.record.dns_port)],
            domain: DOMAIN.into(),
            cluster_ip: Some(cluster_ip),
            resolv_conf: "/etc/resolv.conf".into(),
            clients: vec![self.options.pod_cidr.to_string()],
        };
        let running = dns::run(config, informers, tasks).await?;
        let address = running.addresses.first().copied().context("the DNS server has no address")?;
        // Creating Services is no component's right; it is the instance's own.
        dns::ensure_service(client(chain, "system:kserver", &["system:masters"]), cluster_ip, address, &self.node).await
    }

    /// The tenth address of the service range, as everywhere.
    fn cluster_dns(&self) -> Ipv4Addr {
        self.options.service_cluster_ip_range.nth(10)
    }

    /// What the kubelet's server is reached at.
    fn kubelet_ips(&self) -> Vec<IpAddr> {
        vec![self.node_ip, LOOPBACK]
    }

    fn kubelet_config(&self, pki: &Pki) -> Result<kubelet::Config> {
        pki.kubelet_serving(&self.node, &[], &self.kubelet_ips())?;
        let serving = pki.dir().join(format!("kubelet-serving-{}", self.node));
        let data = &self.instance.data;
        Ok(kubelet::Config {
            node_name: self.node.clone(),
            runtime_endpoint: self.record.runtime_endpoint.clone().unwrap_or_else(|| self.instance.containerd_socket()),
            root_dir: data.join("kubelet"),
            logs_dir: data.join("logs/pods"),
            node_ip: self.node_ip,
            cluster_dns: IpAddr::V4(self.cluster_dns()),
            cluster_domain: DOMAIN.into(),
            pod_cidr: None,
            cni_conf_dir: data.join("cni"),
            bridge: self.instance.bridge(),
            cgroup_root: self.instance.cgroup(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), self.record.kubelet_port),
            tls_cert: suffixed(&serving, "crt"),
            tls_key: suffixed(&serving, "key"),
            client_ca: pki.dir().join("ca.crt"),
            allowed_clients: vec!["kube-apiserver-kubelet-client".into()],
            pause_image: PAUSE_IMAGE.into(),
            max_pods: 110,
            node_labels: std::collections::BTreeMap::new(),
            taints: Vec::new(),
        })
    }

    fn next_steps(&self, kubeconfig: &Path) -> String {
        let flag = self.instance.flag();
        format!(
            "The cluster is ready: context kserver in {}.\nTry `kctl --context kserver get pods -A`; stop it with `kserver down{flag}`.",
            kubeconfig.display()
        )
    }
}

/// `path.extension`, whatever dots the path has.
fn suffixed(path: &Path, extension: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(".");
    text.push(extension);
    text.into()
}

/// The first file of `$KUBECONFIG`, else `~/.kube/config`.
fn default_kubeconfig() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").and_then(|list| std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty()));
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config")))
}

/// Waits until so many nodes are Ready.
async fn wait_for_nodes(informers: &Informers, wanted: usize) -> Result<()> {
    let mut changes = informers.get::<Node>().subscribe();
    let mut ready = std::collections::BTreeSet::new();
    let wait = async {
        while ready.len() < wanted {
            let Some(change) = changes.recv().await else { bail!("the informers stopped") };
            let node = change.object();
            let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let name = node.metadata.name.clone().unwrap_or_default();
            if conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                ready.insert(name);
            } else {
                ready.remove(&name);
            }
        }
        Ok(())
    };
    tokio::time::timeout(READY_LIMIT, wait)
        .await
        .with_context(|| format!("the node is not Ready after {} s; the log says why", READY_LIMIT.as_secs()))?
}

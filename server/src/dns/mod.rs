//! Cluster DNS: answers for Services and pods from the API, and forwards everything else.
//!
//! Owns the listening sockets and the index. [`index`] and [`answer`] are pure; [`forward`] talks to upstream servers, and
//! [`service`] makes the `kube-dns` Service lead here.

pub mod answer;
mod clients;
pub mod forward;
pub mod index;
pub mod service;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use tokio::net::{TcpListener, UdpSocket};

use crate::informers::{Change, Informers};
use crate::tasks::Tasks;
use answer::{Answer, Outcome, Zone};
use clients::Clients;
use forward::Forward;
use index::Index;
pub use service::ensure_service;

/// How long a client may keep an answer, in seconds; CoreDNS' default.
pub const TTL: u32 = 5;
/// Largest UDP answer: what passes every network unfragmented (DNS flag day 2020).
const LARGEST_UDP: u16 = 1232;
/// A TCP connection without questions is closed after this.
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_BUFFER: usize = 32;

/// How the server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to answer at, over UDP and TCP. Name each address: from a wildcard, answers to pods would leave with another
    /// source address than the one that was asked, and be dropped.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Address of the `kube-dns` Service, never used as upstream.
    pub cluster_ip: Option<IpAddr>,
    /// Where the upstream servers are named, `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Addresses of pods (`10.244.0.0/16`). Nobody else is answered but this machine itself: whoever can reach the port could use it
    /// to attack others.
    pub clients: Vec<String>,
}

/// A running server.
#[derive(Clone, Debug)]
pub struct Running {
    /// Where it answers, with the ports the kernel chose where 0 was asked for.
    pub addresses: Vec<SocketAddr>,
}

/// Binds, starts the server and returns. Until the informers are in, questions about the cluster are answered `SERVFAIL`, so
/// that nobody takes a name for absent.
///
/// # Errors
/// An address cannot be bound, or the domain is none.
pub async fn run(config: Config, informers: &Informers, tasks: &Tasks) -> anyhow::Result<Running> {
    let zone = Zone::new(&config.domain, TTL)?;
    let index = Arc::new(RwLock::new(None));
    let mut sockets = Vec::new();
    for address in &config.listen {
        sockets.push(bind(*address).await?);
    }
    let addresses = sockets.iter().map(|(_, _, at)| *at).collect::<Vec<_>>();
    let forward = Forward::from_file(&config.resolv_conf, &addresses, config.cluster_ip);
    let clients = Clients::new(&config.clients)?;
    let mut server = Server::new(Handler { zone, index: index.clone(), forward, clients });
    for (udp, tcp, _) in sockets {
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_BUFFER);
    }
    tasks.spawn("dns", async move {
        if let Err(error) = server.block_until_done().await {
            tracing::error!(%error, "DNS server ended");
        }
    });
    let informers = informers.clone();
    tasks.spawn("dns/index", async move { follow(&informers, &index).await });
    Ok(Running { addresses })
}

/// Times a port that the kernel chose for UDP may turn out to be taken for TCP.
const PORT_TRIES: usize = 16;

/// Binds UDP and TCP to the same port.
async fn bind(address: SocketAddr) -> anyhow::Result<(UdpSocket, TcpListener, SocketAddr)> {
    for _ in 1..if address.port() == 0 { PORT_TRIES } else { 1 } {
        if let Ok(bound) = bind_once(address).await {
            return Ok(bound);
        }
    }
    bind_once(address).await
}

async fn bind_once(address: SocketAddr) -> anyhow::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let udp = UdpSocket::bind(address).await.with_context(|| format!("DNS: cannot bind {address} (UDP)"))?;
    let at = udp.local_addr()?;
    let tcp = TcpListener::bind(at).await.with_context(|| format!("DNS: cannot bind {at} (TCP)"))?;
    Ok((udp, tcp, at))
}

type Shared = Arc<RwLock<Option<Index>>>;

/// Keeps the index up to date.
async fn follow(informers: &Informers, shared: &Shared) {
    let (namespaces, services, slices) = (informers.get::<Namespace>(), informers.get::<Service>(), informers.get::<EndpointSlice>());
    namespaces.synced().await;
    services.synced().await;
    slices.synced().await;
    let (mut namespaces, mut services, mut slices) = (namespaces.subscribe(), services.subscribe(), slices.subscribe());
    let mut index = Index::default();
    while let Ok(change) = namespaces.try_recv() {
        take_namespace(&mut index, &change);
    }
    while let Ok(change) = services.try_recv() {
        take_service(&mut index, &change);
    }
    while let Ok(change) = slices.try_recv() {
        take_slice(&mut index, &change);
    }
    *shared.write() = Some(index);
    loop {
        tokio::select! {
            Some(change) = namespaces.recv() => with(shared, |index| take_namespace(index, &change)),
            Some(change) = services.recv() => with(shared, |index| take_service(index, &change)),
            Some(change) = slices.recv() => with(shared, |index| take_slice(index, &change)),
            else => return,
        }
    }
}

fn with(shared: &Shared, change: impl FnOnce(&mut Index)) {
    if let Some(index) = shared.write().as_mut() {
        change(index);
    }
}

fn take_namespace(index: &mut Index, change: &Change<Namespace>) {
    index.set_namespace(change.object().metadata.name.as_deref().unwrap_or_default(), !matches!(change, Change::Deleted(_)));
}

fn take_service(index: &mut Index, change: &Change<Service>) {
    let meta = &change.object().metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    index.set_service(namespace, name, (!matches!(change, Change::Deleted(_))).then(|| change.object().clone()));
}

fn take_slice(index: &mut Index, change: &Change<EndpointSlice>) {
    index.set_slice(change.object(), !matches!(change, Change::Deleted(_)));
}

struct Handler {
    zone: Zone,
    index: Shared,
    forward: Forward,
    clients: Clients,
}

impl Handler {
    /// Answers, with addresses in random order, so that clients which take the first one spread over all.
    async fn answer(&self, request: &Request) -> Answer {
        let mut answer = self.answer_in_order(request).await;
        if answer.answers.len() > 1 && answer.answers.iter().all(|r| matches!(r.record_type(), RecordType::A | RecordType::AAAA)) {
            answer.answers.shuffle(&mut rand::rng());
        }
        answer
    }

    async fn answer_in_order(&self, request: &Request) -> Answer {
        if !self.clients.may_ask(request.src().ip()) {
            return Answer::empty(ResponseCode::Refused);
        }
        if request.metadata.op_code != OpCode::Query {
            return Answer::empty(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Answer::empty(ResponseCode::FormErr) };
        let query = info.query.original();
        if query.query_class() != DNSClass::IN {
            return Answer::empty(ResponseCode::Refused);
        }
        let (name, kind) = (query.name(), query.query_type());
        let outcome = match self.index.read().as_ref() {
            Some(index) => self.zone.resolve(index, name, kind),
            None => match self.zone.resolve(&Index::default(), name, kind) {
                Outcome::Forward => Outcome::Forward,
                _ => Outcome::Answer(Answer::empty(ResponseCode::ServFail)),
            },
        };
        match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Forward => self.forward.ask(name, kind).await,
            Outcome::Follow(mut answer, target) => {
                let more = self.forward.ask(&target, kind).await;
                answer.code = more.code;
                answer.answers.extend(more.answers);
                answer
            }
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responses: R) -> ResponseInfo {
        let answer = self.answer(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = answer.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = answer.code;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_version(0);
            edns.set_max_payload(asked.max_payload().clamp(512, LARGEST_UDP));
            edns
        });
        let none: [Record; 0] = [];
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = builder.build(metadata, &answer.answers, &answer.authorities, &none, &answer.additionals);
        match responses.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "DNS answer not sent");
                let mut failed = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
                failed.response_code = ResponseCode::ServFail;
                ResponseInfo::from(Header { metadata: failed, counts: HeaderCounts::default() })
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! `port-forward`: local ports to a pod's, each connection over a WebSocket of its own (`v4.channel.k8s.io`).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use futures::SinkExt;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::pods::{self, Purpose};
use crate::app::Ctx;
use crate::errors;
use crate::outln;
use crate::podspec;
use crate::resource::{Info, Query};

/// Forward one or more local ports to a pod
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TYPE/NAME, then ports: LOCAL, LOCAL:REMOTE, or :REMOTE
    #[arg(value_name = "TYPE/NAME [LOCAL:]REMOTE", add = crate::commands::complete::pods())]
    pub args: Vec<String>,
    /// Addresses to listen on (comma separated). Only accepts IP addresses or localhost as a value
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    pub address: Vec<String>,
    /// The length of time to wait until at least one pod is running
    #[arg(long, default_value = "1m0s")]
    pub pod_running_timeout: String,
}

/// A local port and the pod's port behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    local: u16,
    remote: u16,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let Some((target, ports)) = self.args.split_first().filter(|(_, ports)| !ports.is_empty()) else {
            return Err(errors::usage("port-forward", "TYPE/NAME and list of ports are required for port-forward"));
        };
        let limit = pods::running_timeout(&self.pod_running_timeout).map_err(|e| errors::usage("port-forward", e))?;
        let (owner, mut pod) = resolve(ctx, target, limit).await?;
        let pairs = ports.iter().map(|text| pair(text, owner.service(), &pod.object)).collect::<Result<Vec<_>>>()?;
        let phase = pod.object["status"]["phase"].as_str().unwrap_or_default();
        if phase != "Running" {
            bail!("unable to forward port because pod is not running. Current status={phase}");
        }
        let mut listeners = Vec::new();
        for (text, pair) in ports.iter().zip(pairs) {
            listeners.extend(self.listen(pair).await?.into_iter().map(|(listener, pair)| (listener, pair, text)));
        }
        loop {
            let path = format!("{}/portforward", pod.path());
            let mut serving: FuturesUnordered<_> = listeners.iter().map(|(listener, pair, _)| serve(ctx, listener, *pair, path.clone())).collect();
            let uid = pod.object["metadata"]["uid"].clone();
            // A pod that others stand in for is left as soon as it begins to end.
            let leaving = |o: &Value| o["metadata"]["uid"] != uid || owner.selector.is_some() && !o["metadata"]["deletionTimestamp"].is_null();
            let gone = super::wait::until(ctx, &pod, |o| o.is_none_or(leaving));
            tokio::select! {
                ended = serving.next() => return ended.unwrap_or(Ok(())),
                _ = gone => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
            drop(serving);
            let Some(next) = owner.successor(ctx, limit).await? else { bail!("lost connection to pod") };
            eprintln!("Lost pod/{}, forwarding to pod/{}", pod.name, next.name);
            for (_, pair, text) in &mut listeners {
                pair.remote = self::pair(text, owner.service(), &next.object)?.remote;
            }
            pod = next;
        }
    }

    async fn listen(&self, pair: Pair) -> Result<Vec<(TcpListener, Pair)>> {
        let mut open = Vec::new();
        let mut last = None;
        let mut local = pair.local;
        for address in &self.address {
            let addresses: Vec<&str> = if address == "localhost" { vec!["127.0.0.1", "::1"] } else { vec![address.as_str()] };
            for ip in addresses {
                let ip = ip.parse().map_err(|_| anyhow!("unable to parse address {ip:?}"))?;
                match TcpListener::bind(SocketAddr::new(ip, local)).await {
                    Ok(listener) => {
                        let bound = listener.local_addr()?;
                        // A port picked for one address is taken for the next one too.
                        local = bound.port();
                        outln!("Forwarding from {bound} -> {}", pair.remote);
                        open.push((listener, Pair { local, ..pair }));
                    }
                    Err(error) => {
                        last = Some(anyhow!(
                            "unable to listen on port {}: Listeners failed to create with the following errors: [unable to create listener: Error listen tcp {ip}:{local}: {error}]",
                            pair.local
                        ))
                    }
                }
            }
        }
        match (open.is_empty(), last) {
            (true, Some(error)) => Err(error),
            _ => Ok(open),
        }
    }
}

/// What was asked for, when it was no pod.
#[derive(Debug, Default)]
struct Owner {
    object: Option<Value>,
    namespace: Option<String>,
    /// Chooses its pods.
    selector: Option<String>,
}

impl Owner {
    /// The service, if it is one: its ports have names and numbers of their own.
    fn service(&self) -> Option<&Value> {
        self.object.as_ref().filter(|o| o["kind"] == "Service")
    }

    /// Another pod once it runs; none when a single pod was asked for.
    async fn successor(&self, ctx: &Ctx, limit: Duration) -> Result<Option<Info>> {
        let Some(selector) = &self.selector else { return Ok(None) };
        let runs = |pod: &Value| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
        let mut found = pods::appearing(ctx, self.namespace.as_deref(), selector, limit, runs).await?;
        found.retain(|pod| runs(&pod.object));
        found.sort_by_key(|pod| pods::rank(&pod.object));
        Ok(found.into_iter().next())
    }
}

/// The pod to talk to, and what it was asked for through.
async fn resolve(ctx: &Ctx, target: &str, limit: Duration) -> Result<(Owner, Info)> {
    let owner = match target.split_once('/') {
        Some((kind, _)) if !ctx.kind(kind).await?.is("", "Pod") => {
            let (infos, mut failures) = Query { args: vec![target.to_owned()], ..Query::default() }.infos(ctx).await?;
            if let Some(error) = failures.pop() {
                return Err(error);
            }
            let info = infos.into_iter().next();
            let selector = info.as_ref().and_then(|i| podspec::pod_selector(&i.object));
            Owner { namespace: info.as_ref().and_then(|i| i.namespace.clone()), object: info.map(|i| i.object), selector }
        }
        _ => Owner::default(),
    };
    Ok((owner, pods::find(ctx, target, Purpose::Attach, limit).await?))
}

fn pair(text: &str, service: Option<&Value>, pod: &Value) -> Result<Pair> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let remote = if text.contains(':') || service.is_none() { remote } else { text };
    let remote = match service {
        Some(service) => service_port(service, pod, remote)?,
        None => named_or_number(pod, remote)?,
    };
    let local = match local {
        "" => 0,
        number => number.parse().or_else(|_| if text.contains(':') { Err(anyhow!("error parsing local port {number:?}")) } else { Ok(remote) })?,
    };
    Ok(Pair { local, remote })
}

/// The pod's port behind a service's port.
fn service_port(service: &Value, pod: &Value, wanted: &str) -> Result<u16> {
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let number = wanted.parse::<i64>().ok();
    let port = ports.iter().find(|p| number.map_or_else(|| p["name"] == wanted, |n| p["port"] == n));
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let Some(port) = port else { bail!("Service {name} does not have a service port {wanted}") };
    match &port["targetPort"] {
        Value::Number(n) => u16::try_from(n.as_u64().unwrap_or(0)).map_err(|_| anyhow!("the service's target port {n} is out of range")),
        Value::String(name) => named_or_number(pod, name),
        _ => u16::try_from(port["port"].as_u64().unwrap_or(0)).map_err(|_| anyhow!("the service's port is out of range")),
    }
}

fn named_or_number(pod: &Value, wanted: &str) -> Result<u16> {
    if let Ok(number) = wanted.parse::<u16>() {
        if number == 0 {
            bail!("remote port must be > 0");
        }
        return Ok(number);
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let port = containers.flat_map(|c| c["ports"].as_array().cloned().unwrap_or_default()).find(|p| p["name"] == wanted);
    let number = port.and_then(|p| p["containerPort"].as_u64()).and_then(|p| u16::try_from(p).ok());
    number.ok_or_else(|| anyhow!("Pod '{}' does not have a named port '{wanted}'", pod["metadata"]["name"].as_str().unwrap_or_default()))
}

async fn serve(ctx: &Ctx, listener: &TcpListener, pair: Pair, path: String) -> Result<()> {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                eprintln!("Handling connection for {}", pair.local);
                open.push(forward(ctx, stream, pair.remote, &path));
            }
            Some(ended) = open.next() => if let Err(error) = ended {
                let error: anyhow::Error = error;
                eprintln!("error forwarding port {}: {error:#}", pair.remote);
            },
        }
    }
}

const DATA: u8 = 0;
const FAULT: u8 = 1;

/// Carries one connection until either side closes.
async fn forward(ctx: &Ctx, mut local: TcpStream, port: u16, path: &str) -> Result<()> {
    let socket = ctx.client().await?.socket(&format!("{path}?ports={port}"), "v4.channel.k8s.io").await?;
    let (mut sink, mut source) = socket.stream.split();
    let (mut read, mut write) = local.split();
    // Each channel begins with the number of its port.
    let mut greetings = [true, true];
    let mut buffer = vec![0u8; 32 * 1024];
    let mut reading = true;
    loop {
        tokio::select! {
            message = source.next() => match message {
                Some(Ok(Message::Binary(frame))) => {
                    let Some((channel, bytes)) = frame.split_first() else { continue };
                    if let Some(greeting) = greetings.get_mut(usize::from(*channel)) && std::mem::take(greeting) {
                        continue;
                    }
                    match *channel {
                        DATA => write.write_all(bytes).await?,
                        FAULT if !bytes.is_empty() => bail!("an error occurred forwarding {port}: {}", String::from_utf8_lossy(bytes)),
                        _ => {}
                    }
                }
                Some(Ok(Message::Ping(payload))) => sink.send(Message::Pong(payload)).await?,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => bail!("lost connection to pod: {error}"),
            },
            count = read.read(&mut buffer), if reading => match count? {
                0 => {
                    reading = false;
                    sink.send(Message::Close(None)).await.or_else(|_| Ok::<(), anyhow::Error>(()))?;
                }
                count => {
                    let mut frame = Vec::with_capacity(count + 1);
                    frame.push(DATA);
                    frame.extend_from_slice(&buffer[..count]);
                    sink.send(Message::Binary(frame.into())).await?;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_found_by_number_and_name() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 9000}]}});
        for (text, through_service, wanted) in [
            ("8080", false, Pair { local: 8080, remote: 8080 }),
            ("1:2", false, Pair { local: 1, remote: 2 }),
            (":2", false, Pair { local: 0, remote: 2 }),
            ("1:http", false, Pair { local: 1, remote: 8080 }),
            ("http", false, Pair { local: 8080, remote: 8080 }),
            ("80", true, Pair { local: 80, remote: 8080 }),
            ("5:web", true, Pair { local: 5, remote: 8080 }),
            ("81", true, Pair { local: 81, remote: 9000 }),
        ] {
            assert_eq!(pair(text, through_service.then_some(&service), &pod).unwrap(), wanted, "{text}");
        }
        assert!(pair("0", false.then_some(&service), &pod).is_err());
        assert!(pair("7", Some(&service), &pod).is_err());
    }
}

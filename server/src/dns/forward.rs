//! Questions that are not ours, asked of the node's own name servers.
//!
//! Owns the upstream resolver and its cache. Must never ask ourselves.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, Record, RecordType};

use super::answer::Answer;

/// Longest wait for one try.
const TRY: Duration = Duration::from_secs(2);
/// Longest wait altogether; a client gives up after 5 s.
const ALTOGETHER: Duration = Duration::from_millis(4500);
/// Answers kept.
const CACHE: u64 = 2048;

/// The way upstream.
pub struct Forward {
    resolver: Option<TokioResolver>,
}

impl Forward {
    /// Reads a `resolv.conf`; `ours` are the addresses at which we answer ourselves, by which a loop would arise.
    pub fn from_file(path: &Path, ours: &[SocketAddr], cluster_ip: Option<IpAddr>) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot be read; names outside of the cluster are not resolved");
            String::new()
        });
        let is_ours = |server: &SocketAddr| {
            cluster_ip == Some(server.ip())
                || ours.iter().any(|o| o.port() == server.port() && (o.ip() == server.ip() || (o.ip().is_unspecified() && server.ip().is_loopback())))
        };
        let servers: Vec<SocketAddr> = name_servers(&text).into_iter().filter(|s| !is_ours(s)).collect();
        Self::to(&servers)
    }

    /// Asks these servers.
    pub fn to(servers: &[SocketAddr]) -> Self {
        if servers.is_empty() {
            return Forward { resolver: None };
        }
        let configured = servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), configured.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TRY;
        options.attempts = 2;
        options.edns0 = true;
        options.cache_size = CACHE;
        options.use_hosts_file = ResolveHosts::Never;
        match builder.build() {
            Ok(resolver) => Forward { resolver: Some(resolver) },
            Err(error) => {
                tracing::warn!(%error, "no upstream resolver; names outside of the cluster are not resolved");
                Forward { resolver: None }
            }
        }
    }

    /// Asks upstream; whatever goes wrong is `SERVFAIL`.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Answer {
        let Some(resolver) = &self.resolver else { return Answer::empty(ResponseCode::ServFail) };
        let mut name = name.clone();
        name.set_fqdn(true);
        match tokio::time::timeout(ALTOGETHER, resolver.lookup(name, kind)).await {
            Ok(Ok(found)) => Answer { answers: found.answers().to_vec(), ..Answer::empty(ResponseCode::NoError) },
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let soa = none.soa.map(|soa| (*soa).into_record_of_rdata());
                Answer { authorities: soa.into_iter().collect::<Vec<Record>>(), ..Answer::empty(none.response_code) }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "upstream failed");
                Answer::empty(ResponseCode::ServFail)
            }
            Err(_) => Answer::empty(ResponseCode::ServFail),
        }
    }
}

/// The `nameserver` lines of a `resolv.conf`; at most three count, as in libc.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    servers.filter_map(|s| s.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_libc_does() {
        let text = "# x\nsearch a b\nnameserver 10.0.0.1 # one\n  nameserver fd00::1\nnameserver nonsense\noptions ndots:5\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n";
        let expected: Vec<SocketAddr> = ["10.0.0.1:53", "[fd00::1]:53", "1.1.1.1:53"].iter().map(|s| s.parse().unwrap()).collect();
        assert_eq!(name_servers(text), expected);
    }

    #[test]
    fn we_are_never_our_own_upstream() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver 127.0.0.1\n").unwrap();
        let ours: Vec<SocketAddr> = vec!["192.0.2.1:53".parse().unwrap(), "0.0.0.0:53".parse().unwrap()];
        assert!(Forward::from_file(&path, &ours, Some("10.96.0.10".parse().unwrap())).resolver.is_none());
        assert!(Forward::from_file(&path, &ours[..1], None).resolver.is_some());
    }
}

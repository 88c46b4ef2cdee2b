//! The server over real sockets on loopback.

use std::time::Instant;

use hickory_server::proto::op::{Message, Query};
use hickory_server::proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Serves an index; the server ends with what is returned.
async fn serve(domain: &str, index: Option<Index>, upstream: &[SocketAddr]) -> (Server<Handler>, SocketAddr) {
    let (udp, tcp, at) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let handler = Handler {
        zone: Zone::new(domain, TTL).unwrap(),
        index: Arc::new(RwLock::new(index)),
        forward: Forward::to(upstream),
        clients: Clients::new(&[]).unwrap(),
    };
    let mut server = Server::new(handler);
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_BUFFER);
    (server, at)
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

async fn ask(at: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&message.to_vec().unwrap(), at).await.unwrap();
    let mut buffer = [0; 65535];
    let (read, from) = tokio::time::timeout(Duration::from_secs(8), socket.recv_from(&mut buffer)).await.expect("an answer").unwrap();
    assert_eq!(from, at, "answers come from the address that was asked");
    Message::from_vec(&buffer[..read]).unwrap()
}

async fn ask_tcp(at: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let bytes = message.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

fn texts(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[tokio::test]
async fn questions_are_answered_over_udp_and_tcp() {
    let (_server, at) = serve("cluster.local", Some(index::tests::index()), &[]).await;
    let message = question("Plain.default.svc.cluster.local.", RecordType::A, None);
    for reply in [ask(at, &message).await, ask_tcp(at, &message).await] {
        assert_eq!(texts(&reply), ["10.96.0.5"]);
        assert_eq!(reply.metadata.id, message.metadata.id);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available && reply.metadata.recursion_desired);
        assert_eq!(reply.answers[0].ttl, 5);
        assert_eq!(reply.queries[0].name().to_string(), "Plain.default.svc.cluster.local.", "case is given back");
    }
    let absent = ask(at, &question("absent.default.svc.cluster.local.", RecordType::A, None)).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(absent.authorities[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_cut_and_whole_over_tcp() {
    let ips: Vec<String> = (1..=100).map(|i| format!("10.244.1.{i}")).collect();
    let endpoints: Vec<(&str, Option<&str>, bool)> = ips.iter().map(|ip| (ip.as_str(), None, true)).collect();
    let mut index = index::tests::index();
    index.set_slice(&index::tests::slice("db", &endpoints), true);
    let (_server, at) = serve("cluster.local", Some(index), &[]).await;
    let name = "db.default.svc.cluster.local.";
    let plain = ask(at, &question(name, RecordType::A, None)).await;
    assert!(plain.metadata.truncation && plain.answers.len() < 100);
    let larger = ask(at, &question(name, RecordType::A, Some(1232))).await;
    assert!(larger.metadata.truncation && larger.answers.len() > plain.answers.len());
    assert!(larger.edns.is_some() && plain.edns.is_none());
    let whole = ask_tcp(at, &question(name, RecordType::A, None)).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 100);
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_aliases_are_followed_there() {
    // Upstream is another of us, with a zone in which example.org has addresses and gone.org has none.
    let mut elsewhere = Index::default();
    elsewhere.set_namespace("example", true);
    elsewhere.set_service(
        "example",
        "www",
        Some(Arc::new(serde_json::from_value(serde_json::json!({ "metadata": {}, "spec": { "clusterIP": "192.0.2.7" } })).unwrap())),
    );
    let (_upstream, upstream_at) = serve("org", Some(elsewhere), &[]).await;
    let mut ours = index::tests::index();
    let alias = serde_json::json!({ "metadata": {}, "spec": { "type": "ExternalName", "externalName": "www.example.svc.org" } });
    ours.set_service("default", "alias", Some(Arc::new(serde_json::from_value(alias).unwrap())));
    let (_server, at) = serve("cluster.local", Some(ours), &[upstream_at]).await;
    let direct = ask(at, &question("www.example.svc.org.", RecordType::A, None)).await;
    assert_eq!(texts(&direct), ["192.0.2.7"]);
    assert!(!direct.metadata.authoritative);
    let followed = ask(at, &question("alias.default.svc.cluster.local.", RecordType::A, None)).await;
    assert_eq!(texts(&followed), ["www.example.svc.org.", "192.0.2.7"]);
    let absent = ask(at, &question("absent.example.svc.org.", RecordType::A, None)).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    let empty = ask(at, &question("www.example.svc.org.", RecordType::AAAA, None)).await;
    assert_eq!((empty.metadata.response_code, empty.answers.len()), (ResponseCode::NoError, 0));
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_a_failure_in_time() {
    // Bound, and never read.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for upstream in [vec![], vec![silent.local_addr().unwrap()]] {
        let (_server, at) = serve("cluster.local", Some(index::tests::index()), &upstream).await;
        let begun = Instant::now();
        let reply = ask(at, &question("example.org.", RecordType::A, None)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn before_the_index_is_in_nothing_is_taken_for_absent() {
    let (_server, at) = serve("cluster.local", None, &[]).await;
    let reply = ask(at, &question("plain.default.svc.cluster.local.", RecordType::A, None)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn names_follow_the_api_from_the_service_that_leads_here() {
    use crate::controllers::fake_api::FakeApi;
    let (api, tasks) = (FakeApi::new(), Tasks::new());
    api.insert(&serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kube-system" } }));
    let informers = Informers::new(api.client(), tasks.clone());
    let ip: IpAddr = "10.96.0.10".parse().unwrap();
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        domain: "cluster.local".into(),
        cluster_ip: Some(ip),
        resolv_conf: "/nonexistent".into(),
        clients: Vec::new(),
    };
    let at = run(config, &informers, &tasks).await.unwrap().addresses[0];
    for _ in 0..2 {
        ensure_service(api.client(), ip, at, "n1").await.unwrap();
    }
    let slice = api.get("discovery.k8s.io/endpointslices", "kube-system", "kube-dns-n1").unwrap();
    assert_eq!(slice["ports"][0]["port"], at.port());
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "kube-dns");
    assert_eq!(api.writes(), 2, "what is right is not written again");
    let eventually = async |name: &str, kind: RecordType, expected: &[&str]| {
        let begun = Instant::now();
        while texts(&ask(at, &question(name, kind, None)).await) != expected {
            assert!(begun.elapsed() < Duration::from_secs(10), "{name} is not {expected:?}");
            tokio::task::yield_now().await;
        }
    };
    eventually("kube-dns.kube-system.svc.cluster.local.", RecordType::A, &["10.96.0.10"]).await;
    eventually("ns.dns.cluster.local.", RecordType::A, &["10.96.0.10"]).await;
    eventually("10.0.96.10.in-addr.arpa.", RecordType::PTR, &["kube-dns.kube-system.svc.cluster.local."]).await;
    api.remove("services", "kube-system", "kube-dns");
    eventually("kube-dns.kube-system.svc.cluster.local.", RecordType::A, &[]).await;
    let error = ensure_service(api.client(), "10.96.0.11".parse().unwrap(), at, "n1").await;
    assert!(error.is_ok(), "it is made anew");
    let error = ensure_service(api.client(), ip, at, "n1").await.unwrap_err().to_string();
    assert!(error.contains("has the address 10.96.0.11, not 10.96.0.10"), "{error}");
    tasks.shutdown(Duration::from_secs(5)).await;
}

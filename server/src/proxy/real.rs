//! The proxy against a real kernel: a host and pods as network namespaces, all inside a namespace of their own, so that nothing
//! of the machine is touched. Needs root, `unshare`, `ip` and `nft`; without them the test says so and ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::model::tests::{service, slice};
use super::*;

const INSIDE: &str = "KSERVER_TEST_INSIDE_NETNS";

fn have(tool: &str, args: &[&str]) -> bool {
    Command::new(tool).args(args).output().is_ok_and(|o| o.status.success())
}

/// Runs an ignored test of this file in a fresh network, mount and process namespace.
fn in_a_world_of_its_own(test: &str) {
    if !rustix::process::geteuid().is_root() || !have("nft", &["--version"]) || !have("ip", &["-V"]) || !have("unshare", &["--net", "true"]) {
        println!("skipped: needs root, nft, ip and unshare");
        return;
    }
    let script = format!("mount -t tmpfs tmpfs /run && ip link set lo up && exec \"$0\" --exact proxy::real::{test} --ignored --nocapture");
    let exe = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script])
        .arg(exe)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{test} failed inside its namespaces");
}

#[test]
fn services_work_in_a_real_kernel() {
    in_a_world_of_its_own("inside_services");
}

#[test]
fn five_thousand_services_load_in_one_transaction() {
    in_a_world_of_its_own("inside_many_services");
}

fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a function on a thread that lives in a namespace; `""` is the host's.
fn within<T: Send + 'static>(namespace: &str, f: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let path = (!namespace.is_empty()).then(|| format!("/run/netns/{namespace}"));
    std::thread::spawn(move || {
        if let Some(path) = path {
            let file = std::fs::File::open(path).unwrap();
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network)).unwrap();
        }
        f()
    })
}

/// Serves, over TCP and UDP, its name and the client's address as it sees it.
fn serve(namespace: &str, port: u16) {
    let name = namespace.to_owned();
    let (tcp, udp) =
        within(namespace, move || (TcpListener::bind(("0.0.0.0", port)).unwrap(), UdpSocket::bind(("0.0.0.0", port)).unwrap())).join().unwrap();
    let udp_name = name.clone();
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = stream.write_all(format!("{name} {peer}").as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (_, peer) = udp.recv_from(&mut buffer).unwrap();
            let _ = udp.send_to(format!("{udp_name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// What a client in a namespace gets from an address.
fn ask(namespace: &str, to: &str) -> Result<String, std::io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    within(namespace, move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(|e| e.kind())?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).map_err(|e| e.kind())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|e| e.kind())?;
        Ok(text)
    })
    .join()
    .unwrap()
}

fn ask_udp(socket: &UdpSocket, to: &str) -> Result<String, std::io::ErrorKind> {
    let mut buffer = [0; 64];
    socket.send_to(b"?", to).map_err(|e| e.kind())?;
    let (read, _) = socket.recv_from(&mut buffer).map_err(|e| e.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

/// The servers that answer over a number of connections.
fn answering(namespace: &str, to: &str) -> BTreeSet<String> {
    (0..24).map(|_| ask(namespace, to).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

/// Two pods on a bridge, and a machine outside.
fn world() {
    sh("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.244.0.1/24 dev br0");
    for i in [2, 3] {
        sh(&format!(
            "ip netns add p{i}; ip link add v{i} type veth peer name eth0 netns p{i}; ip link set v{i} master br0 up; \
             ip link set v{i} type bridge_slave hairpin on; ip -n p{i} link set lo up; ip -n p{i} link set eth0 up; \
             ip -n p{i} addr add 10.244.0.{i}/24 dev eth0; ip -n p{i} route add default via 10.244.0.1"
        ));
    }
    sh("ip netns add out; ip link add up0 type veth peer name eth0 netns out; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up; \
        ip -n out link set lo up; ip -n out link set eth0 up; ip -n out addr add 192.0.2.9/24 dev eth0; ip -n out route add 203.0.113.0/24 via 192.0.2.1");
    serve("p2", 8080);
    serve("p3", 8080);
    serve("out", 9090);
}

fn proxy() -> Proxy {
    Proxy::new(Config {
        node_name: "n1".into(),
        cluster_cidr: "10.244.0.0/16".into(),
        service_cidr: "10.96.0.0/12".into(),
        table: "kserver-test".into(),
    })
}

impl Proxy {
    fn put(&mut self, service: Service) -> &mut Self {
        self.tracker.service(Change::Added(Arc::new(service)));
        self
    }
    fn endpoints(&mut self, slice: EndpointSlice) -> &mut Self {
        self.tracker.slice(Change::Added(Arc::new(slice)));
        self
    }
    async fn synced(&mut self) {
        assert_eq!(self.sync().await, None, "loads");
        assert_eq!(self.loaded, Loaded::UpToChanges);
    }
}

const P2: (&str, &str) = ("10.244.0.2", "rs");
const P3: (&str, &str) = ("10.244.0.3", "rs");

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside its own namespaces"]
async fn inside_services() {
    assert!(std::env::var_os(INSIDE).is_some(), "only inside its own namespaces");
    world();
    host::prepare(true).await;
    host::add_route("10.96.0.0/12", true).await;
    let mut proxy = proxy();
    proxy.put(service("a", json!({ "type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{ "port": 80, "nodePort": 30080 }] })));
    proxy.endpoints(slice("a", "TCP", 8080, &[P2, P3]));
    proxy.put(service("none", json!({ "type": "NodePort", "clusterIP": "10.96.0.2", "ports": [{ "port": 80, "nodePort": 30081 }] })));
    proxy.synced().await;
    reachable_from_everywhere();
    refused_at_once();
    outgoing_packets_are_masqueraded();
    backends_come_and_go(&mut proxy).await;
    clients_stay_with_their_backend(&mut proxy).await;
    local_policies_keep_the_source(&mut proxy).await;
    balancer_addresses_work(&mut proxy).await;
    udp_flows_move_on(&mut proxy).await;
    survives_a_lost_table(&mut proxy).await;
    no_request_is_lost_while_backends_change(proxy).await;
    cleanup("kserver-test", "10.96.0.0/12").await.unwrap();
    let left = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
    let routes = Command::new("ip").args(["route"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&routes.stdout).contains("10.96"));
}

fn reachable_from_everywhere() {
    let both = BTreeSet::from(["p2".to_owned(), "p3".to_owned()]);
    assert_eq!(answering("p2", "10.96.0.1:80"), both, "cluster IP from a pod");
    assert_eq!(answering("", "10.96.0.1:80"), both, "cluster IP from the host, without a default route");
    assert_eq!(answering("out", "192.0.2.1:30080"), both, "node port from outside");
    assert_eq!(answering("p3", "10.244.0.1:30080"), both, "node port from a pod");
    assert_eq!(answering("", "192.0.2.1:30080"), both, "node port from the host");
    let seen: BTreeSet<String> = (0..24).map(|_| ask("p2", "10.96.0.1:80").unwrap()).collect();
    let expected = BTreeSet::from(["p2 10.244.0.1".to_owned(), "p3 10.244.0.2".to_owned()]);
    assert_eq!(seen, expected, "a pod keeps its address but when it reaches itself");
    assert_eq!(ask("out", "192.0.2.1:30080").unwrap().split(' ').nth(1), Some("10.244.0.1"), "node ports are masqueraded");
}

fn refused_at_once() {
    use std::io::ErrorKind::ConnectionRefused;
    for (from, to) in [
        ("p2", "10.96.0.2:80"),
        ("", "10.96.0.2:80"),
        ("p2", "10.96.7.7:80"),
        ("", "10.96.7.7:443"),
        ("out", "192.0.2.1:30081"),
        ("", "192.0.2.1:30081"),
    ] {
        let begun = Instant::now();
        assert_eq!(ask(from, to), Err(ConnectionRefused), "{from} {to}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{from} {to} hung");
    }
}

fn outgoing_packets_are_masqueraded() {
    assert_eq!(ask("p2", "192.0.2.9:9090").unwrap(), "out 192.0.2.1");
}

async fn backends_come_and_go(proxy: &mut Proxy) {
    for _ in 0..5 {
        proxy.endpoints(slice("a", "TCP", 8080, &[P3])).synced().await;
        assert_eq!(answering("p2", "10.96.0.1:80"), BTreeSet::from(["p3".to_owned()]), "nothing goes to what is gone");
        proxy.endpoints(slice("a", "TCP", 8080, &[P2])).synced().await;
        assert_eq!(answering("", "192.0.2.1:30080"), BTreeSet::from(["p2".to_owned()]));
    }
    proxy.endpoints(slice("a", "TCP", 8080, &[])).synced().await;
    assert_eq!(ask("out", "192.0.2.1:30080"), Err(std::io::ErrorKind::ConnectionRefused));
    proxy.endpoints(slice("a", "TCP", 8080, &[P2, P3])).synced().await;
    assert_eq!(answering("p3", "10.96.0.1:80").len(), 2);
}

async fn clients_stay_with_their_backend(proxy: &mut Proxy) {
    let spec = json!({ "clusterIP": "10.96.0.3", "sessionAffinity": "ClientIP", "ports": [{ "port": 80 }] });
    proxy.put(service("sticky", spec)).endpoints(slice("sticky", "TCP", 8080, &[P2, P3])).synced().await;
    let first = answering("p3", "10.96.0.3:80");
    assert_eq!(first.len(), 1, "{first:?}");
    let left = if first.contains("p2") { P3 } else { P2 };
    proxy.endpoints(slice("sticky", "TCP", 8080, &[left])).synced().await;
    let second = answering("p3", "10.96.0.3:80");
    assert!(second.len() == 1 && second != first, "moves on when its backend is gone");
    proxy.endpoints(slice("sticky", "TCP", 8080, &[P2, P3])).synced().await;
    assert_eq!(answering("p3", "10.96.0.3:80"), second, "and then stays");
    proxy.tracker.service(Change::Deleted(Arc::new(service("sticky", json!({})))));
    proxy.synced().await;
    assert!(ask("p3", "10.96.0.3:80").is_err());
}

async fn local_policies_keep_the_source(proxy: &mut Proxy) {
    let spec =
        json!({ "type": "NodePort", "clusterIP": "10.96.0.4", "externalTrafficPolicy": "Local", "ports": [{ "port": 80, "nodePort": 30082 }] });
    proxy.put(service("local", spec)).endpoints(slice("local", "TCP", 8080, &[("10.244.0.2@n1", "rs"), ("10.244.0.3@n2", "rs")])).synced().await;
    let seen: BTreeSet<String> = (0..12).map(|_| ask("out", "192.0.2.1:30082").unwrap()).collect();
    assert_eq!(seen, BTreeSet::from(["p2 192.0.2.9".to_owned()]), "only the local backend, and it sees the client");
    assert_eq!(answering("p2", "10.244.0.1:30082").len(), 2, "pods reach all backends");
    proxy.endpoints(slice("local", "TCP", 8080, &[("10.244.0.3@n2", "rs")])).synced().await;
    assert_eq!(ask("out", "192.0.2.1:30082"), Err(std::io::ErrorKind::TimedOut), "dropped, so that a balancer looks elsewhere");
    assert_eq!(ask("", "192.0.2.1:30082").unwrap().split(' ').next(), Some("p3"));
}

async fn balancer_addresses_work(proxy: &mut Proxy) {
    let spec = json!({ "type": "LoadBalancer", "clusterIP": "10.96.0.5", "loadBalancerIP": "203.0.113.5", "ports": [{ "port": 80 }] });
    proxy.put(service("balanced", spec)).endpoints(slice("balanced", "TCP", 8080, &[P2])).synced().await;
    assert_eq!(ask("out", "203.0.113.5:80").unwrap(), "p2 10.244.0.1");
    let guarded = |ranges: serde_json::Value| {
        service(
            "balanced",
            json!({ "type": "LoadBalancer", "clusterIP": "10.96.0.5", "loadBalancerIP": "203.0.113.5", "ports": [{ "port": 80 }],
                "loadBalancerSourceRanges": ranges }),
        )
    };
    proxy.put(guarded(json!(["192.0.2.8/32", "198.51.100.0/24"]))).synced().await;
    assert_eq!(ask("out", "203.0.113.5:80"), Err(std::io::ErrorKind::TimedOut), "not among the source ranges");
    assert!(ask("p3", "10.96.0.5:80").is_ok(), "the cluster IP is not guarded");
    proxy.put(guarded(json!(["192.0.2.8/31", "192.0.2.9/32"]))).synced().await;
    assert_eq!(ask("out", "203.0.113.5:80").unwrap(), "p2 10.244.0.1");
    proxy.endpoints(slice("balanced", "TCP", 8080, &[])).synced().await;
    // Refusing needs a packet that can be routed at all.
    sh("ip route add default via 192.0.2.9");
    assert_eq!(ask("out", "203.0.113.5:80"), Err(std::io::ErrorKind::ConnectionRefused));
}

async fn udp_flows_move_on(proxy: &mut Proxy) {
    let spec = json!({ "clusterIP": "10.96.0.10", "ports": [{ "port": 53, "protocol": "UDP" }] });
    proxy.put(service("dns", spec)).endpoints(slice("dns", "UDP", 8080, &[P2])).synced().await;
    // One socket, so one flow.
    let socket = within("p3", || UdpSocket::bind("0.0.0.0:0").unwrap()).join().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert_eq!(ask_udp(&socket, "10.96.0.10:53").unwrap(), "p2 10.244.0.3");
    proxy.endpoints(slice("dns", "UDP", 8080, &[P3])).synced().await;
    assert_eq!(ask_udp(&socket, "10.96.0.10:53").unwrap().split(' ').next(), Some("p3"), "the old flow is forgotten");
}

async fn survives_a_lost_table(proxy: &mut Proxy) {
    sh("nft delete table ip kserver-test");
    proxy.endpoints(slice("balanced", "TCP", 8080, &[P3])).synced().await;
    assert_eq!(ask("p2", "10.96.0.5:80").unwrap(), "p3 10.244.0.2");
    assert_eq!(answering("", "10.96.0.1:80").len(), 2, "everything is back");
}

/// The proxy's own loop, under a stream of changes and of requests.
async fn no_request_is_lost_while_backends_change(proxy: Proxy) {
    let (services, service_changes) = tokio::sync::mpsc::unbounded_channel();
    let (slices, slice_changes) = tokio::sync::mpsc::unbounded_channel();
    let running = tokio::spawn(proxy.run(service_changes, slice_changes));
    let clients = within("p2", || {
        let request = || {
            let mut text = String::new();
            let mut stream = TcpStream::connect_timeout(&"10.96.0.1:80".parse().unwrap(), Duration::from_secs(2))?;
            stream.read_to_string(&mut text)?;
            Ok::<String, std::io::Error>(text)
        };
        (0..400).map(|_| request()).collect::<Result<Vec<String>, _>>()
    });
    let mut turn = 0;
    while !clients.is_finished() {
        let endpoints = [[P2].as_slice(), &[P2, P3], &[P3], &[P3, P2]][turn % 4];
        slices.send(Change::Added(Arc::new(slice("a", "TCP", 8080, endpoints)))).unwrap();
        turn += 1;
        // Some changes come alone, some close together.
        if turn % 3 != 0 {
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    }
    assert_eq!(clients.join().unwrap().unwrap().len(), 400);
    slices.send(Change::Added(Arc::new(slice("a", "TCP", 8080, &[P3])))).unwrap();
    services.send(Change::Added(Arc::new(service("last", json!({ "clusterIP": "10.96.0.99", "ports": [{ "port": 80 }] }))))).unwrap();
    slices.send(Change::Added(Arc::new(slice("last", "TCP", 8080, &[P2])))).unwrap();
    let begun = Instant::now();
    while ask("p3", "10.96.0.99:80").is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the last change is not applied");
    }
    assert_eq!(answering("p2", "10.96.0.1:80"), BTreeSet::from(["p3".to_owned()]));
    drop((services, slices));
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside its own namespaces"]
async fn inside_many_services() {
    assert!(std::env::var_os(INSIDE).is_some(), "only inside its own namespaces");
    let mut proxy = proxy();
    for i in 0..5000u32 {
        let (name, ip) = (format!("s{i}"), Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + i));
        proxy.put(service(&name, json!({ "clusterIP": ip, "ports": [{ "port": 80 }] })));
        let a = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 1, 0)) + i * 2).to_string();
        let b = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 1, 1)) + i * 2).to_string();
        proxy.endpoints(slice(&name, "TCP", 80, &[(&a, "rs"), (&b, "rs")]));
    }
    let begun = Instant::now();
    proxy.synced().await;
    println!("first load {:?}", begun.elapsed());
    let begun = Instant::now();
    proxy.endpoints(slice("s77", "TCP", 80, &[("10.244.9.9", "rs")]));
    for (key, fragment) in proxy.tracker.take("n1") {
        assert!(proxy.table.set(&key, fragment.as_ref()));
    }
    let text = proxy.table.take_changes().unwrap();
    assert!(text.lines().count() < 12, "one Service's change is small: {text}");
    nft::apply(&text).await.unwrap();
    println!("one change {:?}", begun.elapsed());
    let listed = Command::new("nft").args(["list", "map", "ip", "kserver-test", "services"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).matches("goto").count(), 5000);
    let chains = Command::new("nft").args(["list", "chains"]).output().unwrap();
    assert!(String::from_utf8_lossy(&chains.stdout).matches("chain ").count() < 20, "no chain a Service");
}

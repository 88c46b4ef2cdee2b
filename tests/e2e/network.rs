//! Services, names and endpoints, seen from the node and from pods.

use tests::machine::ADDRESS;
use tests::{Cluster, eventually};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("network::pods_find_services_by_name_and_address", pods_find_services_by_name_and_address),
    ("network::deleting_a_backend_loses_no_request", deleting_a_backend_loses_no_request),
    ("network::a_service_without_endpoints_refuses_at_once", a_service_without_endpoints_refuses_at_once),
    ("network::pods_reach_the_api_server_with_their_token", pods_reach_the_api_server_with_their_token),
    ("network::a_nodeport_is_given_once", a_nodeport_is_given_once),
];

fn web(c: &Cluster, n: &str, replicas: u32) {
    c.kctl(&format!("-n {n} create deployment web --image=nginx:live --replicas={replicas}")).ok();
    c.kctl(&format!("-n {n} expose deployment web --port=80 --target-port=80")).ok();
    c.kctl(&format!("-n {n} rollout status deployment web --timeout=90s")).ok();
}

fn pods_find_services_by_name_and_address(c: &Cluster) {
    let n = c.namespace("names");
    web(c, n, 1);
    c.kctl(&format!("-n {n} run client --image=busybox:1 --command -- sleep 3600")).ok();
    c.kctl(&format!("-n {n} wait --for=condition=Ready pod/client --timeout=60s")).ok();
    let address = c.path(&format!("-n {n} service web"), "{.spec.clusterIP}");
    for host in ["web", "web.names", "web.names.svc.cluster.local", &address] {
        eventually(&format!("http://{host} from a pod"), || {
            let page = c.kctl(&format!("-n {n} exec client -- timeout 3 wget -q -O - http://{host}/"));
            if page.stdout.contains("Welcome to nginx!") { Ok(()) } else { Err(page.to_string()) }
        });
    }
    c.machine.sh(&format!("curl -fsS --max-time 3 http://{address}/")).contains("Welcome to nginx!");
    let unknown = c.kctl(&format!("-n {n} exec client -- timeout 5 wget -q -O - http://absent.names.svc.cluster.local/")).fails();
    assert!(unknown.contains("bad address"), "{unknown}");
    // A pod reaches itself through its own service.
    let pod = c.path(&format!("-n {n} pods -l app=web"), "{.items[0].metadata.name}");
    c.kctl(&format!("-n {n} exec {pod} -- timeout 3 wget -q -O - http://web/")).contains("Welcome to nginx!");
}

fn deleting_a_backend_loses_no_request(c: &Cluster) {
    let n = c.namespace("drained");
    web(c, n, 2);
    c.kctl(&format!("-n {n} patch service web -p '{{\"spec\":{{\"type\":\"NodePort\"}}}}'")).ok();
    let port = c.path(&format!("-n {n} service web"), "{.spec.ports[0].nodePort}");
    eventually("the node port answers", || {
        let page = c.machine.sh(&format!("curl -fsS --max-time 2 http://{ADDRESS}:{port}/"));
        if page.succeeded() { Ok(()) } else { Err(page.to_string()) }
    });
    let victim = c.path(&format!("-n {n} pods -l app=web"), "{.items[0].metadata.name}");
    let address = c.path(&format!("-n {n} pod {victim}"), "{.status.podIP}");
    c.kctl(&format!("-n {n} scale deployment web --replicas=1")).ok();
    c.kctl(&format!("-n {n} delete pod {victim} --wait=false --ignore-not-found")).ok();
    eventually("its endpoint is gone", || {
        let ready = c.path(&format!("-n {n} endpoints web"), "{.subsets[*].addresses[*].ip}");
        if !ready.is_empty() && !ready.split(' ').any(|ip| ip == address) { Ok(()) } else { Err(ready) }
    });
    // The rules follow the endpoints a moment later; from the first success of a fresh connection on, none may fail.
    let script = format!(
        "failed=0; for i in $(seq 200); do curl -fsS -o /dev/null --max-time 2 http://{ADDRESS}:{port}/ || failed=$((failed+1)); done; echo failed $failed"
    );
    c.machine.sh(&script).prints("failed 0\n");
}

fn a_service_without_endpoints_refuses_at_once(c: &Cluster) {
    let n = c.namespace("empty");
    c.kctl(&format!("-n {n} create service clusterip nobody --tcp=80")).ok();
    let address = c.path(&format!("-n {n} service nobody"), "{.spec.clusterIP}");
    eventually("a refusal", || {
        let refused = c.machine.sh(&format!("curl -sS --max-time 5 http://{address}/"));
        if refused.code == 7 { Ok(()) } else { Err(refused.to_string()) }
    });
}

fn pods_reach_the_api_server_with_their_token(c: &Cluster) {
    let n = c.namespace("tokens");
    c.kctl(&format!("-n {n} run client --image=busybox:1 --command -- sleep 3600")).ok();
    c.kctl(&format!("-n {n} wait --for=condition=Ready pod/client --timeout=60s")).ok();
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = c.kctl(&format!("-n {n} exec client -- cat {dir}/token")).ok();
    c.kctl(&format!("-n {n} exec client -- cat {dir}/namespace")).prints(n);
    let ca = c.file("pod-ca.crt", &c.kctl(&format!("-n {n} exec client -- cat {dir}/ca.crt")).ok());
    let environment = c.kctl(&format!("-n {n} exec client -- printenv KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT")).ok();
    let (host, port) = environment.trim().split_once('\n').expect("two lines");
    let call = |path: &str| {
        c.machine.sh(&format!("curl -sS --cacert {} -H 'Authorization: Bearer {}' https://{host}:{port}{path}", ca.display(), token.trim()))
    };
    call("/version").contains("\"gitVersion\"");
    call(&format!("/api/v1/namespaces/{n}/pods")).contains(&format!("pods is forbidden: User \\\"system:serviceaccount:{n}:default\\\" cannot list resource \\\"pods\\\" in API group \\\"\\\" in the namespace \\\"{n}\\\""));
    c.kctl(&format!("-n {n} create rolebinding view --clusterrole=view --serviceaccount={n}:default")).ok();
    eventually("the binding lets it list pods", || {
        let list = call(&format!("/api/v1/namespaces/{n}/pods"));
        if list.stdout.contains("PodList") { Ok(()) } else { Err(list.to_string()) }
    });
}

fn a_nodeport_is_given_once(c: &Cluster) {
    let n = c.namespace("ports");
    c.kctl(&format!("-n {n} create service nodeport first --tcp=80 --node-port=30777")).ok();
    let taken = c.kctl(&format!("-n {n} create service nodeport second --tcp=80 --node-port=30777")).fails();
    assert!(taken.contains("spec.ports[0].nodePort: Invalid value: 30777: provided port is already allocated"), "{taken}");
    c.kctl(&format!("-n {n} delete service first")).ok();
    c.kctl(&format!("-n {n} create service nodeport second --tcp=80 --node-port=30777")).ok();
}

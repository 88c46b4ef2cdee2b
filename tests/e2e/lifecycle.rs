//! Starting, stopping, resuming, and what an instance says when it cannot.

use tests::{Cluster, Start, bin_dir, eventually};

use crate::Own;

pub const TESTS: &[Own] = &[
    ("lifecycle::down_stops_everything_and_up_resumes", down_stops_everything_and_up_resumes),
    ("lifecycle::simulated_nodes_run_pods_without_containers", simulated_nodes_run_pods_without_containers),
    ("lifecycle::trouble_is_named_with_its_fix", trouble_is_named_with_its_fix),
    ("lifecycle::relative_paths_mean_the_callers_directory", relative_paths_mean_the_callers_directory),
    ("lifecycle::an_existing_kubeconfig_is_kept", an_existing_kubeconfig_is_kept),
    ("lifecycle::token_keys_are_rotated_and_revoked_while_it_runs", token_keys_are_rotated_and_revoked_while_it_runs),
];

fn down_stops_everything_and_up_resumes() {
    let c = Cluster::with_containers();
    c.kctl("create deployment web --image=nginx:live").ok();
    c.kctl("rollout status deployment web --timeout=60s").ok();
    let marker = c.path("deployment web", "{.metadata.uid}");
    c.kserver(&["status"]).contains("Ready");
    c.kserver(&["down"]).contains("stopped");
    c.kserver(&["status"]).fails();
    let left = c.machine.sh("nft list tables; ip -o link show type bridge").ok();
    assert_eq!(left, "", "rules or bridges are left");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("Linux");
    let data = c.data_dir().display().to_string();
    assert!(!mounts.contains(&data), "mounts are left below {data}");
    // Twice does no harm.
    c.kserver(&["down"]).ok();
    c.up().ok();
    assert_eq!(c.path("deployment web", "{.metadata.uid}"), marker);
    c.kctl("wait --for=condition=Available deployment/web --timeout=60s").ok();
    c.up().fails();
}

fn simulated_nodes_run_pods_without_containers() {
    let c = Cluster::new(Start { simulated_nodes: Some(3), ..Start::default() });
    assert_eq!(c.kctl("get nodes -o name").ok().lines().count(), 3);
    c.kctl("get nodes -o wide").contains("simulated://");
    c.kctl("create deployment web --image=anything --replicas=30").ok();
    c.kctl("rollout status deployment web --timeout=60s").ok();
    c.kctl("delete deployment web").ok();
    eventually("the pods are gone", || {
        let pods = c.kctl("get pods -o name").stdout;
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
}

fn trouble_is_named_with_its_fix() {
    let c = Cluster::prepare(Start { simulated_nodes: Some(1), ..Start::default() });
    let one_line = |output: tests::Output, part: &str| {
        let text = output.fails();
        assert!(text.lines().count() == 1 && text.contains(part), "should be one line with {part:?}: {text}");
    };
    one_line(c.kserver(&["status"]), "kserver up --detach");
    let mut listener = c.machine.command("busybox").args(["httpd", "-f", "-p", "7443"]).spawn().expect("busybox is there");
    eventually("the port is taken", || {
        let taken = c.machine.sh("ss -Hltn 'sport = :7443' 2>/dev/null || cat /proc/net/tcp");
        if taken.stdout.contains("7443") || taken.stdout.contains("1D13") { Ok(()) } else { Err(taken.to_string()) }
    });
    one_line(c.kserver(&["up", "--detach", "--simulated-nodes=1", "--secure-port=7443"]), "port 7443 is taken");
    listener.kill().expect("it can be ended");
    listener.wait().expect("it ends");
    one_line(c.kserver(&["up", "--detach", "--simulated-nodes=1", "--pod-cidr=10.96.0.0/16"]), "overlap");
    let output = {
        let mut command = c.client("setpriv".into(), &["--reuid=65534", "--regid=65534", "--clear-groups"]);
        // Nobody may not read the build directory of root.
        let copy = c.file("unused", "").with_file_name("kserver");
        std::fs::copy(bin_dir().join("kserver"), &copy).expect("a copy");
        let _ = std::fs::set_permissions(copy.parent().expect("a parent"), std::os::unix::fs::PermissionsExt::from_mode(0o755));
        command.arg(copy).args(["up", "--data-dir", "/tmp/kserver-nobody-unused"]);
        tests::machine::run(command)
    };
    one_line(output, "--simulated-nodes 1");
    c.up().ok();
    c.kserver(&["down"]).ok();
    let record = c.data_dir().join("instance.json");
    std::fs::write(&record, "garbage").expect("a file");
    one_line(c.up(), "instance.json is damaged");
    std::fs::remove_file(&record).expect("a file");
    c.up().ok();
}

fn relative_paths_mean_the_callers_directory() {
    let c = Cluster::prepare(Start { simulated_nodes: Some(1), ..Start::default() });
    let home = c.kubeconfig().parent().expect("it lies in a directory").to_owned();
    let args = ["up", "--detach", "--simulated-nodes=1", "--data-dir=data", "--kubeconfig=kubeconfig", "--audit-log-path=audit.log"];
    let mut up = c.client(bin_dir().join("kserver"), &args);
    up.current_dir(&home);
    tests::machine::run(up).ok();
    c.kctl("create configmap audited --from-literal=word=hidden").ok();
    c.kctl("delete configmap audited").ok();
    let log = eventually("the audit log tells of it", || {
        let log = std::fs::read_to_string(home.join("audit.log")).unwrap_or_default();
        if log.contains("\"name\":\"audited\"") { Ok(log) } else { Err(format!("{} bytes", log.len())) }
    });
    assert!(log.contains("\"verb\":\"create\"") && !log.contains("hidden"), "it tells what is in objects");
    c.kserver(&["status"]).contains("Ready");
}

fn an_existing_kubeconfig_is_kept() {
    let c = Cluster::prepare(Start { simulated_nodes: Some(1), ..Start::default() });
    let mine = "apiVersion: v1\nkind: Config\ncurrent-context: mine\nx-unknown: kept\nclusters:\n- {name: mine, cluster: {server: 'https://192.0.2.1:6443'}}\ncontexts:\n- {name: mine, context: {cluster: mine, user: mine}}\nusers:\n- {name: mine, user: {token: secret}}\n";
    std::fs::write(c.kubeconfig(), mine).expect("a file");
    c.up().ok();
    let merged = std::fs::read_to_string(c.kubeconfig()).expect("a file");
    assert!(merged.contains("x-unknown: kept") && merged.contains("192.0.2.1:6443") && merged.contains("token: secret"), "{merged}");
    c.kctl("config get-contexts -o name").contains("kserver\n");
    c.kctl("--context kserver get nodes").ok();
}

fn token_keys_are_rotated_and_revoked_while_it_runs() {
    let c = Cluster::prepare(Start { simulated_nodes: Some(1), ..Start::default() });
    c.kserver(&["token-key", "rotate"]).fails();
    c.up().ok();
    let port = c.path("endpoints kubernetes", "{.subsets[0].ports[0].port}");
    let ca = c.data_dir().join("pki/ca.crt");
    let token = || c.kctl("create token default").ok().trim().to_owned();
    let who = |token: &str| {
        let line =
            format!("--kubeconfig=/dev/null --server=https://127.0.0.1:{port} --certificate-authority={} --token={token} auth whoami", ca.display());
        c.kubectl(&line)
    };
    let keys = || c.kubectl("get --raw /openid/v1/jwks").ok().matches("\"kid\"").count();
    let before = token();
    who(&before).contains("system:serviceaccount:default:default");
    c.kserver(&["token-key", "rotate"]).contains("stay valid");
    let after = token();
    assert_eq!(keys(), 2);
    for good in [&before, &after] {
        who(good).contains("system:serviceaccount:default:default");
    }
    // While it is down too, and it comes up with what there is then.
    c.kserver(&["down"]).ok();
    c.kserver(&["token-key", "rotate"]).ok();
    c.up().ok();
    assert_eq!(keys(), 3);
    who(&before).contains("system:serviceaccount:default:default");
    let last = token();
    c.kserver(&["token-key", "revoke"]).contains("refused");
    assert_eq!(keys(), 1);
    for gone in [&before, &after] {
        let text = who(gone).fails();
        assert!(text.contains("You must be logged in") || text.contains("Unauthorized"), "{text}");
    }
    who(&last).contains("system:serviceaccount:default:default");
}

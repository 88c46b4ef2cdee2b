//! Stock kubectl against kserver, and what both clients print.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use tests::{Cluster, bin_dir, eventually, stock};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("clients::stock_kubectl_manages_a_deployment", stock_kubectl_manages_a_deployment),
    ("clients::stock_kubectl_applies_patches_and_edits", stock_kubectl_applies_patches_and_edits),
    ("clients::both_clients_print_the_same_tables", both_clients_print_the_same_tables),
    ("clients::both_clients_report_the_same_errors", both_clients_report_the_same_errors),
    ("clients::discovery_and_version_satisfy_kubectl", discovery_and_version_satisfy_kubectl),
    ("clients::a_watch_shows_what_happens", a_watch_shows_what_happens),
    ("clients::both_clients_feed_remote_commands_and_end_their_input", both_clients_feed_remote_commands_and_end_their_input),
    ("clients::helm_installs_upgrades_and_removes_a_chart", helm_installs_upgrades_and_removes_a_chart),
];

fn stock_kubectl_manages_a_deployment(c: &Cluster) {
    let n = c.namespace("stock");
    c.kubectl(&format!("-n {n} create deployment web --image=nginx:live --port=80")).prints("deployment.apps/web created\n");
    c.kubectl(&format!("-n {n} scale deployment web --replicas=2")).prints("deployment.apps/web scaled\n");
    c.kubectl(&format!("-n {n} rollout status deployment web --timeout=90s")).contains("successfully rolled out");
    c.kubectl(&format!("-n {n} expose deployment web")).prints("service/web exposed\n");
    c.kubectl(&format!("-n {n} label pods -l app=web tier=frontend environment=test")).contains("labeled");
    assert_eq!(c.kubectl(&format!("-n {n} get pods -l 'tier in (frontend),environment notin (dev)' -o name")).ok().lines().count(), 2);
    for described in ["deployment web", "pods", "service web", "replicasets"] {
        c.kubectl(&format!("-n {n} describe {described}")).contains("Namespace:");
    }
    c.kubectl("describe nodes").contains("Allocated resources:");
    c.kubectl("get all -A").contains("deployment.apps/web");
    let pod = c.kubectl(&format!("-n {n} get pods -o name")).ok().lines().next().expect("a pod").to_owned();
    c.kubectl(&format!("-n {n} logs {pod}")).ok();
    c.kubectl(&format!("-n {n} exec {pod} -- cat /var/www/index.html")).contains("Welcome to nginx!");
    c.kubectl(&format!("-n {n} exec {pod} -- sh -c 'exit 7'")).fails();
    c.kubectl(&format!("-n {n} delete deployment web")).ok();
    eventually("the pods are gone", || {
        let left = c.kubectl(&format!("-n {n} get pods,replicasets -o name"));
        if left.stdout.is_empty() { Ok(()) } else { Err(left.to_string()) }
    });
}

fn stock_kubectl_applies_patches_and_edits(c: &Cluster) {
    let n = c.namespace("applied");
    let manifest = |replicas: u32, image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: app}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: app}}}}\n  template:\n    metadata: {{labels: {{app: app}}}}\n    spec:\n      containers:\n      - {{name: main, image: '{image}'}}\n      - {{name: side, image: 'nginx:live', command: [sleep, '1d']}}\n"
        )
    };
    let kubectl = |line: &str, input: &str| c.pipe(stock("kubectl"), &format!("-n {n} {line}"), input);
    kubectl("apply -f -", &manifest(1, "nginx:live")).prints("deployment.apps/app created\n");
    kubectl("apply -f -", &manifest(1, "nginx:live")).prints("deployment.apps/app unchanged\n");
    kubectl("apply -f -", &manifest(1, "guestbook:v1")).prints("deployment.apps/app configured\n");
    assert_eq!(c.path(&format!("-n {n} deployment app"), "{.spec.template.spec.containers[*].image}"), "guestbook:v1 nginx:live");
    c.kctl(&format!("-n {n} patch deployment app -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{{\"name\":\"main\",\"image\":\"guestbook:v2\"}}]}}}}}}}}'")).ok();
    assert_eq!(c.path(&format!("-n {n} deployment app"), "{.spec.template.spec.containers[*].image}"), "guestbook:v2 nginx:live");
    kubectl("patch deployment app --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/paused\",\"value\":true}]'", "").fails();
    kubectl("patch deployment app --type=json -p '[{\"op\":\"add\",\"path\":\"/spec/paused\",\"value\":true}]'", "")
        .prints("deployment.apps/app patched\n");
    kubectl("patch deployment app --type=merge -p '{\"spec\":{\"paused\":null}}'", "").prints("deployment.apps/app patched\n");
    kubectl("annotate deployment app note=hello", "").prints("deployment.apps/app annotated\n");
    kubectl("set env deployment app A=b", "").prints("deployment.apps/app env updated\n");
    let refused = kubectl("create -f -", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndta: {a: b}\n").fails();
    assert!(refused.contains("unknown field \"dta\""), "{refused}");
    kubectl("delete -f -", &manifest(1, "x")).contains("deployment.apps \"app\" deleted");
}

/// Runs a line through both clients and compares every byte.
fn same(c: &Cluster, line: &str) {
    let [ours, stock] = c.both(line);
    assert!(ours.stdout == stock.stdout && ours.stderr == stock.stderr && ours.code == stock.code, "{line}\nkctl:\n{ours}\nkubectl:\n{stock}");
}

fn both_clients_print_the_same_tables(c: &Cluster) {
    let n = c.namespace("tables");
    c.create("apiVersion: v1\nkind: Pod\nmetadata: {name: still, namespace: tables, labels: {app: still}}\nspec:\n  nodeSelector: {none: such}\n  containers: [{name: a, image: 'busybox:1'}, {name: b, image: 'busybox:1'}]\n").ok();
    c.kctl(&format!("-n {n} create secret generic s --from-literal=a=b --from-literal=c=d")).ok();
    c.kctl(&format!("-n {n} create service clusterip web --tcp=80:8080")).ok();
    for line in [
        "get pods,secrets,services -o name",
        "get pods --show-labels --no-headers -o custom-columns=N:.metadata.name,I:.spec.containers[*].image",
        "get pod still -o jsonpath={.spec.containers[*].name}",
        "get secret s -o jsonpath='{range .data}{@}{end}'",
        "get secret s -o yaml",
        "get service web -o json",
        "get pods -o yaml",
        "get configmaps,pods,services -l app=still -o name",
        "get deployments",
        "get pods -l app=none",
        "get secret s -o 'go-template={{.type}} {{range $k, $v := .data}}{{$k}}={{$v | base64decode}} {{end}}'",
        "get pods --field-selector status.phase=Pending -o name",
        "get pods --sort-by=.metadata.name -o name",
    ] {
        same(c, &format!("-n {n} {line}"));
    }
}

fn both_clients_report_the_same_errors(c: &Cluster) {
    let n = c.namespace("errors");
    for line in [
        "get pod absent",
        "get nonsense",
        "get pods absent-one absent-two",
        "delete pod absent",
        "scale --replicas=2 statefulset absent",
        "get pods -l 'a in ('",
        "create configmap Bad_Name",
        "create secret generic s --from-file=/does/not/exist",
        "-n not-there create configmap x",
        "label pod absent a=b",
    ] {
        same(c, &format!("-n {n} {line}"));
    }
}

fn discovery_and_version_satisfy_kubectl(c: &Cluster) {
    c.kubectl("version").contains("Server Version: v1.36");
    let table = c.kubectl("api-resources").ok();
    for row in ["pods                                po", "deployments", "configmaps                          cm", "resourcequotas"] {
        assert!(table.contains(row), "{row:?} is missing from\n{table}");
    }
    c.kubectl("api-versions").contains("apps/v1\n");
    c.kubectl("get --raw /livez").prints("ok");
    c.kubectl("get --raw /readyz?verbose").contains("readyz check passed");
    c.kubectl("get --raw /metrics").contains("apiserver_request_total");
    c.kubectl("auth can-i create deployments").prints("yes\n");
    c.kubectl("explain deployment.spec.replicas").contains("replicas");
}

fn a_watch_shows_what_happens(c: &Cluster) {
    let n = c.namespace("watched");
    let mut child = c
        .client(stock("kubectl"), &["-n", n, "get", "configmaps", "-w", "--output-watch-events"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let mut seen = Vec::new();
    let mut expect = |event: &str, name: &str| {
        eventually(&format!("{event} {name}"), || {
            seen.extend(receiver.try_iter());
            let wanted = |line: &String| line.split_whitespace().take(2).eq([event, name]);
            if seen.iter().any(wanted) { Ok(()) } else { Err(seen.join("\n")) }
        });
    };
    // This one proves that the watch is on.
    expect("ADDED", "kube-root-ca.crt");
    c.kctl(&format!("-n {n} create configmap one")).ok();
    expect("ADDED", "one");
    c.kctl(&format!("-n {n} delete configmap one")).ok();
    expect("DELETED", "one");
    child.kill().expect("kubectl can be ended");
    child.wait().expect("kubectl ends");
}

fn helm_installs_upgrades_and_removes_a_chart(c: &Cluster) {
    let n = c.namespace("helmed");
    let chart = c.file("unused", "").with_file_name("chart");
    std::fs::create_dir_all(chart.join("templates")).expect("a directory");
    std::fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: small\nversion: 0.1.0\n").expect("a file");
    std::fs::write(chart.join("values.yaml"), "greeting: hello\n").expect("a file");
    std::fs::write(
        chart.join("templates/cm.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-cm\ndata:\n  greeting: {{ .Values.greeting | quote }}\n",
    )
    .expect("a file");
    let helm = |line: &str| c.pipe(stock("helm"), &format!("-n {n} {line}"), "");
    helm(&format!("install rel {} --server-side=false", chart.display())).contains("STATUS: deployed");
    helm(&format!("upgrade rel {} --set greeting=bye --server-side=false", chart.display())).contains("REVISION: 2");
    assert_eq!(c.path(&format!("-n {n} configmap rel-cm"), "{.data.greeting}"), "bye");
    helm("rollback rel 1 --server-side=false").contains("Rollback was a success");
    assert_eq!(c.path(&format!("-n {n} configmap rel-cm"), "{.data.greeting}"), "hello");
    helm("uninstall rel").contains("uninstalled");
}

fn both_clients_feed_remote_commands_and_end_their_input(c: &Cluster) {
    let n = c.namespace("fed");
    c.kctl(&format!("-n {n} run p --image=busybox:1 -- sleep 1d")).ok();
    c.kctl(&format!("-n {n} wait --for=condition=Ready pod/p --timeout=60s")).ok();
    // More than any buffer on the way holds, so that both directions must flow at once.
    let large = "a line that is long enough to count\n".repeat(60_000);
    let file = c.file("fed.txt", &large);
    for (name, program) in [("kctl", bin_dir().join("kctl")), ("kubectl", stock("kubectl"))] {
        let exec = |command: &str, input: &str| c.pipe(program.clone(), &format!("-n {n} exec -i p -- {command}"), input);
        exec("cat", "said\n").prints("said\n");
        exec("wc -c", &large).prints(&format!("{}\n", large.len()));
        exec("cat", &large).prints(&large);
        // A command that reads nothing ends all the same, and its code is the client's.
        exec("true", "unread\n").prints("");
        let failed = exec("sh -c 'echo out; echo err >&2; exit 7'", "");
        assert_eq!(
            (failed.code, failed.stdout.as_str(), failed.stderr.as_str()),
            (7, "out\n", "err\ncommand terminated with exit code 7\n"),
            "{failed}"
        );
        let copied = format!("/tmp/{name}");
        let back = c.file(name, "");
        c.pipe(program.clone(), &format!("-n {n} cp {} p:{copied}", file.display()), "").ok();
        c.pipe(program.clone(), &format!("-n {n} cp p:{copied} {}", back.display()), "").ok();
        assert!(std::fs::read_to_string(&back).expect("the copy is there") == large, "{name} brings back something else");
    }
}

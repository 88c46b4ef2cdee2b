//! The main job: an app of two tiers comes up, is read, scaled, upgraded and rolled back.

use std::time::Duration;

use tests::machine::ADDRESS;
use tests::{Cluster, eventually, eventually_within, source};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("app::the_guest_book_runs_scales_and_upgrades", the_guest_book_runs_scales_and_upgrades),
    ("app::a_rollback_brings_the_old_version_back", a_rollback_brings_the_old_version_back),
    ("app::pods_reach_every_phase", pods_reach_every_phase),
    ("app::probes_decide_about_readiness_and_restarts", probes_decide_about_readiness_and_restarts),
    ("app::top_shows_what_nodes_and_pods_use", top_shows_what_nodes_and_pods_use),
    ("app::an_autoscaler_follows_the_load", an_autoscaler_follows_the_load),
];

fn the_guest_book_runs_scales_and_upgrades(c: &Cluster) {
    let manifest = source("demo/guestbook.yaml");
    let created = c.kctl(&format!("create -f {}", manifest.display())).ok();
    assert!(created.contains("deployment.apps/frontend created\n") && created.contains("secret/backend created\n"), "{created}");
    c.kctl("-n guestbook rollout status deployment/backend --timeout=90s").ok();
    c.kctl("-n guestbook rollout status deployment/frontend --timeout=90s").contains("deployment \"frontend\" successfully rolled out\n");

    let book = || c.machine.sh(&format!("curl -fsS --max-time 5 http://{ADDRESS}:30080/cgi-bin/book?signed-by-a-test"));
    eventually("the page through the NodePort", || {
        let page = book();
        if page.stdout.contains("guest book v1") && page.stdout.contains("signed-by-a-test") { Ok(()) } else { Err(page.to_string()) }
    });
    let backend = c.path("-n guestbook pods -l tier=backend", "{.items[0].metadata.name}");
    c.kctl(&format!("-n guestbook exec {backend} -- wget -q -O - http://frontend.guestbook.svc.cluster.local/cgi-bin/book"))
        .contains("Welcome to the guest book!");

    c.kctl("-n guestbook scale --replicas=3 deployment/frontend").prints("deployment.apps/frontend scaled\n");
    c.kctl("-n guestbook rollout status deployment/frontend --timeout=90s").ok();
    assert_eq!(c.kctl("-n guestbook get pods -l 'tier in (frontend)' -o name").ok().lines().count(), 3);

    c.kctl("-n guestbook set image deployment/frontend frontend=guestbook:v2").prints("deployment.apps/frontend image updated\n");
    c.kctl("-n guestbook rollout status deployment/frontend --timeout=90s").ok();
    eventually("version 2 through the NodePort", || {
        let page = book();
        if page.stdout.contains("guest book v2") { Ok(()) } else { Err(page.to_string()) }
    });
    assert!(c.kctl("-n guestbook logs -l tier=backend").succeeded());
    eventually("the quota counts the pods that are left", || match c.path("-n guestbook resourcequota team-quota", "{.status.used.pods}").as_str() {
        "4" => Ok(()),
        other => Err(other.to_owned()),
    });
    c.kctl("delete namespace guestbook").prints("namespace \"guestbook\" deleted\n");
    c.kctl("get namespace guestbook").fails();
}

fn a_rollback_brings_the_old_version_back(c: &Cluster) {
    let n = c.namespace("rollback");
    c.kubectl(&format!("-n {n} create deployment web --image=nginx:live --replicas=2")).ok();
    c.kubectl(&format!("-n {n} rollout status deployment/web --timeout=90s")).ok();
    c.kubectl(&format!("-n {n} set image deployment/web nginx=guestbook:v1")).ok();
    c.kubectl(&format!("-n {n} rollout status deployment/web --timeout=90s")).ok();
    c.kubectl(&format!("-n {n} rollout history deployment/web")).contains("REVISION");
    c.kubectl(&format!("-n {n} rollout undo deployment/web")).contains("rolled back");
    c.kubectl(&format!("-n {n} rollout status deployment/web --timeout=90s")).ok();
    assert_eq!(c.path(&format!("-n {n} deployment web"), "{.spec.template.spec.containers[0].image}"), "nginx:live");
    assert_eq!(c.path(&format!("-n {n} deployment web"), "{.metadata.annotations['deployment\\.kubernetes\\.io/revision']}"), "3");
}

fn pods_reach_every_phase(c: &Cluster) {
    let n = c.namespace("phases");
    c.create(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: succeeds, namespace: phases}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "busybox:1", command: [sh, -c, "echo done; exit 0"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: fails, namespace: phases}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "busybox:1", command: [sh, -c, "echo broken >&2; exit 3"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: pending, namespace: phases}
spec:
  nodeSelector: {disk: none-has-this}
  containers: [{name: main, image: "busybox:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: crashes, namespace: phases}
spec:
  containers: [{name: main, image: "busybox:1", command: [sh, -c, "exit 1"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: initialised, namespace: phases}
spec:
  volumes: [{name: shared, emptyDir: {}}]
  initContainers: [{name: first, image: "busybox:1", command: [sh, -c, "echo from-init > /shared/file"], volumeMounts: [{name: shared, mountPath: /shared}]}]
  containers: [{name: main, image: "busybox:1", command: [sh, -c, "cat /shared/file; exec sleep 3600"], volumeMounts: [{name: shared, mountPath: /shared}]}]
"#,
    )
    .ok();
    let phase = |pod: &str, expected: &str| {
        eventually(&format!("{pod} is {expected}"), || {
            let phase = c.path(&format!("-n {n} pod {pod}"), "{.status.phase}");
            if phase == expected { Ok(()) } else { Err(phase) }
        });
    };
    phase("succeeds", "Succeeded");
    phase("fails", "Failed");
    phase("initialised", "Running");
    phase("pending", "Pending");
    assert_eq!(c.path(&format!("-n {n} pod fails"), "{.status.containerStatuses[0].state.terminated.exitCode}"), "3");
    c.kctl(&format!("-n {n} logs succeeds")).prints("done\n");
    eventually("the init container's file", || {
        let log = c.kctl(&format!("-n {n} logs initialised")).stdout;
        if log == "from-init\n" { Ok(()) } else { Err(log) }
    });
    eventually("the crashing pod backs off", || {
        let table = c.kctl(&format!("-n {n} get pod crashes")).stdout;
        if table.contains("CrashLoopBackOff") { Ok(()) } else { Err(table) }
    });
    eventually("an event tells why the pod is pending", || {
        let table = c.kctl(&format!("-n {n} get events")).stdout;
        if table.contains("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector") { Ok(()) } else { Err(table) }
    });
}

fn probes_decide_about_readiness_and_restarts(c: &Cluster) {
    let n = c.namespace("probes");
    c.create(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: probed, namespace: probes}
spec:
  containers:
  - name: web
    image: nginx:live
    readinessProbe: {httpGet: {path: /ready, port: 80}, periodSeconds: 1}
    livenessProbe: {exec: {command: [sh, -c, "! test -e /tmp/hung"]}, periodSeconds: 1, failureThreshold: 2}
"#,
    )
    .ok();
    eventually("the pod runs", || match c.path(&format!("-n {n} pod probed"), "{.status.phase}").as_str() {
        "Running" => Ok(()),
        other => Err(other.to_owned()),
    });
    c.kctl(&format!("-n {n} get pod probed")).contains("0/1");
    c.kctl(&format!("-n {n} exec probed -- touch /var/www/ready")).ok();
    c.kctl(&format!("-n {n} wait --for=condition=Ready pod/probed --timeout=30s")).prints("pod/probed condition met\n");
    c.kctl(&format!("-n {n} exec probed -- touch /tmp/hung")).ok();
    eventually("liveness restarts the container", || {
        match c.path(&format!("-n {n} pod probed"), "{.status.containerStatuses[0].restartCount}").as_str() {
            "1" => Ok(()),
            other => Err(format!("restarts: {other}")),
        }
    });
}

fn top_shows_what_nodes_and_pods_use(c: &Cluster) {
    let n = c.namespace("top");
    c.kctl(&format!("-n {n} create deployment web --image=nginx:live --replicas=2")).ok();
    c.kctl(&format!("-n {n} rollout status deployment web --timeout=90s")).ok();
    for output in c.both(&format!("top pod -n {n} --no-headers")) {
        let text = output.ok();
        let uses = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            matches!(fields[..], [name, cpu, memory] if name.starts_with("web-") && cpu.ends_with('m') && memory.ends_with("Mi"))
        };
        assert!(text.lines().count() == 2 && text.lines().all(uses), "{text}");
    }
    for output in c.both("top node --no-headers") {
        let text = output.ok();
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert!(
            matches!(fields[..], [_, cpu, share, memory, _] if cpu.ends_with('m') && cpu != "0m" && share.ends_with('%') && memory.ends_with("Mi")),
            "{text}"
        );
    }
    c.kubectl(&format!("top pod -n {n} -l app=web --containers --no-headers")).contains("nginx");
    // The server is so small that kubectl rounds its memory down to nothing.
    let raw: serde_json::Value =
        serde_json::from_str(&c.kubectl(&format!("get --raw /apis/metrics.k8s.io/v1beta1/namespaces/{n}/pods")).ok()).expect("JSON");
    let memory = raw["items"][0]["containers"][0]["usage"]["memory"].as_str().and_then(|m| m.strip_suffix("Ki")?.parse::<u64>().ok());
    assert!(memory.is_some_and(|kib| kib > 0), "{raw}");
    c.kubectl(&format!("get pods.metrics.k8s.io -n {n} --no-headers")).contains("web-");
}

fn an_autoscaler_follows_the_load(c: &Cluster) {
    let n = c.namespace("autoscaled");
    let busy = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: busy, namespace: SPACE}\nspec:\n  selector: {matchLabels: {app: busy}}\n  template:\n    metadata: {labels: {app: busy}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      - {name: a, image: 'nginx:live', command: [sh, -c, 'while :; do :; done'], resources: {requests: {cpu: 10m}, limits: {cpu: 50m}}}\n";
    c.create(&busy.replace("SPACE", n)).ok();
    c.kctl(&format!("-n {n} autoscale deployment busy --cpu=50% --min=1 --max=3")).ok();
    eventually_within(Duration::from_secs(150), "as many pods as there may be", || {
        let hpa = c.kubectl(&format!("-n {n} get hpa busy -o yaml"));
        if c.path(&format!("-n {n} deployment busy"), "{.spec.replicas}") == "3" { Ok(()) } else { Err(hpa.to_string()) }
    });
    eventually("the autoscaler says why", || {
        let events = c.path(
            &format!("-n {n} events --field-selector involvedObject.kind=HorizontalPodAutoscaler,reason=SuccessfulRescale"),
            "{.items[*].message}",
        );
        if events.contains("cpu resource utilization (percentage of request) above target") { Ok(()) } else { Err(events) }
    });
    for output in c.both(&format!("-n {n} get hpa busy --no-headers")) {
        output.contains("%/50%");
    }
    c.kctl(&format!("-n {n} delete deployment busy")).ok();
}

//! The manifests of a Kubernetes course, as its readers type them.

use tests::machine::ADDRESS;
use tests::{Cluster, eventually, source};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("deck::the_downward_api_pod_prints_its_environment", the_downward_api_pod_prints_its_environment),
    ("deck::nginx_answers_on_its_node_port", nginx_answers_on_its_node_port),
    ("deck::quotas_limit_pods", quotas_limit_pods),
    ("deck::object_counts_are_limited", object_counts_are_limited),
    ("deck::the_manifest_with_misprints_is_refused_with_line_and_fix", the_manifest_with_misprints_is_refused_with_line_and_fix),
    ("deck::secrets_and_config_maps_come_from_files", secrets_and_config_maps_come_from_files),
    ("deck::the_application_commands_work_as_typed", the_application_commands_work_as_typed),
    ("deck::selectors_work_quoted_and_as_separate_words", selectors_work_quoted_and_as_separate_words),
];

fn fixture(name: &str) -> String {
    source(&format!("fixtures/course/{name}")).display().to_string()
}

fn the_downward_api_pod_prints_its_environment(c: &Cluster) {
    let n = c.namespace("downward");
    c.kctl(&format!("-n {n} create -f {}", fixture("pod-downward-env.yaml"))).prints("pod/dapi-envars-fieldref created\n");
    let node = c.path("nodes", "{.items[0].metadata.name}");
    eventually("its log has the three values", || {
        let log = c.kctl(&format!("-n {n} logs dapi-envars-fieldref"));
        let complete = [node.as_str(), "dapi-envars-fieldref", "john-doe"].iter().all(|value| log.stdout.contains(value));
        if complete { Ok(()) } else { Err(log.to_string()) }
    });
}

fn nginx_answers_on_its_node_port(c: &Cluster) {
    let n = c.namespace("nodeport");
    c.kubectl(&format!("-n {n} create -f {}", fixture("nginx-nodeport.yaml"))).prints("pod/nginx created\nservice/nginx-service created\n");
    eventually("the page", || {
        let page = c.machine.sh(&format!("curl -fsS --max-time 2 http://{ADDRESS}:30001/"));
        if page.stdout.contains("Welcome to nginx!") { Ok(()) } else { Err(page.to_string()) }
    });
    for table in c.both(&format!("-n {n} get service nginx-service")) {
        assert!(table.stdout.contains("NodePort") && table.stdout.contains("30080:30001/TCP"), "{table}");
    }
}

fn quotas_limit_pods(c: &Cluster) {
    let n = c.namespace("quota-compute");
    c.kctl(&format!("-n {n} create -f {}", fixture("quota-compute.yaml"))).prints("resourcequota/compute-resources created\n");
    let refused = c.kctl(&format!("-n {n} run bare --image=busybox:1")).fails();
    assert!(
        refused.contains("pods \"bare\" is forbidden: failed quota: compute-resources: must specify limits.cpu for: bare; limits.memory for: bare; requests.cpu for: bare; requests.memory for: bare"),
        "{refused}"
    );
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {n}}}\nspec:\n  containers:\n  - name: main\n    image: busybox:1\n    command: [sleep, '3600']\n    resources: {{requests: {{cpu: 100m, memory: 10Mi}}, limits: {{cpu: 200m, memory: 20Mi}}}}\n"
        )
    };
    for name in ["a", "b", "c", "d"] {
        c.create(&pod(name)).ok();
    }
    let refused = c.create(&pod("e")).fails();
    assert!(
        refused.contains("pods \"e\" is forbidden: exceeded quota: compute-resources, requested: pods=1, used: pods=4, limited: pods=4"),
        "{refused}"
    );
    c.kctl(&format!("-n {n} delete pod a")).ok();
    eventually("the quota is free again", || {
        let created = c.create(&pod("e"));
        if created.succeeded() { Ok(()) } else { Err(created.stderr) }
    });
}

fn object_counts_are_limited(c: &Cluster) {
    let n = c.namespace("quota-counts");
    c.kubectl(&format!("-n {n} create -f {}", fixture("quota-object-counts.yaml"))).prints("resourcequota/object-counts created\n");
    eventually("the quota has been counted", || match c.path(&format!("-n {n} resourcequota object-counts"), "{.status.hard.configmaps}").as_str() {
        "10" => Ok(()),
        other => Err(other.to_owned()),
    });
    let mut made = 0;
    let refused = loop {
        let created = c.kctl(&format!("-n {n} create configmap m{made}"));
        if !created.succeeded() {
            break created.stderr;
        }
        made += 1;
        assert!(made <= 10, "more config maps than the quota allows");
    };
    assert!(refused.contains("exceeded quota: object-counts, requested: configmaps=1, used: configmaps=10, limited: configmaps=10"), "{refused}");
}

fn the_manifest_with_misprints_is_refused_with_line_and_fix(c: &Cluster) {
    let n = c.namespace("misprints");
    let refused = c.kctl(&format!("-n {n} create -f {}", fixture("as-printed-broken.yaml"))).fails();
    assert!(refused.contains("line 8") && refused.contains("services.loadbalancers"), "{refused}");
    assert_eq!(c.kctl(&format!("-n {n} get resourcequotas,services -o name")).ok(), "", "nothing of the file may be applied");
    let refused = c.pipe(tests::bin_dir().join("kctl"), &format!("-n {n} create -f -"), "piVersion: v1\nkind: Pod\nmetadata:\n  name: x\n").fails();
    assert!(refused.contains("STDIN:1:1: unknown field \"piVersion\"") && refused.contains("did you mean \"apiVersion\"?"), "{refused}");
}

fn secrets_and_config_maps_come_from_files(c: &Cluster) {
    let n = c.namespace("files");
    let hello = c.file("hello.txt", "hello, world\n");
    c.kctl(&format!("-n {n} create secret generic secret-hello --from-file=abc={}", hello.display())).prints("secret/secret-hello created\n");
    c.kctl(&format!("-n {n} create cm cm-hello --from-file=abc={}", hello.display())).prints("configmap/cm-hello created\n");
    assert_eq!(c.path(&format!("-n {n} secret secret-hello"), "{.data.abc}"), "aGVsbG8sIHdvcmxkCg==");
    c.create(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: reader, namespace: files}
spec:
  restartPolicy: Never
  volumes: [{name: c, configMap: {name: cm-hello}}, {name: s, secret: {secretName: secret-hello}}]
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, "cat /c/abc /s/abc; echo $FROM_SECRET; exec sleep 3600"]
    env: [{name: FROM_SECRET, valueFrom: {secretKeyRef: {name: secret-hello, key: abc}}}]
    volumeMounts: [{name: c, mountPath: /c}, {name: s, mountPath: /s}]
"#,
    )
    .ok();
    eventually("the pod has read them", || {
        let log = c.kctl(&format!("-n {n} logs reader"));
        if log.stdout == "hello, world\nhello, world\nhello, world\n" { Ok(()) } else { Err(log.to_string()) }
    });
    c.kctl(&format!("-n {n} patch configmap cm-hello -p '{{\"data\":{{\"abc\":\"changed\"}}}}'")).ok();
    eventually("the file follows the config map", || {
        let file = c.kctl(&format!("-n {n} exec reader -- cat /c/abc"));
        if file.stdout == "changed" { Ok(()) } else { Err(file.to_string()) }
    });
}

fn the_application_commands_work_as_typed(c: &Cluster) {
    let n = c.namespace("typed");
    c.kctl(&format!("-n {n} run demo-backend --image=guestbook:v1")).prints("pod/demo-backend created\n");
    // On a terminal the error says what to do; scripts read kubectl's words alone.
    let line = format!("-n {n} label deployment demo-backend name=demo");
    let missing = "Error from server (NotFound): deployments.apps \"demo-backend\" not found\n";
    assert_eq!(c.kctl(&line).fails(), missing);
    let told =
        tests::machine::run(c.client("script".into(), &["-qefc", &format!("{} {line}", tests::bin_dir().join("kctl").display()), "/dev/null"]));
    assert!(told.code == 1 && told.stdout.contains("kctl create deployment"), "{told}");
    c.kctl(&format!("-n {n} run demo-backend --image=guestbook:v1 --generator=deployment/apps.v1")).contains("deployment.apps/demo-backend created");
    c.kctl(&format!("-n {n} label deployment demo-backend name=demo")).prints("deployment.apps/demo-backend labeled\n");
    c.kctl(&format!("-n {n} annotate deployment demo-backend version=1.0")).prints("deployment.apps/demo-backend annotated\n");
    c.kctl(&format!("-n {n} set env deployment demo-backend java_home=/etc/jdk")).prints("deployment.apps/demo-backend env updated\n");
    c.kctl(&format!("-n {n} scale --replicas=2 deployment demo-backend")).prints("deployment.apps/demo-backend scaled\n");
    c.kctl(&format!("-n {n} set image deployment demo-backend demo-backend=guestbook:v2")).prints("deployment.apps/demo-backend image updated\n");
    c.kctl(&format!("-n {n} rollout status deployment demo-backend --timeout=90s")).ok();
    assert_eq!(c.path(&format!("-n {n} deployment demo-backend"), "{.metadata.annotations.version}"), "1.0");
    assert_eq!(c.path(&format!("-n {n} deployment demo-backend"), "{.spec.template.spec.containers[0].env[0].value}"), "/etc/jdk");
}

fn selectors_work_quoted_and_as_separate_words(c: &Cluster) {
    let n = c.namespace("selectors");
    for (name, environment, tier) in [("a", "production", "frontend"), ("b", "production", "backend"), ("c", "dev", "frontend")] {
        c.kctl(&format!("-n {n} create configmap {name}")).ok();
        c.kctl(&format!("-n {n} label configmap {name} environment={environment} tier={tier}")).ok();
    }
    for (selector, expected) in [
        ("environment=production", "configmap/a\nconfigmap/b\n"),
        ("'environment in (production),tier in (frontend)'", "configmap/a\n"),
        ("environment in (production),tier in (frontend)", "configmap/a\n"),
        ("'tier in (frontend),environment notin (dev)'", "configmap/a\n"),
        ("tier notin (frontend, cache),environment", "configmap/b\n"),
        ("'!tier,environment'", ""),
    ] {
        c.kctl(&format!("-n {n} get configmaps -l {selector} -o name")).prints(expected);
    }
}

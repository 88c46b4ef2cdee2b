//! kubectl of earlier versions: the everyday life of a deployment.

use tests::{Cluster, stock};

use super::Kubectl;
use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("kubectl::of_1_31_manages_a_deployment", |c| manages_a_deployment(c, "kubectl-1.31", "k-of-1-31")),
    // Before server-side field validation, websockets and OpenAPI v3.
    ("kubectl::of_1_20_manages_a_deployment", |c| manages_a_deployment(c, "kubectl-1.20", "k-of-1-20")),
];

fn manages_a_deployment(c: &Cluster, program: &str, namespace: &str) {
    let k = Kubectl { program: stock(program), ..Kubectl::new(c, namespace) };
    let manifest = |image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: a, image: '{image}', command: [sh, -c, 'echo serving; exec sleep 1d']}}]}}\n"
        )
    };
    k.run("create configmap m --from-literal=a=b").prints("configmap/m created\n");
    k.run("get configmap m -o 'jsonpath={.data.a}'").prints("b");
    k.pipe("apply -f -", &manifest("busybox:1")).prints("deployment.apps/web created\n");
    k.pipe("apply -f -", &manifest("busybox:1")).prints("deployment.apps/web unchanged\n");
    k.run("rollout status deployment web --timeout=60s").contains("successfully rolled out");
    k.pipe("apply -f -", &manifest("nginx:live")).prints("deployment.apps/web configured\n");
    k.pipe("apply --server-side --force-conflicts -f -", &manifest("nginx:live")).prints("deployment.apps/web serverside-applied\n");
    k.run("rollout status deployment web --timeout=60s").contains("successfully rolled out");
    let refused = k.pipe("apply -f -", &manifest("nginx:live").replace("command:", "comand:")).fails();
    assert!(refused.contains("comand"), "{refused}");
    k.run("get deployments").contains("1/1");
    let pod = k.path("pods --field-selector status.phase=Running --sort-by=.metadata.creationTimestamp", "{.items[-1:].metadata.name}");
    for resource in ["deployment web", &format!("pod {pod}")] {
        k.run(&format!("describe {resource}")).contains("nginx:live");
    }
    k.run(&format!("logs {pod}")).prints("serving\n");
    k.run(&format!("exec {pod} -- cat /var/www/index.html")).contains("Welcome to nginx!");
    let output = k.pipe(&format!("exec -i {pod} -- sh -c 'wc -c; exit 7'"), "12345");
    assert!(output.code == 7 || output.stderr.contains("exit code 7"), "{output}");
    assert_eq!(output.stdout, "5\n", "{output}");
    k.run("scale deployment web --replicas=2").prints("deployment.apps/web scaled\n");
    k.run("rollout status deployment web --timeout=60s").ok();
    k.run("get pods -l app=web --no-headers").contains("Running");
    k.run("label deployment web tier=front").prints("deployment.apps/web labeled\n");
    k.run("get deployments -l tier=front -o name").prints("deployment.apps/web\n");
    k.run("explain deployment.spec.replicas").contains("replicas");
    k.run("auth can-i create pods").prints("yes\n");
    k.run("delete deployment web").contains("deployment.apps \"web\" deleted");
    k.run("get deployment web").fails();
    k.leave();
}

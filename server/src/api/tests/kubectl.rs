//! Flows through a stock kubectl, whose path is in `$KUBECTL`.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::server::TestServer;

struct Kubectl {
    binary: String,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    fn new(server: &TestServer) -> Self {
        let binary = std::env::var("KUBECTL").expect("KUBECTL names a stock kubectl");
        Kubectl { binary, kubeconfig: server.kubeconfig(), home: server.dir.path().to_owned() }
    }
    async fn output(&self, arguments: &str, stdin: &str) -> Output {
        let mut command = Command::new(&self.binary);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home).args(arguments.split(' '));
        let file = self.home.join("stdin.yaml");
        std::fs::write(&file, stdin).unwrap();
        command.stdin(std::fs::File::open(&file).unwrap());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
    /// Standard output of a command that must succeed without a word on standard error.
    async fn run(&self, arguments: &str, stdin: &str) -> String {
        let output = self.output(arguments, stdin).await;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && error.is_empty(), "kubectl {arguments}: {out}{error}");
        out.trim_end().to_owned()
    }
    /// Standard error of a command that must fail.
    async fn refused(&self, arguments: &str, stdin: &str) -> String {
        let output = self.output(arguments, stdin).await;
        assert!(!output.status.success(), "kubectl {arguments} succeeded");
        String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
    }
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: nginx:1
        env: [{name: A, value: '1'}, {name: B, value: '2'}]
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a stock kubectl in $KUBECTL"]
async fn stock_kubectl_creates_reads_changes_and_deletes() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    assert_eq!(kubectl.run("create cm a --from-literal=x=1", "").await, "configmap/a created");
    assert_eq!(kubectl.run("get cm a -o jsonpath={.data.x}", "").await, "1");
    assert_eq!(kubectl.run("label cm a tier=front", "").await, "configmap/a labeled");
    assert_eq!(kubectl.run("annotate cm a note=x", "").await, "configmap/a annotated");
    assert_eq!(kubectl.run("get cm -l tier=front -o name", "").await, "configmap/a");
    assert!(kubectl.run("get cm", "").await.starts_with("NAME   DATA   AGE\na      1"));
    assert_eq!(kubectl.run("patch cm a --type merge -p {\"data\":{\"x\":null}}", "").await, "configmap/a patched");
    assert_eq!(kubectl.run("create secret generic s --from-literal=k=v", "").await, "secret/s created");
    assert_eq!(kubectl.run("create -f - --dry-run=server -o name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\n").await, "configmap/d");
    let bad = kubectl.refused("create -f -", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\nspec: {}\n").await;
    assert!(bad.contains("strict decoding error: unknown field \"spec\""), "{bad}");
    assert_eq!(kubectl.run("delete cm a", "").await, "configmap \"a\" deleted from default namespace");
    assert_eq!(kubectl.refused("get cm a", "").await, "Error from server (NotFound): configmaps \"a\" not found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a stock kubectl in $KUBECTL"]
async fn stock_kubectl_applies_scales_and_rolls() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    assert_eq!(kubectl.run("apply -f -", DEPLOYMENT).await, "deployment.apps/web created");
    assert_eq!(kubectl.run("apply -f -", DEPLOYMENT).await, "deployment.apps/web unchanged");
    let less = DEPLOYMENT.replace(", {name: B, value: '2'}", "").replace("nginx:1", "nginx:2");
    assert_eq!(kubectl.run("apply -f -", &less).await, "deployment.apps/web configured");
    let template = "get deploy web -o jsonpath={.spec.template.spec.containers[0].env[*].name}/{.spec.template.spec.containers[0].image}";
    assert_eq!(kubectl.run(template, "").await, "A/nginx:2", "what was taken out of the file is gone");
    assert_eq!(kubectl.run("scale deploy web --replicas=5", "").await, "deployment.apps/web scaled");
    assert!(kubectl.run("get deploy web", "").await.contains("0/5"));
    assert_eq!(kubectl.run("set image deploy web nginx=nginx:3", "").await, "deployment.apps/web image updated");
    assert_eq!(kubectl.run("set env deploy web X=y", "").await, "deployment.apps/web env updated");
    assert_eq!(kubectl.run("rollout pause deploy web", "").await, "deployment.apps/web paused");
    assert_eq!(kubectl.run("rollout resume deploy web", "").await, "deployment.apps/web resumed");
    assert_eq!(kubectl.run("get deploy web -o jsonpath={.metadata.generation}", "").await, "7");
    assert_eq!(kubectl.run("expose deploy web --port 80", "").await, "service/web exposed");
    assert_eq!(kubectl.run("delete deploy,svc web", "").await.lines().count(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a stock kubectl in $KUBECTL"]
async fn stock_kubectl_finds_its_way_around() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    assert!(kubectl.run("version", "").await.contains("Server Version: v1.36.2+kserver."));
    let resources = kubectl.run("api-resources", "").await;
    assert!(resources.lines().any(|l| l.split_whitespace().eq(["deployments", "deploy", "apps/v1", "true", "Deployment"])), "{resources}");
    assert!(kubectl.run("explain deployment.spec.strategy", "").await.contains("FIELD: strategy <DeploymentStrategy>"));
    assert_eq!(kubectl.run("auth can-i create pods", "").await, "yes");
    assert!(kubectl.run("auth whoami", "").await.contains("system:masters"));
    let forbidden = kubectl.refused("get pods --as x", "").await;
    let expected =
        "Error from server (Forbidden): pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!(forbidden, expected);
    assert_eq!(kubectl.run("get --raw /readyz", "").await, "ok");
    server.stop().await;
}

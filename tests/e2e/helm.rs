//! helm 4 with its default options: a chart's life, with hooks, a kind of its own, and releases that fail.

use serde_json::Value;
use tests::{Cluster, Output, source, stock};

use crate::Shared;

pub const TESTS: &[Shared] = &[("helm::lives_through_a_release_with_hooks_and_failures", lives_through_a_release_with_hooks_and_failures)];

fn lives_through_a_release_with_hooks_and_failures(c: &Cluster) {
    let n = c.namespace("helm-site");
    let chart = source("fixtures/chart").display().to_string();
    let helm = |line: &str| -> Output { c.pipe(stock("helm"), &format!("-n {n} {line}"), "") };
    let json = |line: &str| -> Value { serde_json::from_str(&helm(&format!("{line} -o json")).ok()).expect("helm prints JSON") };
    let ready = || c.path(&format!("-n {n} deployment rel-web"), "{.metadata.generation} {.status.observedGeneration} {.status.readyReplicas}");
    let tested = |says: &str| helm("test rel --logs").contains(&format!("page: {says}\n"));
    let statuses =
        || json("history rel").as_array().expect("a list").iter().map(|r| r["status"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>();

    let installed = helm(&format!("install rel {chart} --wait --timeout 60s")).contains("STATUS: deployed");
    assert!(installed.contains("The page says hello."), "{installed}");
    assert_eq!(ready(), "1 1 1", "--wait has waited");
    assert_eq!(c.path(&format!("-n {n} widget rel-widget"), "{.spec.size}"), "3", "the kind in crds/ was served in time");
    let owner = c.kubectl(&format!("-n {n} get deployment rel-web -o jsonpath='{{.metadata.managedFields[0].manager}} {{.metadata.managedFields[0].operation}}' --show-managed-fields"));
    owner.prints("helm Apply");
    tested("hello");

    let list = json("list");
    assert_eq!((&list[0]["name"], &list[0]["status"], &list[0]["chart"]), (&"rel".into(), &"deployed".into(), &"site-0.1.0".into()), "{list}");
    helm("status rel").contains("STATUS: deployed");
    helm("get manifest rel").contains("kind: Deployment");
    helm("get hooks rel").contains("helm.sh/hook: test");
    helm("get notes rel").contains("The page says hello.");

    helm(&format!("upgrade rel {chart} --set greeting=dry --dry-run=server")).contains("index.html: \"dry\"");
    assert_eq!(c.path(&format!("-n {n} configmap rel-page"), "{.data.index\\.html}"), "hello");
    let set = c.file("helm-site.yaml", "greeting: bye\nreplicas: 2\n").display().to_string();
    helm(&format!("upgrade --install rel {chart} -f {set} --wait --timeout 60s")).contains("REVISION: 2");
    assert_eq!(ready(), "2 2 2");
    assert_eq!(json("get values rel"), serde_json::json!({"greeting": "bye", "replicas": 2}));
    tested("bye");

    // What goes wrong is taken back by itself.
    let failed = helm(&format!("upgrade rel {chart} --set greeting=never,broken=true --rollback-on-failure --timeout 60s")).fails();
    assert!(failed.contains("UPGRADE FAILED: release rel failed, and has been rolled back due to rollback-on-failure being set"), "{failed}");
    assert_eq!(statuses(), ["superseded", "superseded", "failed", "deployed"]);
    assert!(ready().ends_with(" 2"), "{}", ready());
    tested("bye");
    let failed = helm(&format!("install other {chart} --set image=absent.example/none:1,deadline=1 --rollback-on-failure --timeout 60s")).fails();
    assert!(
        failed.contains("Progress deadline exceeded") && failed.contains("has been uninstalled due to rollback-on-failure being set"),
        "{failed}"
    );
    helm("status other").fails();
    c.kubectl(&format!("-n {n} get deployment other-web")).fails();

    helm("rollback rel 1 --wait --timeout 60s").contains("Rollback was a success");
    assert!(ready().ends_with(" 1"), "{}", ready());
    tested("hello");
    assert_eq!(statuses().last().map(String::as_str), Some("deployed"));
    helm("uninstall rel --wait --timeout 60s").prints("release \"rel\" uninstalled\n");
    let left = c.kubectl(&format!("-n {n} get deployments,replicasets,services,widgets,configmaps,secrets -o name"));
    left.prints("configmap/kube-root-ca.crt\n");
    assert_eq!(json("list"), serde_json::json!([]));
    // Kinds outlive the release that brought them, and are removed by hand.
    c.kubectl("delete crd widgets.charts.example.com").contains("deleted");
    c.kubectl(&format!("delete namespace {n} --wait=false")).ok();
}

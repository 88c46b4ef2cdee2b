//! Commands on nodes. They move other people's pods, so they have a cluster of their own, with simulated nodes.

use tests::{Cluster, Start};

use super::Kubectl;
use crate::Own;

pub const TESTS: &[Own] = &[("kubectl::cordons_taints_and_drains_nodes", cordons_taints_and_drains_nodes)];

const FIRST: &str = "simulated-node-0";
const SECOND: &str = "simulated-node-1";

fn cordons_taints_and_drains_nodes() {
    let c = Cluster::new(Start { simulated_nodes: Some(2), ..Start::default() });
    let k = Kubectl::new(&c, "k-nodes");
    let nodes_of = |name: &str| {
        let mut nodes: Vec<String> = k.path(&format!("pods -l app={name}"), "{.items[*].spec.nodeName}").split_whitespace().map(Into::into).collect();
        nodes.sort();
        nodes
    };
    let deploy = |name: &str, replicas: u32| {
        k.run(&format!("create deployment {name} --image=busybox:1 --replicas={replicas}")).ok();
        k.run(&format!("rollout status deployment {name} --timeout=60s")).ok();
    };

    k.run(&format!("cordon {FIRST}")).prints(&format!("node/{FIRST} cordoned\n"));
    k.run(&format!("get node {FIRST} --no-headers")).contains("Ready,SchedulingDisabled");
    deploy("cordoned", 2);
    assert_eq!(nodes_of("cordoned"), [SECOND, SECOND]);
    k.run(&format!("cordon {FIRST}")).prints(&format!("node/{FIRST} already cordoned\n"));
    k.run(&format!("uncordon {FIRST}")).prints(&format!("node/{FIRST} uncordoned\n"));

    k.run(&format!("taint node {SECOND} team=a:NoSchedule")).prints(&format!("node/{SECOND} tainted\n"));
    deploy("tainted", 2);
    assert_eq!((nodes_of("tainted"), nodes_of("cordoned")), (vec![FIRST.to_owned(); 2], vec![SECOND.to_owned(); 2]), "who is there stays");
    let refused = k.run(&format!("taint node {SECOND} team=b:NoSchedule")).fails();
    assert!(refused.contains("already has team taint(s) with same effect(s) and --overwrite is false"), "{refused}");
    k.run(&format!("taint node {SECOND} team=a:NoExecute")).ok();
    k.run("rollout status deployment cordoned --timeout=60s").ok();
    k.becomes(&format!("pods --field-selector spec.nodeName={SECOND}"), "{.items}", "[]");
    k.run(&format!("taint node {SECOND} team-")).prints(&format!("node/{SECOND} untainted\n"));
    assert_eq!(k.path(&format!("node {SECOND}"), "{.spec.taints}"), "");
    k.run("delete deployment cordoned tainted").ok();

    // Two pods, both on the first node, of which two must be there: the drain waits until there is a third.
    k.run(&format!("cordon {SECOND}")).ok();
    deploy("kept", 2);
    k.run("create poddisruptionbudget kept --selector=app=kept --min-available=2").prints("poddisruptionbudget.policy/kept created\n");
    k.becomes("pdb kept", "{.status.currentHealthy} {.status.desiredHealthy} {.status.disruptionsAllowed}", "2 2 0");
    k.pipe("create -f -", "apiVersion: v1\nkind: Pod\nmetadata: {name: alone}\nspec: {containers: [{name: a, image: 'busybox:1'}]}\n---\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: every}\nspec:\n  selector: {matchLabels: {app: every}}\n  template:\n    metadata: {labels: {app: every}}\n    spec: {containers: [{name: a, image: 'busybox:1'}]}\n").ok();
    k.run("wait --for=condition=Ready pod/alone --timeout=60s").ok();
    k.run("rollout status daemonset every --timeout=60s").ok();
    k.run(&format!("uncordon {SECOND}")).ok();
    let refused = k.run(&format!("drain {FIRST}")).fails();
    assert!(
        refused.contains("cannot delete DaemonSet-managed Pods") && refused.contains("cannot delete Pods that declare no controller"),
        "{refused}"
    );
    let mut drain = k.start(&format!("drain {FIRST} --ignore-daemonsets --force --timeout=60s"));
    drain.shows("Cannot evict pod as it would violate the pod's disruption budget.");
    assert!(drain.shows("(will retry after 5s)").contains("error when evicting pods/\"kept-"));
    assert_eq!(nodes_of("kept"), [FIRST, FIRST]);
    k.run("get pod alone").fails();
    k.run("scale deployment kept --replicas=3").ok();
    let (code, printed) = drain.ends();
    assert!(code == 0 && printed.contains(&format!("node/{FIRST} drained\n")), "{printed}");
    k.run("rollout status deployment kept --timeout=60s").ok();
    assert_eq!(nodes_of("kept"), [SECOND, SECOND, SECOND]);
    assert_eq!(nodes_of("every"), [FIRST, SECOND], "the daemon stays");
    k.run(&format!("get node {FIRST} --no-headers")).contains("SchedulingDisabled");
}

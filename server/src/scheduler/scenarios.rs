//! Decisions as stories: a cluster, a pod, and the node or the exact text that comes out.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::json;

use super::cluster::Cluster;
use super::decide::{Diagnosis, pick};
use super::pod_info::PodInfo;
use super::preemption::preempt;
use super::testing::{cluster, node, pod};

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(7)
}

fn place(pod: &PodInfo, cluster: &mut Cluster) -> Result<Arc<str>, Box<Diagnosis>> {
    pick(pod, cluster, &mut 0, &mut rng())
}

/// The whole text that a user reads.
fn text(pod: &PodInfo, cluster: &mut Cluster) -> String {
    let mut diagnosis = *place(pod, cluster).unwrap_err();
    if diagnosis.nodes > 0 {
        diagnosis.preemption = match preempt(pod, cluster, &diagnosis, &mut rng()) {
            Ok(found) => format!("victims on {}", found.node),
            Err(text) => format!("preemption: {text}"),
        };
    }
    diagnosis.to_string()
}

fn victims(pod: &PodInfo, cluster: &mut Cluster) -> (String, Vec<String>) {
    let diagnosis = place(pod, cluster).unwrap_err();
    let found = preempt(pod, cluster, &diagnosis, &mut rng()).unwrap();
    let mut names: Vec<String> = found.victims.iter().map(|v| v.name().to_owned()).collect();
    names.sort();
    (found.node.to_string(), names)
}

fn single() -> Cluster {
    cluster([node("n")])
}

#[test]
fn refusals_read_as_upstream_writes_them() {
    let helpless = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let no_victims = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    let one = |n: super::testing::NodeBuilder| cluster([n]);
    let mut busy = one(node("n"));
    busy.place(pod("other").cpu("4").host_port(80).info(), "n");
    let mut crowded = one(node("n").allocatable("pods", "1"));
    crowded.place(pod("other").info(), "n");
    for (mut cluster, pod, expected) in [
        (one(node("n")), pod("p").cpu("5"), format!("1 Insufficient cpu. {helpless}")),
        (one(node("n")), pod("p").cpu("5").request("memory", "9Gi"), format!("1 Insufficient cpu, 1 Insufficient memory. {helpless}")),
        (one(node("n")), pod("p").request("x.io/gpu", "1"), format!("1 Insufficient x.io/gpu. {helpless}")),
        (busy, pod("p").cpu("1"), format!("1 Insufficient cpu. {no_victims}")),
        (crowded, pod("p"), format!("1 Too many pods. {no_victims}")),
        (one(node("n").taint("k", "NoSchedule")), pod("p"), format!("1 node(s) had untolerated taint(s). {helpless}")),
        (one(node("n").cordoned()), pod("p"), format!("1 node(s) were unschedulable. {helpless}")),
        (one(node("n")), pod("p").selector("a", "b"), format!("1 node(s) didn't match Pod's node affinity/selector. {helpless}")),
        (one(node("n")), pod("p").claim("c"), format!("persistentvolumeclaim \"c\" not found. {helpless}")),
        (
            one(node("n")),
            pod("p").cpu("5").set("/spec/preemptionPolicy", json!("Never")),
            "1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.".into(),
        ),
    ] {
        assert_eq!(text(&pod.info(), &mut cluster), format!("0/1 nodes are available: {expected}"));
    }
    assert_eq!(text(&pod("p").info(), &mut Cluster::default()), "no nodes available to schedule pods");
}

#[test]
fn reasons_of_many_nodes_are_counted_and_sorted() {
    let mut cluster = cluster([node("a").taint("k", "NoExecute"), node("b"), node("c"), node("d").cordoned()]);
    cluster.place(pod("x").cpu("4").info(), "b");
    let text = text(&pod("p").cpu("2").request("memory", "100Gi").info(), &mut cluster);
    assert_eq!(
        text,
        "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient memory. \
         preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
    );
}

#[test]
fn a_host_port_is_given_once_a_node() {
    let mut cluster = single();
    cluster.place(pod("x").host_port(80).info(), "n");
    assert!(text(&pod("p").host_port(80).info(), &mut cluster).contains("1 node(s) didn't have free ports for the requested pod ports."));
    assert_eq!(&*place(&pod("p").host_port(81).info(), &mut cluster).unwrap(), "n");
}

#[test]
fn tolerations_and_selectors_open_nodes() {
    let mut cluster = cluster([node("tainted").taint("k", "NoSchedule").label("disk", "ssd"), node("plain")]);
    assert_eq!(&*place(&pod("p").tolerate("k").selector("disk", "ssd").info(), &mut cluster).unwrap(), "tainted");
    assert_eq!(&*place(&pod("p").info(), &mut cluster).unwrap(), "plain");
}

#[test]
fn the_emptier_node_and_the_one_with_the_image_are_preferred() {
    let mut two = cluster([node("a"), node("b")]);
    two.place(pod("x").cpu("2").request("memory", "4Gi").info(), "a");
    assert_eq!(&*place(&pod("p").cpu("1").request("memory", "1Gi").info(), &mut two).unwrap(), "b");
    let mut pulled = cluster([node("a"), node("b").image("i:latest", 900 << 20)]);
    assert_eq!(&*place(&pod("p").set("/spec/containers/0/image", json!("i")).info(), &mut pulled).unwrap(), "b");
}

#[test]
fn soft_taints_are_avoided_and_preferred_labels_are_sought() {
    let mut soft = cluster([node("a").taint("k", "PreferNoSchedule"), node("b")]);
    assert_eq!(&*place(&pod("p").info(), &mut soft).unwrap(), "b");
    let mut labelled = cluster([node("a"), node("b").label("disk", "ssd")]);
    let term = json!({ "weight": 1, "preference": { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] } });
    let affinity = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [term] } });
    assert_eq!(&*place(&pod("p").set("/spec/affinity", affinity).info(), &mut labelled).unwrap(), "b");
}

#[test]
fn bound_and_unbound_claims_are_told_apart() {
    let claim = |phase: &str, volume: Option<&str>, class: &str| {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "c", "namespace": "default" },
                "spec": { "volumeName": volume, "storageClassName": class },
                "status": { "phase": phase },
            }))
            .unwrap(),
        )
    };
    let class = |mode: &str| {
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": "s" }, "provisioner": "p.io", "volumeBindingMode": mode })).unwrap())
    };
    let volume = |zone: &str| {
        let term = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": [zone] }] });
        Arc::new(
            serde_json::from_value(
                json!({ "metadata": { "name": "v" }, "spec": { "nodeAffinity": { "required": { "nodeSelectorTerms": [term] } } } }),
            )
            .unwrap(),
        )
    };
    let key = ("default".to_owned(), "c".to_owned());
    for (phase, bound_to, mode, zone, expected) in [
        ("Pending", None, "Immediate", "a", Err("pod has unbound immediate PersistentVolumeClaims")),
        ("Pending", None, "WaitForFirstConsumer", "a", Ok(())),
        ("Bound", Some("v"), "Immediate", "a", Ok(())),
        ("Bound", Some("v"), "Immediate", "b", Err("1 node(s) didn't match PersistentVolume's node affinity")),
        ("Bound", Some("gone"), "Immediate", "a", Err("1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")),
        ("Lost", Some("v"), "Immediate", "a", Err("persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\"")),
    ] {
        let mut cluster = cluster([node("n").label("zone", "a")]);
        cluster.claims.insert(key.clone(), claim(phase, bound_to, "s"));
        cluster.storage_classes.insert("s".into(), class(mode));
        cluster.volumes.insert("v".into(), volume(zone));
        let outcome = place(&pod("p").claim("c").info(), &mut cluster).map(|_| ()).map_err(|d| d.to_string());
        assert_eq!(outcome, expected.map_err(|e| format!("0/1 nodes are available: {e}.")));
    }
}

#[test]
fn preemption_takes_the_least_important_pods_that_suffice() {
    let mut cluster = single();
    for (name, cpu, priority) in [("low", "1", 1), ("mid", "1", 2), ("big", "2", 3)] {
        cluster.place(pod(name).cpu(cpu).priority(priority).info(), "n");
    }
    assert_eq!(victims(&pod("p").cpu("1").priority(10).info(), &mut cluster), ("n".into(), vec!["low".into()]));
    assert_eq!(victims(&pod("p").cpu("2").priority(10).info(), &mut cluster), ("n".into(), vec!["low".into(), "mid".into()]));
    assert_eq!(victims(&pod("p").cpu("4").priority(10).info(), &mut cluster).1.len(), 3);
    assert!(text(&pod("p").cpu("2").priority(2).info(), &mut cluster).ends_with("preemption: 0/1 nodes are available: 1 Insufficient cpu."));
    assert_eq!(cluster.node("n").unwrap().requested.milli_cpu, 4000, "trying removals out leaves the cluster as it was");
}

#[test]
fn preemption_chooses_the_node_where_it_does_least_harm() {
    let mut cluster = cluster([node("a"), node("b"), node("c")]);
    for (name, on, priority) in [("x", "a", 5), ("y", "b", 2), ("z", "c", 4)] {
        cluster.place(pod(name).cpu("4").priority(priority).info(), on);
    }
    assert_eq!(victims(&pod("p").cpu("4").priority(10).info(), &mut cluster).0, "b");
}

#[test]
fn preemption_spares_pods_that_a_disruption_budget_protects() {
    let mut cluster = cluster([node("a"), node("b")]);
    cluster.place(pod("x").label("app", "db").cpu("4").priority(1).info(), "a");
    cluster.place(pod("y").cpu("4").priority(5).info(), "b");
    let budget = json!({ "metadata": { "name": "db", "namespace": "default" }, "spec": { "selector": { "matchLabels": { "app": "db" } } }, "status": { "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 } });
    cluster.budgets.insert(("default".into(), "db".into()), Arc::new(serde_json::from_value(budget).unwrap()));
    assert_eq!(victims(&pod("p").cpu("4").priority(10).info(), &mut cluster), ("b".into(), vec!["y".into()]));
}

#[test]
fn a_preemptor_waits_while_its_victims_terminate() {
    let mut cluster = single();
    cluster.place(pod("x").cpu("4").set("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")).info(), "n");
    let waiting = pod("p").cpu("4").priority(10).nominated("n").info();
    assert!(text(&waiting, &mut cluster).ends_with("preemption: not eligible due to a terminating pod on the nominated node."));
}

#[test]
fn room_made_for_one_pod_is_not_taken_by_a_lesser_one() {
    let mut cluster = single();
    let nominated = pod("vip").cpu("3").priority(10).nominated("n").info();
    cluster.nominate(nominated.clone(), "n");
    assert!(place(&pod("p").cpu("2").priority(1).info(), &mut cluster).is_err());
    assert!(place(&pod("p").cpu("2").priority(11).info(), &mut cluster).is_ok());
    assert_eq!(&*place(&nominated, &mut cluster).unwrap(), "n");
}

#[test]
fn nobody_makes_room_that_belongs_to_another() {
    let mut cluster = single();
    cluster.place(pod("low").cpu("3").priority(1).info(), "n");
    cluster.place(pod("other").cpu("1").priority(20).info(), "n");
    cluster.nominate(pod("vip").cpu("3").priority(10).nominated("n").info(), "n");
    // The room that the low one leaves is the other's already: to send it away would help nobody.
    assert!(text(&pod("p").cpu("2").priority(5).info(), &mut cluster).ends_with("preemption: 0/1 nodes are available: 1 Insufficient cpu."));
    assert_eq!(victims(&pod("p").cpu("2").priority(11).info(), &mut cluster).1, ["low"]);
}

#[test]
fn every_node_verdict_is_kept_for_those_who_ask_why() {
    let mut cluster = cluster([node("a").cordoned(), node("b")]);
    let diagnosis = place(&pod("p").cpu("5").info(), &mut cluster).unwrap_err();
    assert_eq!(diagnosis.verdicts["a"].0, "NodeUnschedulable");
    assert_eq!(diagnosis.verdicts["b"].0, "NodeResourcesFit");
}

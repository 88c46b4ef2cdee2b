//! Which nodes a daemon belongs on, and which pods go or come in a rolling update (`pkg/controller/daemon/daemon_controller.go`,
//! `update.go`). Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::{placement, pods};

/// The template's spec with what every daemon tolerates (`AddOrUpdateDaemonPodTolerations`).
pub fn daemon_spec(set: &DaemonSet) -> PodSpec {
    let mut spec = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
    let mut rows = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        rows.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in rows {
        let toleration = Toleration { key: Some(key.into()), operator: Some("Exists".into()), effect: Some(effect.into()), ..Toleration::default() };
        let same =
            |t: &Toleration| t.key == toleration.key && t.effect == toleration.effect && t.operator == toleration.operator && t.value.is_none();
        match tolerations.iter_mut().find(|t| same(t)) {
            Some(old) => *old = toleration,
            None => tolerations.push(toleration),
        }
    }
    spec
}

/// Pins a pod to a node; the default scheduler binds it there.
pub fn pin(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement { key: "metadata.name".into(), operator: "In".into(), values: Some(vec![node.to_owned()]) };
    let terms = vec![NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None }];
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    node_affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: terms });
}

/// The node a daemon runs on or is pinned to.
pub fn target_node(pod: &Pod) -> &str {
    let bound = pods::node_name(pod);
    if !bound.is_empty() {
        return bound;
    }
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let fields = required.into_iter().flat_map(|r| &r.node_selector_terms).flat_map(|t| t.match_fields.iter().flatten());
    let mut names = fields.filter(|f| f.key == "metadata.name" && f.operator == "In").filter_map(|f| f.values.as_ref()?.first());
    names.next().map_or("", String::as_str)
}

/// Whether a daemon is to start on a node, and whether one that runs there may go on (`NodeShouldRunDaemonPod`).
pub fn should_run(spec: &PodSpec, node: &Node) -> (bool, bool) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if spec.node_name.as_deref().is_some_and(|n| !n.is_empty() && n != name) || !placement::fits(spec, node) {
        return (false, false);
    }
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let refused = |effects: &[&str]| pods::untolerated(tolerations, taints, |t| effects.contains(&t.effect.as_str())).is_some();
    if refused(&["NoSchedule", "NoExecute"]) { (false, !refused(&["NoExecute"])) } else { (true, true) }
}

/// Whether a pod is of the newest template.
pub fn is_updated(pod: &Pod, hash: &str, generation: Option<&str>) -> bool {
    let label = |key: &str| pod.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    label(crate::controllers::history::HASH) == Some(hash) || generation.is_some() && label("pod-template-generation") == generation
}

/// Placed ones first, then by age, then by name.
pub fn by_age(a: &Arc<Pod>, b: &Arc<Pod>) -> std::cmp::Ordering {
    let unplaced = |p: &Pod| pods::node_name(p).is_empty();
    unplaced(a)
        .cmp(&unplaced(b))
        .then_with(|| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp))
        .then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// What a rolling update does next.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    /// Pods that make room.
    pub delete: Vec<String>,
    /// Nodes that get a second pod before they lose the first.
    pub create: Vec<String>,
}

/// A new pod and an old one.
type Pair<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// The pods of one node in a rolling update: at most one new and one old that are not on their way out; `None` if there are more.
fn new_and_old<'a>(on_node: &'a [Arc<Pod>], updated: &impl Fn(&Pod) -> bool) -> Option<Pair<'a>> {
    let (mut new, mut old) = (None, None);
    for pod in on_node.iter().filter(|p| !pods::is_terminating(p)) {
        let slot = if updated(pod) { &mut new } else { &mut old };
        if slot.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

/// The next step of a rolling update (`rollingUpdate`).
pub fn roll(
    by_node: &BTreeMap<String, Vec<Arc<Pod>>>,
    updated: impl Fn(&Pod) -> bool,
    (surge, unavailable): (usize, usize),
    min_ready: i32,
    now: &Time,
) -> Step {
    let available = |p: &Pod| pods::is_available(p, min_ready, now);
    let mut step = Step::default();
    let (mut busy, mut candidates) = (0, Vec::new());
    for (node, on_node) in by_node {
        let Some((new, old)) = new_and_old(on_node, &updated) else {
            busy += 1;
            continue;
        };
        match (new, old, surge > 0) {
            // Without surge: what is missing or not yet available counts as unavailable; the rest is somebody else's.
            (None, None, false) | (Some(_), Some(_), false) => busy += 1,
            (Some(new), None, false) => busy += usize::from(!available(new)),
            (None, Some(old), false) if !available(old) => step.delete.push(pods::name(old).to_owned()),
            (None, Some(old), false) => candidates.push(pods::name(old).to_owned()),
            // With surge: the new one comes first and the old one goes when it is available.
            (_, None, true) => {}
            (None, Some(old), true) if !available(old) => step.create.push(node.clone()),
            (None, Some(_), true) => candidates.push(node.clone()),
            (Some(new), Some(_), true) if !available(new) => busy += 1,
            (Some(_), Some(old), true) => step.delete.push(pods::name(old).to_owned()),
        }
    }
    let room = if surge > 0 { surge } else { unavailable }.saturating_sub(busy);
    candidates.truncate(room);
    if surge > 0 {
        step.create.extend(candidates)
    } else {
        step.delete.extend(candidates)
    }
    step
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn node(taints: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "n1", "labels": { "disk": "ssd" } }, "spec": { "taints": taints } })).unwrap()
    }

    fn set(spec: Value) -> DaemonSet {
        let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": spec });
        serde_json::from_value(json!({ "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": template } })).unwrap()
    }

    #[test]
    fn daemons_tolerate_trouble_and_respect_other_taints() {
        for (spec, taints, expected) in [
            (json!({ "containers": [] }), json!([]), (true, true)),
            (json!({ "containers": [] }), json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }]), (true, true)),
            (json!({ "containers": [] }), json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]), (true, true)),
            (json!({ "containers": [] }), json!([{ "key": "mine", "effect": "NoSchedule" }]), (false, true)),
            (json!({ "containers": [] }), json!([{ "key": "mine", "effect": "NoExecute" }]), (false, false)),
            (json!({ "containers": [], "tolerations": [{ "operator": "Exists" }] }), json!([{ "key": "mine", "effect": "NoExecute" }]), (true, true)),
            (json!({ "containers": [], "nodeSelector": { "disk": "hdd" } }), json!([]), (false, false)),
            (json!({ "containers": [], "nodeName": "other" }), json!([]), (false, false)),
            (json!({ "containers": [] }), json!([{ "key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule" }]), (false, true)),
            (
                json!({ "containers": [], "hostNetwork": true }),
                json!([{ "key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule" }]),
                (true, true),
            ),
        ] {
            assert_eq!(should_run(&daemon_spec(&set(spec.clone())), &node(taints.clone())), expected, "{spec} {taints}");
        }
    }

    #[test]
    fn a_pinned_pod_says_where_it_goes() {
        let mut spec = daemon_spec(&set(json!({ "containers": [] })));
        pin(&mut spec, "n7");
        assert_eq!(target_node(&Pod { spec: Some(spec), ..Pod::default() }), "n7");
    }

    fn pod(name: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let status = json!({ "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] });
        let meta = json!({ "name": name, "labels": { "controller-revision-hash": hash } });
        Arc::new(serde_json::from_value(json!({ "metadata": meta, "status": status })).unwrap())
    }

    fn step(nodes: &[&[(&str, bool)]], surge: usize, unavailable: usize) -> (Vec<String>, Vec<String>) {
        let pods =
            |i: usize, on: &[(&str, bool)]| -> Vec<Arc<Pod>> { on.iter().map(|(hash, ready)| pod(&format!("{hash}{i}"), hash, *ready)).collect() };
        let by_node = nodes.iter().enumerate().map(|(i, on)| (format!("n{i}"), pods(i, on))).collect();
        let now = Time(Timestamp::from_second(0).unwrap());
        let step = roll(&by_node, |p| is_updated(p, "new", None), (surge, unavailable), 0, &now);
        (step.delete, step.create)
    }

    #[test]
    fn a_rolling_update_spends_its_allowance_and_no_more() {
        let names = |list: &[&str]| -> Vec<String> { list.iter().map(|s| (*s).to_owned()).collect() };
        let (old, new, sick, fresh) = (("old", true), ("new", true), ("old", false), ("new", false));
        for (nodes, surge, unavailable, deleted, created) in [
            (vec![&[old][..], &[old], &[old]], 0, 1, names(&["old0"]), vec![]),
            (vec![&[old][..], &[fresh], &[old]], 0, 1, vec![], vec![]),
            (vec![&[old][..], &[fresh], &[old]], 0, 2, names(&["old0"]), vec![]),
            (vec![&[old][..], &[sick], &[]], 0, 1, names(&["old1"]), vec![]),
            (vec![&[new][..], &[new], &[new]], 0, 1, vec![], vec![]),
            (vec![&[old][..], &[old], &[old]], 1, 0, vec![], names(&["n0"])),
            (vec![&[old, fresh][..], &[old], &[old]], 1, 0, vec![], vec![]),
            (vec![&[old, new][..], &[old], &[sick]], 1, 0, names(&["old0"]), names(&["n2", "n1"])),
        ] {
            assert_eq!(step(&nodes, surge, unavailable), (deleted, created), "{nodes:?}");
        }
    }
}

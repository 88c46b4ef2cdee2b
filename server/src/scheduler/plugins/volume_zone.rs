//! Volumes labelled with a zone or region are used there only (`pkg/scheduler/framework/plugins/volumezone/volume_zone.go`).

use super::volume_binding::claim_names;
use super::*;

/// See the module.
pub struct VolumeZone;

const LABELS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// What the volumes of a pod's bound claims say: a label, and the values it may have.
fn demands(cycle: Cycle<'_>) -> Vec<(&'static str, Vec<String>)> {
    let mut demands = Vec::new();
    for (name, _) in claim_names(&cycle.pod.pod) {
        let claim = cycle.cluster.claims.get(&(cycle.pod.namespace().to_owned(), name));
        let volume = claim.and_then(|c| c.spec.as_ref()).and_then(|s| s.volume_name.as_ref()).and_then(|v| cycle.cluster.volumes.get(v));
        let Some(labels) = volume.and_then(|v| v.metadata.labels.as_ref()) else { continue };
        // `a__b` is both zones of a volume that is in two.
        let of = |key: &'static str| labels.get(key).map(|value| (key, value.split("__").map(str::to_owned).collect()));
        demands.extend(LABELS.into_iter().filter_map(of));
    }
    demands
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let demands = demands(cycle);
        if demands.is_empty() {
            return Filter::Skip;
        }
        Filter::Nodes(Box::new(move |node| {
            // A node that knows nothing of zones is in all of them.
            let placed = LABELS.iter().any(|key| node.label(key).is_some());
            let fits = |(key, values): &(&str, Vec<String>)| node.label(key).is_some_and(|label| values.iter().any(|v| v == label));
            if placed && !demands.iter().all(fits) { Err(Refusal::lasting("node(s) had no available volume zone")) } else { Ok(()) }
        }))
    }

    fn worth_retrying(&self, event: &ClusterEvent, _: &PodInfo, _: &Cluster) -> bool {
        match event {
            ClusterEvent::NodeUpdated { old, new } => old.metadata.labels != new.metadata.labels,
            ClusterEvent::Storage | ClusterEvent::NodeAdded(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::super::testing::{cluster, node, pod, refusal};
    use super::*;

    #[test]
    fn a_volume_keeps_its_pod_to_its_zones() {
        let zone = LABELS[0];
        let mut cluster = cluster([node("a").label(zone, "a"), node("b").label(zone, "b"), node("c").label(zone, "c"), node("bare")]);
        let claim = json!({ "metadata": { "name": "c", "namespace": "default" }, "spec": { "volumeName": "v" } });
        cluster.claims.insert(("default".into(), "c".into()), Arc::new(serde_json::from_value(claim).unwrap()));
        let volume = json!({ "metadata": { "name": "v", "labels": { zone: "a__b" } } });
        cluster.volumes.insert("v".into(), Arc::new(serde_json::from_value(volume).unwrap()));
        let pod = pod("p").claim("c").info();
        for (on, fits) in [("a", true), ("b", true), ("c", false), ("bare", true)] {
            assert_eq!(refusal(&VolumeZone, &pod, &cluster, on).is_none(), fits, "{on}");
        }
    }
}

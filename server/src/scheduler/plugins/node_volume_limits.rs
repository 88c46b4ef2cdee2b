//! No more volumes of a CSI driver on a node than it says it can attach (`pkg/scheduler/framework/plugins/nodevolumelimits/csi.go`).

use std::collections::{BTreeMap, BTreeSet};

use super::volume_binding::claim_names;
use super::*;

/// See the module.
pub struct NodeVolumeLimits;

/// Volumes by driver; those that are still to be made are known by their claims.
type ByDriver = BTreeMap<String, BTreeSet<String>>;

fn volumes_of(pod: &PodInfo, cluster: &Cluster, into: &mut ByDriver) {
    for (name, _) in claim_names(&pod.pod) {
        let Some(claim) = cluster.claims.get(&(pod.namespace().to_owned(), name.clone())) else { continue };
        let spec = claim.spec.as_ref();
        let found = match spec.and_then(|s| s.volume_name.as_ref()).filter(|v| !v.is_empty()) {
            Some(volume) => {
                let source = cluster.volumes.get(volume).and_then(|v| v.spec.as_ref()).and_then(|s| s.csi.as_ref());
                source.map(|csi| (csi.driver.clone(), csi.volume_handle.clone()))
            }
            None => {
                let class = spec.and_then(|s| s.storage_class_name.as_ref()).and_then(|name| cluster.storage_classes.get(name));
                class.map(|class| (class.provisioner.clone(), format!("{}/{name}", pod.namespace())))
            }
        };
        if let Some((driver, handle)) = found {
            into.entry(driver).or_default().insert(handle);
        }
    }
}

fn limit(cluster: &Cluster, node: &str, driver: &str) -> Option<usize> {
    let drivers = &cluster.csi_nodes.get(node)?.spec.drivers;
    let count = drivers.iter().find(|d| d.name == driver)?.allocatable.as_ref()?.count?;
    usize::try_from(count).ok()
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let mut wanted = ByDriver::new();
        volumes_of(cycle.pod, cycle.cluster, &mut wanted);
        if wanted.is_empty() || cycle.cluster.csi_nodes.is_empty() {
            return Filter::Skip;
        }
        Filter::Nodes(Box::new(move |node| {
            let limits: Vec<_> = wanted.keys().filter_map(|driver| Some((driver, limit(cycle.cluster, &node.name, driver)?))).collect();
            if limits.is_empty() {
                return Ok(());
            }
            let mut present = ByDriver::new();
            node.pods.iter().for_each(|p| volumes_of(p, cycle.cluster, &mut present));
            let exceeds = |(driver, most): &(&String, usize)| {
                let there = present.get(*driver).cloned().unwrap_or_default();
                let new = wanted[*driver].iter().filter(|handle| !there.contains(*handle)).count();
                new > 0 && there.len() + new > *most
            };
            if limits.iter().any(exceeds) { Err(Refusal::resolvable("node(s) exceed max volume count")) } else { Ok(()) }
        }))
    }

    fn worth_retrying(&self, event: &ClusterEvent, _: &PodInfo, _: &Cluster) -> bool {
        match event {
            ClusterEvent::PodRemoved(gone) => !claim_names(&gone.pod).is_empty(),
            ClusterEvent::NodeAdded(_) | ClusterEvent::Storage => true,
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
    fn a_node_takes_as_many_volumes_as_it_says() {
        let mut cluster = cluster([node("a"), node("b")]);
        let csi = json!({ "metadata": { "name": "a" }, "spec": { "drivers": [{ "name": "x.io", "nodeID": "a", "allocatable": { "count": 1 } }] } });
        cluster.csi_nodes.insert("a".into(), Arc::new(serde_json::from_value(csi).unwrap()));
        for name in ["c", "d"] {
            let claim = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": { "volumeName": name } });
            cluster.claims.insert(("default".into(), name.into()), Arc::new(serde_json::from_value(claim).unwrap()));
            let volume = json!({ "metadata": { "name": name }, "spec": { "csi": { "driver": "x.io", "volumeHandle": name } } });
            cluster.volumes.insert(name.into(), Arc::new(serde_json::from_value(volume).unwrap()));
        }
        cluster.place(pod("x").claim("c").info(), "a");
        let other = pod("p").claim("d").info();
        assert_eq!(refusal(&NodeVolumeLimits, &other, &cluster, "a").as_deref(), Some("node(s) exceed max volume count"));
        assert_eq!(refusal(&NodeVolumeLimits, &other, &cluster, "b"), None);
        // The same volume is attached once for both pods.
        assert_eq!(refusal(&NodeVolumeLimits, &pod("q").claim("c").info(), &cluster, "a"), None);
    }
}

//! Volumes that only one pod may use at a time: claims that are `ReadWriteOncePod`, and disks that go to one machine
//! (`pkg/scheduler/framework/plugins/volumerestrictions/volume_restrictions.go`).

use k8s_openapi::api::core::v1::Volume;

use super::volume_binding::claim_names;
use super::*;

/// See the module.
pub struct VolumeRestrictions;

fn exclusive_claims(cycle: Cycle<'_>) -> Vec<String> {
    let names = claim_names(&cycle.pod.pod).into_iter().map(|(name, _)| name);
    let exclusive = |name: &String| {
        let claim = cycle.cluster.claims.get(&(cycle.pod.namespace().to_owned(), name.clone()));
        let modes = claim.and_then(|c| c.spec.as_ref()).and_then(|s| s.access_modes.as_ref());
        modes.is_some_and(|m| m.iter().any(|mode| mode == "ReadWriteOncePod"))
    };
    names.filter(exclusive).collect()
}

fn shares_claim(a: &PodInfo, b: &PodInfo, names: &[String]) -> bool {
    a.namespace() == b.namespace() && claim_names(&b.pod).iter().any(|(name, _)| names.contains(name))
}

fn volumes(pod: &PodInfo) -> &[Volume] {
    pod.spec().and_then(|s| s.volumes.as_deref()).unwrap_or_default()
}

/// Whether two volumes are one disk that cannot be on a machine twice.
fn conflicts(a: &Volume, b: &Volume) -> bool {
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk) {
        return a.pd_name == b.pd_name && !(a.read_only == Some(true) && b.read_only == Some(true));
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store) {
        return a.volume_id == b.volume_id;
    }
    if let (Some(a), Some(b)) = (&a.iscsi, &b.iscsi) {
        return a.iqn == b.iqn && !(a.read_only == Some(true) && b.read_only == Some(true));
    }
    if let (Some(a), Some(b)) = (&a.rbd, &b.rbd) {
        let same = a.pool == b.pool && a.image == b.image && a.monitors.iter().any(|m| b.monitors.contains(m));
        return same && !(a.read_only == Some(true) && b.read_only == Some(true));
    }
    false
}

fn is_disk(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some() || volume.aws_elastic_block_store.is_some() || volume.iscsi.is_some() || volume.rbd.is_some()
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Filter<'a> {
        let claims = exclusive_claims(cycle);
        let used = !claims.is_empty() && cycle.cluster.nodes().any(|n| n.pods.iter().any(|p| shares_claim(cycle.pod, p, &claims)));
        let disks: Vec<&Volume> = volumes(cycle.pod).iter().filter(|v| is_disk(v)).collect();
        if !used && disks.is_empty() {
            return Filter::Skip;
        }
        Filter::Nodes(Box::new(move |node| {
            if disks.iter().any(|v| node.pods.iter().any(|p| volumes(p).iter().any(|other| conflicts(v, other)))) {
                return Err(Refusal::resolvable("node(s) had no available disk"));
            }
            if used {
                let text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
                return Err(Refusal::resolvable(text));
            }
            Ok(())
        }))
    }

    fn worth_retrying(&self, event: &ClusterEvent, pod: &PodInfo, cluster: &Cluster) -> bool {
        match event {
            ClusterEvent::PodRemoved(gone) => {
                shares_claim(pod, gone, &exclusive_claims(Cycle { pod, cluster }))
                    || volumes(pod).iter().any(|v| volumes(gone).iter().any(|other| conflicts(v, other)))
            }
            ClusterEvent::NodeAdded(_) => volumes(pod).iter().any(is_disk),
            ClusterEvent::Storage => true,
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
    fn a_claim_for_one_pod_is_used_by_one_pod() {
        let mut cluster = cluster([node("a"), node("b")]);
        for (name, mode) in [("one", "ReadWriteOncePod"), ("many", "ReadWriteOnce")] {
            let claim = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": { "accessModes": [mode] } });
            cluster.claims.insert(("default".into(), name.into()), Arc::new(serde_json::from_value(claim).unwrap()));
        }
        let holder = pod("holder").claim("one").info();
        cluster.place(holder.clone(), "a");
        cluster.place(pod("other").claim("many").info(), "a");
        let waiting = pod("p").claim("one").info();
        for on in ["a", "b"] {
            assert!(refusal(&VolumeRestrictions, &waiting, &cluster, on).is_some_and(|t| t.contains("ReadWriteOncePod")), "{on}");
        }
        assert_eq!(refusal(&VolumeRestrictions, &pod("q").claim("many").info(), &cluster, "a"), None);
        cluster.displace(&holder.key);
        assert!(VolumeRestrictions.worth_retrying(&ClusterEvent::PodRemoved(holder), &waiting, &cluster));
        assert_eq!(refusal(&VolumeRestrictions, &waiting, &cluster, "a"), None);
    }

    #[test]
    fn a_disk_is_on_a_machine_once() {
        let mut cluster = cluster([node("a"), node("b")]);
        let disk = |name: &str| pod(name).set("/spec/volumes", json!([{ "name": "v", "awsElasticBlockStore": { "volumeID": "d" } }])).info();
        cluster.place(disk("x"), "a");
        assert_eq!(refusal(&VolumeRestrictions, &disk("p"), &cluster, "a").as_deref(), Some("node(s) had no available disk"));
        assert_eq!(refusal(&VolumeRestrictions, &disk("p"), &cluster, "b"), None);
    }
}
